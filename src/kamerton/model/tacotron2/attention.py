"""Where to listen: three kinds of attention, and the recurrence that drives them.

In Tacotron 2 only one thing feeds back from one decoder step to the next when the true frames
are known: the attention LSTM, through the context that it is given. So that loop is all that runs
step by step here. With location-sensitive attention its backward pass is written by hand, because
automatic differentiation would add up the gradient of every weight once per step; there the
steps' gradients are stored and each weight's gradient is one matrix product at the end. Both give
the same numbers. The other kinds are left to automatic differentiation: right, and slower.

Shapes use: B batch, T decoder steps, N symbols, H attention LSTM, M encoding, A attention, K kernel
width, J filters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from kamerton.model.tacotron2.dynamic_convolution import DynamicConvolutionAttention
from kamerton.model.tacotron2.keys import Keys, padding_bias, product_format, wide
from kamerton.model.tacotron2.noise import SILENT, StateNoise
from kamerton.model.tacotron2.products import Linear
from kamerton.model.tacotron2.recurrence import listen, lstm_half


@dataclass(frozen=True, slots=True)
class Listening:
    """The recurrent state between two decoder steps; what of it is not zero at the start is said.

    Attributes:
        hidden: (B, H).
        cell: (B, H).
        context: (B, M).
        history: Earlier weights as the attention keeps them, (B, ·, N + K - 1), with zeros of the
            kernel's reach around.
    """

    hidden: Tensor
    cell: Tensor
    context: Tensor
    history: Tensor


class Attention(Protocol):
    """What the recurrence needs of an attention."""

    def keys(self, memory: Tensor, valid: Tensor) -> Keys:
        """Prepare encodings (B, N, M); ``valid`` is 1.0 where there is a symbol, (B, N)."""

    def start(self, keys: Keys) -> Tensor:
        """The history before the first step."""

    def weigh(self, hidden: Tensor, keys: Keys, history: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (B, N) for the LSTM's state (B, H), and the history with them.

        Weights sum to 1 and are 0 on padding.
        """


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
        self.memory = Linear(memory, attention, bias=True)
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
            memory, self.memory(memory), padding_bias(valid, memory.dtype), kernel.flatten(0, 1)
        )

    def start(self, keys: Keys) -> Tensor:
        """No weights yet: (B, 2, N + K - 1) zeros, for the last and the summed ones."""
        batch, symbols, _ = keys.memory.shape
        return keys.memory.new_zeros(batch, 2, symbols + self.kernel - 1)

    def energies(self, hidden: Tensor, keys: Keys, history: Tensor) -> Tensor:
        """How well each symbol fits, (B, N), minus infinity on padding."""
        # As a convolution, so that it can be exported as a graph for texts of any length.
        kernel = keys.kernel.t().reshape(-1, 2, self.kernel)  # (A, 2, K)
        located = functional.conv1d(history, kernel).transpose(1, 2)  # (B, N, A)
        layer = (keys.projected + self.query(hidden).unsqueeze(1) + located).tanh()
        energies: Tensor = layer @ self.energy.weight[0]
        return energies + keys.bias

    def weigh(self, hidden: Tensor, keys: Keys, history: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (B, N) for the LSTM's state (B, H), and the history with them."""
        weights = self.energies(hidden, keys, history).softmax(dim=1)
        return weights, self.remember(history, weights)

    def remember(self, history: Tensor, weights: Tensor) -> Tensor:
        """The history after ``weights``."""
        reach = self.kernel // 2
        summed = history[:, 1, reach : reach + weights.shape[1]] + weights
        return functional.pad(torch.stack([weights, summed], dim=1), (reach, reach))


class ForwardAttention(nn.Module):
    """Attention that stays or moves on by one symbol (Zhang, Ling, Dai 2018, arXiv:1807.06736).

    The weights are those of all alignments that do so (algorithm 1, without transition agent):
    alpha_t(n) is proportional to (alpha_{t-1}(n) + alpha_{t-1}(n - 1)) y_t(n), from alpha_0 all on
    the first symbol. y is location-sensitive attention. Its own normalisation cancels, so the
    product is made of energies and logarithms, where nothing overflows: the symbol after the
    likeliest one is always in reach.
    """

    def __init__(
        self, query: int, memory: int, attention: int, *, filters: int, kernel: int
    ) -> None:
        super().__init__()
        self.fit = LocationSensitiveAttention(
            query, memory, attention, filters=filters, kernel=kernel
        )

    def keys(self, memory: Tensor, valid: Tensor) -> Keys:
        """Prepare encodings (B, N, M); ``valid`` is 1.0 where there is a symbol, (B, N)."""
        return self.fit.keys(memory, valid)

    def start(self, keys: Keys) -> Tensor:
        """All on the first symbol, nothing summed yet: (B, 2, N + K - 1)."""
        history = self.fit.start(keys)
        history[:, 0, self.fit.kernel // 2] = 1.0
        return history

    def weigh(self, hidden: Tensor, keys: Keys, history: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (B, N) for the LSTM's state (B, H), and the history with them."""
        energies = self.fit.energies(hidden, keys, history)
        reach = self.fit.kernel // 2
        last = history[:, 0, reach : reach + energies.shape[1]]
        arrived = last + functional.pad(last[:, :-1], (1, 0))
        weights = (energies + _logarithm(arrived)).softmax(dim=1)
        return weights, self.fit.remember(history, weights)


def make_attention(
    kind: str, query: int, memory: int, attention: int, *, filters: int, kernel: int
) -> LocationSensitiveAttention | ForwardAttention | DynamicConvolutionAttention:
    """An attention by the name that ``train.model.attention`` gives it."""
    if kernel % 2 == 0:
        raise ValueError(f"the location kernel must be odd, not {kernel}")
    if kind == "dynamic_convolution":
        return DynamicConvolutionAttention(query, attention, filters=filters, kernel=kernel)
    if kind == "forward":
        return ForwardAttention(query, memory, attention, filters=filters, kernel=kernel)
    if kind == "location_sensitive":
        return LocationSensitiveAttention(query, memory, attention, filters=filters, kernel=kernel)
    raise ValueError(f"there is no attention of kind {kind!r}")


class AttentionRecurrence(nn.Module):
    """The attention LSTM and its attention, for one step or for all frames of a text.

    The LSTM's gates are ordered input, forget, output, candidate: one sigmoid covers three.
    """

    def __init__(self, inputs: int, hidden: int, memory: int, attention: int, *, filters: int,
                 kernel: int, kind: str = "location_sensitive") -> None:  # fmt: skip
        super().__init__()
        self.hidden = hidden
        self.attention = make_attention(
            kind, hidden, memory, attention, filters=filters, kernel=kernel
        )
        self.input = Linear(inputs, 4 * hidden)
        self.recurrent = nn.Parameter(torch.empty(4 * hidden, hidden + memory))
        bound = hidden**-0.5
        for weight in (self.input.weight, self.input.bias, self.recurrent):
            nn.init.uniform_(weight, -bound, bound)
        with torch.no_grad():  # remember by default (Jozefowicz et al. 2015)
            self.input.bias[hidden : 2 * hidden] = 1.0

    def start(self, keys: Keys) -> Listening:
        """The state before the first step."""
        batch, _, channels = keys.memory.shape
        new = keys.memory.new_zeros
        return Listening(
            new(batch, self.hidden), new(batch, self.hidden), new(batch, channels),
            self.attention.start(keys),
        )  # fmt: skip

    def step(
        self, inputs: Tensor, keys: Keys, state: Listening, noise: StateNoise = SILENT
    ) -> tuple[Tensor, Listening]:
        """One free-running step.

        Args:
            inputs: The prenet's output for the frame before, (B, inputs).
            keys: The prepared text.
            state: What the step before returned.
            noise: Of this step's state.

        Returns:
            Weights (B, N), which sum to 1 and are 0 on padding, and the next state.
        """
        return self._advance(self.input(inputs), keys, state, noise)

    def forward(
        self, inputs: Tensor, keys: Keys, noise: StateNoise = SILENT
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All steps at once, given the true frames.

        Under autocast only the products of the LSTM are made in its format.

        Args:
            inputs: The prenet's output for all frames, (T, B, inputs).
            keys: The prepared text.
            noise: Of the LSTM's state.

        Returns:
            LSTM outputs (T, B, H), contexts (T, B, M) and weights (T, B, N).
        """
        format = product_format(inputs)
        gates = self.input(inputs)
        # Weights summed over hundreds of steps do not survive a mantissa of eight bits.
        with torch.autocast(inputs.device.type, enabled=False):
            gates, keys = wide(gates), keys.widened()
            if isinstance(self.attention, LocationSensitiveAttention):
                return listen(
                    gates, self.recurrent, self.attention.query.weight, keys.projected,
                    keys.memory, keys.kernel, self.attention.energy.weight[0], keys.bias, noise,
                    format,
                )  # fmt: skip
            return self._unrolled(gates, keys, noise)

    def _unrolled(
        self, gates: Tensor, keys: Keys, noise: StateNoise
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``forward`` one step at a time."""
        state = self.start(keys)
        states, rows = [], []
        for step, given in enumerate(gates):
            weights, state = self._advance(given, keys, state, noise.at(step))
            states.append(state)
            rows.append(weights)
        return (
            torch.stack([state.hidden for state in states]),
            torch.stack([state.context for state in states]),
            torch.stack(rows),
        )

    def _advance(
        self, gates: Tensor, keys: Keys, state: Listening, noise: StateNoise
    ) -> tuple[Tensor, Listening]:
        """``step``, given what the inputs add to the LSTM's gates, (B, 4 H)."""
        both = torch.cat([state.hidden, state.context], dim=1)
        hidden, cell = lstm_half(gates + both @ self.recurrent.T, state.cell)
        hidden, cell = noise.hidden(hidden, state.hidden), noise.cell(cell, state.cell)
        weights, history = self.attention.weigh(hidden, keys, state.history)
        context = torch.bmm(weights.unsqueeze(1), keys.memory).squeeze(1)
        return weights, Listening(hidden, cell, context, history)


def _logarithm(weights: Tensor) -> Tensor:
    """The logarithm, minus infinity at 0 with no gradient there."""
    smallest = torch.finfo(weights.dtype).tiny
    return weights.clamp(min=smallest).log().masked_fill(weights < smallest, float("-inf"))
