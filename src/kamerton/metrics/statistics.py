"""How sure a number from a limited set of sentences is: bootstrap intervals over utterances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BOOTSTRAP_DEFINITION = "bootstrap/1: percentile, utterances resampled with replacement"


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and where it would fall in most other samples of as many utterances."""

    value: float
    low: float
    high: float
    items: int


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How to resample; the same three numbers give the same interval."""

    samples: int = 2000
    level: float = 0.95
    seed: int = 1234

    def mean(self, values: Sequence[float]) -> Interval:
        """The mean of one finite value per utterance.

        Raises:
            ValueError: there is no value, or one is not finite.
        """
        return self.ratio(values, np.ones(len(values)).tolist())

    def ratio(self, numerators: Sequence[float], denominators: Sequence[float]) -> Interval:
        """A ratio of sums over utterances, such as errors over words.

        Raises:
            ValueError: the lengths differ, nothing is there, or a number is not finite.
        """
        above, below = _column(numerators), _column(denominators)
        if above.size != below.size or below.sum() <= 0:
            raise ValueError("a ratio needs as many numerators as denominators, and some of each")
        counts = self._counts(above.size)
        totals = counts @ below
        drawn = (counts @ above)[totals > 0] / totals[totals > 0]
        return self._interval(float(above.sum() / below.sum()), drawn, above.size)

    def paired_difference(
        self,
        candidate: Sequence[float],
        baseline: Sequence[float],
        weights: Sequence[float] | None = None,
    ) -> Interval:
        """Candidate minus baseline over the same utterances, in the same order.

        Args:
            candidate: One number per utterance (with weights: a sum such as word errors).
            baseline: The same of the other system.
            weights: Size of each utterance (such as its words); one each if not given.

        Raises:
            ValueError: the lengths differ, nothing is there, or a number is not finite.
        """
        left, right = _column(candidate), _column(baseline)
        if left.size != right.size:
            raise ValueError("paired values must belong to the same utterances")
        sizes = np.ones(left.size) if weights is None else _column(weights)
        return self.ratio((left - right).tolist(), sizes.tolist())

    def _counts(self, items: int) -> NDArray[np.float64]:
        """How often each utterance is drawn in each resample, (samples, items)."""
        generator = np.random.default_rng(self.seed)
        drawn = generator.multinomial(items, np.full(items, 1 / items), size=self.samples)
        return drawn.astype(np.float64)

    def _interval(self, value: float, drawn: NDArray[np.float64], items: int) -> Interval:
        tail = (1 - self.level) / 2
        low, high = np.quantile(drawn, [tail, 1 - tail])
        return Interval(value, float(low), float(high), items)


def _column(values: Sequence[float]) -> NDArray[np.float64]:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1 or column.size == 0 or not np.isfinite(column).all():
        raise ValueError("the bootstrap needs at least one value, and all of them finite")
    return column
