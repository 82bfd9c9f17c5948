"""Whether the last stretch of a curve has a trend, with noise that remembers allowed for."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from kamerton.stopping.series import Floats
from kamerton.stopping.types import Group, Vote
from kamerton.stopping.view import View

MIN_POINTS = 8


def trend(values: Floats, *, corrected: bool = True) -> float:
    """Z of Mann (1945) and Kendall (1975): positive where values rise; 0 for fewer than 4.

    Ties count as in Kendall. ``corrected`` inflates the variance for first-order autocorrelation
    of the residuals about Sen's line, as Hamed and Rao (1998, eq. 16) do for any lag, with
    Kendall's small-sample correction rho + (1 + 4 rho) / n. It never deflates it.

    Args:
        values: (n,); quadratic in n, meant for tens of block means.
        corrected: False for the test of independent values.
    """
    count = values.size
    if count < 4:
        return 0.0
    later, earlier = _pairs(count)
    differences = values[later] - values[earlier]
    statistic = float(np.sign(differences).sum())
    variance = count * (count - 1) * (2 * count + 5) / 18.0
    if not differences.all():
        _, ties = np.unique(values, return_counts=True)
        variance -= float((ties * (ties - 1) * (2 * ties + 5)).sum()) / 18.0
    if variance <= 0.0 or statistic == 0.0:
        return 0.0
    if corrected:
        slope = float(np.median(differences / (later - earlier)))
        variance *= _inflation(values - slope * np.arange(count))
    return (statistic - math.copysign(1.0, statistic)) / math.sqrt(variance)


@lru_cache(maxsize=64)
def _pairs(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of all pairs, the later of each first."""
    later, earlier = np.tril_indices(count, -1)
    return later.astype(np.int64), earlier.astype(np.int64)


def _inflation(residuals: Floats) -> float:
    """What first-order autocorrelation makes of the variance of S; at least 1."""
    count = residuals.size
    centred = residuals - residuals.mean()
    power = float(centred @ centred)
    if power <= 0.0:
        return 1.0
    rho = float(centred[1:] @ centred[:-1]) / power
    rho = min(0.95, rho + (1.0 + 4.0 * rho) / count)
    if rho <= 0.0:
        return 1.0
    lags = np.arange(1, count)
    terms = (count - lags) * (count - lags - 1) * (count - lags - 2) * rho**lags
    return 1.0 + 2.0 / (count * (count - 1) * (count - 2)) * float(terms.sum())


class MannKendall:
    """Asks to stop when nothing falls any more; its confidence grows with what it has seen."""

    name = "mann_kendall"
    group: Group = "statistical_consensus"

    def __init__(self, alpha: float, window: int) -> None:
        self._critical = NormalDist().inv_cdf(1.0 - alpha)
        self._window = window

    def vote(self, view: View) -> Vote:
        """Score (Z + 0.5) / 2 within [-1, 1] over the last blocks."""
        values = view.recent[-self._window :]
        if values.size < MIN_POINTS:
            return Vote(self.name, self.group, 0.0, 0.0, f"only {values.size} blocks to test")
        z = trend(values)
        what = "no trend"
        if z < -self._critical:
            what = "falls"
        elif z > self._critical:
            what = "rises"
        return Vote(
            self.name,
            self.group,
            max(-1.0, min(1.0, (z + 0.5) / 2.0)),
            min(1.0, values.size / self._window),
            f"{what} over the last {values.size} blocks (Z {z:+.1f})",
        )
