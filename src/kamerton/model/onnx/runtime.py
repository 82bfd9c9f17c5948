"""A voice's acoustic model on ONNX Runtime: no torch, so that a server needs none.

Shapes use: B batch, N symbols, T decoder steps, F frames, C mel channels, r reduction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kamerton.core.errors import InputCorruptError, InputMissingError, ToolMissingError
from kamerton.core.files import read_json
from kamerton.model.onnx import ENCODER, FACTS, FORMAT_VERSION, INT8_STEP, POSTNET, STEP
from kamerton.model.prenet_noise import prenet_masks
from kamerton.model.spoken import SpokenArrays

Precision = Literal["fp32", "int8"]
_REMAKE = "export it again: `kamerton export --format onnx`"


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the graphs do not say of themselves; names of outputs, since some are renamed."""

    reduction_factor: int
    mels: int
    prenet_layers: int
    prenet_channels: int
    prenet_dropout: float
    encoded: list[str]
    states: list[str]

    @classmethod
    def read(cls, path: Path) -> _Facts:
        record = read_json(path, produced_by="export")
        try:
            if record.pop("format_version") != FORMAT_VERSION:
                raise ValueError(f"is not of format {FORMAT_VERSION}")
            facts = cls(**record)
            sizes = (facts.reduction_factor, facts.mels, facts.prenet_layers, facts.prenet_channels)
            if not all(isinstance(size, int) and size > 0 for size in sizes):
                raise ValueError("has sizes that are none")
            if not all(isinstance(name, str) for name in (*facts.encoded, *facts.states)):
                raise ValueError("has names that are none")
            if not 0.0 <= facts.prenet_dropout < 1.0:
                raise ValueError("has a dropout that is none")
        except (KeyError, TypeError, ValueError) as error:
            raise InputCorruptError(path, problem=str(error), hint=_REMAKE) from error
        return facts


class OnnxModel:
    """Encoder, decoder step and postnet of one voice."""

    def __init__(self, folder: Path, *, precision: Precision = "int8", threads: int = 1) -> None:
        """Load the graphs that ``kamerton export --format onnx`` wrote to ``folder``.

        Raises:
            ToolMissingError: ONNX Runtime is not installed.
            InputMissingError, InputCorruptError: a graph is not there or not whole.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise ToolMissingError("onnxruntime", extra="onnx") from error
        self.facts = _Facts.read(folder / FACTS)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3

        def load(name: str) -> Any:
            path = folder / name
            if not path.is_file():
                raise InputMissingError(path, produced_by="export", hint=_REMAKE)
            try:
                return onnxruntime.InferenceSession(
                    path, options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # the runtime has no class of errors of its own
                problem = f"is not a graph that ONNX Runtime reads ({str(error).splitlines()[0]})"
                raise InputCorruptError(path, problem=problem, hint=_REMAKE) from error

        self._encoder, self._postnet = load(ENCODER), load(POSTNET)
        self._step = load(INT8_STEP if precision == "int8" else STEP)
        self._inputs = {item.name for item in self._step.get_inputs()}

    def speak(
        self,
        symbols: NDArray[np.int64],
        symbol_lengths: NDArray[np.int64],
        *,
        max_frames: NDArray[np.int64],
        seeds: Sequence[int],
        gate_threshold: float = 0.5,
        speakers: NDArray[np.int64] | None = None,
    ) -> SpokenArrays:
        """Speak a batch of texts, free-running; arguments as of ``Tacotron2.speak``."""
        r = self.facts.reduction_factor
        max_steps = -(-max_frames // r)
        given = {"symbols": symbols, "symbol_lengths": symbol_lengths}
        if speakers is not None:
            given["speakers"] = speakers
        drawn = [
            prenet_masks(
                seed, int(max_steps.max()), layers=self.facts.prenet_layers,
                channels=self.facts.prenet_channels, dropout=self.facts.prenet_dropout,
            )
            for seed in seeds
        ]  # fmt: skip
        masks = np.stack(drawn, axis=1).astype(np.float32)  # (T, B, layers, channels)
        decoded = self.decode(self.encode(given), masks, max_steps, gate_threshold)
        stopped = decoded.stopped & (decoded.lengths <= max_frames)
        lengths = np.minimum(decoded.lengths, max_frames)
        frames = self._postnet.run(None, {"frames": decoded.frames, "lengths": lengths})[0]
        return SpokenArrays(frames, lengths, decoded.attention, stopped)

    def encode(self, given: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[np.float32]]:
        """Keys and first state of the decoder, by name, of symbols and their lengths."""
        return dict(zip(self.facts.encoded, self._encoder.run(None, dict(given)), strict=True))

    def decode(
        self,
        encoded: Mapping[str, NDArray[np.float32]],
        masks: NDArray[np.float32],
        max_steps: NDArray[np.int64],
        gate_threshold: float,
    ) -> SpokenArrays:
        """Run the decoder; its frames are normalised and before the postnet, (B, T r, C).

        Args:
            encoded: What ``encode`` returned.
            masks: Prenet masks, (T, B, layers, channels).
            max_steps: Where each utterance is cut if its gate has not opened, (B,).
            gate_threshold: Probability at which a frame counts as the last.
        """
        r, mels, batch = (
            self.facts.reduction_factor,
            self.facts.mels,
            masks.shape[1],
        )
        fed = {name: value for name, value in encoded.items() if name in self._inputs}
        fed["given"] = np.zeros((batch, mels), dtype=np.float32)
        lengths, ended = max_steps * r, np.zeros(batch, dtype=bool)
        frames, attention = [], []
        for step in range(len(masks)):
            fed["masks"] = masks[step]
            made, gate, weights, *states = self._step.run(None, fed)
            frames.append(made)
            attention.append(weights)
            fed.update(zip(self.facts.states, states, strict=True))
            fed["given"] = made[:, -mels:]
            opened = gate > gate_threshold  # (B, r)
            now = opened.any(axis=1) & ~ended & (step < max_steps)
            lengths = np.where(now, step * r + opened.argmax(axis=1) + 1, lengths)
            ended |= now
            if (ended | (max_steps <= step + 1)).all():
                break
        stacked = np.stack(frames, axis=1).reshape(batch, -1, mels)
        return SpokenArrays(stacked, lengths, np.stack(attention, axis=1), ended)
