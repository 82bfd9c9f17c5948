"""How fast training goes and what it takes of the machine, between two lines of the log.

Nothing here decides anything: two equal runs have other figures.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kamerton.tracking import names
from kamerton.training.step import StepResult

_MIB = 1 << 20
_RESIDENT_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in a unit of ru_maxrss


class Speedometer:
    """Adds up the steps since its last reading; evaluations and saving are left out."""

    def __init__(self, device: torch.device) -> None:
        """Measure this process; frames are those of all that train together."""
        self._device = device
        self._forget()

    def _forget(self) -> None:
        self._seconds = self._waited = 0.0
        self._real = self._computed = 0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time what is done within: taking batches and training on them."""
        began = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - began

    def took(self, result: StepResult, waited_seconds: float) -> None:
        """Count the frames of a step, and how long it waited for its batches."""
        self._waited += waited_seconds
        self._real += result.frames
        self._computed += result.padded_frames

    def read(self) -> dict[str, float]:
        """The figures since the last reading, under their names."""
        seconds = max(self._seconds, 1e-9)
        values = {
            names.FRAMES_PER_SECOND: self._real / seconds,
            names.PADDING_SHARE: 1.0 - self._real / max(1, self._computed),
            names.DATA_WAIT_SHARE: self._waited / seconds,
            names.MEMORY_MB: most_resident_bytes() / _MIB,
        }
        if self._device.type == "cuda":
            values[names.DEVICE_MEMORY_MB] = torch.cuda.max_memory_allocated(self._device) / _MIB
        self._forget()
        return values


def most_resident_bytes() -> int:
    """The most bytes that this process was resident with."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RESIDENT_UNIT
