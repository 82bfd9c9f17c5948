"""How good a run will become, told from its first tenth, with an interval.

What is forecast is the gain: the logarithm of the best figure so far to the best of the whole
run. The gain that a fit of power laws and exponentials promises (``stopping.voters.forecast``)
counts little, because it tells little so early: over seven kinds of real runs and ten families
of synthetic ones its correlation with the true gain is 0.01. What tells more is how much earlier
runs still gained from the same share of their plans. Their residuals, those on like datasets
counting most, are put together with a fixed set of residuals of many kinds of curves that counts
as three runs; the quantiles of that mixture are the interval (split conformal prediction, Vovk et
al. 2005, with weights as in Tibshirani et al. 2019).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kamerton.core.errors import PipelineError
from kamerton.core.files import read_json
from kamerton.smart_tuner.history import Descriptors, History
from kamerton.stopping.voters.forecast import mixture
from kamerton.tracking.hooks import Action, EvalFacts, Measure, Note, StepFacts

SHARE: Final = 0.1  # of the plan, at which a run is forecast
LEVEL: Final = 0.8
# gain = TYPICAL_GAIN + FIT_WEIGHT x fitted gain, by least squares over seven kinds of real runs
# and ten synthetic families, each counting as much as another.
TYPICAL_GAIN: Final = 0.82
FIT_WEIGHT: Final = 0.085
# The 5th, 15th, ... 95th percentile of what that leaves, over the same curves.
PRIOR_RESIDUALS: Final = (
    -0.79, -0.67, -0.51, -0.28, -0.16, -0.03, 0.10, 0.29, 0.62, 1.13,
)  # fmt: skip
PRIOR_RUNS: Final = 3.0
MOST_FITTED_GAIN: Final = 2.0
_FORGET: Final = 0.15  # share of the time so far whose first descent says nothing
_FEWEST_POINTS: Final = 4

Curve = Sequence[tuple[int, float]]

_log = logging.getLogger("kamerton.train")


@dataclass(frozen=True, slots=True)
class PastCurve:
    """A finished run to learn from; ``weight`` is 1 for equal data, less for unlike data."""

    curve: tuple[tuple[int, float], ...]
    planned_steps: int
    weight: float = 1.0
    name: str = ""


@dataclass(frozen=True, slots=True)
class FinalQuality:
    """A forecast of the best figure of merit of a run.

    Attributes:
        final: The median.
        low, high: Between these it will be, with probability ``level``; ``high`` is never above
            the best so far.
        level: See there.
        share: Of the plan that was seen.
        runs: Earlier runs behind it.
    """

    final: float
    low: float
    high: float
    level: float
    share: float
    runs: int


def forecast(
    curve: Curve, planned_steps: int, past: Sequence[PastCurve] = (), *, level: float = LEVEL
) -> FinalQuality | None:
    """Forecast the best figure of a run from its evaluations so far.

    Args:
        curve: (step, figure of merit), lower is better; the figure has to be positive.
        planned_steps: The run's budget.
        past: Finished runs.
        level: Probability of the interval.

    Returns:
        None where there is no positive figure to go by.
    """
    seen = _finite(curve)
    if not seen or min(value for _, value in seen) <= 0.0:
        return None
    share = min(1.0, seen[-1][0] / planned_steps)
    residuals, weights = (
        list(PRIOR_RESIDUALS),
        [PRIOR_RUNS / len(PRIOR_RESIDUALS)] * len(PRIOR_RESIDUALS),
    )
    for one in past:
        residual = residual_gain(one, share)
        if residual is not None:
            residuals.append(residual)
            weights.append(one.weight)
    best = min(value for _, value in seen)
    ends = ((1.0 + level) / 2.0, 0.5, (1.0 - level) / 2.0)
    gains = expected_gain(seen, planned_steps) + _quantiles(
        np.array(residuals), np.array(weights), np.array(ends)
    )
    low, middle, high = (best * math.exp(-max(0.0, float(gain))) for gain in gains)
    return FinalQuality(middle, low, high, level, share, len(residuals) - len(PRIOR_RESIDUALS))


def residual_gain(past: PastCurve, share: float) -> float | None:
    """What a finished run gained from ``share`` of its plan on, beyond what was expected then.

    None where it had no evaluation by then, or made none after.
    """
    curve = _finite(past.curve)
    seen = up_to(curve, past.planned_steps, share)
    if not seen or len(seen) == len(curve) or min(value for _, value in curve) <= 0.0:
        return None
    gain = math.log(min(value for _, value in seen) / min(value for _, value in curve))
    return gain - expected_gain(seen, past.planned_steps)


def expected_gain(seen: Curve, planned_steps: int) -> float:
    """The gain to expect of a run of which ``seen`` is known, before any history."""
    return TYPICAL_GAIN + FIT_WEIGHT * fitted_gain(seen, planned_steps)


def fitted_gain(seen: Curve, planned_steps: int) -> float:
    """The gain that the fitted curves promise by the end of the plan, 0 to 2."""
    steps = np.array([step for step, _ in seen], dtype=np.float64)
    values = np.array([value for _, value in seen], dtype=np.float64)
    kept = (steps > 0) & (steps >= _FORGET * steps[-1])
    if kept.sum() < _FEWEST_POINTS:
        kept = (steps > 0) & (np.arange(steps.size) >= steps.size - _FEWEST_POINTS)
    steps, values = steps[kept], values[kept]
    if steps.size < _FEWEST_POINTS or np.ptp(values) <= 0.0:
        return 0.0
    fits = mixture(steps / planned_steps, values, np.ones(1))
    end = float(fits.weights @ fits.ahead[:, 0])
    best = float(values.min())
    if end <= best * math.exp(-MOST_FITTED_GAIN):
        return MOST_FITTED_GAIN
    return max(0.0, math.log(best / end))


def up_to(curve: Curve, planned_steps: int, share: float) -> list[tuple[int, float]]:
    """The evaluations up to the first at or after ``share`` of the plan."""
    seen: list[tuple[int, float]] = []
    for step, value in curve:
        seen.append((step, value))
        if step >= share * planned_steps:
            break
    return seen


def _finite(curve: Curve) -> list[tuple[int, float]]:
    return [(step, value) for step, value in curve if math.isfinite(value)]


def _quantiles(
    values: NDArray[np.float64], weights: NDArray[np.float64], levels: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weighted quantiles, each value standing in the middle of its weight."""
    order = np.argsort(values)
    values, weights = values[order], weights[order]
    middles = (np.cumsum(weights) - 0.5 * weights) / weights.sum()
    return np.interp(levels, middles, values)


