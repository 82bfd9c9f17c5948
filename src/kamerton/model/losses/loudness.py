"""How loud a sound is heard at a frequency, as far as a formula says."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

# Poles of the A-weighting in Hz (IEC 61672-1:2013, Annex E), and its gain at 1 kHz in dB.
_POLES_HZ = (20.598997, 107.65265, 737.86223, 12194.217)
_GAIN_AT_1_KHZ_DB = -1.9997


def a_weighting_db(hz: Tensor) -> Tensor:
    """Relative sensitivity of hearing to tones at moderate level, 0 dB at 1 kHz.

    IEC 61672-1:2013, Annex E, eq. E.6. It follows the 40 phon contour of early equal-loudness
    measurements, of which ISO 226 is the modern one.

    Args:
        hz: Frequencies above 0, any shape.
    """
    square = hz.square()
    first, second, third, fourth = (pole**2 for pole in _POLES_HZ)
    gain = (
        fourth * square.square()
        / ((square + first) * ((square + second) * (square + third)).sqrt() * (square + fourth))
    )  # fmt: skip
    return 20.0 * gain.log10() - _GAIN_AT_1_KHZ_DB


@functools.lru_cache(maxsize=16)
def band_loudness(
    centres_hz: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """How loud bands of equal level are heard, relative to one at 1 kHz, (C,).

    10 dB more are heard as twice as loud (Stevens' law, as in ISO 532), so the weight is
    2^(A / 10) of the A-weighting A. The tensor is shared: do not write to it.

    Args:
        centres_hz: Frequencies of the bands, above 0.
        dtype: Of the result.
        device: Of the result.
    """
    hz = torch.tensor(centres_hz, dtype=torch.float64)
    return torch.exp2(a_weighting_db(hz) / 10.0).to(device, dtype)
