"""Encodings to mel frames, several per step: prenet, attention, LSTM, projections."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from kamerton.model.tacotron2.attention import AttentionRecurrence


class Prenet(nn.Module):
    """The bottleneck on the frame fed back; its dropout is on even in inference.

    Tacotron 2 needs that noise (arXiv:1712.05884, section 2.2): without it the decoder learns to
    copy the last frame and ignores the text. The masks are therefore inputs, drawn by
    ``draw_masks``, so that inference can be repeated.
    """

    def __init__(self, inputs: int, channels: int, *, layers: int = 2, dropout: float) -> None:
        super().__init__()
        sizes = [inputs] + [channels] * layers
        linear = [nn.Linear(sizes[index], channels, bias=False) for index in range(layers)]
        self.layers = nn.ModuleList(linear)
        self.channels = channels
        self.dropout = dropout
        for layer in linear:
            nn.init.xavier_uniform_(layer.weight, gain=nn.init.calculate_gain("relu"))

    def draw_masks(self, *shape: int, generator: torch.Generator | None = None) -> Tensor:
        """Masks (*shape, layers, channels) of 0 and 1, from the global generator by default."""
        size = (*shape, len(self.layers), self.channels)
        return (torch.rand(size, generator=generator) >= self.dropout).to(torch.uint8)

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


class Decoder(nn.Module):
    """The decoder of Tacotron 2 with a reduction factor (Wang et al. 2017, arXiv:1703.10135).

    Each step makes r frames and is given the last frame of the step before. The gate is asked
    about every frame, not every step, so that lengths which r does not divide end exactly.
    The paper's zoneout is replaced by dropout on the two LSTMs' outputs.

    Shapes use: B batch, T decoder steps, r frames per step, N symbols, C mel channels, M encoding.
    """

    def __init__(self, mels: int, memory: int, *, reduction: int, prenet: int,
                 prenet_dropout: float, attention_lstm: int, decoder_lstm: int, attention: int,
                 filters: int, kernel: int, attention_dropout: float,
                 decoder_dropout: float) -> None:  # fmt: skip
        super().__init__()
        self.mels = mels
        self.reduction = reduction
        self.attention_dropout = attention_dropout
        self.decoder_dropout = decoder_dropout
        self.prenet = Prenet(mels, prenet, dropout=prenet_dropout)
        self.recurrence = AttentionRecurrence(
            prenet, attention_lstm, memory, attention, filters=filters, kernel=kernel
        )
        self.lstm = nn.LSTM(attention_lstm + memory, decoder_lstm)
        self.frames = nn.Linear(decoder_lstm + memory, reduction * mels)
        self.gate = nn.Linear(decoder_lstm + memory, reduction)

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
        keys = self.recurrence.attention.keys(memory, valid)
        listened, contexts, weights = self.recurrence(self.prenet(given, masks), keys)
        listened = functional.dropout(listened, self.attention_dropout, self.training)
        spoken, _ = self.lstm(torch.cat([listened, contexts], dim=2))
        spoken = functional.dropout(spoken, self.decoder_dropout, self.training)
        return self._project(torch.cat([spoken, contexts], dim=2), weights)

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
        state = self.recurrence.start(keys)
        batch = memory.shape[0]
        speech: tuple[Tensor, Tensor] | None = None
        given = memory.new_zeros(batch, self.mels)
        lengths = max_steps * r
        ended = torch.zeros(batch, dtype=torch.bool, device=memory.device)
        states, rows = [], []
        for step in range(int(max_steps.max())):
            weights, state = self.recurrence.step(self.prenet(given, masks[step]), keys, state)
            heard = torch.cat([state.hidden, state.context], dim=1)
            spoken, speech = self.lstm(heard.unsqueeze(0), speech)
            states.append(torch.cat([spoken[0], state.context], dim=1))
            rows.append(weights)
            given = self.frames(states[-1])[:, -self.mels :]
            opened = self.gate(states[-1]).sigmoid() > gate_threshold  # (B, r)
            first = step * r + opened.to(torch.uint8).argmax(dim=1) + 1
            now = opened.any(dim=1) & ~ended & (step < max_steps)
            lengths = torch.where(now, first, lengths)
            ended |= now
            if bool((ended | (max_steps <= step + 1)).all()):
                break
        decoded = self._project(torch.stack(states), torch.stack(rows))
        return decoded, lengths, ended
