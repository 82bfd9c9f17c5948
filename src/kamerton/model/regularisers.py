"""Noise in what the network is given."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def cosine_basis(size: int) -> Tensor:
    """The orthonormal discrete cosine transform (type 2) as a matrix, (size, size).

    Row k is cos(pi k (n + 1/2) / size), scaled to length 1: coefficients of x are ``basis @ x``,
    and x is ``basis.T @ coefficients``.
    """
    n = torch.arange(size, dtype=torch.float64)
    rows = torch.cos(math.pi / size * n[:, None] * (n + 0.5)) * math.sqrt(2.0 / size)
    rows[0] *= math.sqrt(0.5)
    return rows.float()


class SpectralDropout(nn.Module):
    """Drop cosine coefficients of frames, not values (Khan, Hayat, Porikli 2019, arXiv:1711.08591).

    A value dropped from a mel frame is told by its neighbours; a coefficient is not. Of each
    frame's coefficients the weakest share ``rate`` goes, as noise would, and of the others each
    with probability ``rate``; what stays is scaled up as in ordinary dropout. Frames of zeros stay
    zeros, so padding stays what it is. Only in training.
    """

    basis: Tensor

    def __init__(self, size: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("basis", cosine_basis(size), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Drop from frames (..., C) along their last axis; from the global generator."""
        if not self.training or self.rate == 0:
            return frames
        basis = self.basis.to(frames.dtype)
        coefficients = frames @ basis.T
        drawn = torch.rand(coefficients.shape, device=frames.device)
        keep = (drawn >= self.rate) & self._strong(coefficients)
        return (coefficients * keep / (1.0 - self.rate)) @ basis

    def _strong(self, coefficients: Tensor) -> Tensor:
        """False for the weakest share ``rate`` of each row's coefficients."""
        weakest = int(self.rate * coefficients.shape[-1])
        order = coefficients.abs().argsort(dim=-1)
        strong = torch.ones_like(coefficients, dtype=torch.bool)
        return strong.scatter(-1, order[..., :weakest], False)
