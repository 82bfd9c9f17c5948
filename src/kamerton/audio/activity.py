"""Where somebody speaks: a score between 0 and 1 for every 10 ms of a stream.

The energy detector follows the noise in seven bands and asks how far the sound stands above it,
so it needs no level and no threshold to be set: a recording 30 dB quieter gives the same scores,
and a hum raises the floor of the bands it sits in and of no other.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRAMES_PER_SECOND = 100
_TINY_POWER = np.float32(1e-20)


class ActivityDetector(Protocol):
    """Scores a mono stream; a neural detector takes the same place, or is blended with this one."""

    def feed(self, block: NDArray[np.float32]) -> None:
        """Take the next samples."""

    def finish(self) -> NDArray[np.float32]:
        """End the stream: one score per frame, (T,), 0 is silence or noise and 1 speech."""


def frame_count(samples: int, rate_hz: int) -> int:
    """Frames of 10 ms that a stream of so many samples has; the last one may be incomplete."""
    return -(-samples * FRAMES_PER_SECOND // rate_hz)


def frame_bounds(first: int, last: int, rate_hz: int) -> NDArray[np.int64]:
    """Sample at which each frame in [first, last) begins, and where the last one ends."""
    return np.arange(first, last + 1, dtype=np.int64) * rate_hz // FRAMES_PER_SECOND


@dataclass(frozen=True, slots=True)
class FrameLevels:
    """Mean square, mean and largest magnitude of every 10 ms, (T,) each."""

    power: NDArray[np.float32]
    mean: NDArray[np.float32]
    peak: NDArray[np.float32]

    def without_offset(self, offset: float) -> FrameLevels:
        """The levels of the same sound with a constant taken away; peaks are an upper bound."""
        power = self.power - np.float32(2.0 * offset) * self.mean
        power += np.float32(offset**2)
        return FrameLevels(
            power=np.maximum(power, np.float32(0.0), out=power),
            mean=self.mean - np.float32(offset),
            peak=self.peak + np.float32(abs(offset)),
        )


class LevelMeter:
    """Collects `FrameLevels` from a stream."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._frames = 0
        self._pending = np.zeros(0, dtype=np.float32)
        self._power, self._mean, self._peak = array("f"), array("f"), array("f")

    def feed(self, block: NDArray[np.float32]) -> None:
        """Take the next samples."""
        wave = np.concatenate([self._pending, block])
        origin = self._frames * self._rate_hz // FRAMES_PER_SECOND
        # The frame that the last sample completes is the last whose end is not behind it.
        whole = ((origin + len(wave) + 1) * FRAMES_PER_SECOND - 1) // self._rate_hz
        bounds = frame_bounds(self._frames, max(whole, self._frames), self._rate_hz) - origin
        self._measure(wave[: bounds[-1]], bounds[:-1])
        self._pending = wave[bounds[-1] :]

    def finish(self) -> FrameLevels:
        """End the stream; an incomplete last frame counts."""
        self._measure(self._pending, np.zeros(min(1, len(self._pending)), dtype=np.int64))
        self._pending = self._pending[:0]
        return FrameLevels(_whole(self._power), _whole(self._mean), _whole(self._peak))

    def _measure(self, wave: NDArray[np.float32], starts: NDArray[np.int64]) -> None:
        if not len(starts):
            return
        lengths = np.diff(np.append(starts, len(wave)))
        exact = wave.astype(np.float64)
        squares, sums = (np.add.reduceat(values, starts) for values in (exact**2, exact))
        _extend(self._power, squares / lengths)
        _extend(self._mean, sums / lengths)
        _extend(self._peak, np.maximum.reduceat(np.abs(wave), starts))
        self._frames += len(starts)


# Thousands of small arrays would fragment the heap; one that grows does not.
def _extend(column: array[float], values: NDArray[np.floating]) -> None:
    column.frombytes(values.astype(np.float32).tobytes())


def _whole(column: array[float]) -> NDArray[np.float32]:
    return np.frombuffer(column, dtype=np.float32)


# Below 200 Hz there is mains hum and handling noise; above 7 kHz nothing that vowels need.
_BAND_EDGES_HZ = (200.0, 400.0, 700.0, 1150.0, 1800.0, 2800.0, 4400.0, 7000.0)
_WINDOW_SECONDS = 0.024
_BATCH_FRAMES = 500
_CHUNK_FRAMES = 30_000  # 5 minutes
_CONTEXT_FRAMES = 1_500


