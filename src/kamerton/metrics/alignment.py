"""How far an attention matrix is from reading its text once, in order and in full."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

GUIDE_WIDTH = 0.2  # g of Tachibana et al. 2017, arXiv:1710.08969, eq. 5
COVERAGE_SHARE = 0.25  # of an even share of the frames: a token that gets less was skipped
ALIGNED_DIAGONALITY = 0.9
ALIGNED_COVERAGE = 0.9
ALIGNED_FOCUS = 0.4


@dataclass(frozen=True, slots=True)
class AttentionScores:
    """The health of one utterance's attention.

    Attributes:
        diagonality: Guided mass, calibrated: 1 for a perfect diagonal of any shape, 0 for
            uniform attention, negative when the text is read backwards.
        coverage: Share of the tokens that were attended to, 0 to 1.
        focus: Mean over the frames of the largest weight, 0 to 1. Attention stuck on one
            token has focus 1, so this is never a score of health by itself.
        entropy: Mean entropy of a frame's weights as a share of log N, 0 to 1.
        monotonicity: Share of the movement that goes forward, 0 when it never moves.
        band: Share of the weight within a tenth of the diagonal, 0 to 1.
    """

    diagonality: float
    coverage: float
    focus: float
    entropy: float
    monotonicity: float
    band: float

    @property
    def aligned(self) -> bool:
        """Whether the text was read in order, in full and without blur.

        Diagonality alone forgives skipped words and blur, hence the other two.
        """
        return (
            self.diagonality >= ALIGNED_DIAGONALITY
            and self.coverage >= ALIGNED_COVERAGE
            and self.focus >= ALIGNED_FOCUS
        )


FAILED = AttentionScores(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""The scores of an utterance that never ended, or whose attention is not finite."""


def attention_scores(weights: NDArray[Any]) -> AttentionScores:
    """Score the attention of one utterance, with its padding already cut off.

    Args:
        weights: (T, N), one row of N token weights per decoder frame; rows sum to 1.

    Returns:
        The scores; ``FAILED`` if a weight is NaN or infinite.

    Raises:
        ValueError: ``weights`` is not a matrix or has no row or no column.
    """
    attention = np.asarray(weights, dtype=np.float64)
    if attention.ndim != 2 or 0 in attention.shape:
        raise ValueError(f"attention weights must be a (frames, tokens) matrix: {attention.shape}")
    if not np.isfinite(attention).all():
        return FAILED
    frames, tokens = attention.shape

    # Half-cell offsets make the two axes symmetric: (1, 1) is the middle, not a corner.
    time = (np.arange(frames) + 0.5) / frames
    place = (np.arange(tokens) + 0.5) / tokens
    distance = np.abs(place[None, :] - time[:, None])
    guide = np.exp(-(distance**2) / (2 * GUIDE_WIDTH**2))
    half_band = max(0.1, 1 / tokens, 1 / frames)

    return AttentionScores(
        diagonality=_diagonality(attention, guide),
        coverage=_coverage(attention),
        focus=float(attention.max(axis=1).mean()),
        entropy=_entropy(attention),
        monotonicity=_monotonicity(attention),
        band=float(attention[distance <= half_band + 1e-12].sum() / frames),
    )


def _diagonality(attention: NDArray[np.float64], guide: NDArray[np.float64]) -> float:
    """Guided mass between that of uniform attention (0) and of the diagonal (1)."""
    frames, tokens = attention.shape
    if tokens == 1:  # only one way to read one token
        return 1.0
    diagonal = ((np.arange(frames) + 0.5) * tokens / frames).astype(int)
    uniform_mass = float(guide.mean())
    diagonal_mass = float(guide[np.arange(frames), diagonal].mean())
    mass = float((attention * guide).sum() / frames)
    if diagonal_mass - uniform_mass < 1e-9:  # a single frame in the middle of two tokens
        return 1.0
    return (mass - uniform_mass) / (diagonal_mass - uniform_mass)


def _coverage(attention: NDArray[np.float64]) -> float:
    frames, tokens = attention.shape
    heard = attention.sum(axis=0) >= COVERAGE_SHARE * frames / tokens
    # With fewer frames than tokens even a perfect diagonal must skip some.
    share: float = float(heard.mean()) / min(1.0, frames / tokens)
    return min(1.0, share)


def _entropy(attention: NDArray[np.float64]) -> float:
    tokens = attention.shape[1]
    if tokens == 1:
        return 0.0
    safe = np.where(attention > 0, attention, 1.0)  # 0 log 0 = 0
    nats = -float((attention * np.log(safe)).sum(axis=1).mean())
    return max(0.0, nats / math.log(tokens))


def _monotonicity(attention: NDArray[np.float64]) -> float:
    frames, tokens = attention.shape
    if tokens == 1 or frames == 1:
        return 1.0
    steps = np.diff(attention @ np.arange(tokens))
    moved = float(np.abs(steps).sum())
    if moved < 1e-6 * tokens:  # rounding noise of attention that stands still
        return 0.0
    return 1.0 - float(np.maximum(0.0, -steps).sum()) / moved


@dataclass(frozen=True, slots=True)
class AttentionSummary:
    """What a set of utterances' scores come to: the middle, the worst, and the share aligned."""

    utterances: int
    aligned_share: float
    diagonality_median: float
    diagonality_worst: float
    coverage_median: float
    coverage_worst: float
    focus_median: float
    focus_worst: float


def summarise_attention(scores: Iterable[AttentionScores]) -> AttentionSummary:
    """Median and worst of each score over utterances; all 0 when there is none."""
    rows = list(scores)
    if not rows:
        return AttentionSummary(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    table = np.array([(row.diagonality, row.coverage, row.focus) for row in rows])
    medians, worst = np.median(table, axis=0).tolist(), table.min(axis=0).tolist()
    return AttentionSummary(
        utterances=len(rows),
        aligned_share=sum(row.aligned for row in rows) / len(rows),
        diagonality_median=medians[0],
        diagonality_worst=worst[0],
        coverage_median=medians[1],
        coverage_worst=worst[1],
        focus_median=medians[2],
        focus_worst=worst[2],
    )
