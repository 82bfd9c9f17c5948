"""Convolutions over sequences of unequal length, in which padding changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

_HALF = (torch.bfloat16, torch.float16)


class MaskedBatchNorm(nn.Module):
    """Batch normalisation whose statistics are those of the valid positions alone.

    With the ordinary layer the mean and variance of a training batch depend on how much padding
    it happens to hold (Ioffe & Szegedy 2015, arXiv:1502.03167, otherwise).

    A forward pass in training does not move the running statistics, it only notes what it saw.
    ``commit_statistics`` moves them once per optimiser step, towards the mean over the passes of
    all batches and processes, so that they do not depend on how a step is cut into those; and
    ``discard_statistics`` forgets the passes of a step that was not made.

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
        self._seen: Tensor | None = None  # sums over passes: mean, variance; (2, C)
        self._passes = 0

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Normalise ``x`` (B, C, L); ``valid`` is 1.0 where there is data, (B, 1, L)."""
        if x.dtype in _HALF:  # sums over a batch need more than their few bits
            x = x.float()
        if self.training:
            count = valid.sum().clamp(min=2.0)
            mean = (x * valid).sum(dim=(0, 2)) / count
            variance = ((x - mean[:, None]) * valid).square().sum(dim=(0, 2)) / count
            with torch.no_grad():
                now = torch.stack([mean, variance * (count / (count - 1))])
                self._seen = now if self._seen is None else self._seen + now
            self._passes += 1
        else:
            mean, variance = self.running_mean, self.running_variance
        scale = self.weight * torch.rsqrt(variance + self.epsilon)
        return torch.addcmul((self.bias - mean * scale)[:, None], x, scale[:, None])

    def take_seen(self) -> Tensor | None:
        """Mean over the passes since the last call of (mean, unbiased variance), (2, C)."""
        seen, passes = self._seen, self._passes
        self._seen, self._passes = None, 0
        return None if seen is None else seen / passes

    def follow(self, seen: Tensor) -> None:
        """Move the running statistics towards ``seen`` (2, C)."""
        for running, now in zip((self.running_mean, self.running_variance), seen, strict=True):
            running.lerp_(now.to(running.dtype), self.momentum)


def commit_statistics(
    model: nn.Module, mean_over_processes: Callable[[Tensor], Tensor] = lambda tensor: tensor
) -> None:
    """Move the running statistics of every layer by what its forward passes saw; see the layer.

    Args:
        model: Holds the layers.
        mean_over_processes: Given one tensor with the statistics of all layers; each process that
            trains the model calls this function at the same point.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, MaskedBatchNorm)]
    seen = [(layer, now) for layer in layers if (now := layer.take_seen()) is not None]
    if not seen:
        return
    everything = mean_over_processes(torch.cat([now.flatten() for _, now in seen]))
    parts = torch.split(everything, [now.numel() for _, now in seen])
    for (layer, _), part in zip(seen, parts, strict=True):
        layer.follow(part.view(2, -1))


def discard_statistics(model: nn.Module) -> None:
    """Forget what the layers' forward passes saw since the last commit."""
    for layer in model.modules():
        if isinstance(layer, MaskedBatchNorm):
            layer.take_seen()


RECOMPUTED_CHANNELS = 256


class ConvolutionBlock(nn.Module):
    """Convolution, masked batch normalisation, activation, dropout; zeros on padding.

    The mask is applied after each block, so that the next convolution sees beyond the end of an
    utterance the same zeros that it would see if the utterance were alone.

    What follows the convolution is cheap and needs a dozen tensors of the output's size in its
    backward pass. It is made again there, with the same dropout, where the layer is wide enough for
    that to be memory worth the time: 6 % of a step of the demo's network, whose layers are not. The
    layer's statistics are then seen twice, which does not change their mean.
    """

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int, activation: str, dropout: float
    ) -> None:
        super().__init__()
        self.recompute = outputs >= RECOMPUTED_CHANNELS
        self.convolution = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.normalisation = MaskedBatchNorm(outputs)
        self.activation = activation
        self.dropout = dropout
        gain = nn.init.calculate_gain("linear" if activation == "none" else activation)  # type: ignore[arg-type]
        nn.init.xavier_uniform_(self.convolution.weight, gain=gain)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Map (B, inputs, L) to (B, outputs, L); ``valid`` is 1.0 on data, (B, 1, L)."""
        x = self.convolution(x)
        if self.recompute and self.training and torch.is_grad_enabled():
            made: Tensor = checkpoint(self._after_convolution, x, valid, use_reentrant=False)
            return made
        return self._after_convolution(x, valid)

    def _after_convolution(self, x: Tensor, valid: Tensor) -> Tensor:
        x = self.normalisation(x, valid)
        if self.activation == "relu":
            x = x.relu()
        elif self.activation == "tanh":
            x = x.tanh()
        return functional.dropout(x, self.dropout, self.training) * valid
