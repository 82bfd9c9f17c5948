"""Clipped samples of a stream, as it was recorded: resampling rounds flat tops off."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

RUN_SAMPLES = 3  # so many samples at the top in a row are no accident
LEVEL = 0.985
_FRAMES_PER_SECOND = 100


def runs_at_top(at_top: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Those of the samples at the top that are one of `RUN_SAMPLES` in a row."""
    edges = np.diff(at_top.astype(np.int8), prepend=0, append=0)
    starts, ends = np.flatnonzero(edges > 0), np.flatnonzero(edges < 0)
    long = ends - starts >= RUN_SAMPLES
    steps = np.zeros(len(at_top) + 1, dtype=np.int8)
    steps[starts[long]] = 1
    steps[ends[long]] = -1
    return np.asarray(np.cumsum(steps[:-1], dtype=np.int8), dtype=bool)


class ClippingMeter:
    """Counts samples in runs at the recording's own peak; memory grows by 0.7 MB an hour.

    The peak is only known at the end. When a sample is so much larger than all before that those
    were not at the top after all, they are forgotten.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._samples = 0
        self._peak = 0.0
        self._counts = array("H")  # of the frames that lie behind
        # The last samples but those that were counted: a run may go on in the next block.
        self._at_top = np.zeros(RUN_SAMPLES - 1, dtype=bool)
        self._counted = np.zeros(RUN_SAMPLES - 1, dtype=bool)

    def feed(self, block: NDArray[np.float32]) -> None:
        """Take the next samples."""
        if not len(block):
            return
        peak = max(float(block.max()), -float(block.min()))
        if peak * LEVEL > self._peak:
            self._counts = array("H", bytes(2 * len(self._counts)))
            self._at_top[:] = self._counted[:] = False
        self._peak = max(self._peak, peak)
        first = self._samples
        self._samples += len(block)
        frames = -(-self._samples * _FRAMES_PER_SECOND // self._rate_hz)
        self._counts.extend([0] * (frames - len(self._counts)))
        if peak < LEVEL * self._peak:
            self._at_top[:] = self._counted[:] = False
        elif peak > 0.0:
            self._count(np.abs(block) >= np.float32(LEVEL * self._peak), first)

    def _count(self, at_top: NDArray[np.bool_], first: int) -> None:
        carried = len(self._at_top)
        joined = np.concatenate([self._at_top, at_top])
        in_run = runs_at_top(joined)
        new = in_run.copy()
        new[:carried] &= ~self._counted
        places = np.maximum(np.flatnonzero(new) + first - carried, 0)
        frames, counts = np.unique(places * _FRAMES_PER_SECOND // self._rate_hz, return_counts=True)
        for frame, count in zip(frames.tolist(), counts.tolist(), strict=True):
            self._counts[frame] += count
        self._at_top, self._counted = joined[-carried:], in_run[-carried:]

    def finish(self) -> NDArray[np.uint16]:
        """Clipped samples of every 10 ms of the stream, (T,)."""
        return np.frombuffer(self._counts, dtype=np.uint16)


def clipped_share(wave: NDArray[np.float32], peak: float) -> float:
    """Share of samples in runs of three or more that stay at the recording's own ``peak``."""
    if peak <= 0.0 or not len(wave):
        return 0.0
    return float(runs_at_top(np.abs(wave) >= LEVEL * peak).mean())
