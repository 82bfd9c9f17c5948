"""Text to a sound file, with the champion or with a voice of one's choice."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kamerton.core.errors import InputMissingError, UsageError
from kamerton.core.files import write_bytes

if TYPE_CHECKING:
    from kamerton.config.schema import Params
    from kamerton.model.voice import Engine

_SUFFIXES = (".wav", ".flac")


@dataclass(frozen=True, slots=True)
class Spoken:
    """What was said: where it is, by which voice, and whether it ended by itself."""

    path: Path
    voice: str
    seconds: float
    rate_hz: int
    stopped: bool

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**asdict(self), "path": str(self.path)}


def speak(
    text: str,
    out: Path,
    *,
    model: Path | None,
    params: Params,
    speaker: str | None = None,
    engine: Engine = "auto",
) -> Spoken:
    """Say ``text`` and write it to ``out``, which is replaced if it exists.

    Args:
        text: What to say; it is normalised first.
        out: Sound file to write, .wav or .flac.
        model: Folder of an exported voice; None for the champion of the registry.
        params: Sections promote and tracking (the registry) and evaluate (the vocoder).
        speaker: Who speaks, in a voice of several; None is the voice's own.
        engine: What runs the voice, see ``Voice.load``.

    Raises:
        UsageError: the text has nothing to say, ``out`` is no sound file, or the voice has no such
            speaker.
        UnknownSymbolError: the text has characters that the voice never saw.
        InputMissingError: there is no such voice, or no champion yet.
    """
    from kamerton.audio.files import encode_flac, write_wav
    from kamerton.model.voice import Voice

    if not text.strip():
        raise UsageError("There is no text to say.", hint='give some: kamerton say "hello"')
    if out.suffix.lower() not in _SUFFIXES:
        raise UsageError(
            f"{out} is not a name for sound.", hint=f"end it with {' or '.join(_SUFFIXES)}"
        )
    folder, name = (model, str(model)) if model is not None else champion_folder(params)
    (utterance,) = Voice.load(folder, engine=engine).speak(
        [text],
        seed=params.evaluate.seed,
        griffin_lim_iterations=params.evaluate.griffin_lim_iterations,
        speaker=speaker,
    )
    if out.suffix.lower() == ".flac":
        write_bytes(out, encode_flac(utterance.wave, utterance.rate_hz))
    else:
        write_wav(out, utterance.wave, utterance.rate_hz)
    seconds = utterance.wave.size / utterance.rate_hz
    return Spoken(out, name, seconds, utterance.rate_hz, utterance.stopped)


def champion_folder(params: Params) -> tuple[Path, str]:
    """Folder and name of the voice that the registry calls champion.

    Raises:
        InputMissingError: no voice was promoted yet.
        RegistryError: MLflow does not answer.
    """
    from kamerton.tracking.model_registry import MODEL_FOLDER, ModelRegistry

    registry = ModelRegistry.of(params.tracking, params.promote)
    version = registry.champion()
    if version is None:
        raise InputMissingError(
            f"models:/{registry.name}@{registry.alias}",
            produced_by="promote",
            hint="run `dvc repro`, or `kamerton promote --force` if that has nothing to do; "
            "or name a voice with --model",
        )
    return registry.folder(version, MODEL_FOLDER), f"{registry.name} version {version.version}"
