"""Which utterances are trained on together, and in which order.

Everything is a function of the seed, the epoch and the lengths, so that the position in the data
is one number, the step, and a resumed run sees the batches that an uninterrupted one would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

POOL_BATCHES = 32  # sorted within pools of so many batches: 2 % padding, against 28 % unsorted


@dataclass(frozen=True, slots=True)
class Position:
    """Where in the data a step is: the batch of an epoch, both counted from 0."""

    epoch: int
    batch: int


class BucketPlan:
    """Batches of utterances of similar length; each utterance once per epoch, the last batch kept.

    Every epoch the utterances are shuffled, cut into pools, sorted by length within each pool,
    sliced into batches, and the batches shuffled. There are at least two pools where there are two
    batches: one pool of everything would make the same batches in every epoch.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, *, seed: int) -> None:
        """Take the length of every utterance, in frames.

        Raises:
            ValueError: there is no utterance, or no room in a batch.
        """
        if not lengths or batch_size < 1:
            raise ValueError(f"cannot make batches of {batch_size} from {len(lengths)} utterances")
        self._lengths = np.asarray(lengths, dtype=np.float64)
        self._batch_size = batch_size
        self._seed = seed
        self._cached: tuple[int, list[NDArray[np.int64]]] | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Steps in one pass over the data."""
        return -(-len(self._lengths) // self._batch_size)

    def position(self, step: int) -> Position:
        """Where step number ``step`` (from 0) is."""
        return Position(*divmod(step, self.batches_per_epoch))

    def batch(self, step: int) -> NDArray[np.int64]:
        """Indices of the utterances of step number ``step`` (from 0), the longest first."""
        position = self.position(step)
        if self._cached is None or self._cached[0] != position.epoch:
            self._cached = (position.epoch, self.epoch(position.epoch))
        return self._cached[1][position.batch]

    def epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        """All batches of one epoch."""
        random = np.random.default_rng((self._seed, epoch))
        order = random.permutation(len(self._lengths))
        pool = min(POOL_BATCHES, -(-self.batches_per_epoch // 2)) * self._batch_size
        batches: list[NDArray[np.int64]] = []
        for start in range(0, len(order), pool):
            members = order[start : start + pool]
            members = members[np.argsort(-self._lengths[members], kind="stable")]
            batches += [
                members[first : first + self._batch_size]
                for first in range(0, len(members), self._batch_size)
            ]
        # A short batch can only be the last of the last pool, so the number per epoch is fixed.
        return [batches[index] for index in random.permutation(len(batches))]
