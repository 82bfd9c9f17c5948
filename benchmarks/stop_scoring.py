"""What a stop rule did on many curves, with bootstrap intervals by curve."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.curve_families import Curve
from benchmarks.stop_rules import Rule

Floats = NDArray[np.float64]
TOLERANCE = 0.02  # regret up to which a checkpoint is right
_RESAMPLES = 2000
_INTERVAL = (0.025, 0.975)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rule did on one curve.

    Attributes:
        saved: Share of the plan that was not trained.
        regret: How much worse the checkpoint is than the best, as a share of the range.
        last: Index of the last evaluation.
        cpu_ms: Of this process, for all evaluations together.
    """

    saved: float
    regret: float
    last: int
    cpu_ms: float


def play(rule: Rule, curve: Curve) -> Outcome:
    """Apply a rule to a curve."""
    began = time.process_time()
    last, checkpoint = rule(curve)
    taken = 1000 * (time.process_time() - began)
    return Outcome(1 - (last + 1) / curve.plan, curve.regret(checkpoint), last, taken)


@dataclass(frozen=True, slots=True)
class Score:
    """A rule on a set of curves; intervals are of 95 %."""

    saved: float
    saved_interval: tuple[float, float]
    right: float
    right_interval: tuple[float, float]
    regret_p95: float
    cpu_ms: float  # per evaluation


def score(outcomes: Sequence[Outcome]) -> Score:
    """Means over curves, each curve counting once."""
    saved = np.array([one.saved for one in outcomes])
    right = np.array([one.regret <= TOLERANCE for one in outcomes], dtype=np.float64)
    drawn = _draws(len(outcomes))
    return Score(
        saved=float(saved.mean()),
        saved_interval=_interval(saved[drawn].mean(axis=1)),
        right=float(right.mean()),
        right_interval=_interval(right[drawn].mean(axis=1)),
        regret_p95=float(np.quantile([one.regret for one in outcomes], 0.95, method="higher")),
        cpu_ms=sum(one.cpu_ms for one in outcomes) / sum(one.last + 1 for one in outcomes),
    )


def ratio(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> tuple[float, tuple[float, float]]:
    """How many times as much is saved, and its interval over the same draws of curves for both."""
    mine, other = (np.array([one.saved for one in each]) for each in (ours, theirs))
    drawn = _draws(len(mine))
    below = np.maximum(other[drawn].mean(axis=1), 1e-9)
    return float(mine.mean() / max(other.mean(), 1e-9)), _interval(mine[drawn].mean(axis=1) / below)


def difference(ours: Floats, theirs: Floats) -> tuple[float, tuple[float, float]]:
    """Mean of the paired differences, and its interval."""
    apart = ours - theirs
    return float(apart.mean()), _interval(apart[_draws(len(apart))].mean(axis=1))


def best_patience(scores: Mapping[str, Score], least_right: float) -> str | None:
    """The one that saves most of those that are right often enough."""
    good = [name for name, one in scores.items() if one.right >= least_right]
    return max(good, key=lambda name: scores[name].saved, default=None)


def _draws(count: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, count, (_RESAMPLES, count))


def _interval(means: Floats) -> tuple[float, float]:
    low, high = np.quantile(means, _INTERVAL)
    return float(low), float(high)
