"""A series of points, and what one asks of it: the last ones, their middle, the best, fewer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

MAD_TO_SIGMA: Final = 1.4826  # of a normal distribution
_PER_BUCKET: Final = 5  # first, last, lowest, highest, and one that is not finite


@dataclass(frozen=True, slots=True)
class Robust:
    """Statistics that single wild points do not move; NaN where no value is finite.

    Attributes:
        count: Finite values.
        not_finite: The others, which count in nothing else.
        median: Their middle.
        mad: Median distance from it.
        sigma: The standard deviation of a normal distribution of that ``mad``.
    """

    count: int
    not_finite: int
    median: float
    mad: float

    @property
    def sigma(self) -> float:
        """A standard deviation, in the unit of the values."""
        return MAD_TO_SIGMA * self.mad


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Points of one series by ascending step, N of them.

    Attributes:
        steps: (N,) integers.
        values: (N,), NaN and infinities among them.
        times: (N,) Unix seconds.
        epochs: (N,), NaN where the record tells none.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    times: NDArray[np.float64]
    epochs: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.steps)

    def take(self, where: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Series:
        """Some of the points."""
        return Series(self.steps[where], self.values[where], self.times[where], self.epochs[where])

    @property
    def finite(self) -> Series:
        """The points whose value is finite."""
        return self.take(np.isfinite(self.values))

    def window(self, count: int) -> Series:
        """The last ``count`` points."""
        return self.take(slice(max(0, len(self) - count), None))

    def robust(self) -> Robust:
        """Median and median absolute deviation."""
        values = self.finite.values
        if not len(values):
            return Robust(0, len(self), float("nan"), float("nan"))
        median = float(np.median(values))
        mad = float(np.median(np.abs(values - median)))
        return Robust(len(values), len(self) - len(values), median, mad)

    def ema(self, half_life: float) -> NDArray[np.float64]:
        """Exponential moving average at each point, (N,).

        The weight of a point halves with every ``half_life`` points after it. The first values are
        no more than the mean of those there are (the bias correction of Kingma & Ba 2015,
        algorithm 1). What is not finite leaves the average as it is; NaN before the first that is.
        """
        keep = 0.5 ** (1.0 / half_life)
        average = weight = 0.0
        found = np.full(len(self), np.nan)
        for index, value in enumerate(self.values.tolist()):
            if abs(value) < float("inf"):  # False for NaN too
                average = keep * average + (1.0 - keep) * value
                weight = keep * weight + (1.0 - keep)
            if weight:
                found[index] = average / weight
        return found

    def best(self, *, lowest: bool = True) -> tuple[int, float] | None:
        """Step and value of the best finite point, the first among equals."""
        finite = self.finite
        if not len(finite):
            return None
        index = int(finite.values.argmin() if lowest else finite.values.argmax())
        return int(finite.steps[index]), float(finite.values[index])

    def downsample(self, most: int) -> Series:
        """At most ``most`` of the points, such that the curve looks the same.

        The steps are divided into equal parts, and of each the first, the last, the lowest and the
        highest point stay: M4 (Jugel et al., VLDB 2014), under which a line drawn that many pixels
        wide has the same pixels. One point of each part that is not finite stays as well.

        Raises:
            ValueError: ``most`` is less than five.
        """
        if most < _PER_BUCKET:
            raise ValueError(f"at least {_PER_BUCKET} points, not {most}")
        if len(self) <= most:
            return self
        buckets = most // _PER_BUCKET
        span = float(self.steps[-1] - self.steps[0]) + 1.0
        place = ((self.steps - self.steps[0]) * (buckets / span)).astype(np.int64)
        starts = np.searchsorted(place, np.arange(buckets + 1))
        kept: set[int] = set()
        for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            kept.update(_extremes(self.values[start:end], start))
        return self.take(np.array(sorted(kept), dtype=np.int64))


def _extremes(values: NDArray[np.float64], start: int) -> list[int]:
    finite = np.isfinite(values)
    places = np.flatnonzero(finite)
    found = [start + int(np.argmin(finite))] if not finite.all() else []
    if len(places):
        good = values[places]
        inner = (0, -1, int(good.argmin()), int(good.argmax()))
        found += [start + int(places[index]) for index in inner]
    return found
