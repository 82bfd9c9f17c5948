"""The teacher-forced loop of the attention LSTM, with its backward pass by hand.

Only what one step needs of the step before stays in the loops. Forward, that is the LSTM and the
attention. Backward, it is the same chain of gradients, while the attention's hidden layer (the
largest tensor of the model, T B N A) is not kept but made again for a few steps at a time, from
the weights of all steps, which are known by then; and every weight's gradient is a product over
many steps at once.

Shapes use: B batch, T decoder steps, N symbols, H attention LSTM, M encoding, A attention, K kernel
width, c steps in a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kamerton.model.tacotron2.lstm import (
    GateOrder,
    LstmGradient,
    LstmTape,
    chunks,
    narrow_product,
    noise_tensors,
)
from kamerton.model.tacotron2.noise import SILENT, StateNoise
from kamerton.model.tacotron2.products import Packed, times, transposed_times

ORDER = GateOrder(enter=0, forget=1, leave=2, candidate=3)
"""One sigmoid covers the first three."""
_CHUNK_ELEMENTS = 1 << 20  # of the attention's hidden layer: 4 MB


def lstm_half(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """The LSTM's non-linear half, differentiable: gates' sums (B, 4 H) to hidden and cell."""
    size = cell.shape[1]
    switches = gates[:, : 3 * size].sigmoid()
    candidate = gates[:, 3 * size :].tanh()
    cell = torch.addcmul(switches[:, size : 2 * size] * cell, switches[:, :size], candidate)
    return switches[:, 2 * size :] * cell.tanh(), cell


def listen(
    sums: Tensor, recurrent: Tensor, query: Tensor, projected: Tensor, memory: Tensor,
    kernel: Tensor, energy: Tensor, bias: Tensor, noise: StateNoise = SILENT,
    format: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """All steps of the attention LSTM and of location-sensitive attention, from a state of zeros.

    Args:
        sums: What the inputs add to the gates' sums, (T, B, 4 H).
        recurrent: Weight of hidden state and context, (4 H, H + M), gates as in ``ORDER``.
        query: Weight from the hidden state to the attention's hidden layer, (A, H).
        projected: What each symbol adds to that layer, (B, N, A).
        memory: Encodings, (B, N, M).
        kernel: Weight from a symbol's neighbourhood in the last and the summed weights, (2 K, A).
        energy: Weight from that layer to a symbol's energy, (A,).
        bias: 0 on symbols and minus infinity on padding, (B, N); it gets no gradient.
        noise: What is done to the LSTM's state.
        format: What the LSTM's products are made in; all else stays in the format of ``sums``.

    Returns:
        Hidden states (T, B, H), contexts (T, B, M) and weights (T, B, N).
    """
    result: tuple[Tensor, Tensor, Tensor] = _Listen.apply(  # type: ignore[no-untyped-call]
        sums, recurrent, query, projected, memory, kernel, energy, bias.to(sums.dtype), format,
        *noise_tensors(noise),
    )  # fmt: skip
    return result


class _Listen(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, sums: Tensor, recurrent: Tensor, query: Tensor, projected: Tensor,
        memory: Tensor, kernel: Tensor, energy: Tensor, bias: Tensor, format: torch.dtype,
        *noise: Tensor | None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        steps, batch, width = sums.shape
        size, (symbols, channels) = width // 4, memory.shape[1:]
        taps = kernel.shape[0] // 2
        reach = taps // 2
        # One step more than T: row t is what step t is given, row t + 1 what it makes.
        states = sums.new_zeros(steps + 1, batch, size + channels)
        cells = sums.new_zeros(steps + 1, batch, size)
        history = sums.new_zeros(steps + 1, batch, 2, symbols + taps - 1)
        gates = sums.new_empty(steps, batch, 4, size)
        tape = LstmTape(gates, cells, StateNoise(*noise), ORDER)
        hidden, context = states[..., :size], states[..., size:]
        weights, summed = history[..., reach : reach + symbols].unbind(2)
        views = history.unfold(3, taps, 1).transpose(2, 3)  # (T + 1, B, N, 2, K)

        to_gates = Packed(recurrent, batch, format)
        to_query = Packed(query, batch, torch.float32)
        to_layer = Packed(kernel.t(), batch * symbols, torch.float32)
        layer = torch.empty_like(projected)
        for t in range(steps):
            tape.step(t, to_gates.times(states[t], sums[t]), hidden[t + 1], hidden[t])
            torch.add(projected, to_query.times(hidden[t + 1]).unsqueeze(1), out=layer)
            windows = views[t].reshape(-1, 2 * taps)
            scores = to_layer.times(windows, layer.view(windows.shape[0], -1)).tanh_()
            energies = torch.addmv(bias.view(-1), scores, energy).view_as(bias)
            torch.softmax(energies, dim=1, out=weights[t + 1])
            torch.add(summed[t], weights[t + 1], out=summed[t + 1])
            torch.bmm(weights[t + 1].unsqueeze(1), memory, out=context[t + 1].unsqueeze(1))

        ctx.save_for_backward(
            recurrent, query, projected, memory, kernel, energy, states, cells, history, gates,
            *noise,
        )  # fmt: skip
        ctx.format = format
        return hidden[1:].detach(), context[1:].detach(), weights[1:].detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        recurrent, query, projected, memory, kernel, energy, *rest = ctx.saved_tensors
        states, cells, history, gates, *factors = rest
        d_hidden_out, d_context_out, d_weights_out = grads
        steps, batch, _, size = gates.shape
        noise = StateNoise(*factors)
        hidden = states[..., :size]
        tape = LstmTape(gates, cells, noise, ORDER)
        lstm = LstmGradient(tape, hidden, noise, ORDER, ctx.needs_input_grad[9:])
        attention = _AttentionGradient(
            hidden, history, query, projected, memory, kernel, energy, d_context_out
        )
        to_states = Packed(recurrent.t(), batch, ctx.format)
        from_query = Packed(query.t(), batch, torch.float32)
        d_hidden = d_context = handed = None
        for chunk in chunks(steps, max(projected.numel(), gates[0].numel()), _CHUNK_ELEMENTS):
            lstm.load(chunk)
            attention.load(chunk)
            for t in range(chunk.stop - 1, chunk.start - 1, -1):
                d_query = attention.step(t, d_context, d_weights_out[t])
                total = from_query.times(d_query, d_hidden_out[t])
                if d_hidden is not None:
                    total += d_hidden
                if handed is not None:
                    total += handed
                handed = lstm.step(t, total)
                d_state = to_states.times(lstm.sums[t].flatten(1))
                d_hidden, d_context = d_state[:, :size], d_state[:, size:]
            attention.close()

        d_recurrent = narrow_product(
            lstm.sums.view(steps * batch, -1), states[:-1].flatten(0, 1), ctx.format
        )
        weights_grads = attention.totals()
        return (lstm.sums.flatten(2), d_recurrent, *weights_grads, None, None, *lstm.noise)


class _AttentionGradient:
    """The backward pass of the attention, step by step from the last, a chunk at a time."""

    def __init__(
        self, hidden: Tensor, history: Tensor, query: Tensor, projected: Tensor, memory: Tensor,
        kernel: Tensor, energy: Tensor, d_context: Tensor,
    ) -> None:  # fmt: skip
        batch, symbols, size = projected.shape
        self._taps = kernel.shape[0] // 2
        self._reach = self._taps // 2
        self._hidden, self._history = hidden, history
        self._weights = history[1:, :, 0, self._reach : self._reach + symbols]
        self._query, self._projected, self._energy = query, projected, energy
        self._kernel, self._kernel_t = kernel, kernel.t().contiguous()
        self._memory_t = memory.transpose(1, 2).contiguous()
        self._d_context = d_context.clone(memory_format=torch.contiguous_format)
        self._d_query = hidden.new_empty(len(self._weights), batch, size)
        self._d_projected = torch.zeros_like(projected)
        self._d_kernel, self._d_energy = torch.zeros_like(kernel), torch.zeros_like(energy)
        self._d_last, self._d_sum = (hidden.new_zeros(batch, symbols) for _ in range(2))
        self._skew = hidden.new_zeros(batch, 2, self._taps, symbols + self._taps)

    def load(self, steps: slice) -> None:
        """Make the hidden layer of a chunk of steps again, and what depends on nothing later."""
        batch, symbols, size = self._projected.shape
        self._steps, count = steps, steps.stop - steps.start
        made = self._hidden[steps.start + 1 : steps.stop + 1].flatten(0, 1)
        queries = times(made, self._query).view(count, batch, 1, size)
        views = self._history[steps].unfold(3, self._taps, 1).transpose(2, 3)
        self._windows = views.reshape(-1, 2 * self._taps)  # (c B N, 2 K)
        sums = (self._projected + queries).view(-1, size)
        self._scores = times(self._windows, self._kernel_t, sums).tanh_()  # (c B N, A)
        # From a symbol's energy to the sums under the layer, and on to its neighbourhood.
        slopes = torch.addcmul(self._energy, self._scores * self._energy, self._scores, value=-1)
        self._slopes = slopes.view(count, batch, symbols, size)
        to_windows = times(slopes, self._kernel)
        self._to_windows = to_windows.view(count, batch, symbols, 2, self._taps).permute(
            0, 1, 3, 4, 2
        )  # (c, B, 2, K, N)
        self._d_energies = slopes.new_empty(count, batch, symbols)

    def step(self, t: int, d_context: Tensor | None, d_weights_out: Tensor) -> Tensor:
        """From the gradients of context and weights to that of the query's product, (B, A)."""
        row, symbols = t - self._steps.start, self._projected.shape[1]
        if d_context is not None:
            self._d_context[t] += d_context
        d_weights = torch.bmm(self._d_context[t].unsqueeze(1), self._memory_t).squeeze(1)
        d_weights += d_weights_out
        d_weights += self._d_last
        d_weights += self._d_sum
        weights = self._weights[t]
        product = d_weights.mul_(weights)
        d_energies = torch.addcmul(
            product, weights, product.sum(dim=1, keepdim=True), value=-1,
            out=self._d_energies[row],
        )  # fmt: skip
        torch.bmm(d_energies.unsqueeze(1), self._slopes[row], out=self._d_query[t].unsqueeze(1))
        d_past = self._scattered(row, d_energies)[..., self._reach : self._reach + symbols]
        self._d_last = d_past[:, 0]
        self._d_sum += d_past[:, 1]
        return self._d_query[t]

    def _scattered(self, row: int, d_energies: Tensor) -> Tensor:
        """The gradient of the padded history, (B, 2, N + K - 1).

        Its position p is tap k of the neighbourhood of symbol p - k. ``skew`` (B, 2, K, N + K)
        keeps zeros in its last K columns; read with rows one element shorter, row k is shifted by
        k to the right, so that the sum over the rows collects each position.
        """
        skew = self._skew
        batch, _, taps, width = skew.shape
        torch.mul(self._to_windows[row], d_energies[:, None, None], out=skew[..., : width - taps])
        row_size = width - 1
        strides = (2 * taps * width, taps * width, row_size, 1)
        return skew.as_strided((batch, 2, taps, row_size), strides).sum(dim=2)

    def close(self) -> None:
        """Add the chunk to the gradients of what all steps share."""
        d_energies = self._d_energies.flatten()
        self._d_energy += d_energies @ self._scores
        d_scores = self._slopes.mul_(self._d_energies.unsqueeze(3))
        self._d_projected += d_scores.sum(dim=0)
        self._d_kernel += transposed_times(self._windows, d_scores.view(-1, d_scores.shape[3]))

    def totals(self) -> tuple[Tensor, ...]:
        """Gradients of query weight, projected, memory, kernel and energy weight."""
        flat = self._d_query.flatten(0, 1)
        d_query_weight = transposed_times(flat, self._hidden[1:].flatten(0, 1))
        d_memory = torch.bmm(self._weights.permute(1, 2, 0), self._d_context.transpose(0, 1))
        return d_query_weight, self._d_projected, d_memory, self._d_kernel, self._d_energy
