"""Matrix products by the fastest kernel that a CPU has for them.

PyTorch sends products in single precision to MKL, which on processors not made by Intel leaves
the AVX-512 units idle, and which multiplies few rows by a large matrix slowly everywhere. oneDNN,
which PyTorch carries for convolutions, does neither. Measured on two cores (Zen 5, AVX-512):

=====================================  ======  =======================
product (rows x in -> out)              MKL     oneDNN
=====================================  ======  =======================
16 x 1536 -> 4096, one recurrent step   2.3 ms  0.6 ms (weight packed)
1600 x 1536 -> 4096, a batch of frames  100 ms  47 ms
gradient of that weight                 108 ms  59 ms
=====================================  ======  =======================

Both are true single precision: the order of the sums differs, the format does not. The oneDNN
calls are the operators that ``torch.compile`` uses; where they are missing, and for other devices
and formats, everything here falls back to PyTorch's ordinary products.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_AVAILABLE: bool = torch.backends.mkldnn.is_available() and all(  # type: ignore[no-untyped-call]
    hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight")
)
_ROWS_AT_ONCE = 1024  # of a sum over frames; bounds the copies made of them


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware, and oneDNN may use that."""
    in_hardware = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    # False where ONEDNN_MAX_CPU_ISA keeps oneDNN from the instructions that there are.
    return bool(in_hardware and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _by_onednn(x: Tensor) -> bool:
    """Whether oneDNN makes the products of this tensor."""
    if not _AVAILABLE or x.device.type != "cpu" or not torch.backends.mkldnn.enabled:
        return False
    if x.dtype == torch.bfloat16:
        return cpu_has_bf16()
    return x.dtype == torch.float32


def times(x: Tensor, weight: Tensor, plus: Tensor | None = None) -> Tensor:
    """``x @ weight.T + plus`` without gradients.

    Args:
        x: (R, I).
        weight: (O, I), contiguous; oneDNN is slow on some strides.
        plus: (R, O), or (O,) for all rows.
    """
    if x.numel() == 0 or weight.numel() == 0 or not _by_onednn(x):
        product = functional.linear(x, weight)
        return product if plus is None else product + plus
    if plus is not None and plus.dim() == 2:
        made: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, plus, weight, None, "add")
    else:
        made = torch.ops.mkldnn._linear_pointwise(x, weight, plus, "none", [], "")
    return made


def transposed_times(left: Tensor, right: Tensor) -> Tensor:
    """``left.T @ right``, a sum over R rows: left (R, O), right (R, I) -> (O, I); no gradients."""
    if not _by_onednn(left):
        return left.t() @ right
    total: Tensor | None = None
    for first in range(0, left.shape[0], _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        # Copied, because for some strides oneDNN has only a kernel a hundred times slower.
        total = times(left[rows].t().contiguous(), right[rows].t().contiguous(), total)
    return left.new_zeros(left.shape[1], right.shape[1]) if total is None else total


class Packed:
    """A weight (O, I) laid out once for many products with as few rows as a batch has.

    Args:
        weight: (O, I), in single or double precision.
        rows: How many rows each product will have.
        format: What the products are made in; their results are in the weight's own.
    """

    __slots__ = ("_format", "_weight", "_wide")

    def __init__(self, weight: Tensor, rows: int, format: torch.dtype) -> None:
        self._format = format if weight.dtype == torch.float32 else weight.dtype
        self._wide = self._format == weight.dtype
        narrow = weight.detach().to(self._format).contiguous()
        if _by_onednn(narrow):
            narrow = torch.ops.mkldnn._reorder_linear_weight(narrow, rows)
        self._weight = narrow

    def times(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """``x @ weight.T + plus`` for x (rows, I) and plus (rows, O)."""
        if self._wide:
            return times(x, self._weight, plus)
        product = times(x.to(self._format), self._weight)
        return product.to(x.dtype) if plus is None else plus + product


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``functional.linear`` whose products in training are made as above, backward ones too."""
    training = torch.is_grad_enabled() and not torch.onnx.is_in_onnx_export()
    if not training or torch.is_autocast_enabled(x.device.type) or not _by_onednn(x):
        return functional.linear(x, weight, bias)
    result: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return result


class Linear(nn.Linear):
    """``nn.Linear`` with the products of ``linear``."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., I) to (..., O)."""
        return linear(input, self.weight, self.bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return times(x.flatten(0, -2), weight, bias).view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        flat = grad.flatten(0, -2).contiguous()
        d_x = times(flat, weight.t().contiguous()).view_as(x) if ctx.needs_input_grad[0] else None
        d_weight = transposed_times(flat, x.flatten(0, -2)) if ctx.needs_input_grad[1] else None
        return d_x, d_weight, flat.sum(dim=0) if ctx.needs_input_grad[2] else None
