"""What the rest of the plan would bring: curves of two kinds, averaged, and what they leave."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kamerton.stopping.series import Floats
from kamerton.stopping.types import Group, Vote
from kamerton.stopping.view import View, block_noise
from kamerton.stopping.voters import residual

MIN_POINTS = 8
_POWERS = (0.15, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
_SCALES = (
    0.03,
    0.042,
    0.06,
    0.085,
    0.12,
    0.17,
    0.24,
    0.34,
    0.48,
    0.68,
    1.0,
    2.0,
)
_HORIZON = 12
_FORGET = 0.15  # share of the time so far that says nothing of the future: the first descent


@dataclass(frozen=True, slots=True)
class Outlook:
    """A forecast at one check.

    Attributes:
        probability: Of an improvement of at least ``min_improvement`` of the span within the plan.
        gain: Expected improvement by the end of the plan, as a share of the span.
        misfit: Largest lasting deviation from the fitted curve, as a share of the span. Steps,
            spikes and breakthroughs show here.
        remaining: Steps until the expected curve is within ``min_improvement`` of its end.
    """

    probability: float
    gain: float
    misfit: float
    remaining: float


@dataclass(frozen=True, slots=True)
class Mixture:
    """Least-squares fits of value = asymptote + amplitude * basis, weighted by their likelihood.

    Attributes:
        weights: Of each basis, summing to 1, (k,).
        fitted: At the observed times, (k, n).
        ahead: At the asked times, (k, m).
        variance: Of ``ahead`` minus the last fitted value, from the fit's own error, (k, m).
    """

    weights: Floats
    fitted: Floats
    ahead: Floats
    variance: Floats


def basis(times: Floats) -> Floats:
    """Powers and exponentials of time in plans, each falling from its start, (k, n).

    1 is the end of the plan. Each row is one shape; its amplitude and asymptote are free.
    """
    powers = [times**-power for power in _POWERS]
    exponentials = [np.exp(-times / scale) for scale in _SCALES]
    return np.asarray(powers + exponentials, dtype=np.float64)


def mixture(times: Floats, values: Floats, asked: Floats) -> Mixture:
    """Fit every shape to ``values`` (n,) at ``times`` (n,), and say what follows at ``asked`` (m,).

    Amplitudes are kept from being negative: what rises is not described by these shapes.
    A shape's weight is its likelihood under noise that is as large as its own error, with half
    of the points counted, for neighbours share their noise.
    """
    shapes, future = basis(times), basis(asked)
    count = times.size
    middle = shapes.mean(axis=1, keepdims=True)
    centred = shapes - middle
    power = np.maximum((centred**2).sum(axis=1), 1e-300)
    amplitude = np.maximum((centred @ (values - values.mean())) / power, 0.0)
    fitted = values.mean() + amplitude[:, None] * centred
    ahead = values.mean() + amplitude[:, None] * (future - middle)
    errors = ((values - fitted) ** 2).sum(axis=1)
    floor = 1e-12 * float(((values - values.mean()) ** 2).sum())
    if errors.min() <= floor:
        weights = (errors <= floor).astype(np.float64)
    else:
        weights = np.exp(-0.25 * count * np.log(errors / errors.min()))
    spread = errors / (count - 2) * 2.0  # half of the points counted
    travelled = shapes[:, -1:] - future
    variance = spread[:, None] * travelled**2 / power[:, None]
    return Mixture(weights / weights.sum(), fitted, ahead, variance)


def _probability_below(z: Floats) -> Floats:
    from math import erf, sqrt

    return np.asarray([0.5 * (1.0 + erf(number / sqrt(2.0))) for number in z.ravel()]).reshape(
        z.shape
    )


def outlook(
    steps: Floats, values: Floats, planned: float, span: float, min_improvement: float
) -> Outlook | None:
    """Forecast a curve to the end of its plan; None where there is too little of it.

    Args:
        steps: Of the block means, positive and rising, (n,).
        values: Block means, (n,).
        planned: The plan's last step.
        span: Range of the curve so far.
        min_improvement: What counts, as a share of ``span``.
    """
    kept = steps >= _FORGET * steps[-1] if steps.size else np.zeros(0, dtype=bool)
    if kept.sum() < MIN_POINTS:
        kept = np.arange(steps.size) >= steps.size - MIN_POINTS
    if kept.sum() < MIN_POINTS or span <= 0.0:
        return None
    times, values = np.maximum(steps[kept] / planned, 1e-6), (values[kept]) / span
    last = min(times[-1], 0.999)
    asked = last + (1.0 - last) * np.linspace(1.0 / _HORIZON, 1.0, _HORIZON)
    fits = mixture(times, values, asked)
    mean_fit = fits.weights @ fits.fitted
    left = values - mean_fit
    rest = residual.fit(np.log(times), left, np.log(np.append(times[-1], asked)))
    course = fits.ahead - fits.fitted[:, -1:] + rest.mean[1:] - rest.mean[0]  # (k, m)
    deviation = np.sqrt(fits.variance + rest.variance[1:] + 1e-18)
    below = _probability_below((-min_improvement - course) / deviation)
    probability = float((fits.weights @ below).max())
    expected = fits.weights @ course
    return Outlook(
        probability,
        float(-expected.min()),
        max(0.0, _lasting(left) - 3.0 * block_noise(values) / 3.0**0.5),
        _remaining(expected, asked, times[-1], min_improvement) * planned,
    )


def _lasting(left: Floats) -> float:
    """The largest mean deviation over three neighbours."""
    return float(np.abs(np.convolve(left, np.ones(3) / 3.0, mode="valid")).max())


def _remaining(expected: Floats, asked: Floats, now: float, enough: float) -> float:
    """Time from now until the expected course is within ``enough`` of its end, in plans."""
    course = np.append(0.0, expected)
    times = np.append(now, asked)
    above = np.flatnonzero(course > expected[-1] + enough)
    if above.size == 0:
        return 0.0
    before = int(above[-1])
    if before + 1 == course.size:
        return float(times[-1] - now)
    part = (course[before] - expected[-1] - enough) / (course[before] - course[before + 1])
    return float(times[before] + part * (times[before + 1] - times[before]) - now)


class Forecast:
    """Asks to stop when what is left of the plan would hardly improve anything."""

    name = "forecast"
    group: Group = "bayesian_prediction"

    def __init__(self, min_improvement: float) -> None:
        self._min_improvement = min_improvement

    def outlook(self, view: View) -> Outlook | None:
        """The forecast itself; None where there is too little to go by."""
        return outlook(view.steps, view.values, view.planned, view.span, self._min_improvement)

    def explain(self, ahead: Outlook | None) -> Vote:
        """The vote that a forecast is: 1 - 2 min(1, p / 0.3); a misfit costs confidence."""
        if ahead is None:
            return Vote(self.name, self.group, 0.0, 0.0, "too few evaluations for a forecast")
        return Vote(
            self.name,
            self.group,
            1.0 - 2.0 * min(1.0, ahead.probability / 0.3),
            max(0.0, 1.0 - ahead.misfit / 0.1),
            f"{ahead.probability:.0%} chance to improve by {self._min_improvement:.1%} of the range"
            f" in the rest of the plan (expected {ahead.gain:.1%}, misfit {ahead.misfit:.1%})",
        )

    def vote(self, view: View) -> Vote:
        """The vote of a fresh forecast."""
        return self.explain(self.outlook(view))
