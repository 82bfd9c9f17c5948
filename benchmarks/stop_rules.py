"""Rules to compare the stop decision with; each says after which evaluation a run would end.

A rule takes a curve and gives the index of the last evaluation made, which is the curve's last
where it never stops, and that of the checkpoint kept: of the least value observed until then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.curve_families import Curve

Floats = NDArray[np.float64]
Rule = Callable[[Curve], tuple[int, int]]  # last evaluation, checkpoint

STARTUP_SHARE = 0.2  # of the plan that the median rule leaves alone
_DECISIONS = 60  # of a run, at which the specification's rule computes its votes


def kept(curve: Curve, last: int) -> int:
    """Index of the least value observed up to ``last``; 0 where there is none."""
    seen = np.where(np.isfinite(curve.observed[: last + 1]), curve.observed[: last + 1], np.inf)
    return int(np.argmin(seen))


def _ended(curve: Curve, last: int) -> tuple[int, int]:
    return last, kept(curve, last)


def patience(*, epochs: int | None = None, share: float | None = None) -> Rule:
    """Stop when nothing better came for so many epochs, or so large a share of the plan."""

    def rule(curve: Curve) -> tuple[int, int]:
        bearable = epochs if epochs is not None else max(1, round((share or 0.0) * curve.plan))
        best, best_at = math.inf, 0
        for index, value in enumerate(curve.observed):
            if value < best:
                best, best_at = float(value), index
            elif index - best_at >= bearable:
                return index, best_at
        return curve.plan - 1, best_at

    return rule


def median(population: Callable[[Curve], Sequence[Curve]], *, startup: float) -> Rule:
    """Stop where the best value so far is worse than the median of others' running means.

    Golovin et al., Google Vizier (KDD 2017), section 3.2.1; the rule of Katib's ``medianstop`` too.
    """

    def rule(curve: Curve) -> tuple[int, int]:
        others = [_running_mean(other.observed, curve.plan) for other in population(curve)]
        middle = np.median(np.stack(others), axis=0)
        best = np.fmin.accumulate(np.where(np.isfinite(curve.observed), curve.observed, np.inf))
        worse = best > middle
        worse[: max(4, round(startup * curve.plan))] = False
        return _ended(curve, int(np.argmax(worse)) if worse.any() else curve.plan - 1)

    return rule


def _running_mean(values: Floats, length: int) -> Floats:
    """Means up to each evaluation; a shorter run keeps its last."""
    finite = np.isfinite(values)
    means = np.cumsum(np.where(finite, values, 0.0)) / np.maximum(1, np.cumsum(finite))
    return np.pad(means[:length], (0, max(0, length - len(means))), mode="edge")


def oracle(tolerance: float) -> Rule:
    """Stop at the first evaluation within ``tolerance`` of the best of the whole run."""
    return lambda curve: (curve.oracle(tolerance),) * 2


def specification(
    *, threshold: float, patience_share: float = 0.0, weights: Sequence[float] = (0.3, 0.4, 0.3)
) -> Rule:
    """The specification's ensemble: stop where the weighted mean of votes is at the threshold.

    Votes are 0 to 1: statistics (half CUSUM's alarm of a rise, half no falling trend by
    Mann-Kendall), a Gaussian process on the logarithm of time (1 - probability that the next five
    evaluations bring something better), attention (aligned). One that is absent leaves its weight
    to the others. Twice in a row, not in the first seventh of the plan, and with
    ``patience_share`` only where nothing better came for that share of the plan.
    """

    def rule(curve: Curve) -> tuple[int, int]:
        first = max(10, curve.plan // 7)
        every = max(1, curve.plan // _DECISIONS)
        before = False
        for index in range(first, curve.plan, every):
            values = curve.observed[: index + 1]
            values = values[np.isfinite(values)]
            if len(values) <= index * 0.9:
                return _ended(curve, index)  # not finite: it has nothing to vote on
            votes = [_statistics(values, every), _gaussian_process(values)]
            if curve.attention is not None:
                votes.append(float(curve.attention[index] >= 0.8))
            mean = float(np.average(votes, weights=weights[: len(votes)]))
            waited = index - kept(curve, index) >= patience_share * curve.plan
            if mean >= threshold and waited and before:
                return _ended(curve, index)
            before = mean >= threshold and waited
        return _ended(curve, curve.plan - 1)

    return rule


def _statistics(values: Floats, every: int) -> float:
    """Mean of the two tests' votes, on the last 20 points that are ``every`` apart."""
    window = values[::-1][: 20 * every : every][::-1]
    reference = values[: -len(window)][-20:] if len(values) >= 2 * len(window) else window
    middle = float(np.median(reference))
    spread = 1.4826 * float(np.median(np.abs(reference - middle))) or 1e-12
    rise = fall = 0.0
    for value in window:
        z = (float(value) - middle) / spread
        rise, fall = max(0.0, rise + z - 0.5), max(0.0, fall - z - 0.5)
    alarm = 1.0 if rise > 5 else 0.0 if fall > 5 else 0.5
    return 0.5 * alarm + 0.5 * float(mann_kendall(window) > -1.645)


def mann_kendall(values: Floats) -> float:
    """Z of the trend, without ties and without correction for autocorrelation."""
    n = len(values)
    signs = float(np.sign(values[None, :] - values[:, None])[np.triu_indices(n, 1)].sum())
    variance = n * (n - 1) * (2 * n + 5) / 18
    return (signs - np.sign(signs)) / math.sqrt(variance)


def _gaussian_process(values: Floats, ahead: int = 5, points: int = 32) -> float:
    """1 - probability that one of the next values is better than the best, by a GP on log time."""
    at = np.unique(np.geomspace(1, len(values), points).round().astype(int)) - 1
    x, y = np.log1p(at + 1.0), values[at]
    centre, unit = float(y.mean()), float(y.std()) or 1.0
    y = (y - centre) / unit
    to = np.log1p(len(values) + 1.0 + np.arange(ahead))
    best_likelihood, mean, deviation = -math.inf, np.zeros(ahead), np.ones(ahead)
    for length in (0.5, 1.0, 2.0):
        for noise in (0.003, 0.03):
            square = (x[:, None] - x[None, :]) ** 2
            factor = np.linalg.cholesky(np.exp(-square / (2 * length**2)) + noise * np.eye(len(x)))
            solved = np.linalg.solve(factor, y)
            likelihood = -0.5 * float(solved @ solved) - float(np.log(np.diag(factor)).sum())
            if likelihood > best_likelihood:
                cross = np.exp(-((to[:, None] - x[None, :]) ** 2) / (2 * length**2))
                half = np.linalg.solve(factor, cross.T)
                best_likelihood, mean = likelihood, half.T @ solved
                deviation = np.sqrt(np.maximum(1e-9, 1.0 - (half**2).sum(axis=0)))
    best = (float(values.min()) - centre) / unit
    z = (mean - best) / (deviation * math.sqrt(2))
    return 1.0 - max(0.5 * math.erfc(float(each)) for each in z)
