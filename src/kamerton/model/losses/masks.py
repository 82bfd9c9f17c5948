"""Which positions of a padded batch are real.

Every loss puts zeros on padding before it computes anything (``torch.where``, not a product), so
that neither its value nor its gradient depends on what padding holds, be it infinite or NaN.

Shapes use: B batch, F frames, T decoder steps, N symbols.
"""

from __future__ import annotations

import torch
from torch import Tensor


def real_positions(lengths: Tensor, size: int) -> Tensor:
    """True on the first ``lengths[b]`` of ``size`` positions, (B, size)."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def real_cells(steps: Tensor, symbol_lengths: Tensor, attention: Tensor) -> Tensor:
    """True where an attention (B, T, N) has a real step and a real symbol, (B, T, N)."""
    _, rows, columns = attention.shape
    times = real_positions(steps, rows)
    return times[:, :, None] & real_positions(symbol_lengths, columns)[:, None, :]


def zero_unless(real: Tensor, values: Tensor) -> Tensor:
    """``values`` where ``real``, which broadcasts, and 0 elsewhere, with no gradient there."""
    return torch.where(real, values, values.new_zeros(()))
