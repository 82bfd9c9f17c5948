"""What the files of a voice mean. Without torch, so that a server needs none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kamerton.config.schema import AudioParams, TextParams
from kamerton.core.errors import InputCorruptError, UsageError
from kamerton.core.files import read_json
from kamerton.model import DESCRIPTION_FILE
from kamerton.model.tacotron2.architecture import Architecture

FORMAT_VERSION = 1
REMAKE = "export it again: `kamerton train`"


@dataclass(frozen=True, slots=True)
class VoiceDescription:
    """What the weights of a voice mean, as ``model.json`` holds it.

    Attributes:
        architecture: Sizes of the network.
        audio: How mels are made and turned into sound.
        text: How text is normalised.
        symbols: Characters in the order of their numbers.
        language: ISO 639 code.
        speaker: Name of the speaker, or of the one who speaks where none is asked for.
        gate_threshold: Stop probability that ends an utterance.
        frames_per_symbol: The slowest reading in the training data; speech much slower than that
            is a runaway.
        training: Facts on how it came about.
        speakers: Names in the order of their numbers, where it has several; otherwise empty.
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
    speakers: tuple[str, ...] = ()

    def speaker_number(self, name: str | None) -> int:
        """The number of a speaker by name; None is the voice's own.

        Raises:
            UsageError: the voice has no such speaker.
        """
        names = self.speakers or (self.speaker,)
        if name is None:
            return names.index(self.speaker) if self.speaker in names else 0
        if name not in names:
            known = ", ".join(names)
            raise UsageError(f"The voice has no speaker {name!r}.", hint=f"it has {known}")
        return names.index(name)

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
            "speakers": list(self.speakers),
            "gate_threshold": self.gate_threshold,
            "frames_per_symbol": self.frames_per_symbol,
            "training": dict(self.training),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VoiceDescription:
        """Undo ``to_dict``; raises KeyError, TypeError or ValueError for anything else."""
        if values["format_version"] != FORMAT_VERSION:
            raise ValueError(f"is of format {values['format_version']}, not {FORMAT_VERSION}")
        architecture = Architecture(**values["architecture"])
        speakers = tuple(str(name) for name in values.get("speakers", ()))
        if speakers and len(speakers) != architecture.speakers:
            raise ValueError(f"names {len(speakers)} speakers of {architecture.speakers}")
        return cls(
            architecture=architecture,
            audio=AudioParams.model_validate(values["audio"]),
            text=TextParams.model_validate(values["text"]),
            symbols=tuple(values["symbols"]),
            language=str(values["language"]),
            speaker=str(values["speaker"]),
            gate_threshold=float(values["gate_threshold"]),
            frames_per_symbol=float(values["frames_per_symbol"]),
            training=dict(values["training"]),
            speakers=speakers,
        )


def read_description(folder: Path) -> VoiceDescription:
    """The description of the voice in ``folder``.

    Raises:
        InputMissingError: there is none.
        InputCorruptError: it is damaged, or of another version.
    """
    path = folder / DESCRIPTION_FILE
    values = read_json(path, produced_by="train")
    try:
        return VoiceDescription.from_dict(values)
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        problem = f"does not describe a voice ({type(error).__name__}: {error})"
        raise InputCorruptError(path, problem=problem, hint=REMAKE) from error
