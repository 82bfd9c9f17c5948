"""Where somebody speaks: a score between 0 and 1 for every 10 ms of a stream.

The energy detector follows the noise in seven bands and asks how far the sound stands above it,
so it needs no level and no threshold to be set: a recording 30 dB quieter gives the same scores,
and a hum raises the floor of the bands it sits in and of no other.
"""

from __future__ import annotations

import math
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

    def remove_offset(self, offset: float) -> None:
        """Make them the levels of the sound without a constant; peaks become an upper bound."""
        self.power[:] -= np.float32(2.0 * offset) * self.mean
        self.power[:] = np.maximum(self.power + np.float32(offset**2), np.float32(0.0))
        self.mean[:] -= np.float32(offset)
        self.peak[:] += np.float32(abs(offset))


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
        squares, sums = (np.add.reduceat(values, starts) for values in (exact * exact, exact))
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
_BATCH_FRAMES = 100  # small enough for the cache, and for BLAS to stay on this thread
_CHUNK_FRAMES = 30_000  # 5 minutes
_CONTEXT_FRAMES = 1_500


class EnergyDetector:
    """Scores by the excess over an adaptive noise floor, in bands.

    Memory grows by 2.9 MB per hour of audio: powers are scored five minutes at a time, with
    enough before and after for the noise floor not to notice the seams.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        size = _fast_length(math.floor(_WINDOW_SECONDS * rate_hz))
        self._window = np.hanning(size).astype(np.float32)
        self._bins, self._bands = _band_matrix(size, rate_hz)
        # Windows are centred on their frames, so the first one begins before the stream does.
        lead = size // 2
        self._pending = np.zeros(lead, dtype=np.float32)
        self._origin = -lead  # position in the stream of the first pending sample
        self._samples = 0
        self._frames = 0
        held = _CHUNK_FRAMES + 2 * _CONTEXT_FRAMES + _BATCH_FRAMES
        self._powers = np.empty((self._bands.shape[1], held), dtype=np.float32)
        self._first = 0  # the frame of the first column of powers
        self._loudest = np.full((len(self._powers), 1), -np.inf, dtype=np.float32)
        self._scores, self._levels = array("f"), array("f")
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

    def band_level_db(self) -> NDArray[np.float32]:
        """Mean level of the bands in dB, (T,), once the stream has ended."""
        return _whole(self._levels)

    def _window_start(self, frame: int) -> int:
        middle = (2 * frame + 1) * self._rate_hz // (2 * FRAMES_PER_SECOND)
        return middle - len(self._window) // 2

    def _analyse(self, frames: int) -> int:
        """Measure the band powers of the next frames."""
        from scipy.fft import rfft  # numpy's would widen float32 to twice the work

        numbers = np.arange(self._frames, self._frames + frames, dtype=np.int64)
        middles = (2 * numbers + 1) * self._rate_hz // (2 * FRAMES_PER_SECOND)
        starts = middles - len(self._window) // 2 - self._origin
        every = np.lib.stride_tricks.sliding_window_view(self._pending, len(self._window))
        windows = every[starts]  # (frames, window), a copy
        windows *= self._window
        # Real and imaginary parts side by side: both are squared, and summed by the same matrix.
        parts = rfft(windows, overwrite_x=True).view(np.float32)[:, self._bins]
        column = self._frames - self._first
        self._powers[:, column : column + frames] = ((parts * parts) @ self._bands).T
        self._frames += frames
        drop = self._window_start(self._frames) - self._origin
        self._pending = self._pending[drop:]
        self._origin += drop
        return frames

    def _score(self, frames: int) -> None:
        """Score the next frames and forget the powers that no later frame needs."""
        powers = self._powers[:, : self._frames - self._first]
        self._loudest = np.maximum(self._loudest, loud_levels(powers))
        now = slice(self._scored - self._first, self._scored - self._first + frames)
        _extend(self._scores, score_band_powers(powers, self._loudest)[now])
        _extend(self._levels, 10.0 * np.log10(powers[:, now] + _TINY_POWER).mean(axis=0))
        self._scored += frames
        drop = max(0, self._scored - _CONTEXT_FRAMES - self._first)
        rest = powers[:, drop:].copy()
        self._powers[:, : rest.shape[1]] = rest
        self._first += drop


def _fast_length(size: int) -> int:
    """The largest even length up to ``size`` with no prime factor above 5: a fast transform."""
    for length in range(size - size % 2, 2, -2):
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
    return 2


def _band_matrix(window: int, rate_hz: int) -> tuple[slice, NDArray[np.float32]]:
    """Which parts of the spectrum belong to which band: the columns that do, (columns, bands).

    A spectrum's columns are the real and the imaginary part of each bin in turn. Only bands that
    exist at the rate have a column.
    """
    frequencies = np.fft.rfftfreq(window, 1.0 / rate_hz)
    edges = [edge for edge in _BAND_EDGES_HZ if edge <= 0.46 * rate_hz]
    rows = np.array([(frequencies >= low) & (frequencies < high) for low, high in pairwise(edges)])
    used = np.flatnonzero(rows.any(axis=0))
    bins = slice(int(used[0]), int(used[-1]) + 1)
    matrix = np.repeat(rows[:, bins].T, 2, axis=0).astype(np.float32)
    return slice(2 * bins.start, 2 * bins.stop), matrix / np.float32((window / 2) ** 2)


_BLOCK_FRAMES = 50  # the rough floor is sought in blocks of 0.5 s ...
_NEIGHBOUR_BLOCKS = 10  # ... over 5 s to both sides
_CHANGE_BLOCKS = 16  # a level that nothing falls to for 8 s is no longer the floor ...
_CHANGE_DB = 6.0  # ... if all is so much above it
_CHANGED_DB = 2.0
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
    edges = _room_changes(np.maximum(levels, audible).mean(axis=0))
    rough = [
        np.concatenate([_rough_floor(row[start:end]) for start, end in pairwise(edges)])
        for row in levels
    ]
    floor = np.maximum(np.stack(rough), audible)
    excess = _root_mean_square(levels - floor)
    noise = excess < _ROUGH_EXCESS_DB
    for _ in range(_REFINEMENTS):
        refined = np.maximum(_local_mean(levels, noise, edges), audible)
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


def _room_changes(level: NDArray[np.float32]) -> list[int]:
    """Frames at which the noise of the room changes for good, with both ends of the recording.

    The mean level of the bands, (T,), must stay well above what was its floor, or well below what
    will be, for 8 s. The change is put where the louder room is first, or last, heard without
    speech, so that no speech is measured against the wrong one.
    """
    minima = _block_minima(level)
    edges = [0]
    if len(minima) >= 2 * _CHANGE_BLOCKS:
        windows = np.lib.stride_tricks.sliding_window_view(minima, _CHANGE_BLOCKS).min(axis=1)
        before, after = windows[:-_CHANGE_BLOCKS], windows[_CHANGE_BLOCKS:]
        for direction, rise in ((1, after - before), (-1, before - after)):
            for start, end in _stretches(rise > _CHANGE_DB):
                edges.append(_place(minima, start, end, direction))
    return [*sorted(set(edges)), len(level)]


def _place(minima: NDArray[np.float32], start: int, end: int, direction: int) -> int:
    """The frame of a change whose pairs of windows are those from ``start`` to ``end``."""
    # Up to here, or from here on, the quieter room was heard: all 8 s beside are in the louder one.
    first = start + _CHANGE_BLOCKS if direction > 0 else end - 1
    louder = minima[first : first + _CHANGE_BLOCKS]
    heard = np.flatnonzero(louder <= louder.min() + _CHANGED_DB)
    return (first + int(heard[0] if direction > 0 else heard[-1] + 1)) * _BLOCK_FRAMES


def _stretches(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and end of every stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _block_minima(level: NDArray[np.float32]) -> NDArray[np.float32]:
    """The least of every half second; the last one may be shorter."""
    blocks = -(-len(level) // _BLOCK_FRAMES)
    padded = np.pad(level, (0, blocks * _BLOCK_FRAMES - len(level)), mode="edge")
    return np.asarray(padded.reshape(blocks, _BLOCK_FRAMES).min(axis=1))


def _rough_floor(level: NDArray[np.float32]) -> NDArray[np.float32]:
    """A low quantile of block minima around each frame, (T,)."""
    reach = np.pad(_block_minima(level), _NEIGHBOUR_BLOCKS, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(reach, 2 * _NEIGHBOUR_BLOCKS + 1)
    low = np.quantile(windows, 0.1, axis=1).astype(np.float32)
    return np.repeat(low, _BLOCK_FRAMES)[: len(level)]


def _local_mean(
    levels: NDArray[np.float32], noise: NDArray[np.bool_], edges: list[int]
) -> NDArray[np.float32]:
    """Mean of each band over the noise frames near each frame, (B, T); NaN where are none.

    No mean reaches past an edge.
    """
    numbers = np.arange(levels.shape[1])
    part = np.searchsorted(edges, numbers, side="right") - 1
    bounds = np.asarray(edges)
    low = np.maximum(numbers - _NOISE_FRAMES, bounds[part])
    high = np.minimum(numbers + _NOISE_FRAMES + 1, bounds[part + 1])
    count = np.concatenate([[0], np.cumsum(noise)])
    present = count[high] - count[low]
    means = np.full_like(levels, np.nan)
    for row, band in zip(means, levels, strict=True):
        total = np.concatenate([[0.0], np.cumsum(np.where(noise, band, 0.0), dtype=np.float64)])
        np.divide(
            total[high] - total[low], present, out=row, where=present > 0, casting="same_kind"
        )
    return means
