"""From a log-mel spectrogram back to a waveform, without a neural vocoder.

Fast Griffin-Lim (Perraudin, Balazs and Sondergaard, WASPAA 2013): the phase is the fixed point
of "make it a waveform, analyse it again, keep the given magnitudes", reached faster by momentum.
The result sounds a little hollow but is as intelligible as the spectrogram is.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from kamerton.audio.mel import analysis_window, mel_filterbank, stft

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kamerton.config.schema import AudioParams

_TINY = np.float32(1e-12)


def griffin_lim(
    log_mel: NDArray[np.float32],
    audio: AudioParams,
    *,
    iterations: int = 32,
    momentum: float = 0.99,
    seed: int = 0,
) -> NDArray[np.float32]:
    """A waveform whose log-mel spectrogram is close to the one given.

    The same arguments give the same samples: the first phase is drawn from ``seed``.

    Args:
        log_mel: natural-log mel amplitudes, (C, F), F >= 2.
        audio: the sizes that ``log_mel`` was made with.
        iterations: analysis-synthesis rounds; 32 is where the ear stops hearing a change.
        momentum: 0 is the original algorithm of 1984; 0.99 converges several times faster.
        seed: of the initial phase.

    Returns:
        Mono samples at ``audio.sample_rate_hz``, ((F - 1) * hop,). Not limited to -1..1.
    """
    if log_mel.ndim != 2 or log_mel.shape[0] != audio.mel_channels or log_mel.shape[1] < 2:
        raise ValueError(f"expected ({audio.mel_channels}, F >= 2), got {log_mel.shape}")
    magnitudes = linear_magnitudes(log_mel, audio).T  # (F, 1 + fft // 2)
    sizes = (audio.fft_samples, audio.hop_samples, audio.window_samples)

    phase = np.random.default_rng(seed).uniform(-np.pi, np.pi, magnitudes.shape)
    spectrum = magnitudes * np.exp(1j * phase).astype(np.complex64)
    previous: NDArray[np.complex64] | None = None
    pull = np.float32(momentum / (1.0 + momentum))
    for _ in range(iterations):
        rebuilt = stft(istft(spectrum, *sizes), *sizes)
        target = rebuilt if previous is None else rebuilt - pull * previous
        previous = rebuilt
        spectrum = magnitudes * (target / (np.abs(target) + _TINY))
    return istft(spectrum, *sizes)


def linear_magnitudes(log_mel: NDArray[np.float32], audio: AudioParams) -> NDArray[np.float32]:
    """Least-squares magnitudes of the linear spectrum, (1 + fft // 2, F); never negative."""
    inverse = _inverse_filterbank(audio)
    return np.maximum(inverse @ np.exp(log_mel), 0.0).astype(np.float32)


def istft(
    spectrum: NDArray[np.complex64], fft_samples: int, hop_samples: int, window_samples: int
) -> NDArray[np.float32]:
    """Waveform of least squared error to a centred spectrum (F, 1 + fft // 2), ((F - 1) * hop,)."""
    from scipy import fft

    window = analysis_window(window_samples, fft_samples)
    frames = fft.irfft(spectrum, n=fft_samples, axis=1, overwrite_x=True) * window
    wave = _overlap_add(frames.astype(np.float32, copy=False), hop_samples)
    half, length = fft_samples // 2, (len(spectrum) - 1) * hop_samples
    energy = _window_energy(len(spectrum), fft_samples, hop_samples, window_samples)
    return np.asarray(wave[half : half + length] / energy[half : half + length])


def _overlap_add(frames: NDArray[np.float32], hop: int) -> NDArray[np.float32]:
    """Sum of ``frames`` (F, N), each placed ``hop`` samples after the one before."""
    count, size = frames.shape
    overlap = -(-size // hop)
    hops = np.pad(frames, ((0, 0), (0, overlap * hop - size))).reshape(count, overlap, hop)
    out = np.zeros((count + overlap - 1, hop), dtype=np.float32)
    for shift in range(overlap):
        out[shift : shift + count] += hops[:, shift]
    return out.reshape(-1)


@functools.lru_cache(maxsize=16)
def _window_energy(
    frames: int, fft_samples: int, hop_samples: int, window_samples: int
) -> NDArray[np.float32]:
    squared = analysis_window(window_samples, fft_samples) ** 2
    energy = _overlap_add(np.broadcast_to(squared, (frames, fft_samples)), hop_samples)
    return np.asarray(np.maximum(energy, 1e-8))


def _inverse_filterbank(audio: AudioParams) -> NDArray[np.float32]:
    filters = mel_filterbank(audio)
    return _pinv(filters.tobytes(), filters.shape)


@functools.lru_cache(maxsize=4)
def _pinv(filters: bytes, shape: tuple[int, int]) -> NDArray[np.float32]:
    matrix = np.frombuffer(filters, dtype=np.float32).reshape(shape)
    return np.asarray(np.linalg.pinv(matrix.astype(np.float64)), dtype=np.float32)
