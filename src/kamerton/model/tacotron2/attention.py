"""Where to listen: location-sensitive attention, and the recurrence that drives it.

In Tacotron 2 only one thing feeds back from one decoder step to the next when the true frames
are known: the attention LSTM, through the context that it is given. So that loop is all that runs
step by step here. Its backward pass is written by hand, because automatic differentiation would
add up the gradient of every weight once per step; here the steps' gradients are stored and each
weight's gradient is one matrix product at the end. Both give the same numbers.

Shapes use: B batch, T decoder steps, N symbols, H attention LSTM, M encoding, A attention, K kernel
width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Keys:
    """What the attention needs of a batch of texts, computed once for all steps.

    Attributes:
        memory: Encodings, (B, N, M).
        projected: Encodings as the attention sees them, (B, N, A).
        bias: 0 on symbols and minus infinity on padding, (B, N).
        kernel: Location convolution and projection in one matrix, (2 K, A).
    """

    memory: Tensor
    projected: Tensor
    bias: Tensor
    kernel: Tensor


@dataclass(frozen=True, slots=True)
class Listening:
    """The recurrent state between two decoder steps; all zero at the start."""

    hidden: Tensor  # (B, H)
    cell: Tensor  # (B, H)
    context: Tensor  # (B, M)
    history: (
        Tensor  # (B, 2, N + K - 1): last and summed weights, zeros of the kernel's reach around
    )


class LocationSensitiveAttention(nn.Module):
    """Additive attention that knows where it has been (Chorowski et al. 2015, arXiv:1506.07503).

    The location features are a convolution of the last and the summed weights, as in Tacotron 2.
    No non-linearity stands between that convolution and its projection, so they are multiplied
    into one matrix before the loop.
    """

    def __init__(
        self, query: int, memory: int, attention: int, *, filters: int, kernel: int
    ) -> None:
        super().__init__()
        self.query = nn.Linear(query, attention, bias=False)
        self.memory = nn.Linear(memory, attention, bias=True)
        self.location = nn.Conv1d(2, filters, kernel, bias=False)
        self.project_location = nn.Linear(filters, attention, bias=False)
        self.energy = nn.Linear(attention, 1, bias=False)
        self.kernel = kernel
        gain = nn.init.calculate_gain("tanh")
        for layer in (self.query, self.memory, self.project_location):
            nn.init.xavier_uniform_(layer.weight, gain=gain)

    def keys(self, memory: Tensor, valid: Tensor) -> Keys:
        """Prepare encodings (B, N, M); ``valid`` is 1.0 where there is a symbol, (B, N)."""
        kernel = torch.einsum("fck,af->cka", self.location.weight, self.project_location.weight)
        return Keys(
            memory=memory,
            projected=self.memory(memory),
            bias=torch.zeros_like(valid).masked_fill(valid == 0, float("-inf")),
            kernel=kernel.flatten(0, 1),
        )


class AttentionRecurrence(nn.Module):
    """The attention LSTM and its attention, for one step or for all frames of a text.

    The LSTM's gates are ordered input, forget, output, candidate: one sigmoid covers three.
    """

    def __init__(self, inputs: int, hidden: int, memory: int, attention: int, *, filters: int,
                 kernel: int) -> None:  # fmt: skip
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"the location kernel must be odd, not {kernel}")
        self.hidden = hidden
        self.attention = LocationSensitiveAttention(
            hidden, memory, attention, filters=filters, kernel=kernel
        )
        self.input = nn.Linear(inputs, 4 * hidden)
        self.recurrent = nn.Parameter(torch.empty(4 * hidden, hidden + memory))
        bound = hidden**-0.5
        for weight in (self.input.weight, self.input.bias, self.recurrent):
            nn.init.uniform_(weight, -bound, bound)
        with torch.no_grad():  # remember by default (Jozefowicz et al. 2015)
            self.input.bias[hidden : 2 * hidden] = 1.0

    def start(self, keys: Keys) -> Listening:
        """The state before the first step."""
        batch, symbols, channels = keys.memory.shape
        new = keys.memory.new_zeros
        padded = symbols + self.attention.kernel - 1
        return Listening(
            new(batch, self.hidden), new(batch, self.hidden), new(batch, channels),
            new(batch, 2, padded),
        )  # fmt: skip

    def step(self, inputs: Tensor, keys: Keys, state: Listening) -> tuple[Tensor, Listening]:
        """One free-running step.

        Args:
            inputs: The prenet's output for the frame before, (B, inputs).
            keys: The prepared text.
            state: What the step before returned.

        Returns:
            Weights (B, N), which sum to 1 and are 0 on padding, and the next state.
        """
        both = torch.cat([state.hidden, state.context], dim=1)
        gates = self.input(inputs) + both @ self.recurrent.T
        hidden, cell = _lstm(gates, state.cell)[:2]
        windows = _windows(state.history, self.attention.kernel)
        scores = _scores(self.attention.query(hidden), keys.projected, windows, keys.kernel)
        energies = (scores @ self.attention.energy.weight[0]).view_as(keys.bias)
        weights = (energies + keys.bias).softmax(dim=1)
        context = torch.bmm(weights.unsqueeze(1), keys.memory).squeeze(1)
        reach = self.attention.kernel // 2
        summed = state.history[:, 1, reach : reach + weights.shape[1]] + weights
        history = functional.pad(torch.stack([weights, summed], dim=1), (reach, reach))
        return weights, Listening(hidden, cell, context, history)

    def forward(self, inputs: Tensor, keys: Keys) -> tuple[Tensor, Tensor, Tensor]:
        """All steps at once, given the true frames; in single precision whatever the rest uses.

        Args:
            inputs: The prenet's output for all frames, (T, B, inputs).
            keys: The prepared text.

        Returns:
            LSTM outputs (T, B, H), contexts (T, B, M) and weights (T, B, N).
        """
        given = (
            self.input(inputs), self.recurrent, self.attention.query.weight, keys.projected,
            keys.memory, keys.kernel, self.attention.energy.weight[0], keys.bias,
        )  # fmt: skip
        # Weights summed over hundreds of steps do not survive a mantissa of eight bits.
        with torch.autocast(inputs.device.type, enabled=False):
            wide = (x.float() if x.dtype == torch.bfloat16 else x for x in given)
            result: tuple[Tensor, Tensor, Tensor] = _Recurrence.apply(*wide)  # type: ignore[no-untyped-call]
        return result


def _lstm(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The LSTM's non-linear half: hidden, cell, and for the backward pass gates and tanh(cell)."""
    size = cell.shape[1]
    switches = gates[:, : 3 * size].sigmoid()
    candidate = gates[:, 3 * size :].tanh()
    cell = torch.addcmul(switches[:, size : 2 * size] * cell, switches[:, :size], candidate)
    squashed = cell.tanh()
    return switches[:, 2 * size :] * squashed, cell, switches, candidate, squashed


