"""The three parts of a voice as modules that can be traced: tensors in, tensors out.

Keys and states of the decoder are dataclasses of tensors; here they are tuples, whose names are
those of the fields with ``key_`` or ``state_`` before them. The encoder's graph also makes the
decoder's first state, so that whoever runs the graphs needs to know nothing of the attention.

Shapes use: B batch, N symbols, F frames, C mel channels, r reduction.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from kamerton.model.tacotron2.decoder import DecoderState
from kamerton.model.tacotron2.model import Tacotron2, valid_positions


def named(prefix: str, value: Any) -> dict[str, Tensor]:
    """The tensors of a dataclass, nested ones too, by name."""
    found: dict[str, Tensor] = {}
    for field in fields(value):
        item = getattr(value, field.name)
        if isinstance(item, Tensor):
            found[f"{prefix}_{field.name}"] = item
        elif hasattr(item, "__dataclass_fields__"):
            found |= named(f"{prefix}_{field.name}", item)
    return found


def filled(like: Any, prefix: str, values: dict[str, Tensor]) -> Any:
    """A dataclass like ``like`` with its tensors from ``values``: the inverse of ``named``."""
    changed: dict[str, Any] = {}
    for field in fields(like):
        item, name = getattr(like, field.name), f"{prefix}_{field.name}"
        if isinstance(item, Tensor):
            item = values[name]
        elif hasattr(item, "__dataclass_fields__"):
            item = filled(item, name, values)
        changed[field.name] = item
    return type(like)(**changed)


class EncoderGraph(nn.Module):
    """Symbols to the decoder's keys and its first state.

    The bidirectional LSTM over packed sequences is written as two LSTMs, one of which is given
    every text from its end: graphs have no packed sequences.
    """

    def __init__(self, model: Tacotron2) -> None:
        super().__init__()
        self.model = model
        both = model.encoder.lstm
        self.onward = nn.LSTM(both.input_size, both.hidden_size, batch_first=True)
        self.backwards = nn.LSTM(both.input_size, both.hidden_size, batch_first=True)
        weights = both.state_dict()
        for lstm, suffix in ((self.onward, ""), (self.backwards, "_reverse")):
            lstm.load_state_dict({name: weights[name + suffix] for name in lstm.state_dict()})

    def _encoded(self, symbols: Tensor, lengths: Tensor, valid: Tensor) -> Tensor:
        x = self.model.encoder.convolved(symbols, valid)  # (B, N, M)
        places = torch.arange(symbols.shape[1], device=symbols.device)
        # Position n of a reversed text is len - 1 - n; where that is none, anything will do.
        mirrored = (lengths[:, None] - 1 - places).clamp(min=0)[:, :, None]  # (B, N, 1)
        onward = self.onward(x)[0]
        turned = self.backwards(x.gather(1, mirrored.expand_as(x)))[0]
        back = turned.gather(1, mirrored.expand_as(turned))
        return torch.cat([onward, back], dim=2) * valid[:, :, None]

    def prepared(
        self, symbols: Tensor, lengths: Tensor, speakers: Tensor | None = None
    ) -> tuple[Any, DecoderState]:
        """Keys and first state of texts (B, N) of ``lengths`` (B,), read by ``speakers`` (B,)."""
        valid = valid_positions(lengths, symbols.shape[1])
        decoder = self.model.decoder
        memory = self._encoded(symbols, lengths, valid)
        memory = self.model.with_speaker(memory, valid, speakers)
        keys = decoder.recurrence.attention.keys(memory, valid)
        return keys, decoder.start(keys)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """The tensors of both, in the order of ``named``."""
        keys, state = self.prepared(*given)
        return (*named("key", keys).values(), *named("state", state).values())


class StepGraph(nn.Module):
    """One free-running decoder step."""

    def __init__(self, model: Tacotron2, keys: Any, state: DecoderState) -> None:
        super().__init__()
        self.decoder = model.decoder
        self._keys, self._state = keys, state
        self.key_names = tuple(named("key", keys))
        self.state_names = tuple(named("state", state))

    def forward(self, given: Tensor, masks: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The next r frames.

        Args:
            given: The frame before, (B, C).
            masks: Prenet masks, (B, layers, channels).
            tensors: Keys and state, in the order of their names.

        Returns:
            Frames (B, r C), stop probabilities (B, r), weights (B, N), and the next state.
        """
        values = dict(zip(self.key_names + self.state_names, tensors, strict=True))
        keys = filled(self._keys, "key", values)
        state = filled(self._state, "state", values)
        made, frames, weights, state = self.decoder.step(given, masks, keys, state)
        gate = self.decoder.gate(made).sigmoid()
        return (frames, gate, weights, *named("state", state).values())


class PostnetGraph(nn.Module):
    """Decoder frames to log-mel frames in the units of the data."""

    def __init__(self, model: Tacotron2) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Map (B, F, C), of which ``lengths`` (B,) frames are real, to (B, F, C)."""
        real = valid_positions(lengths, frames.shape[1])
        after: Tensor = self.model.restore(self.model.postnet(frames, real))
        return after * torch.unsqueeze(real, 2)
