"""Speech recognition as the rest of the product sees it: one protocol, two backends."""

import difflib
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kamerton.config.schema import TranscribeParams, is_local_path
from kamerton.core.errors import InputEmptyError, InputMissingError, ParamsError
from kamerton.core.files import sha256_file, sha256_json
from kamerton.data.attribution import WindowAnswer

RATE_HZ = 16000  # what Whisper listens at
HASH_DIGITS = 12
PACKED, ALONE = "packed", "alone"  # ways to hear a clip
MODEL_BINARY = "model.bin"  # the weights in a folder that CTranslate2 reads
_MODEL_FILES = (  # and what else changes what it writes
    MODEL_BINARY,
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "vocabulary.*",
)

# Whisper's own limits for trying the next temperature. What is believed in the end is for the
# filters to say, whose limits may change without anything being heard again.
FALLBACK_LOGPROB = -1.0
FALLBACK_COMPRESSION_RATIO = 2.4
# A CPU gains too: its encoder takes as long for each window, but the decoder reads its weights once
# for all (tiny, int8, 90 tokens: 0.18 s a window instead of 0.40).
WINDOWS_AT_ONCE = {"cuda": 8, "cpu": 4}

_PACKAGES = {
    "whisper": ("openai-whisper", "torch"),
    "faster-whisper": ("faster-whisper", "ctranslate2"),
}


@dataclass(frozen=True, slots=True)
class Recognition:
    """What was heard in one clip, and how sure the recogniser is.

    The figures are None where it gives none because it heard nothing at all.

    Attributes:
        avg_logprob: mean natural log probability of the tokens: of its own words where the clip
            shared a window, and as Whisper has it (the end of the text included) where it was
            heard alone.
        no_speech_prob: of the window, also where the clip shared it with others.
        temperature: the last one tried.
        language_prob: of ``language`` in the whole recording; None where it was not looked for.
        way: PACKED where the answer comes from a shared window, ALONE otherwise.
        redo: why the first answer was not taken and the clip heard again, in another window
            or alone; None where it was not.
    """

    text: str
    language: str
    avg_logprob: float | None
    no_speech_prob: float | None
    compression_ratio: float | None
    temperature: float | None
    language_prob: float | None = None
    way: str = ALONE
    redo: str | None = None


class Recogniser(Protocol):
    """Writes down speech; waves are mono at 16 kHz, answers come in order."""

    @property
    def windows_at_once(self) -> int:
        """How many windows it gains from hearing together."""

    def transcribe(
        self, waves: Sequence[NDArray[np.float32]], language: str | None = None
    ) -> list[Recognition]:
        """Hear each wave on its own, with the whole ladder of temperatures.

        ``language`` None is the one the recogniser was loaded for.
        """

    def decode_windows(
        self, waves: Sequence[NDArray[np.float32]], language: str | None = None
    ) -> list[WindowAnswer]:
        """Hear windows of up to 30 s once, at temperature 0, and say when each text was said."""

    def language_probabilities(self, wave: NDArray[np.float32]) -> Mapping[str, float]:
        """How probable each language is in a window of up to 30 s."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """Where the weights come from: a path, or the name of a published model."""

    name: str
    path: Path | None

    @property
    def load_name(self) -> str:
        """What the backend's loader takes."""
        return str(self.path) if self.path else self.name

    @property
    def identity(self) -> str:
        """The name of a published model; the beginning of the SHA-256 of a local one."""
        if self.path is None:
            return self.name
        weights = self.path / MODEL_BINARY if self.path.is_dir() else self.path
        return sha256_file(weights)[:HASH_DIGITS]

    @property
    def content(self) -> str:
        """As ``identity``, but of everything in the folder of a model that an answer depends on."""
        if self.path is None or not self.path.is_dir():
            return self.identity
        files = {file for name in _MODEL_FILES for file in self.path.glob(name) if file.is_file()}
        return sha256_json({file.name: sha256_file(file) for file in files})[:HASH_DIGITS]


@dataclass(frozen=True, slots=True)
class ListeningIdentity:
    """Everything besides the sound that an answer depends on, for keys of a cache."""

    backend: str
    model: str
    packages: tuple[str, ...]
    device: str
    beam_size: int
    temperatures: tuple[float, ...]