def _windows(history: Tensor, kernel: int) -> Tensor:
    """The neighbourhood of every symbol, (B N, 2 K), of a padded history (B, 2, N + K - 1)."""
    return history.unfold(2, kernel, 1).transpose(1, 2).reshape(-1, 2 * kernel)


def _scores(query: Tensor, projected: Tensor, windows: Tensor, kernel: Tensor) -> Tensor:
    """The hidden layer of the attention, (B N, A)."""
    sums = projected + query.unsqueeze(1)  # (B, N, A)
    return torch.addmm(sums.flatten(0, 1), windows, kernel).tanh_()


class _Recurrence(torch.autograd.Function):
    """The teacher-forced loop with its backward pass by hand."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, recurrent: Tensor, query: Tensor, projected: Tensor,
        memory: Tensor, kernel: Tensor, energy: Tensor, bias: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        steps, batch, width = inputs.shape
        size, symbols, channels = width // 4, memory.shape[1], memory.shape[2]
        taps = kernel.shape[0] // 2
        reach = taps // 2
        new = inputs.new_empty
        # One step more than T: row t is what step t is given, row t + 1 what it makes.
        both = inputs.new_zeros(steps + 1, batch, size + channels)
        cells = inputs.new_zeros(steps + 1, batch, size)
        history = inputs.new_zeros(steps + 1, batch, 2, symbols + taps - 1)
        switches, candidates = new(steps, batch, 3 * size), new(steps, batch, size)
        squashed, scores = new(steps, batch, size), new(steps, batch * symbols, energy.shape[0])
        recurrent_t, query_t = recurrent.t().contiguous(), query.t().contiguous()

        for t in range(steps):
            gates = torch.addmm(inputs[t], both[t], recurrent_t)
            hidden, cell, switch, candidate, tanh_cell = _lstm(gates, cells[t])
            windows = _windows(history[t], taps)
            hidden_layer = _scores(hidden @ query_t, projected, windows, kernel)
            energies = (hidden_layer @ energy).view(batch, symbols)
            weights = (energies + bias).softmax(dim=1)
            both[t + 1, :, :size] = hidden
            torch.bmm(weights.unsqueeze(1), memory, out=both[t + 1, :, None, size:])
            history[t + 1, :, 0, reach : reach + symbols] = weights
            history[t + 1, :, 1] = history[t, :, 1] + history[t + 1, :, 0]
            cells[t + 1], switches[t], candidates[t] = cell, switch, candidate
            squashed[t], scores[t] = tanh_cell, hidden_layer

        ctx.save_for_backward(
            recurrent, query, memory, kernel, energy,
            both, cells, history, switches, candidates, squashed, scores,
        )  # fmt: skip
        ctx.reach = reach
        return (
            both[1:, :, :size].clone(),
            both[1:, :, size:].clone(),
            history[1:, :, 0, reach : reach + symbols].clone(),
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        recurrent, query, memory, kernel, energy = ctx.saved_tensors[:5]
        both, cells, history, switches, candidates, squashed, scores = ctx.saved_tensors[5:]
        steps, batch, size = candidates.shape
        symbols, reach, taps = memory.shape[1], ctx.reach, kernel.shape[0] // 2
        weights = history[1:, :, 0, reach : reach + symbols]
        d_hidden_out, d_context_out, d_weights_out = grads

        d_gates = switches.new_empty(steps, batch, 4 * size)
        d_query = switches.new_empty(steps, batch, query.shape[0])
        d_context = d_context_out.clone()
        d_projected = torch.zeros_like(scores[0])
        d_kernel, d_energy = torch.zeros_like(kernel), torch.zeros_like(energy)
        d_cell = torch.zeros_like(cells[0])
        d_both = torch.zeros_like(both[0])
        d_last, d_sum = torch.zeros_like(weights[0]), torch.zeros_like(weights[0])
        memory_t, kernel_t = memory.transpose(1, 2), kernel.t().contiguous()
        skew = kernel.new_zeros(batch, 2, taps, symbols + taps)

        for t in range(steps - 1, -1, -1):
            # Attention: context -> weights -> energies -> the hidden layer and its three inputs.
            d_context[t] += d_both[:, size:]
            d_weights = torch.bmm(d_context[t].unsqueeze(1), memory_t).squeeze(1)
            d_weights += d_weights_out[t] + d_last + d_sum
            product = weights[t] * d_weights
            d_energies = torch.addcmul(
                product, weights[t], product.sum(dim=1, keepdim=True), value=-1
            ).flatten()
            d_energy += d_energies @ scores[t]
            d_scores = torch.outer(d_energies, energy)
            d_scores = torch.addcmul(d_scores, d_scores, scores[t].square(), value=-1)
            d_projected += d_scores
            torch.sum(d_scores.view(batch, symbols, -1), dim=1, out=d_query[t])
            d_kernel.addmm_(_windows(history[t], taps).t(), d_scores)
            d_past = _scatter_windows(d_scores @ kernel_t, skew)[:, :, reach : reach + symbols]
            d_last = d_past[:, 0]
            d_sum = d_sum + d_past[:, 1]
            # The LSTM.
            d_hidden = d_hidden_out[t] + d_both[:, :size]
            d_hidden.addmm_(d_query[t], query)
            d_cell = _lstm_backward(d_hidden, d_cell, cells[t], switches[t], candidates[t],
                                    squashed[t], d_gates[t])  # fmt: skip
            d_both = d_gates[t] @ recurrent

        # Every weight's gradient in one product over all steps.
        flat_gates = d_gates.flatten(0, 1)
        d_recurrent = flat_gates.t() @ both[:-1].flatten(0, 1)
        d_query_weight = d_query.flatten(0, 1).t() @ both[1:, :, :size].flatten(0, 1)
        d_memory = torch.bmm(weights.permute(1, 2, 0), d_context.transpose(0, 1))
        return (d_gates, d_recurrent, d_query_weight, d_projected.view(batch, symbols, -1),
                d_memory, d_kernel, d_energy, None)  # fmt: skip


def _lstm_backward(d_hidden: Tensor, d_cell: Tensor, cell: Tensor, switches: Tensor,
                   candidate: Tensor, squashed: Tensor, d_gates: Tensor) -> Tensor:  # fmt: skip
    """Fill ``d_gates`` (B, 4 H) for one step and return the gradient of the cell before it."""
    size = cell.shape[1]
    enter, forget, leave = torch.split(switches, size, dim=1)
    through = d_hidden * leave
    d_cell = d_cell + torch.addcmul(through, through, squashed.square(), value=-1)
    slopes = torch.addcmul(switches, switches, switches, value=-1)  # s (1 - s)
    torch.mul(d_cell * candidate, slopes[:, :size], out=d_gates[:, :size])
    torch.mul(d_cell * cell, slopes[:, size : 2 * size], out=d_gates[:, size : 2 * size])
    torch.mul(d_hidden * squashed, slopes[:, 2 * size :], out=d_gates[:, 2 * size : 3 * size])
    d_candidate = d_cell * enter
    torch.addcmul(
        d_candidate, d_candidate, candidate.square(), value=-1, out=d_gates[:, 3 * size :]
    )
    before: Tensor = d_cell * forget
    return before


def _scatter_windows(d_windows: Tensor, skew: Tensor) -> Tensor:
    """The gradient of a padded history (B, 2, N + K - 1) from that of its windows (B N, 2 K).

    Position p of the history is tap k of window p - k. ``skew`` (B, 2, K, N + K) keeps zeros in
    its last K columns; read with rows one element shorter, row k is shifted by k to the right, so
    that the sum over the rows collects each position.
    """
    batch, _, taps, width = skew.shape
    skew[..., : width - taps] = d_windows.view(batch, width - taps, 2, taps).permute(0, 2, 3, 1)
    row = width - 1
    shifted = skew.as_strided((batch, 2, taps, row), (2 * taps * width, taps * width, row, 1))
    return shifted.sum(dim=2)
