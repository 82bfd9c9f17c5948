"""Mel-cepstral distortion between two recordings of one sentence, by exact time warping."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kamerton.core.errors import ToolMissingError
from kamerton.metrics.pair import HOP_SAMPLES, PAIR_DEFINITION, Pair

Matrix = NDArray[np.float64]
Path = NDArray[np.int64]

ORDER = 24
WARP_ALPHA = 0.41  # closest all-pass warp to the mel scale at 16 kHz
FLOOR_DB = -60.0
FFT_SAMPLES = 1024
WINDOW_SAMPLES = 400  # 25 ms
DECIBELS = 10 * math.sqrt(2) / math.log(10)  # 6.14185 dB per unit of cepstral distance

MCD_DEFINITION = (
    f"mcd_dtw/1: {PAIR_DEFINITION}; Hann 25 ms, 1024-point power spectrum every 5 ms, floor "
    f"{FLOOR_DB:.0f} dB below the utterance's maximum, mel-cepstrum order {ORDER}, alpha "
    f"{WARP_ALPHA}, c0 excluded; exact DTW, steps (1,1) (1,0) (0,1) of equal weight, mean over path"
)


def mel_cepstra(wave: NDArray[np.float64]) -> Matrix:
    """Mel-cepstra of a 16 kHz wave, (frames, 24), without c0.

    The floor keeps bands that hold no sound (above a vocoder's highest mel band, say) from
    deciding the distance: the logarithm of almost nothing has no upper bound.
    """
    padded = np.pad(wave, WINDOW_SAMPLES // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::HOP_SAMPLES]
    spectrum = np.fft.rfft(frames * _window(), FFT_SAMPLES, axis=1)  # (F, 513)
    power = spectrum.real**2 + spectrum.imag**2
    power = np.maximum(power, power.max() * 10 ** (FLOOR_DB / 10))
    cepstra: Matrix = np.log(power) @ _warp_matrix()[1:].T  # (F, 24)
    return cepstra


@functools.cache
def _window() -> NDArray[np.float64]:
    return np.hanning(WINDOW_SAMPLES + 1)[:-1]


@functools.cache
def _warp_matrix() -> Matrix:
    """Map from a log power spectrum to mel-cepstra, (25, 513).

    Both steps are linear: the inverse transform to a minimum-phase cepstrum, and its frequency
    warp by an all-pass filter (Oppenheim and Johnson 1972, as SPTK's ``freqt``).
    """
    bins = FFT_SAMPLES // 2 + 1
    to_cepstrum = np.fft.irfft(np.eye(bins), FFT_SAMPLES, axis=1)[:, :bins].T  # (cepstrum, bin)
    to_cepstrum[0] /= 2
    return frequency_warp(to_cepstrum, ORDER, WARP_ALPHA)


def frequency_warp(cepstra: Matrix, order: int, alpha: float) -> Matrix:
    """Warp the frequency axis of cepstra, (quefrency, columns) to (order + 1, columns)."""
    warped = np.zeros((order + 1, cepstra.shape[1]))
    for coefficient in cepstra[::-1]:
        previous = warped.copy()
        warped[0] = coefficient + alpha * previous[0]
        warped[1] = (1 - alpha**2) * previous[0] + alpha * previous[1]
        for index in range(2, order + 1):
            warped[index] = previous[index - 1] + alpha * (previous[index] - warped[index - 1])
    return warped


def warp_path(reference: Matrix, synthesis: Matrix) -> tuple[Path, float]:
    """Cheapest alignment of two sequences of vectors, (n, d) and (m, d).

    Returns:
        The path, (p, 2) index pairs from (0, 0) to (n - 1, m - 1), and its mean Euclidean step.
    """
    from scipy.spatial.distance import cdist

    costs = cdist(reference, synthesis)
    path = _fast_path()(costs)
    return path, float(costs[path[:, 0], path[:, 1]].mean())


@functools.cache
def _fast_path() -> Callable[[Matrix], Path]:
    try:
        from numba import njit
    except ImportError as error:
        raise ToolMissingError("numba", extra="eval") from error
    compiled: Callable[[Matrix], Path] = njit("int64[:,:](float64[:,::1])", nogil=True)(
        cheapest_path
    )
    return compiled


def cheapest_path(costs: Any) -> Any:
    """Dynamic time warping over a cost matrix; plain loops, meant to be compiled.

    Of equally cheap steps the diagonal wins, then the one along the reference: the same input
    always gives the same path.
    """
    rows, columns = costs.shape
    total = np.empty((rows, columns))
    total[0, 0] = costs[0, 0]
    for i in range(1, rows):
        total[i, 0] = total[i - 1, 0] + costs[i, 0]
    for j in range(1, columns):
        total[0, j] = total[0, j - 1] + costs[0, j]
    for i in range(1, rows):
        for j in range(1, columns):
            best = min(total[i - 1, j - 1], total[i - 1, j], total[i, j - 1])
            total[i, j] = best + costs[i, j]

    path = np.empty((rows + columns - 1, 2), dtype=np.int64)
    i, j, at = rows - 1, columns - 1, rows + columns - 2
    path[at, 0], path[at, 1] = i, j
    while i > 0 or j > 0:
        if i == 0:
            j -= 1
        elif j == 0:
            i -= 1
        elif total[i - 1, j - 1] <= total[i - 1, j] and total[i - 1, j - 1] <= total[i, j - 1]:
            i -= 1
            j -= 1
        elif total[i - 1, j] <= total[i, j - 1]:
            i -= 1
        else:
            j -= 1
        at -= 1
        path[at, 0], path[at, 1] = i, j
    return path[at:].copy()


def mel_cepstral_distortion(pair: Pair) -> tuple[float, Path]:
    """Distortion of the synthesis in dB (``MCD_DEFINITION``), and the path it was taken along."""
    path, distance = warp_path(mel_cepstra(pair.reference), mel_cepstra(pair.synthesis))
    return DECIBELS * distance, path
