"""Tacotron 2's teacher forcing as its papers tell it: a loop over frames, left to autograd.

The oracle of the fast model's tests and the baseline of ``benchmarks.train_step``. It takes the
weights of a ``Tacotron2`` and shares its encoder and postnet; the decoder between them is a loop of
its own, as the common implementation (NVIDIA's, 2018) has it: prenet and memory projection are made
for all frames before the loop, as there; both LSTMs are ``torch.lstm_cell``; the location features
are a convolution and a projection; frames and gate are projected step by step. Nothing in it is
slower than it is there, and automatic differentiation adds up each weight's gradient step by step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from kamerton.model.tacotron2.attention import LocationSensitiveAttention
from kamerton.model.tacotron2.decoder import Decoded, Decoder
from kamerton.model.tacotron2.model import Predicted, Tacotron2, steps_of, valid_positions
from kamerton.model.tacotron2.noise import SILENT, StateNoise


@dataclass
class _State:
    hidden: Tensor
    cell: Tensor
    spoken: Tensor
    spoken_cell: Tensor
    context: Tensor
    weights: Tensor
    summed: Tensor


def reference_forward(
    model: Tacotron2, symbols: Tensor, symbol_lengths: Tensor, frames: Tensor,
    frame_lengths: Tensor, *, masks: Tensor, attention_noise: StateNoise = SILENT,
    decoder_noise: StateNoise = SILENT,
) -> Predicted:  # fmt: skip
    """What ``model(...)`` gives, without dropout of LSTM outputs; arguments as there.

    Args:
        model: Whose weights are used.
        symbols: (B, N).
        symbol_lengths: (B,).
        frames: (B, F, C).
        frame_lengths: (B,).
        masks: Prenet masks, (T, B, layers, channels).
        attention_noise: Of the attention LSTM's state.
        decoder_noise: Of the decoder LSTM's state.
    """
    r = model.architecture.reduction_factor
    steps = int(steps_of(frames.shape[1], r))
    real = valid_positions(frame_lengths, steps * r)
    frames = functional.pad(frames, (0, 0, 0, steps * r - frames.shape[1])) * real.unsqueeze(2)
    valid = valid_positions(symbol_lengths, symbols.shape[1])
    memory = model.encoder(symbols, symbol_lengths.cpu(), valid)
    decoded = reference_decoder(
        model.decoder, memory, valid, frames, masks, attention_noise, decoder_noise
    )
    after = model.postnet(decoded.frames, real)
    return Predicted(decoded.frames, after, decoded.gate_logits, decoded.attention)


def reference_decoder(
    decoder: Decoder, memory: Tensor, valid: Tensor, frames: Tensor, masks: Tensor,
    attention_noise: StateNoise = SILENT, decoder_noise: StateNoise = SILENT,
) -> Decoded:  # fmt: skip
    """What ``decoder(...)`` gives, without dropout of outputs; arguments as there."""
    r, attention = decoder.reduction, decoder.recurrence.attention
    assert isinstance(attention, LocationSensitiveAttention)
    batch, symbols, channels = memory.shape
    zeros = memory.new_zeros
    size, spoken_size = decoder.recurrence.hidden, decoder.lstm.hidden_size
    state = _State(
        zeros(batch, size), zeros(batch, size), zeros(batch, spoken_size),
        zeros(batch, spoken_size), zeros(batch, channels), zeros(batch, symbols),
        zeros(batch, symbols),
    )  # fmt: skip
    listen_weights = _cell_weights(decoder)
    speak_weights = decoder.lstm.all_weights[0]
    processed = functional.linear(memory, attention.memory.weight, attention.memory.bias)
    before = functional.pad(frames[:, r - 1 : -1 : r], (0, 0, 1, 0)).transpose(0, 1)
    heard = _prenet(decoder, before, masks)
    made, gates, rows = [], [], []
    for step, given in enumerate(heard):
        new, cell = torch.lstm_cell(
            torch.cat([given, state.context], dim=1), [state.hidden, state.cell], *listen_weights
        )
        noise = attention_noise.at(step)
        state.hidden, state.cell = noise.hidden(new, state.hidden), noise.cell(cell, state.cell)
        _attend(attention, state, memory, processed, valid)
        new, cell = torch.lstm_cell(
            torch.cat([state.hidden, state.context], dim=1), [state.spoken, state.spoken_cell],
            *speak_weights,
        )  # fmt: skip
        noise = decoder_noise.at(step)
        state.spoken = noise.hidden(new, state.spoken)
        state.spoken_cell = noise.cell(cell, state.spoken_cell)
        both = torch.cat([state.spoken, state.context], dim=1)
        made.append(functional.linear(both, decoder.frames.weight, decoder.frames.bias))
        gates.append(functional.linear(both, decoder.gate.weight, decoder.gate.bias))
        rows.append(state.weights)
    return Decoded(
        torch.stack(made, dim=1).view(batch, -1, decoder.mels), torch.cat(gates, dim=1),
        torch.stack(rows, dim=1),
    )  # fmt: skip


def _attend(
    attention: LocationSensitiveAttention, state: _State, memory: Tensor, processed: Tensor,
    valid: Tensor,
) -> None:  # fmt: skip
    history = torch.stack([state.weights, state.summed], dim=1)
    location = functional.conv1d(
        history, attention.location.weight, padding=attention.kernel // 2
    ).transpose(1, 2)
    hidden_layer = torch.tanh(
        functional.linear(state.hidden, attention.query.weight).unsqueeze(1)
        + functional.linear(location, attention.project_location.weight)
        + processed
    )
    energies = functional.linear(hidden_layer, attention.energy.weight).squeeze(2)
    state.weights = energies.masked_fill(valid == 0, -torch.inf).softmax(dim=1)
    state.summed = state.summed + state.weights
    state.context = torch.bmm(state.weights.unsqueeze(1), memory).squeeze(1)


def _cell_weights(decoder: Decoder) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The attention LSTM's weights as ``torch.lstm_cell`` takes them: its order is i, f, g, o."""
    layer, size = decoder.recurrence, decoder.recurrence.hidden

    def reordered(rows: Tensor) -> Tensor:
        enter, forget, leave, candidate = rows.unflatten(0, (4, size)).unbind()
        return torch.cat([enter, forget, candidate, leave])

    inputs = torch.cat([layer.input.weight, layer.recurrent[:, size:]], dim=1)
    bias = reordered(layer.input.bias)
    hidden = reordered(layer.recurrent[:, :size])
    return reordered(inputs), hidden, bias, torch.zeros_like(bias)


def _prenet(decoder: Decoder, frames: Tensor, masks: Tensor) -> Tensor:
    x = frames
    for index, layer in enumerate(decoder.prenet.layers):
        assert isinstance(layer, nn.Linear)
        x = functional.linear(x, layer.weight).relu() * masks[:, :, index]
        x = x / (1 - decoder.prenet.dropout)
    return x
