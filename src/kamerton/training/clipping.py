"""Adaptive gradient clipping: AutoClip (Seetharaman et al. 2020, arXiv:2007.14469).

Gradients are clipped at a percentile of the norms seen so far, here of the last thousand, so that
the threshold follows the loss as it falls; the threshold asked for bounds it from above.
"""

from __future__ import annotations

import statistics
from typing import Final

from kamerton.training.state import ClipState

HISTORY: Final = 1000  # norms remembered
PERCENTILE: Final = 0.95
FLOOR_SHARE: Final = 0.1  # of the threshold asked for: quiet steps must not stop the training


def remember(state: ClipState, norm: float) -> ClipState:
    """Add the gradient norm of a step that was applied."""
    return ClipState((*state.norms[-(HISTORY - 1) :], norm))


def threshold(state: ClipState, maximum: float) -> float:
    """clip(p95 of the norms, 0.1 max, max); ``maximum`` before the first step."""
    if not state.norms:
        return maximum
    ranked = sorted(state.norms)
    percentile = ranked[round(PERCENTILE * (len(ranked) - 1))]
    return min(maximum, max(FLOOR_SHARE * maximum, percentile))


def usual_norm(state: ClipState) -> float:
    """The median of the norms; 0 before the first step."""
    return statistics.median(state.norms) if state.norms else 0.0
