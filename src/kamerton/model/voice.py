"""A voice that reads text aloud."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from kamerton.audio.griffin_lim import griffin_lim
from kamerton.core.errors import UsageError
from kamerton.model.description import VoiceDescription, read_description
from kamerton.model.onnx import INT8_STEP, STEP
from kamerton.model.spoken import AcousticModel
from kamerton.text.normalise import normalise_for
from kamerton.text.phonemes import pronounce
from kamerton.text.symbols import SymbolTable

Engine = Literal["auto", "torch", "onnx", "onnx-int8"]

ONNX_ENGINES: Final[dict[Engine, Literal["fp32", "int8"]]] = {"onnx": "fp32", "onnx-int8": "int8"}
BATCH_UTTERANCES = 16
RUNAWAY_FACTOR = 2.0  # times the slowest reading of the training data
MARGIN_SECONDS = 0.5  # silence around speech weighs more in short texts than in the training data


@dataclass(frozen=True, slots=True)
class Reading:
    """One text as the acoustic model reads it.

    Attributes:
        text: What was read, normalised.
        mel: Natural-log mel amplitudes, (C, F).
        attention: Weights, (T, N), N counting symbols (letters or phonemes) and the end.
        stopped: Whether the voice ended by itself; if not, it was cut as a runaway.
    """

    text: str
    mel: NDArray[np.float32]
    attention: NDArray[np.float32]
    stopped: bool


@dataclass(frozen=True, slots=True)
class Utterance:
    """A reading with its sound, mono within [-1, 1]; the rest is as in ``Reading``."""

    text: str
    mel: NDArray[np.float32]
    attention: NDArray[np.float32]
    stopped: bool
    wave: NDArray[np.float32]
    rate_hz: int


class Voice:
    """An exported model with its text rules and vocoder."""

    def __init__(self, model: AcousticModel, description: VoiceDescription) -> None:
        self.description = description
        self._model = model
        self._symbols = SymbolTable(description.symbols)

    @classmethod
    def load(cls, folder: Path, *, engine: Engine = "auto") -> Self:
        """Load a voice that ``kamerton train`` or ``kamerton export --format onnx`` wrote.

        Args:
            folder: Where it is.
            engine: What runs it; auto is PyTorch for a trained voice, and ONNX Runtime with 8-bit
                integers for an exported one.

        Raises:
            InputMissingError: there is none, or none for this engine.
            InputCorruptError: its files are damaged.
            ToolMissingError: the engine is not installed.
        """
        description = read_description(folder)
        if engine == "auto":
            engine = _own_engine(folder)
        if engine == "torch":
            from kamerton.model.export import TorchModel, load_model

            return cls(TorchModel(load_model(folder)[0]), description)
        from kamerton.model.onnx.runtime import OnnxModel

        return cls(OnnxModel(folder, precision=ONNX_ENGINES[engine]), description)

    @property
    def rate_hz(self) -> int:
        """Sample rate of what it says."""
        return self.description.audio.sample_rate_hz

    def speak(
        self, texts: Sequence[str], *, seed: int = 0, griffin_lim_iterations: int = 32,
        speaker: str | None = None,
    ) -> list[Utterance]:  # fmt: skip
        """Say every text; equal arguments give equal samples, whatever else is said with it.

        ``speaker`` is one of the voice's names; None is the voice's own.

        Raises:
            UsageError: nothing of a text is left after normalisation, or there is no such speaker.
            UnknownSymbolError: a text has characters that the voice never saw.
            ToolMissingError: the voice reads phonemes, and espeak-ng is not installed.
        """
        audio = self.description.audio
        return [
            Utterance(
                reading.text, reading.mel, reading.attention, reading.stopped,
                np.clip(
                    griffin_lim(reading.mel, audio, iterations=griffin_lim_iterations, seed=seed),
                    -1.0, 1.0,
                ).astype(np.float32),
                audio.sample_rate_hz,
            )
            for reading in self.read(texts, seed=seed, speaker=speaker)
        ]  # fmt: skip

    def read(
        self, texts: Sequence[str], *, seed: int = 0, speaker: str | None = None
    ) -> list[Reading]:
        """Read every text as mel frames, without the vocoder. Raises as ``speak`` does."""
        number = self.description.speaker_number(speaker)
        normalised = [self._normalised(text) for text in texts]
        phonemes = pronounce(normalised, self.description.text)
        ids = [
            self._symbols.encode(spoken if spoken is not None else text)
            for text, spoken in zip(normalised, phonemes, strict=True)
        ]
        # Texts of similar length together; the results do not depend on it.
        order = sorted(range(len(texts)), key=lambda index: -len(ids[index]))
        readings: dict[int, Reading] = {}
        for start in range(0, len(order), BATCH_UTTERANCES):
            chosen = order[start : start + BATCH_UTTERANCES]
            batch = self._read_batch(
                [normalised[index] for index in chosen], [ids[index] for index in chosen],
                seed, number,
            )  # fmt: skip
            readings.update(zip(chosen, batch, strict=True))
        return [readings[index] for index in range(len(texts))]

    def _normalised(self, text: str) -> str:
        result = normalise_for(text, self.description.text)
        if not result.strip():
            raise UsageError(f"nothing in {text!r} can be spoken.", hint="give a text with words")
        return result

    def _read_batch(
        self, texts: list[str], ids: list[list[int]], seed: int, speaker: int
    ) -> list[Reading]:
        lengths = np.array([len(symbols) for symbols in ids])
        symbols = np.zeros((len(ids), lengths.max()), dtype=np.int64)
        for row, numbers in enumerate(ids):
            symbols[row, : len(numbers)] = numbers
        several = self.description.architecture.chooses_speaker
        spoken = self._model.speak(
            symbols,
            lengths,
            max_frames=np.array([self._max_frames(len(numbers)) for numbers in ids]),
            seeds=[_seed_of(text, seed) for text in texts],
            gate_threshold=self.description.gate_threshold,
            speakers=np.full_like(lengths, speaker) if several else None,
        )
        steps = -(-spoken.lengths // self.description.architecture.reduction_factor)
        return [
            Reading(
                text,
                _at_least_two(spoken.frames[row, : spoken.lengths[row]].T),
                spoken.attention[row, : steps[row], : lengths[row]].copy(),
                bool(spoken.stopped[row]),
            )
            for row, text in enumerate(texts)
        ]

    def _max_frames(self, symbols: int) -> int:
        audio = self.description.audio
        margin = MARGIN_SECONDS * audio.sample_rate_hz / audio.hop_samples
        slowest = self.description.frames_per_symbol * symbols
        return int(np.ceil(RUNAWAY_FACTOR * slowest + margin))


def _own_engine(folder: Path) -> Engine:
    """What the files in the folder were made for."""
    if (folder / INT8_STEP).is_file():
        return "onnx-int8"
    return "onnx" if (folder / STEP).is_file() else "torch"


def _seed_of(text: str, seed: int) -> int:
    """A seed of each text's own, so that its prenet noise does not depend on its neighbours."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{text}".encode()).digest()[:6])


def _at_least_two(mel: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy of ``mel`` (C, F) whose only frame is doubled: one frame makes no sample of sound."""
    return np.pad(mel, ((0, 0), (0, max(0, 2 - mel.shape[1]))), mode="edge")