def listening_identity(params: TranscribeParams, model: ModelFile) -> ListeningIdentity:
    """What makes answers with these parameters; loads no weights.

    Raises:
        ToolMissingError: the backend's package is not installed.
    """
    packages = _PACKAGES[params.backend]
    if params.backend == "whisper":
        from kamerton.data.recognisers.openai_whisper import on_gpu
    else:
        from kamerton.data.recognisers.faster_whisper import on_gpu
    device = "gpu" if on_gpu() else "cpu"
    return ListeningIdentity(
        params.backend,
        model.content,
        tuple(f"{name} {importlib.metadata.version(name)}" for name in packages),
        device,
        params.beam_size,
        params.temperatures,
    )


def load_recogniser(params: TranscribeParams, language: str) -> Recogniser:
    """Load the backend and model that ``params`` name, for speech in ``language``.

    Raises:
        ToolMissingError: the backend's package is not installed, or the weights of a published
            model can be neither found nor downloaded.
        InputMissingError, InputEmptyError, InputCorruptError: the path of the model leads to
            nothing usable.
        ParamsError: there is no such model, or it does not know the language.
    """
    model = find_model(params)
    if params.backend == "whisper":
        from kamerton.data.recognisers.openai_whisper import OpenAIWhisper

        return OpenAIWhisper(model, params, language)
    from kamerton.data.recognisers.faster_whisper import FasterWhisper

    return FasterWhisper(model, params, language)


def find_model(params: TranscribeParams) -> ModelFile:
    """Resolve ``params.model`` against the current folder.

    A folder may hold the model in both forms, so that the parameter can stay as it is when the
    backend changes: one ``*.pt`` for ``whisper``, and ``model.bin`` directly in it or in one
    folder below for ``faster-whisper``.
    """
    path = Path(params.model).expanduser()
    if not path.exists():
        if _may_be_hub_id(params) or not is_local_path(params.model):
            return ModelFile(params.model, None)
        hint = "name a Whisper model (tiny, base, small, medium, large-v3), or correct the path"
        raise InputMissingError(path, produced_by="you", hint=hint)
    if params.backend == "whisper":
        return ModelFile(params.model, _only(path, "*.pt") if path.is_dir() else path)
    if path.is_dir() and not (path / MODEL_BINARY).exists():
        return ModelFile(params.model, _only(path, f"*/{MODEL_BINARY}").parent)
    if not path.is_dir():
        hint = "convert it with `ct2-transformers-converter`, or set transcribe.backend: whisper"
        raise InputEmptyError(path, wanted="CTranslate2 model (a folder with model.bin)", hint=hint)
    return ModelFile(params.model, path)


def _may_be_hub_id(params: TranscribeParams) -> bool:
    """Whether the name reads as owner/model and not as a path into an existing folder."""
    owner, slash, model = params.model.partition("/")
    plain = bool(owner) and bool(model) and "/" not in model and not owner.startswith((".", "~"))
    return params.backend == "faster-whisper" and bool(slash) and plain and not Path(owner).is_dir()


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) == 1:
        return found[0]
    wanted = f"file {pattern}" if not found else f"single file {pattern} but {len(found)}"
    raise InputEmptyError(folder, wanted=wanted, hint="give the path of the model itself")


def unknown_model(name: str, known: Sequence[str]) -> ParamsError:
    """The error for a name that no published model has."""
    near = difflib.get_close_matches(name, known, n=1)
    suggestion = f"did you mean {near[0]!r}? " if near else ""
    return ParamsError(
        f"transcribe.model: there is no Whisper model {name!r}",
        hint=f"{suggestion}known: {', '.join(known)}; or give the path of a model",
    )


def require_language(language: str, *, multilingual: bool, model: str) -> None:
    """Refuse to transcribe other languages with an English-only model."""
    if not multilingual and language != "en":
        raise ParamsError(
            f"text.language is {language!r}, but the model {model!r} knows English only",
            hint="name a multilingual model in transcribe.model, for example large-v3",
        )
