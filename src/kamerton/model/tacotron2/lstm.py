"""An LSTM over a known sequence, with noise in its state and its backward pass by hand.

Automatic differentiation would add up the gradient of the recurrent weight once per step; here
the steps' gradients are stored and the weight's is one product at the end. What the backward pass
needs of the non-linear half is worked out for many steps at once; only what hangs on the step
after is left to the loop.

Shapes use: B batch, T steps, H hidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kamerton.model.tacotron2.noise import SILENT, StateNoise
from kamerton.model.tacotron2.products import Packed, transposed_times

_CHUNK_ELEMENTS = 1 << 20  # of gates: 4 MB, which stays in a cache


@dataclass(frozen=True, slots=True)
class GateOrder:
    """Where the four gates stand in the rows of a weight."""

    enter: int
    forget: int
    candidate: int
    leave: int


TORCH_ORDER = GateOrder(enter=0, forget=1, candidate=2, leave=3)


def noise_tensors(noise: StateNoise) -> tuple[Tensor | None, ...]:
    """Its four factors, as a Function takes them."""
    return tuple(getattr(noise, field.name) for field in fields(noise))


def chunks(steps: int, elements_per_step: int, at_once: int = _CHUNK_ELEMENTS) -> Iterator[slice]:
    """Slices of at most so many elements that cover the steps, the last first."""
    size = max(1, at_once // max(1, elements_per_step))
    for last in range(steps, 0, -size):
        yield slice(max(0, last - size), last)


class LstmTape:
    """The non-linear half of an LSTM step, and what its backward pass needs of every step.

    Attributes:
        gates: After their non-linearities, (T, B, 4, H).
        cells: (T + 1, B, H); row t is what step t is given.
    """

    __slots__ = ("_noise", "_order", "cells", "gates")

    def __init__(self, gates: Tensor, cells: Tensor, noise: StateNoise, order: GateOrder) -> None:
        self.gates, self.cells = gates, cells
        self._noise, self._order = noise, order

    def step(self, t: int, sums: Tensor, hidden: Tensor, hidden_before: Tensor) -> None:
        """Turn sums (B, 4 H) into the next cell and ``hidden`` (B, H), which is filled."""
        order, gates, noise = self._order, self.gates[t], self._noise
        sums = sums.view(gates.shape)
        at = order.candidate
        torch.tanh(sums[:, at], out=gates[:, at])
        for first, last in ((0, at), (at + 1, 4)):
            if first < last:
                torch.sigmoid(sums[:, first:last], out=gates[:, first:last])
        enter, forget, leave = gates[:, order.enter], gates[:, order.forget], gates[:, order.leave]
        cell = torch.mul(forget, self.cells[t], out=self.cells[t + 1])
        cell.addcmul_(enter, gates[:, at])
        torch.mul(leave, cell.tanh(), out=hidden)
        _mix(hidden, hidden_before, noise.hidden_keep, noise.hidden_carry, t)
        _mix(cell, self.cells[t], noise.cell_keep, noise.cell_carry, t)

    def slopes(self, steps: slice) -> tuple[Tensor, Tensor, Tensor]:
        """What a gradient is multiplied with, for a chunk of c steps.

        Returns:
            From the new cell or, for the last gate, from the new hidden state to each gate's sum
            (c, B, 4, H); from the new hidden state to the new cell (c, B, H); tanh of the new
            cell (c, B, H).
        """
        order, gates = self._order, self.gates[steps]
        enter, candidate, leave = (
            gates[:, :, at] for at in (order.enter, order.candidate, order.leave)
        )
        before = self.cells[steps]
        squashed = self.new_cells(steps).tanh_()
        slopes = torch.addcmul(gates, gates, gates, value=-1)  # s (1 - s)
        slopes[:, :, order.enter].mul_(candidate)
        slopes[:, :, order.forget].mul_(before)
        slopes[:, :, order.leave].mul_(squashed)
        torch.addcmul(
            enter, enter * candidate, candidate, value=-1, out=slopes[:, :, order.candidate]
        )
        to_cell = torch.addcmul(leave, leave * squashed, squashed, value=-1)
        return slopes, to_cell, squashed

    def new_cells(self, steps: slice) -> Tensor:
        """Cells before noise, (c, B, H), in memory of their own."""
        order = self._order
        if self._noise.cell_keep is None and self._noise.cell_carry is None:
            return self.cells[steps.start + 1 : steps.stop + 1].clone()
        gates = self.gates[steps]
        made = gates[:, :, order.forget] * self.cells[steps]
        return made.addcmul_(gates[:, :, order.enter], gates[:, :, order.candidate])


class LstmGradient:
    """The backward pass of one LSTM's non-linear half, step by step from the last.

    Attributes:
        sums: Gradients of the sums before the gates' non-linearities, (T, B, 4, H).
    """

    def __init__(self, tape: LstmTape, hidden: Tensor, noise: StateNoise, order: GateOrder,
                 wanted: tuple[bool, ...]) -> None:  # fmt: skip
        self.sums = torch.empty_like(tape.gates)
        self._tape, self._hidden, self._noise, self._order = tape, hidden, noise, order
        self._cell = torch.zeros_like(tape.cells[0])
        given = noise_tensors(noise)
        self.noise = [
            torch.zeros_like(tensor) if tensor is not None and want else None
            for tensor, want in zip(given, wanted, strict=True)
        ]
        self._steps = slice(0, 0)

    def load(self, steps: slice) -> None:
        """Prepare a chunk of steps."""
        self._steps = steps
        self._slopes, self._to_cell, self._squashed = self._tape.slopes(steps)

    def step(self, t: int, hidden: Tensor) -> Tensor | None:
        """Fill the step's gradients from that of its hidden state, (B, H).

        Returns:
            What noise hands directly to the hidden state of the step before; None without any.
        """
        noise, order, row = self._noise, self._order, t - self._steps.start
        slopes, sums = self._slopes[row], self.sums[t]
        self._collect(t, row, hidden)
        handed = None if noise.hidden_carry is None else hidden * _at(noise.hidden_carry, t)
        if noise.hidden_keep is not None:
            hidden = hidden * _at(noise.hidden_keep, t)
        kept, carried = self._cell, None
        if noise.cell_carry is not None:
            carried = kept * _at(noise.cell_carry, t)
        if noise.cell_keep is not None:
            kept = kept * _at(noise.cell_keep, t)
        cell = torch.addcmul(kept, hidden, self._to_cell[row])
        torch.mul(hidden, slopes[:, order.leave], out=sums[:, order.leave])
        for first, last in ((0, order.leave), (order.leave + 1, 4)):
            if first < last:
                torch.mul(cell.unsqueeze(1), slopes[:, first:last], out=sums[:, first:last])
        cell = cell.mul_(self._tape.gates[t][:, order.forget])
        self._cell = cell if carried is None else cell.add_(carried)
        return handed

    def _collect(self, t: int, row: int, hidden: Tensor) -> None:
        """Add up the gradients of the noise's own factors, where they are asked for."""
        if not any(gradient is not None for gradient in self.noise):
            return
        tape, order = self._tape, self._order
        new_hidden = tape.gates[t][:, order.leave] * self._squashed[row]
        new_cell = tape.new_cells(slice(t, t + 1))[0]
        pairs = (
            (hidden, new_hidden), (hidden, self._hidden[t]),
            (self._cell, new_cell), (self._cell, tape.cells[t]),
        )  # fmt: skip
        for gradient, (left, right) in zip(self.noise, pairs, strict=True):
            if gradient is not None:
                _at(gradient, t).addcmul_(left, right)


