"""Encodings to mel frames, several per step: prenet, attention, LSTM, projections."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from kamerton.model.regularisers import SpectralDropout
from kamerton.model.tacotron2.attention import AttentionRecurrence, Listening
from kamerton.model.tacotron2.keys import Keys, product_format, wide
from kamerton.model.tacotron2.lstm import lstm_sequence
from kamerton.model.tacotron2.noise import LstmNoise, StateNoise
from kamerton.model.tacotron2.products import Linear, linear


class Prenet(nn.Module):
    """The bottleneck on the frame fed back; its dropout is on even in inference.

    Tacotron 2 needs that noise (arXiv:1712.05884, section 2.2): without it the decoder learns to
    copy the last frame and ignores the text. The masks are therefore inputs, drawn by
    ``draw_masks``, so that inference can be repeated.
    """

    def __init__(self, inputs: int, channels: int, *, layers: int = 2, dropout: float) -> None:
        super().__init__()
        sizes = [inputs] + [channels] * layers
        layered = [Linear(sizes[index], channels, bias=False) for index in range(layers)]
        self.layers = nn.ModuleList(layered)
        self.channels = channels
        self.dropout = dropout
        for layer in layered:
            nn.init.xavier_uniform_(layer.weight, gain=nn.init.calculate_gain("relu"))

    def draw_masks(
        self, *shape: int, generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> Tensor:  # fmt: skip
        """Masks (*shape, layers, channels) of 0 and 1, from the global generator by default."""
        size = (*shape, len(self.layers), self.channels)
        drawn = torch.rand(size, generator=generator, device=device)
        return (drawn >= self.dropout).to(torch.uint8)

    def forward(self, frames: Tensor, masks: Tensor) -> Tensor:
        """Map frames (..., C) to (..., channels) with masks (..., layers, channels)."""
        x = frames
        scale = 1.0 / (1.0 - self.dropout)
        for index, layer in enumerate(self.layers):
            x = layer(x).relu() * (masks[..., index, :] * scale)
        return x


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the decoder makes of a batch.

    Attributes:
        frames: Mel frames before the postnet, (B, T r, C).
        gate_logits: Whether a frame is the last, (B, T r).
        attention: Weights, (B, T, N).
    """

    frames: Tensor
    gate_logits: Tensor
    attention: Tensor

    def widened(self) -> Decoded:
        """The same in single precision."""
        return Decoded(self.frames.float(), self.gate_logits.float(), self.attention.float())


BY_HAND_UNITS = 512


@dataclass(frozen=True, slots=True)
class DecoderState:
    """What goes from one free-running step to the next: of both LSTMs and of the attention."""

    listening: Listening
    hidden: Tensor  # (B, H)
    cell: Tensor  # (B, H)