class EnergyDetector:
    """Scores by the excess over an adaptive noise floor, in bands.

    Memory grows by 1.4 MB per hour of audio: powers are scored five minutes at a time, with
    enough before and after for the noise floor not to notice the seams.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._window = np.hanning(round(_WINDOW_SECONDS * rate_hz)).astype(np.float32)
        self._bands = _band_matrix(len(self._window), rate_hz)
        # Windows are centred on their frames, so the first one begins before the stream does.
        lead = len(self._window) // 2
        self._pending = np.zeros(lead, dtype=np.float32)
        self._origin = -lead  # position in the stream of the first pending sample
        self._samples = 0
        self._frames = 0
        self._powers: list[NDArray[np.float32]] = []  # of frames from self._first on
        self._first = 0
        self._loudest = np.full((len(self._bands), 1), -np.inf, dtype=np.float32)
        self._scores = array("f")
        self._scored = 0

    def feed(self, block: NDArray[np.float32]) -> None:
        """Take the next samples."""
        self._samples += len(block)
        self._pending = np.concatenate([self._pending, block])
        available = self._origin + len(self._pending)
        while self._window_start(self._frames + _BATCH_FRAMES) + len(self._window) <= available:
            self._analyse(_BATCH_FRAMES)
            if self._frames >= self._scored + _CHUNK_FRAMES + _CONTEXT_FRAMES:
                self._score(_CHUNK_FRAMES)

    def finish(self) -> NDArray[np.float32]:
        """End the stream: one score per frame, (T,)."""
        missing = frame_count(self._samples, self._rate_hz) - self._frames
        tail = np.zeros(len(self._window) + self._rate_hz // FRAMES_PER_SECOND, dtype=np.float32)
        self._pending = np.concatenate([self._pending, tail])
        while missing > 0:
            missing -= self._analyse(min(missing, _BATCH_FRAMES))
        if self._frames > self._scored:
            self._score(self._frames - self._scored)
        return _whole(self._scores)

    def _window_start(self, frame: int) -> int:
        middle = (2 * frame + 1) * self._rate_hz // (2 * FRAMES_PER_SECOND)
        return middle - len(self._window) // 2

    def _analyse(self, frames: int) -> int:
        """Measure the band powers of the next frames."""
        from scipy.fft import rfft  # numpy's would widen float32 to twice the work

        numbers = np.arange(self._frames, self._frames + frames, dtype=np.int64)
        middles = (2 * numbers + 1) * self._rate_hz // (2 * FRAMES_PER_SECOND)
        starts = middles - len(self._window) // 2 - self._origin
        windows = self._pending[starts[:, None] + np.arange(len(self._window))]  # (frames, window)
        spectrum = rfft(windows * self._window)
        power = spectrum.real**2 + spectrum.imag**2
        self._powers.append(self._bands @ power.T)  # (bands, frames)
        self._frames += frames
        drop = self._window_start(self._frames) - self._origin
        self._pending = self._pending[drop:]
        self._origin += drop
        return frames

    def _score(self, frames: int) -> None:
        """Score the next frames and forget the powers that no later frame needs."""
        powers = np.concatenate(self._powers, axis=1)
        self._loudest = np.maximum(self._loudest, loud_levels(powers))
        begin = self._scored - self._first
        scores = score_band_powers(powers, self._loudest)
        _extend(self._scores, scores[begin : begin + frames])
        self._scored += frames
        drop = max(0, self._scored - _CONTEXT_FRAMES - self._first)
        self._powers = [powers[:, drop:]]
        self._first += drop


def _band_matrix(window: int, rate_hz: int) -> NDArray[np.float32]:
    """Which bins of the spectrum belong to which band, (bands, bins); only bands that exist."""
    frequencies = np.fft.rfftfreq(window, 1.0 / rate_hz)
    edges = [edge for edge in _BAND_EDGES_HZ if edge <= 0.46 * rate_hz]
    rows = [(frequencies >= low) & (frequencies < high) for low, high in pairwise(edges)]
    return np.array(rows, dtype=np.float32) / np.float32((window / 2) ** 2)


_BLOCK_FRAMES = 50  # the rough floor is sought in blocks of 0.5 s ...
_NEIGHBOUR_BLOCKS = 10  # ... over 5 s to both sides
_NOISE_FRAMES = 500  # the refined floor is a mean over 5 s to both sides
_RANGE_DB = 45.0  # what is further below a band's loud frames than this is not heard as speech
_ROUGH_EXCESS_DB = 6.0
_REFINEMENTS = 2
_SPREAD_DB = (0.7, 2.0)  # noise of a wide and of a narrow band, as far as it is believed
_SPEECH_EXCESS = 1.8  # spreads above the floor at which the score is one half; noise stays below
_SLOPE = 0.35
_SMOOTHING = np.array([0.25, 0.75, 1.0, 0.75, 0.25], dtype=np.float32) / np.float32(3.0)


def loud_levels(powers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Level in dB that each band reaches in 5 % of the time, (B, 1), from powers, (B, T)."""
    levels = 10.0 * np.log10(np.quantile(powers, 0.95, axis=1, keepdims=True) + _TINY_POWER)
    return np.asarray(levels, dtype=np.float32)


