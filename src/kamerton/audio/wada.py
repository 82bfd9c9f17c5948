"""Signal-to-noise ratio from the shape of a waveform alone, without a pause to measure noise in.

After Kim and Stern, "Robust signal-to-noise ratio estimation based on waveform amplitude
distribution analysis" (Interspeech 2008): amplitudes of clean speech follow a gamma distribution
of shape 0.4, those of noise a Gaussian one, and how far the logarithm of the mean amplitude is
above the mean of its logarithm tells how they are mixed. The paper prints that curve as a table;
here it is computed from the two distributions.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOWEST_DB, HIGHEST_DB = -20.0, 100.0
_SHAPE = 0.4
_SILENT = 1e-5  # a third of the last bit of 16; digital zeros would have no logarithm
_FAR = 20.0  # deviations: noise changes the logarithm of what is larger by less than 0.0013
_SERIES_TERMS = 400


def wada_snr_db(wave: NDArray[np.float32]) -> float | None:
    """SNR of a mono wave in dB, within `LOWEST_DB` and `HIGHEST_DB`; None for silence.

    Right only where the noise is Gaussian and the rest speech; above about 30 dB the shape hardly
    changes any more and the answer is too high as a rule.
    """
    amplitude = np.abs(wave)
    if not len(wave) or float(amplitude.max()) <= _SILENT:
        return None
    mean = float(amplitude.mean(dtype=np.float64))
    logarithms = np.log(np.maximum(amplitude, np.float32(_SILENT)))
    ratios, curve = gamma_curve()
    distance = np.log(mean) - float(logarithms.mean(dtype=np.float64))
    return float(np.interp(distance, curve, ratios))


@functools.cache
def gamma_curve() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """SNR in dB and ``ln E|z| - E ln|z|`` of the mixture at it, both rising, (S,) each."""
    from scipy.special import erf, gamma

    ratios = np.arange(LOWEST_DB, HIGHEST_DB + 1.0)
    # The speech amplitude x by its logarithm, where the density is smooth: x^0.4 e^-x / gamma(0.4).
    steps = np.arange(-70.0, 4.2, 0.02)
    speech = np.exp(steps)
    weight = np.exp(_SHAPE * steps - speech) * 0.02 / gamma(_SHAPE)
    known, magnitude = _log_magnitude_curve()
    curve = []
    for power_ratio in 10.0 ** (ratios / 10.0):
        deviation = np.sqrt(_SHAPE * (_SHAPE + 1.0) / power_ratio)
        place = speech / deviation
        folded = np.sqrt(2.0 / np.pi) * np.exp(-0.5 * place**2) + place * erf(place / np.sqrt(2.0))
        mean = float(weight @ folded)
        # Beyond the curve the noise is nothing.
        logarithms = np.interp(np.log(place), known, magnitude)
        logarithms = np.where(np.log(place) > known[-1], np.log(place), logarithms)
        logarithm = float(weight @ logarithms)
        curve.append(np.log(mean) - logarithm)
    # At the lower end the curve is flat to the last digits; interpolation needs it to rise.
    return ratios, np.maximum.accumulate(curve) + 1e-12 * np.arange(len(ratios))


def _log_magnitude_curve() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``ln a`` and E ln|a + n| for standard normal n.

    The square of a + n has a noncentral chi-square distribution, a Poisson mixture of central ones
    whose mean logarithms are known.
    """
    from scipy.special import digamma, gammaln, xlogy

    logarithms = np.linspace(-12.0, np.log(_FAR), 1500)
    half = 0.5 * np.exp(2.0 * logarithms)[:, None]
    terms = np.arange(_SERIES_TERMS)
    poisson = np.exp(xlogy(terms, half) - half - gammaln(terms + 1.0))
    return logarithms, 0.5 * (poisson @ (digamma(terms + 0.5) + np.log(2.0)))
