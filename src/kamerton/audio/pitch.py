"""Fundamental frequency by autocorrelation, in numpy.

After Boersma, "Accurate short-term analysis of the fundamental frequency" (IFA Proceedings 17,
1993): the autocorrelation of each windowed frame is divided by that of the window, which makes
its peaks comparable between lags. In place of his path search, frames that leap away from their
neighbours are dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kamerton.audio.resample import resample

if TYPE_CHECKING:
    from numpy.typing import NDArray

HOP_SECONDS = 0.01
MIN_HZ, MAX_HZ = 60.0, 500.0
_ANALYSIS_HZ = 8000  # more bandwidth adds noise to the autocorrelation, not precision
_WINDOW_SECONDS = 3.0 / MIN_HZ
_VOICED_CORRELATION = 0.5
_SILENCE_SHARE = 0.03  # of the loudest frame's amplitude
_OCTAVE_COST = 0.02  # per octave of lag: of two equal peaks the shorter period is the true one
_NEIGHBOURS = 7  # frames to each side that a frame is compared with
_MAX_LEAP_OCTAVES = 0.5
_LAG_HZ = 2 * _ANALYSIS_HZ  # lags are finer than samples: narrow peaks fall between those
_BATCH_FRAMES = 128  # their spectra fit into the cache of a core


def pitch_track(wave: NDArray[np.float32], rate_hz: int) -> tuple[NDArray[np.float32], float]:
    """Fundamental frequency over time.

    Args:
        wave: mono samples, at any level.
        rate_hz: their rate.

    Returns:
        Frequency in Hz of frames centred on 0, 10, 20 ... ms, (T,), 0 where no voice is; and the
        hop in seconds.
    """
    sound = resample(np.asarray(wave, dtype=np.float32), rate_hz, _ANALYSIS_HZ)
    frames = _frames(sound)
    frequency = np.zeros(len(frames), dtype=np.float32)
    if not len(frames):
        return frequency, HOP_SECONDS
    loudness = np.sqrt((frames.astype(np.float64) ** 2).mean(axis=1))
    audible = np.flatnonzero(loudness > _SILENCE_SHARE * loudness.max())
    for start in range(0, len(audible), _BATCH_FRAMES):
        batch = audible[start : start + _BATCH_FRAMES]
        frequency[batch] = _strongest_period(_autocorrelation(frames[batch]))
    return _without_leaps(frequency), HOP_SECONDS


def _frames(sound: NDArray[np.float32]) -> NDArray[np.float32]:
    """Overlapping frames without their means, (T, window)."""
    window = round(_WINDOW_SECONDS * _ANALYSIS_HZ)
    if not len(sound):
        return np.zeros((0, window), dtype=np.float32)
    padded = np.pad(sound, (window // 2, window))
    hop = round(HOP_SECONDS * _ANALYSIS_HZ)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[: len(sound) : hop]
    return np.asarray(frames - frames.mean(axis=1, keepdims=True))


def _autocorrelation(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normalised autocorrelation for every lag up to the longest period and one more, (T, L)."""
    from scipy.fft import irfft, next_fast_len, rfft

    window = np.hanning(frames.shape[1] + 2)[1:-1].astype(np.float32)
    lags = int(_LAG_HZ / MIN_HZ) + 2
    # As much padding as keeps the lags that are looked at from wrapping round.
    size = next_fast_len(frames.shape[1] + lags * _ANALYSIS_HZ // _LAG_HZ + 1, real=True)
    fine = size * _LAG_HZ // _ANALYSIS_HZ

    def correlate(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        spectrum = rfft(rows, size)
        power = spectrum.real**2 + spectrum.imag**2
        return np.asarray(irfft(power, fine)[:, :lags], dtype=np.float32)

    raw = correlate(frames * window)
    shape = correlate(window[None])
    return np.asarray(raw / np.maximum(raw[:, :1], 1e-20) / (shape / shape[:, :1]))


def _strongest_period(correlation: NDArray[np.float32]) -> NDArray[np.float32]:
    """Frequency of the best peak of each row in Hz, 0 where none is strong enough, (T,)."""
    lags = np.arange(int(_LAG_HZ / MAX_HZ), correlation.shape[1] - 1)
    left, here, right = (correlation[:, lags + shift] for shift in (-1, 0, 1))
    # The true top is that of the parabola through three points.
    bend = np.minimum(left - 2.0 * here + right, -1e-12)
    shift = np.clip(0.5 * (left - right) / bend, -0.5, 0.5)
    height = here - 0.25 * (left - right) * shift
    peak = (here > left) & (here >= right) & (height > _VOICED_CORRELATION)
    strength = np.where(peak, height - _OCTAVE_COST * np.log2(lags * MIN_HZ / _LAG_HZ), -np.inf)
    rows, best = np.arange(len(correlation)), strength.argmax(axis=1)
    frequency = _LAG_HZ / (lags[best] + shift[rows, best])
    return np.where(peak.any(axis=1), frequency, 0.0).astype(np.float32)


def _without_leaps(frequency: NDArray[np.float32]) -> NDArray[np.float32]:
    """The track without frames that are far from the median of the voice around them."""
    voiced = np.where(frequency > 0.0, frequency, np.nan)
    padded = np.pad(voiced, _NEIGHBOURS, constant_values=np.nan)
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEIGHBOURS + 1)
    kept = frequency.copy()
    rows = np.flatnonzero(frequency > 0.0)  # each has at least itself around it
    leap = np.abs(np.log2(frequency[rows] / np.nanmedian(around[rows], axis=1)))
    kept[rows[leap > _MAX_LEAP_OCTAVES]] = 0.0
    return kept
