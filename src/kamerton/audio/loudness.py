"""Loudness and true peak after ITU-R BS.1770-4 (mono), streaming.

The K-weighting is two biquads. The Recommendation tabulates them for 48 kHz only; for other rates
they are derived from the analogue prototypes behind that table by the bilinear transform.
"""

from __future__ import annotations

import functools
import math
from array import array
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SILENCE_LUFS = -math.inf
_ABSOLUTE_GATE_LUFS = -70.0
_RELATIVE_GATE_LU = -10.0
_OFFSET_LUFS = -0.691  # so that a 997 Hz sine at 0 dBFS in one channel measures -3.01
STEPS_PER_SECOND = 10  # gating blocks start every 100 ms ...
_STEPS_PER_BLOCK = 4  # ... and last 400 ms

# Prototypes: high shelf (the head as a sphere), then high pass (RLB weighting).
_SHELF_HZ, _SHELF_Q, _SHELF_GAIN_DB = 1681.974450955533, 0.7071752369554196, 3.999843853973347
_SHELF_BAND_EXPONENT = 0.4996667741545416
_HIGH_PASS_HZ, _HIGH_PASS_Q = 38.13547087602444, 0.5003270373238773


def k_weighting(rate_hz: int) -> NDArray[np.float64]:
    """The K-weighting filter as second-order sections, (2, 6)."""
    k = math.tan(math.pi * _SHELF_HZ / rate_hz)
    high = 10.0 ** (_SHELF_GAIN_DB / 20.0)
    band = high**_SHELF_BAND_EXPONENT
    shelf = [
        high + band * k / _SHELF_Q + k * k,
        2.0 * (k * k - high),
        high - band * k / _SHELF_Q + k * k,
        *_denominator(k, _SHELF_Q),
    ]
    k = math.tan(math.pi * _HIGH_PASS_HZ / rate_hz)
    high_pass = [1.0, -2.0, 1.0, *_denominator(k, _HIGH_PASS_Q)]
    sections = np.array([shelf, high_pass])
    # The table leaves the high pass's numerator unscaled, so only the shelf is divided fully.
    sections[0] /= sections[0, 3]
    sections[1, 3:] /= sections[1, 3]
    return sections


def _denominator(k: float, q: float) -> list[float]:
    return [1.0 + k / q + k * k, 2.0 * (k * k - 1.0), 1.0 - k / q + k * k]


class LoudnessMeter:
    """Integrated loudness of a mono stream; memory grows by 36,000 numbers an hour."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._sections = k_weighting(rate_hz)
        self._state = np.zeros((2, 2))
        self._samples = 0
        self._open_power = 0.0  # sum of squares of the step that is not complete
        self._step_power = array("d")  # sum of squares of each 100 ms

    def feed(self, block: NDArray[np.float32]) -> None:
        """Take the next samples."""
        from scipy.signal import sosfilt

        if not len(block):
            return
        weighted, self._state = sosfilt(self._sections, block.astype(np.float64), zi=self._state)
        begin = 0
        for end in _step_ends(self._samples, len(block), self._rate_hz):
            part = weighted[begin:end]
            self._step_power.append(self._open_power + float(part @ part))
            self._open_power, begin = 0.0, end
        rest = weighted[begin:]
        self._open_power += float(rest @ rest)
        self._samples += len(block)

    def block_powers(self) -> NDArray[np.float64]:
        """Mean square of every complete gating block: 400 ms, one every 100 ms."""
        steps = np.array(self._step_power)
        if len(steps) < _STEPS_PER_BLOCK:
            return np.zeros(0)
        sums = np.convolve(steps, np.ones(_STEPS_PER_BLOCK), mode="valid")
        return np.asarray(sums / (self._rate_hz * _STEPS_PER_BLOCK / STEPS_PER_SECOND))

    def integrated(self) -> float:
        """Gated loudness in LUFS; minus infinity for silence.

        A stream shorter than one gating block is measured as a whole, ungated.
        """
        blocks = self.block_powers()
        if len(blocks):
            return gated_loudness(blocks)
        total = sum(self._step_power) + self._open_power
        return _lufs(total / self._samples) if self._samples else SILENCE_LUFS


def _step_ends(samples: int, block: int, rate_hz: int) -> list[int]:
    """Where in the next ``block`` samples 100 ms steps end, after ``samples`` samples."""
    first = samples * STEPS_PER_SECOND // rate_hz + 1
    last = (samples + block) * STEPS_PER_SECOND // rate_hz
    return [-(-step * rate_hz // STEPS_PER_SECOND) - samples for step in range(first, last + 1)]


def gated_loudness(mean_squares: NDArray[np.float64]) -> float:
    """Combine the mean squares of the gating blocks by the two gates of BS.1770."""
    audible = mean_squares[mean_squares > _power(_ABSOLUTE_GATE_LUFS)]
    if not len(audible):
        return SILENCE_LUFS
    threshold = _lufs(float(audible.mean())) + _RELATIVE_GATE_LU
    return _lufs(float(audible[audible > _power(threshold)].mean()))


def _lufs(mean_square: float) -> float:
    return _OFFSET_LUFS + 10.0 * math.log10(mean_square) if mean_square > 0.0 else SILENCE_LUFS


def _power(lufs: float) -> float:
    return float(10.0 ** ((lufs - _OFFSET_LUFS) / 10.0))


def integrated_loudness(wave: NDArray[np.float32], rate_hz: int) -> float:
    """Gated loudness of a whole wave in LUFS."""
    meter = LoudnessMeter(rate_hz)
    meter.feed(wave)
    return meter.integrated()


_PHASES = 4
_HALF_TAPS = 24  # 48 taps per phase: flat to 0.9 of half the sample rate
_HOT_SHARE = 0.5  # -6 dB: no band-limited overshoot is larger than that in practice
_HOT_BATCH = 1 << 14


@functools.cache
def _interpolator() -> NDArray[np.float32]:
    """Windowed sinc for the three instants between two samples, (2 * half taps, 3)."""
    offsets = np.arange(-_HALF_TAPS + 1, _HALF_TAPS + 1)[:, None]
    distance = offsets - np.arange(1, _PHASES) / _PHASES
    window = np.i0(9.0 * np.sqrt(1.0 - (distance / _HALF_TAPS) ** 2)) / np.i0(9.0)
    return np.asarray(np.sinc(distance) * window, dtype=np.float32)


def true_peak(wave: NDArray[np.float32]) -> float:
    """Largest amplitude between and at the samples, by fourfold oversampling.

    Only the neighbourhood of samples within 6 dB of the largest one is interpolated, which is
    what makes it cheap.
    """
    if not len(wave):
        return 0.0
    magnitude = np.abs(wave)
    peak = float(magnitude.max())
    near = magnitude >= _HOT_SHARE * peak
    # Interval i lies between samples i and i + 1.
    hot = np.flatnonzero(near[:-1] | near[1:])
    padded = np.pad(np.asarray(wave, dtype=np.float32), _HALF_TAPS)
    taps = np.arange(1, 2 * _HALF_TAPS + 1)
    for start in range(0, len(hot), _HOT_BATCH):
        window = padded[hot[start : start + _HOT_BATCH, None] + taps]
        peak = max(peak, float(np.abs(window @ _interpolator()).max()))
    return peak
