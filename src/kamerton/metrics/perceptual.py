"""STOI, ESTOI and PESQ of two recordings of one sentence, also when their tempo differs.

The three compare signals moment by moment. A voice that speaks freely never has the reference's
timing, and then they score the right text as badly as a wrong one. So there are two kinds here:
``*_dtw``, on a synthesis brought to the reference's timing along the path of the mel-cepstral
distortion, and the plain ones, for copy-synthesis only, whose timing is the reference's own.
"""

from __future__ import annotations

import threading
import warnings
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kamerton.metrics.measurement import Measurement, invalid, measured, unavailable
from kamerton.metrics.pair import HOP_SAMPLES, RATE_HZ, Pair, Wave

STOI_DEFINITION = "stoi/1: pystoi at 16 kHz (10 kHz inside), Taal et al. 2011"
ESTOI_DEFINITION = "estoi/1: pystoi extended, at 16 kHz (10 kHz inside), Jensen and Taal 2016"
PESQ_DEFINITION = "pesq_wb/1: ITU-T P.862.2 MOS-LQO at 16 kHz, package pesq"
WARP_DEFINITION = (
    "on the synthesis warped to the reference along the mcd_dtw path, overlap-add of 40 ms Hann"
)

_warnings_lock = threading.Lock()  # catching warnings swaps a list of the whole process
_GRAIN_SAMPLES = 640  # 40 ms: two periods of a deep voice, so that a grain keeps its pitch


def warp_to_reference(pair: Pair, path: NDArray[np.int64]) -> Pair:
    """Give the synthesis the reference's timing by overlapping short grains of it.

    Args:
        pair: both waves.
        path: (p, 2) pairs of 5 ms frames (reference, synthesis), as ``warp_path`` returns them.

    Returns:
        The reference and the warped synthesis, of equal length.
    """
    frames = int(path[-1, 0]) + 1
    counts = np.bincount(path[:, 0], minlength=frames)
    source = np.bincount(path[:, 0], weights=path[:, 1], minlength=frames) / counts
    half = _GRAIN_SAMPLES // 2
    window = np.hanning(_GRAIN_SAMPLES + 1)[:-1]
    padded = np.pad(pair.synthesis, half)
    grains = np.lib.stride_tricks.sliding_window_view(padded, _GRAIN_SAMPLES)
    starts = np.minimum(np.rint(source * HOP_SAMPLES).astype(int), len(grains) - 1)

    warped = np.zeros((frames - 1) * HOP_SAMPLES + _GRAIN_SAMPLES)
    weight = np.zeros_like(warped)
    for frame, start in enumerate(starts):
        place = slice(frame * HOP_SAMPLES, frame * HOP_SAMPLES + _GRAIN_SAMPLES)
        warped[place] += window * grains[start]
        weight[place] += window
    warped = (warped / np.maximum(weight, 1e-3))[half:]
    size = min(pair.reference.size, warped.size)
    return Pair(pair.reference[:size], warped[:size])


def stoi(pair: Pair, *, extended: bool = False) -> Measurement:
    """Short-time objective intelligibility, 0 to 1; the two waves must be of equal length."""
    try:
        import pystoi
    except ImportError:
        return unavailable("pystoi is not installed (pip install 'kamerton[eval]')")
    reference, synthesis = _equal_length(pair)
    with _warnings_lock, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = float(pystoi.stoi(reference, synthesis, RATE_HZ, extended=extended))
    # Too little voice is only a warning there, and the answer 1e-5 even for equal signals.
    if any("Not enough STFT frames" in str(warning.message) for warning in caught):
        return invalid("less than 0.4 s of voice")
    return measured(value)


def pesq_wb(pair: Pair) -> Measurement:
    """Wide-band PESQ, 1.0 to 4.64, of the synthesis against the reference.

    The order of the two matters: swapped, the score comes out better.
    """
    try:
        from pesq import PesqError, pesq
    except ImportError:
        return unavailable("pesq is not installed (pip install 'kamerton[eval]')")
    reference, synthesis = _equal_length(pair)
    mode: Literal["wb"] = "wb"
    try:
        value = pesq(RATE_HZ, reference, synthesis, mode, on_error=PesqError.RAISE_EXCEPTION)
    except (PesqError, ValueError, RuntimeError) as error:
        text = error.args[0] if error.args else type(error).__name__
        return invalid(text.decode() if isinstance(text, bytes) else str(text))
    return measured(float(value))


def _equal_length(pair: Pair) -> tuple[Wave, Wave]:
    size = min(pair.reference.size, pair.synthesis.size)
    return pair.reference[:size], pair.synthesis[:size]
