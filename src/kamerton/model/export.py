"""A trained voice as files that others can load: weights without pickle, and what they mean.

Equal weights and facts give equal bytes: nothing here holds a time or the name of a run.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from kamerton.config.schema import AudioParams, TextParams
from kamerton.core.errors import InputCorruptError, InputMissingError, ToolMissingError
from kamerton.core.files import read_json, write_bytes, write_json
from kamerton.model import DESCRIPTION_FILE, WEIGHTS_FILE
from kamerton.model.tacotron2.model import Architecture, Tacotron2

FORMAT_VERSION = 1
TORCH_FILE = "best_model.pt"

_REMAKE = "export it again: `kamerton train`"


@dataclass(frozen=True, slots=True)
class VoiceDescription:
    """What the weights of a voice mean, as ``model.json`` holds it.

    Attributes:
        architecture: Sizes of the network.
        audio: How mels are made and turned into sound.
        text: How text is normalised.
        symbols: Characters in the order of their numbers.
        language: ISO 639 code.
        speaker: Name of the speaker.
        gate_threshold: Stop probability that ends an utterance.
        frames_per_symbol: The slowest reading in the training data; speech much slower than that
            is a runaway.
        training: Facts on how it came about.
    """

    architecture: Architecture
    audio: AudioParams
    text: TextParams
    symbols: tuple[str, ...]
    language: str
    speaker: str
    gate_threshold: float
    frames_per_symbol: float
    training: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "format_version": FORMAT_VERSION,
            "architecture": self.architecture.to_dict(),
            "audio": self.audio.model_dump(mode="json"),
            "text": self.text.model_dump(mode="json"),
            "symbols": list(self.symbols),
            "language": self.language,
            "speaker": self.speaker,
            "gate_threshold": self.gate_threshold,
            "frames_per_symbol": self.frames_per_symbol,
            "training": dict(self.training),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VoiceDescription:
        """Undo ``to_dict``; raises KeyError, TypeError or ValueError for anything else."""
        if values["format_version"] != FORMAT_VERSION:
            raise ValueError(f"is of format {values['format_version']}, not {FORMAT_VERSION}")
        return cls(
            architecture=Architecture(**values["architecture"]),
            audio=AudioParams.model_validate(values["audio"]),
            text=TextParams.model_validate(values["text"]),
            symbols=tuple(values["symbols"]),
            language=str(values["language"]),
            speaker=str(values["speaker"]),
            gate_threshold=float(values["gate_threshold"]),
            frames_per_symbol=float(values["frames_per_symbol"]),
            training=dict(values["training"]),
        )


def export_voice(
    folder: Path, weights: Mapping[str, torch.Tensor], description: VoiceDescription
) -> None:
    """Write the files of a voice into an existing folder."""
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise ToolMissingError("safetensors", extra="train") from error
    tensors = {name: weights[name].detach().cpu().contiguous() for name in sorted(weights)}
    write_bytes(folder / WEIGHTS_FILE, save(tensors, metadata={"format": "pt"}))
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    write_bytes(folder / TORCH_FILE, buffer.getvalue())
    write_json(folder / DESCRIPTION_FILE, description.to_dict())


def load_model(folder: Path) -> tuple[Tacotron2, VoiceDescription]:
    """Load an exported voice, ready to speak.

    Raises:
        InputMissingError: there is no voice.
        InputCorruptError: its files are damaged or do not fit each other.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ToolMissingError("safetensors", extra="train") from error
    path = folder / DESCRIPTION_FILE
    values = read_json(path, produced_by="train")
    try:
        description = VoiceDescription.from_dict(values)
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        problem = f"does not describe a voice ({type(error).__name__}: {error})"
        raise InputCorruptError(path, problem=problem, hint=_REMAKE) from error
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise InputMissingError(weights, produced_by="train")
    model = Tacotron2(description.architecture)
    try:
        model.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError, OSError) as error:
        problem = f"does not fit {DESCRIPTION_FILE} ({str(error).splitlines()[0]})"
        raise InputCorruptError(weights, problem=problem, hint=_REMAKE) from error
    return model.eval(), description