def score_band_powers(
    powers: NDArray[np.float32], loudest: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Speech scores, (T,), from band powers, (B, T), and the `loud_levels` so far, (B, 1).

    A rough floor (a low quantile of local minima) finds frames that are surely noise; their mean
    in dB, which has not the bias of minima, is the floor that counts. The excess over it is
    measured in spreads of each band's noise and averaged over bands as a root mean square: a
    vowel in strong noise stands out in one or two bands only.
    """
    levels = 10.0 * np.log10(_smooth(powers) + _TINY_POWER)  # (B, T)
    # A band without sound of its own must not count what leaks into it.
    audible = np.maximum(loudest - _RANGE_DB, loudest.max() - 1.5 * _RANGE_DB)
    floor = np.maximum(np.stack([_rough_floor(row) for row in levels]), audible)
    excess = _root_mean_square(levels - floor)
    noise = excess < _ROUGH_EXCESS_DB
    for _ in range(_REFINEMENTS):
        refined = np.maximum(_local_mean(levels, noise), audible)
        floor = np.where(np.isfinite(refined), refined, floor)
        above = levels - floor
        excess = _root_mean_square(above / _noise_spread(above, noise))
        noise = excess < _SPEECH_EXCESS
    margin = np.clip((excess - _SPEECH_EXCESS) / _SLOPE, -30.0, 30.0)
    return np.asarray(1.0 / (1.0 + np.exp(-margin)), dtype=np.float32)


def _root_mean_square(above: NDArray[np.float32]) -> NDArray[np.float32]:
    """Over bands, of what is above the floor, (T,)."""
    positive = np.maximum(above, 0.0)
    return np.asarray(np.sqrt((positive * positive).mean(axis=0)), dtype=np.float32)


def _noise_spread(above: NDArray[np.float32], noise: NDArray[np.bool_]) -> NDArray[np.float32]:
    """How far each band's noise scatters, (B, 1): from its lower side, where there is no speech."""
    if not noise.any():
        return np.full((len(above), 1), _SPREAD_DB[1], dtype=np.float32)
    low = -np.quantile(above[:, noise], 0.16, axis=1, keepdims=True)  # one deviation if Gaussian
    return np.clip(low, *_SPREAD_DB).astype(np.float32)


def _smooth(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weighted moving average along time; the ends repeat."""
    half = len(_SMOOTHING) // 2
    padded = np.pad(rows, ((0, 0), (half, half)), mode="edge")
    frames = rows.shape[1]
    total = np.zeros_like(rows)
    for shift, weight in enumerate(_SMOOTHING):
        total += weight * padded[:, shift : shift + frames]
    return total


def _rough_floor(level: NDArray[np.float32]) -> NDArray[np.float32]:
    """A low quantile of block minima around each frame, (T,)."""
    blocks = -(-len(level) // _BLOCK_FRAMES)
    padded = np.pad(level, (0, blocks * _BLOCK_FRAMES - len(level)), mode="edge")
    minima = padded.reshape(blocks, _BLOCK_FRAMES).min(axis=1)
    reach = np.pad(minima, _NEIGHBOUR_BLOCKS, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(reach, 2 * _NEIGHBOUR_BLOCKS + 1)
    low = np.quantile(windows, 0.1, axis=1).astype(np.float32)
    return np.repeat(low, _BLOCK_FRAMES)[: len(level)]


def _local_mean(levels: NDArray[np.float32], noise: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Mean of each band over the noise frames near each frame, (B, T); NaN where are none."""
    frames = levels.shape[1]
    low = np.maximum(np.arange(frames) - _NOISE_FRAMES, 0)
    high = np.minimum(np.arange(frames) + _NOISE_FRAMES + 1, frames)
    count = np.concatenate([[0], np.cumsum(noise)])
    present = count[high] - count[low]
    means = np.full_like(levels, np.nan)
    for row, band in zip(means, levels, strict=True):
        total = np.concatenate([[0.0], np.cumsum(np.where(noise, band, 0.0), dtype=np.float64)])
        np.divide(
            total[high] - total[low], present, out=row, where=present > 0, casting="same_kind"
        )
    return means
