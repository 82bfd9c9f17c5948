"""A Gaussian process over what a fitted curve leaves unexplained, in the logarithm of time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kamerton.stopping.series import Floats

_LENGTHS = (0.15, 0.4, 1.0)  # of the kernel, in units of log time
_SIGNALS = (0.1, 0.5, 0.9)  # share of the residuals' variance that is a course, not noise


@dataclass(frozen=True, slots=True)
class Residual:
    """What the process expects of the latent residual.

    Attributes:
        mean: At the asked times, (m,).
        variance: Of the latent residual there, noise left out, (m,).
        noise: Variance of the noise about the course.
    """

    mean: Floats
    variance: Floats
    noise: float


def kernel(first: Floats, second: Floats, length: float) -> Floats:
    """Squared exponential of unit variance, (n, m)."""
    distance = (first[:, None] - second[None, :]) / length
    return np.asarray(np.exp(-0.5 * distance**2), dtype=np.float64)


def posterior(
    times: Floats, residuals: Floats, asked: Floats, *, length: float, signal: float
) -> Residual:
    """Zero-mean regression with the residuals' mean square divided into course and noise.

    Args:
        times: Logarithms of time, (n,).
        residuals: (n,).
        asked: Logarithms of time, (m,).
        length: Of the kernel.
        signal: Share of the mean square that is the course's, in (0, 1).
    """
    power = float(np.mean(residuals**2))
    cross = power * signal * kernel(asked, times, length)
    factor, weights, noise = _solve(times, residuals, length, signal)
    half = np.linalg.solve(factor, cross.T)
    variance = np.maximum(power * signal - (half**2).sum(axis=0), 0.0)
    return Residual(cross @ weights, variance, noise)


def fit(times: Floats, residuals: Floats, asked: Floats) -> Residual:
    """The same with length and signal of the greatest marginal likelihood on a small grid."""
    if not np.any(residuals):
        return Residual(np.zeros(asked.size), np.zeros(asked.size), 0.0)
    _, length, signal = max(
        (likelihood(times, residuals, length=length, signal=signal), length, signal)
        for length in _LENGTHS
        for signal in _SIGNALS
    )
    return posterior(times, residuals, asked, length=length, signal=signal)


def likelihood(times: Floats, residuals: Floats, *, length: float, signal: float) -> float:
    """Logarithm of the marginal likelihood, without its constant."""
    factor, weights, _ = _solve(times, residuals, length, signal)
    return float(-0.5 * residuals @ weights - np.log(np.diag(factor)).sum())


def _solve(
    times: Floats, residuals: Floats, length: float, signal: float
) -> tuple[Floats, Floats, float]:
    power = float(np.mean(residuals**2))
    noise = power * (1.0 - signal)
    covariance = power * signal * kernel(times, times, length)
    covariance[np.diag_indices_from(covariance)] += noise
    factor = np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)
    weights = np.linalg.solve(factor.T, np.linalg.solve(factor, residuals))
    return factor, weights, noise
