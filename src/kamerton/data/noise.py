"""How far speech stands above the noise of its room, measured in the pauses around it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from kamerton.data.cuts import runs

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_SNR_DB = 100.0  # digital silence between words; infinity has no place in JSON
_NOISE_REACH_FRAMES = 500  # noise is measured in the pauses within 5 s of a clip ...
_GUARD_FRAMES = 5  # ... 50 ms away from speech


class NoiseMeter:
    """Speech against the pauses around it, from frame powers and a speech mask, (T,) each."""

    def __init__(self, power: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        self._power, self._mask = power, mask
        guarded = ~_widened(mask, _GUARD_FRAMES)
        self._quiet = guarded if guarded.any() else ~mask
        # The recording as a whole stands in where there is no pause near.
        self._noise = _mean(power[self._quiet])

    def snr_db(self, start: int, end: int) -> float | None:
        """Of the speech in frames [start, end); None if the recording has no pause at all."""
        near = slice(max(0, start - _NOISE_REACH_FRAMES), end + _NOISE_REACH_FRAMES)
        noise = _mean(self._power[near][self._quiet[near]])
        noise = self._noise if noise is None else noise
        signal = _mean(self._power[start:end][self._mask[start:end]])
        if noise is None or signal is None:
            return None
        if noise <= 0.0:
            return MAX_SNR_DB
        ratio = max(signal - noise, 1e-12 * noise) / noise
        return float(np.clip(10.0 * math.log10(ratio), -MAX_SNR_DB, MAX_SNR_DB))


def _mean(values: NDArray[np.float32]) -> float | None:
    return float(values.mean(dtype=np.float64)) if len(values) else None


def _widened(mask: NDArray[np.bool_], frames: int) -> NDArray[np.bool_]:
    starts, ends = runs(mask)
    widened = mask.copy()
    for start, end in zip(starts, ends, strict=True):
        widened[max(0, start - frames) : end + frames] = True
    return widened
