"""What every kind of attention needs of a text, and in which number formats.

Shapes use: B batch, N symbols, M encoding, A attention, K kernel width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Keys:
    """What the attention needs of a batch of texts, computed once for all steps.

    Attributes:
        memory: Encodings, (B, N, M).
        projected: What each symbol adds to the attention's hidden layer, (B, N, A); (1, 1, A)
            where all add the same.
        bias: 0 on symbols and minus infinity on padding, (B, N).
        kernel: Convolution of earlier weights and its projection in one matrix, (2 K, A); (K, A)
            where only the last weights are looked at.
    """

    memory: Tensor
    projected: Tensor
    bias: Tensor
    kernel: Tensor

    def widened(self) -> Keys:
        """The same in single precision at least."""
        return Keys(*(wide(x) for x in (self.memory, self.projected, self.bias, self.kernel)))


def padding_bias(valid: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where ``valid`` (B, N) is 1, minus infinity elsewhere."""
    return torch.zeros_like(valid, dtype=dtype).masked_fill(valid == 0, float("-inf"))


def wide(x: Tensor) -> Tensor:
    """The same in single precision, if it was in less."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def product_format(x: Tensor) -> torch.dtype:
    """What autocast, where it is on, makes the products of ``x`` in."""
    device = x.device.type
    narrow = torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if narrow else torch.float32
