"""Log-mel spectrograms: the picture of speech that the acoustic model learns to draw."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kamerton.config.schema import AudioParams

FLOOR = 1e-5  # amplitude below which a mel channel counts as silent; ln(1e-5) = -11.5

# Slaney's mel scale (Auditory Toolbox, 1998): linear below 1 kHz, logarithmic above.
_LINEAR_HZ_PER_MEL = 200.0 / 3.0
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _LINEAR_HZ_PER_MEL  # 15.0
_LOG_STEP = np.log(6.4) / 27.0


def hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Frequencies on Slaney's mel scale."""
    linear = hz / _LINEAR_HZ_PER_MEL
    above = _BREAK_MEL + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.asarray(np.where(hz < _BREAK_HZ, linear, above))


def mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of :func:`hz_to_mel`."""
    above = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _BREAK_MEL) - _BREAK_MEL))
    return np.asarray(np.where(mel < _BREAK_MEL, mel * _LINEAR_HZ_PER_MEL, above))


def mel_filterbank(audio: AudioParams) -> NDArray[np.float32]:
    """Triangular filters of unit area on Slaney's mel scale, (C, 1 + fft // 2).

    The array is shared between callers and read-only.
    """
    return _filterbank(
        audio.sample_rate_hz,
        audio.fft_samples,
        audio.mel_channels,
        audio.mel_fmin_hz,
        audio.fmax_hz,
    )


@functools.lru_cache(maxsize=8)
def _filterbank(
    rate_hz: int, fft_samples: int, channels: int, min_hz: float, max_hz: float
) -> NDArray[np.float32]:
    bins = np.fft.rfftfreq(fft_samples, 1.0 / rate_hz)
    edges = _edges_hz(channels, min_hz, max_hz)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    filters = (triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)
    filters.flags.writeable = False
    return filters


@functools.lru_cache(maxsize=8)
def mel_centres_hz(audio: AudioParams) -> tuple[float, ...]:
    """Where each mel band is most sensitive, in Hz, (C,)."""
    edges = _edges_hz(audio.mel_channels, audio.mel_fmin_hz, audio.fmax_hz)
    return tuple(edges[1:-1].tolist())


def _edges_hz(channels: int, min_hz: float, max_hz: float) -> NDArray[np.float64]:
    """Where triangle c begins, peaks and ends: elements c to c + 2 of (C + 2,)."""
    low, high = hz_to_mel(np.array([min_hz, max_hz], dtype=np.float64))
    return mel_to_hz(np.linspace(low, high, channels + 2))


@functools.lru_cache(maxsize=8)
def analysis_window(window_samples: int, fft_samples: int) -> NDArray[np.float32]:
    """Periodic Hann window, centred in ``fft_samples`` zeros; read-only."""
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(window_samples) / window_samples)
    left = (fft_samples - window_samples) // 2
    window = np.zeros(fft_samples, dtype=np.float32)
    window[left : left + window_samples] = hann
    window.flags.writeable = False
    return window


def stft(
    wave: NDArray[np.float32], fft_samples: int, hop_samples: int, window_samples: int
) -> NDArray[np.complex64]:
    """Centred short-time spectrum, (F, 1 + fft // 2) with F = 1 + n // hop.

    Both ends are extended by reflection, so that frame i is centred on sample i * hop.
    """
    from scipy import fft

    if wave.ndim != 1 or wave.size == 0:
        raise ValueError(f"expected samples of shape (n,), n > 0; got {wave.shape}")
    half = fft_samples // 2
    padded = np.pad(wave.astype(np.float32, copy=False), half, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, fft_samples)[::hop_samples]
    windowed = frames * analysis_window(window_samples, fft_samples)
    return np.asarray(fft.rfft(windowed, axis=1, overwrite_x=True), dtype=np.complex64)


def log_mel(wave: NDArray[np.float32], audio: AudioParams) -> NDArray[np.float32]:
    """Natural logarithm of the mel amplitude spectrum.

    Args:
        wave: mono samples at ``audio.sample_rate_hz``, (n,); nominal range -1..1.
        audio: sizes of the analysis.

    Returns:
        (C, F), F = 1 + n // hop; nowhere below ln(FLOOR).
    """
    spectrum = stft(wave, audio.fft_samples, audio.hop_samples, audio.window_samples)
    mel = mel_filterbank(audio) @ np.abs(spectrum).T
    return np.asarray(np.log(np.maximum(mel, FLOOR)), dtype=np.float32)