class Decoder(nn.Module):
    """The decoder of Tacotron 2 with a reduction factor (Wang et al. 2017, arXiv:1703.10135).

    Each step makes r frames and is given the last frame of the step before. The gate is asked
    about every frame, not every step, so that lengths which r does not divide end exactly.
    What noise the two LSTMs are trained with (the paper: zoneout) is a matter of choice.

    Shapes use: B batch, T decoder steps, r frames per step, N symbols, C mel channels, M encoding.
    """

    def __init__(self, mels: int, memory: int, *, reduction: int, prenet: int,
                 prenet_dropout: float, attention_lstm: int, decoder_lstm: int, attention: int,
                 filters: int, kernel: int, attention_dropout: float, decoder_dropout: float,
                 attention_kind: str = "location_sensitive", noise: str = "output",
                 variational: str = "gal", spectral_dropout: float = 0.0) -> None:  # fmt: skip
        super().__init__()
        self.mels = mels
        self.reduction = reduction
        self.spectral_dropout = SpectralDropout(mels, spectral_dropout)
        self.prenet = Prenet(mels, prenet, dropout=prenet_dropout)
        self.recurrence = AttentionRecurrence(
            prenet, attention_lstm, memory, attention, filters=filters, kernel=kernel,
            kind=attention_kind,
        )  # fmt: skip
        self.attention_noise = LstmNoise(
            attention_lstm, attention_dropout, kind=noise, variational=variational
        )
        self.decoder_noise = LstmNoise(
            decoder_lstm, decoder_dropout, kind=noise, variational=variational
        )
        self.lstm = nn.LSTM(attention_lstm + memory, decoder_lstm)
        self.frames = Linear(decoder_lstm + memory, reduction * mels)
        self.gate = Linear(decoder_lstm + memory, reduction)

    def forward(self, memory: Tensor, valid: Tensor, frames: Tensor, masks: Tensor) -> Decoded:
        """Predict every frame from the true frames before it.

        Args:
            memory: Encodings, (B, N, M).
            valid: 1.0 where there is a symbol, (B, N).
            frames: True frames, (B, T r, C).
            masks: Prenet masks, (T, B, layers, channels).
        """
        last_of_step = frames[:, self.reduction - 1 : -1 : self.reduction].transpose(0, 1)
        given = functional.pad(last_of_step, (0, 0, 0, 0, 1, 0))  # (T, B, C); the first is zero
        given = self.spectral_dropout(given)
        steps, batch = given.shape[:2]
        keys = self.recurrence.attention.keys(memory, valid)
        noise = self.attention_noise.draw(steps, batch, self.recurrence.recurrent)
        listened, contexts, weights = self.recurrence(self.prenet(given, masks), keys, noise)
        listened = self.attention_noise.outputs(listened)
        noise = self.decoder_noise.draw(steps, batch, self.frames.weight)
        spoken = self._speech(torch.cat([listened, contexts], dim=2), noise)
        spoken = self.decoder_noise.outputs(spoken)
        return self._project(torch.cat([spoken, contexts], dim=2), weights)

    def noise_divergence(self) -> Tensor | None:
        """What learned widths of noise cost; None without any."""
        parts = [self.attention_noise.divergence(), self.decoder_noise.divergence()]
        learned = [part for part in parts if part is not None]
        return torch.stack(learned).sum() if learned else None

    def _speech(self, heard: Tensor, noise: StateNoise) -> Tensor:
        """The decoder LSTM over a whole sequence (T, B, ·): (T, B, H)."""
        lstm = self.lstm
        # A GPU has one kernel for all steps, and on a CPU a small LSTM is faster in one call.
        small = lstm.hidden_size < BY_HAND_UNITS
        if noise.silent and (small or heard.device.type != "cpu"):
            outputs: Tensor = lstm(heard)[0]
            return outputs
        enter, recur, *biases = lstm.all_weights[0]
        format = product_format(heard)
        sums = linear(heard, enter, biases[0] + biases[1])
        with torch.autocast(heard.device.type, enabled=False):
            return lstm_sequence(wide(sums), recur, noise, format)

    def start(self, keys: Keys) -> DecoderState:
        """The state before the first free-running step."""
        nothing = keys.memory.new_zeros(keys.memory.shape[0], self.lstm.hidden_size)
        return DecoderState(self.recurrence.start(keys), nothing, nothing)

    def step(
        self, given: Tensor, masks: Tensor, keys: Keys, state: DecoderState
    ) -> tuple[Tensor, Tensor, Tensor, DecoderState]:
        """One free-running step.

        Args:
            given: The frame before, (B, C).
            masks: Prenet masks, (B, layers, channels).
            keys: The prepared text.
            state: What the step before returned.

        Returns:
            States for the projections (B, ·), frames (B, r C), weights (B, N), the next state.
        """
        batch = given.shape[0]
        noise = self.attention_noise.expected(batch, self.recurrence.recurrent)
        weights, listening = self.recurrence.step(
            self.prenet(given, masks), keys, state.listening, noise
        )
        heard = torch.cat([listening.hidden, listening.context], dim=1)
        before = (state.hidden[None], state.cell[None])
        _, (hidden, cell) = self.lstm(heard[None], before)
        noise = self.decoder_noise.expected(batch, self.frames.weight)
        after = DecoderState(
            listening, noise.hidden(hidden[0], state.hidden), noise.cell(cell[0], state.cell)
        )
        states = torch.cat([after.hidden, listening.context], dim=1)
        return states, self.frames(states), weights, after

    def _project(self, states: Tensor, weights: Tensor) -> Decoded:
        """Turn states (T, B, ·) and weights (T, B, N) into frames, frame by frame."""
        steps, batch = states.shape[:2]
        states = states.transpose(0, 1)  # (B, T, ·)
        return Decoded(
            frames=self.frames(states).reshape(batch, steps * self.reduction, self.mels),
            gate_logits=self.gate(states).reshape(batch, steps * self.reduction),
            attention=weights.transpose(0, 1),
        )

    @torch.no_grad()
    def generate(self, memory: Tensor, valid: Tensor, masks: Tensor, max_steps: Tensor,
                 gate_threshold: float) -> tuple[Decoded, Tensor, Tensor]:  # fmt: skip
        """Speak: each step is given the last frame that the step before made.

        Args:
            memory: Encodings, (B, N, M).
            valid: 1.0 where there is a symbol, (B, N).
            masks: Prenet masks, (steps, B, layers, channels), for at least ``max_steps`` steps.
            max_steps: Where each utterance is cut if its gate has not opened, (B,).
            gate_threshold: Probability at which a frame counts as the last.

        Returns:
            What was decoded, the number of frames of each utterance (B,), and whether its gate
            opened before it was cut (B,).
        """
        r = self.reduction
        keys = self.recurrence.attention.keys(memory, valid)
        state = self.start(keys)
        batch = memory.shape[0]
        given = memory.new_zeros(batch, self.mels)
        lengths = max_steps * r
        ended = torch.zeros(batch, dtype=torch.bool, device=memory.device)
        states, rows = [], []
        for step in range(int(max_steps.max())):
            made, frames, weights, state = self.step(given, masks[step], keys, state)
            states.append(made)
            rows.append(weights)
            given = frames[:, -self.mels :]
            opened = self.gate(made).sigmoid() > gate_threshold  # (B, r)
            first = step * r + opened.to(torch.uint8).argmax(dim=1) + 1
            now = opened.any(dim=1) & ~ended & (step < max_steps)
            lengths = torch.where(now, first, lengths)
            ended |= now
            if bool((ended | (max_steps <= step + 1)).all()):
                break
        decoded = self._project(torch.stack(states), torch.stack(rows))
        return decoded, lengths, ended
