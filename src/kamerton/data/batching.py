"""Which utterances are trained on together, and in which order.

Everything is a function of the seed, the epoch, the share of clips that take part, the scale of the
batches and the lengths, so that a position in the data is four numbers, and a resumed run sees the
batches that an uninterrupted one would, without walking through those before.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kamerton.core.errors import ParamsError

POOL_BATCHES = 32  # sorted within pools of so many batches: 2 % padding, against 28 % unsorted
POOL_GROUPS = 8  # and at least so many groups: one group in eight at most is filled up by splitting

# A batch of the shortest clips would hold many times batch_size of them. Beyond some four times,
# the padding saved is nothing, while the text's side of the network, whose cost the budget does not
# see, and the noise of the gradient drift away from what batch_size stands for.
MAX_UTTERANCES_FACTOR = 4

KEPT_EPOCHS = 2  # the one in training, and the next, which is prepared meanwhile

Kind = Literal["frames", "utterances"]
Batch = NDArray[np.int64]  # indices of utterances, the longest first


@dataclass(frozen=True, slots=True)
class Position:
    """Where in the data a step is.

    Attributes:
        epoch: From 0.
        batch: The group of batches in the epoch that the step takes, from 0.
        share: The share of the clips, the shortest, that the epoch is made of, in (0, 1].
        scale: The epoch's batches are of this many times the plan's ``batch_size``.
    """

    epoch: int = 0
    batch: int = 0
    share: float = 1.0
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class _Limits:
    """How large the batches of an epoch may be.

    Attributes:
        utterances: In a batch where ``kind`` is "utterances".
        frames: Of a batch, once padded, where ``kind`` is "frames".
        most: Utterances in such a batch.
    """

    utterances: int
    frames: int
    most: int


class BatchPlan:
    """Groups of batches of similar length; every utterance exactly once per epoch.

    Every epoch the utterances are shuffled and dealt into pools of equal size; each pool is sorted
    by length and cut into batches; neighbouring batches form a group, which is what one optimiser
    step takes (one batch for each process and accumulation); the groups are shuffled. Where there
    are two groups there are two pools: one pool of everything would make the same batches in every
    epoch.

    Kind "utterances" makes batches of equal count, at most ``batch_size``. Kind "frames" makes
    batches of equal size once padded, count times longest, at most ``batch_size`` times the mean
    length; then the mean loss of a batch weighs every frame of the data alike, and memory is
    bounded. An utterance that is longer by itself is a batch of its own.

    An epoch can be made with a ``scale``: it is that of a plan of so many times the batch size, to
    the nearest utterance and at least one. It takes more steps or fewer for the same clips.

    No pool ends in a small batch: it is cut into as many batches as the limit makes necessary,
    rounded up to whole groups, by the lowest limit that gives so many. Only where a pool has fewer
    utterances than that would be batches, a batch exceeds the limit.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        *,
        kind: Kind,
        seed: int,
        group: int = 1,
        multiple: int = 1,
    ) -> None:
        """Take the length of every utterance, in frames.

        Args:
            lengths: Frames of each utterance.
            batch_size: Utterances in a batch, of average length where ``kind`` is "frames".
            kind: What is equal among batches.
            seed: Of the order.
            group: Batches in one optimiser step, over all processes.
            multiple: Frames are padded to a multiple of this, the model's reduction factor.

        Raises:
            ParamsError: there are fewer utterances than batches in a group.
            ValueError: there is no utterance, or no room in a batch or a group.
        """
        if not lengths or min(batch_size, group, multiple) < 1:
            raise ValueError(f"cannot make batches of {batch_size} from {len(lengths)} utterances")
        if len(lengths) < group:
            raise ParamsError(
                f"{len(lengths)} clips cannot be shared among {group} batches, which one step "
                "takes (processes times train.accumulation).",
                hint="lower train.accumulation, start fewer processes, or add recordings",
            )
        self._lengths = -(-np.asarray(lengths, dtype=np.int64) // multiple) * multiple
        self._by_length = np.argsort(self._lengths, kind="stable")
        self._batch_size = batch_size
        self._group = group
        self._seed = seed
        self.kind = kind
        self.budget = self._limits().frames
        self._epochs: dict[tuple[int, float, float], list[list[Batch]]] = {}
        self._lock = threading.Lock()  # batches are prepared in a thread of their own
        self.steps_per_epoch = len(self.epoch(0))  # a budget counts epochs of the usual batches

    def batches(self, position: Position, rank: int = 0, size: int = 1) -> list[Batch]:
        """The batches of one step for process ``rank`` of ``size``, in the order of their lengths.

        Neighbours go to different processes, which so wait little for each other.
        """
        return self._at(position)[position.batch][rank::size]

    def after(self, position: Position, share: float = 1.0, scale: float = 1.0) -> Position:
        """The position of the next step; ``share`` and ``scale`` are those of a new epoch."""
        if position.batch + 1 < len(self._at(position)):
            return dataclasses.replace(position, batch=position.batch + 1)
        return Position(position.epoch + 1, 0, share, scale)

    def longer_than_budget(self) -> list[int]:
        """Indices of the utterances that are batches of their own, the longest first."""
        if self.kind == "utterances":
            return []
        longest_first = self._by_length[::-1]
        return [int(i) for i in longest_first if self._lengths[i] > self.budget]

    def epoch(self, epoch: int, share: float = 1.0, scale: float = 1.0) -> list[list[Batch]]:
        """All groups of one epoch, in order; the newest two epochs asked for are kept."""
        key = (epoch, share, scale)
        with self._lock:
            groups = self._epochs.pop(key, None) or self._make(epoch, share, self._limits(scale))
            self._epochs[key] = groups
            while len(self._epochs) > KEPT_EPOCHS:
                del self._epochs[next(iter(self._epochs))]
        return groups

    def _at(self, position: Position) -> list[list[Batch]]:
        return self.epoch(position.epoch, position.share, position.scale)

    def _limits(self, scale: float = 1.0) -> _Limits:
        size = max(1, round(scale * self._batch_size))
        frames = -(-size * int(self._lengths.sum()) // len(self._lengths))
        return _Limits(size, frames, MAX_UTTERANCES_FACTOR * size)

    def _make(self, epoch: int, share: float, limits: _Limits) -> list[list[Batch]]:
        random = np.random.default_rng((self._seed, epoch))
        count = math.ceil(share * len(self._lengths))
        members = self._by_length[: max(count, self._group)]
        groups: list[list[Batch]] = []
        for pool in np.split(random.permutation(members), self._pool_starts(members, limits)[1:]):
            batches = self._cut(pool[np.argsort(-self._lengths[pool], kind="stable")], limits)
            groups += [
                batches[start : start + self._group]
                for start in range(0, len(batches), self._group)
            ]
        return [groups[index] for index in random.permutation(len(groups))]

    def _pool_starts(self, members: Batch, limits: _Limits) -> list[int]:
        """Where the pools of an epoch begin.

        Their sizes are multiples of what fills a group, as far as that is known beforehand; what
        is over goes to the last.
        """
        if self.kind == "utterances":
            batches, unit = len(members) / limits.utterances, self._group * limits.utterances
        else:
            batches, unit = float(self._lengths[members].sum()) / limits.frames, self._group
        pools = round(batches / max(POOL_BATCHES, POOL_GROUPS * self._group))
        if batches > self._group:
            pools = max(2, pools)
        units = len(members) // unit + (len(members) % unit >= self._group)
        pools = max(1, min(pools, units))
        return [pool * units // pools * unit for pool in range(pools)]

    def _cut(self, pool: Batch, limits: _Limits) -> list[Batch]:
        """Cut a sorted pool into whole groups of batches."""
        if self.kind == "utterances":
            return np.array_split(pool, self._whole_groups(len(pool) / limits.utterances, pool))
        lengths = self._lengths[pool]
        wanted = self._whole_groups(len(_starts(lengths, limits.frames, limits.most)), pool)
        return np.split(pool, _even_starts(lengths, wanted, limits.most)[1:])

    def _whole_groups(self, batches: float, pool: Batch) -> int:
        """So many batches or some more, a multiple of a group, none of them empty."""
        groups = math.ceil(math.ceil(batches) / self._group)
        return min(groups, len(pool) // self._group) * self._group


def _starts(lengths: NDArray[np.int64], limit: int, most: int) -> list[int]:
    """Where batches begin if each takes as many of the sorted lengths as its first one allows."""
    starts, at = [], 0
    while at < len(lengths):
        starts.append(at)
        at += max(1, min(most, limit // int(lengths[at])))
    return starts


def _even_starts(lengths: NDArray[np.int64], wanted: int, most: int) -> list[int]:
    """The same for exactly ``wanted`` batches, by the lowest limit that does with so many."""
    most = max(most, -(-len(lengths) // wanted))
    low, high = 0, int(lengths[0]) * len(lengths)  # too low, enough
    while high - low > 1:
        middle = (low + high) // 2
        if len(_starts(lengths, middle, most)) <= wanted:
            high = middle
        else:
            low = middle
    starts = _starts(lengths, high, most)
    while len(starts) < wanted:  # halve the largest
        ends = [*starts[1:], len(lengths)]
        padded = [
            (end - start > 1, (end - start) * int(lengths[start]), start, end)
            for start, end in zip(starts, ends, strict=True)
        ]
        _, _, start, end = max(padded)
        starts = sorted([*starts, (start + end) // 2])
    return starts
