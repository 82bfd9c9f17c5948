"""Convolutions over sequences of unequal length, in which padding changes nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class MaskedBatchNorm(nn.Module):
    """Batch normalisation whose statistics are those of the valid positions alone.

    With the ordinary layer the mean and variance of a training batch depend on how much padding
    it happens to hold (Ioffe & Szegedy 2015, arXiv:1502.03167, otherwise).

    Shapes use: B batch, C channels, L length.
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, channels: int, *, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.momentum = momentum
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_variance", torch.ones(channels))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Normalise ``x`` (B, C, L); ``valid`` is 1.0 where there is data, (B, 1, L)."""
        if x.dtype == torch.bfloat16:  # sums over a batch need more than its eight bits
            x = x.float()
        if self.training:
            count = valid.sum().clamp(min=2.0)
            mean = (x * valid).sum(dim=(0, 2)) / count
            variance = ((x - mean[:, None]) * valid).square().sum(dim=(0, 2)) / count
            with torch.no_grad():
                unbiased = variance * (count / (count - 1))
                # A step that overflowed is skipped by the loop; it must leave no trace here either.
                finite = torch.isfinite(mean + unbiased).all()
                for running, now in ((self.running_mean, mean), (self.running_variance, unbiased)):
                    running.copy_(torch.where(finite, running.lerp(now, self.momentum), running))
        else:
            mean, variance = self.running_mean, self.running_variance
        scale = self.weight * torch.rsqrt(variance + self.epsilon)
        return torch.addcmul((self.bias - mean * scale)[:, None], x, scale[:, None])


class ConvolutionBlock(nn.Module):
    """Convolution, masked batch normalisation, activation, dropout; zeros on padding.

    The mask is applied after each block, so that the next convolution sees beyond the end of an
    utterance the same zeros that it would see if the utterance were alone.
    """

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int, activation: str, dropout: float
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.normalisation = MaskedBatchNorm(outputs)
        self.activation = activation
        self.dropout = dropout
        gain = nn.init.calculate_gain("linear" if activation == "none" else activation)  # type: ignore[arg-type]
        nn.init.xavier_uniform_(self.convolution.weight, gain=gain)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Map (B, inputs, L) to (B, outputs, L); ``valid`` is 1.0 on data, (B, 1, L)."""
        x = self.normalisation(self.convolution(x), valid)
        if self.activation == "relu":
            x = x.relu()
        elif self.activation == "tanh":
            x = x.tanh()
        return functional.dropout(x, self.dropout, self.training) * valid