def _at(factors: Tensor, t: int) -> Tensor:
    """The factors of one step, (B, H), of (T, B, H) or (1, B, H)."""
    return factors[t if factors.shape[0] > 1 else 0]


def _mix(new: Tensor, old: Tensor, keep: Tensor | None, carry: Tensor | None, t: int) -> None:
    """Replace ``new`` by keep * new + carry * old."""
    if keep is not None:
        new.mul_(_at(keep, t))
    if carry is not None:
        new.addcmul_(old, _at(carry, t))


def lstm_sequence(projected: Tensor, recurrent: Tensor, noise: StateNoise = SILENT,
                  format: torch.dtype = torch.float32) -> Tensor:  # fmt: skip
    """Hidden states of an LSTM with PyTorch's order of gates, from a state of zeros.

    Args:
        projected: The input's share of the gates' sums, biases added, (T, B, 4 H).
        recurrent: Weight of the hidden state, (4 H, H), as ``nn.LSTM`` has it.
        noise: What is done to its state.
        format: What the recurrent products are made in; sums, gates and cells are not.

    Returns:
        (T, B, H).
    """
    result: Tensor = _Sequence.apply(projected, recurrent, format, *noise_tensors(noise))  # type: ignore[no-untyped-call]
    return result


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, recurrent: Tensor, format: torch.dtype, *noise: Tensor | None
    ) -> Tensor:
        steps, batch, width = projected.shape
        size = width // 4
        gates = projected.new_empty(steps, batch, 4, size)
        cells, hidden = (projected.new_zeros(steps + 1, batch, size) for _ in range(2))
        tape = LstmTape(gates, cells, StateNoise(*noise), TORCH_ORDER)
        weight = Packed(recurrent, batch, format)
        for t in range(steps):
            sums = weight.times(hidden[t], projected[t])
            tape.step(t, sums, hidden[t + 1], hidden[t])
        ctx.save_for_backward(recurrent, gates, cells, hidden, *noise)
        ctx.format = format
        return hidden[1:].detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        recurrent, gates, cells, hidden, *factors = ctx.saved_tensors
        steps, batch, _, size = gates.shape
        noise = StateNoise(*factors)
        tape = LstmTape(gates, cells, noise, TORCH_ORDER)
        gradient = LstmGradient(tape, hidden, noise, TORCH_ORDER, ctx.needs_input_grad[3:])
        weight = Packed(recurrent.t(), batch, ctx.format)
        later: Tensor | None = None
        for chunk in chunks(steps, gates[0].numel()):
            gradient.load(chunk)
            for t in range(chunk.stop - 1, chunk.start - 1, -1):
                d_hidden = grad[t] if later is None else later.add_(grad[t])
                handed = gradient.step(t, d_hidden)
                later = weight.times(gradient.sums[t].flatten(1), handed)
        flat = gradient.sums.view(steps * batch, 4 * size)
        d_recurrent = narrow_product(flat, hidden[:-1].flatten(0, 1), ctx.format)
        return (gradient.sums.flatten(2), d_recurrent, None, *gradient.noise)


def narrow_product(left: Tensor, right: Tensor, format: torch.dtype) -> Tensor:
    """``left.T @ right`` over all frames, made in ``format`` and returned in ``left``'s own."""
    if left.dtype != torch.float32 or format == torch.float32:
        return transposed_times(left, right)
    return transposed_times(left.to(format), right.to(format)).to(left.dtype)