class QualityForecast:
    """Tells, at the first evaluation at a tenth of the plan, how good the run will become."""

    name = "quality_forecast"

    def __init__(self, past: Sequence[PastCurve] = (), *, share: float = SHARE) -> None:
        self._past = tuple(past)
        self._share = share
        self._curve: list[tuple[int, float]] = []
        self._told = False

    @classmethod
    def from_history(
        cls, history: Path, analysis: Path, card: Mapping[str, Any]
    ) -> QualityForecast:
        """One that knows the finished runs in ``history``, by how like their datasets are.

        Without a history, or one that cannot be read, it has the interval of no history.
        """
        try:
            known = History(history).runs()
            runs = [run for run in known if run.ended != "gave_up" and not run.warm_started]
            if not runs:
                return cls()
            here = Descriptors.of(read_json(analysis, produced_by="analyze"), card)
        except PipelineError as error:
            _log.warning("the forecast of the quality is made without history: %s", error)
            return cls()
        return cls(
            [
                PastCurve(
                    run.curve,
                    run.planned_steps,
                    1.0 / (1.0 + here.distance(run.descriptors)),
                    run.run_id,
                )
                for run in runs
            ]
        )

    def on_step(self, facts: StepFacts) -> None:
        """Nothing to do."""

    def on_epoch(self, facts: StepFacts) -> None:
        """Nothing to do."""

    def on_exception(self, error: Exception) -> None:
        """Nothing to do."""

    def on_eval(self, facts: EvalFacts) -> Sequence[Action]:
        """Remember the figure; at the first evaluation that is late enough, forecast."""
        if self._told:
            return ()
        self._curve.append((facts.step, facts.quality))
        if facts.step < self._share * facts.total:
            return ()
        self._told = True
        found = forecast(self._curve, facts.total, self._past)
        self._curve = []
        if found is None:
            return ()
        values = {"final_quality": found.final, "low": found.low, "high": found.high}
        told = {name: round(value, 4) for name, value in values.items()}
        return (
            Note("forecast", {**told, "level": found.level, "runs": found.runs}),
            Measure({f"forecast/{name}": value for name, value in values.items()}),
        )

    def memory(self) -> dict[str, Any]:
        """The figures so far, the names of the runs it learns from, and whether it has told.

        Runs that are finished while this one is interrupted are not among them afterwards: it
        tells the same however it was interrupted.
        """
        past = [] if self._told else [one.name for one in self._past]
        curve = [list(point) for point in self._curve]
        return {"curve": curve, "told": self._told, "past": past}

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Undo ``memory``."""
        self._curve = [(int(step), float(value)) for step, value in memory.get("curve", [])]
        self._told = bool(memory.get("told", False))
        if memory:
            known = frozenset(memory.get("past", ()))
            self._past = tuple(one for one in self._past if one.name in known)
