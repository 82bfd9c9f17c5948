"""openai-whisper, the reference implementation."""

import pickle
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kamerton.config.schema import TranscribeParams
from kamerton.core.errors import InputCorruptError, ToolMissingError
from kamerton.data.transcription import ModelFile, Recognition, require_language, unknown_model

_INSTALL = (
    "pip install 'kamerton[whisper]', then `pip install --no-deps openai-whisper`; "
    "or set transcribe.backend: faster-whisper"
)


class OpenAIWhisper:
    """Each clip is one window of Whisper's own ``transcribe``: half precision on a GPU only.

    Decoding is without timestamps, so that a clip of up to 30 s is exactly one window; sampling
    (temperatures above 0) is seeded by the sound, so an answer does not depend on what came before.
    """

    def __init__(self, model: ModelFile, params: TranscribeParams, language: str) -> None:
        """Load the weights; see ``load_recogniser`` for errors."""
        try:
            import torch
            import whisper
        except ImportError as error:
            raise ToolMissingError("openai-whisper", hint=_INSTALL) from error
        if params.threads:
            torch.set_num_threads(params.threads)
        if model.path is None and model.name not in whisper.available_models():
            raise unknown_model(model.name, whisper.available_models())
        self._model = _load(whisper, model)
        require_language(language, multilingual=bool(self._model.is_multilingual), model=model.name)
        self._options: dict[str, Any] = {
            "language": None if params.detect_language else language,
            "fp16": self._model.device.type == "cuda",
            "temperature": params.temperatures,
            "beam_size": params.beam_size if params.beam_size > 1 else None,
            "logprob_threshold": params.min_avg_logprob,
            "compression_ratio_threshold": params.max_compression_ratio,
            # Whether it is silence is for the filters to say; here it would drop the figures.
            "no_speech_threshold": None,
            "condition_on_previous_text": False,
            "without_timestamps": True,
            "verbose": None,
        }

    def transcribe(self, waves: Sequence[NDArray[np.float32]]) -> list[Recognition]:
        """One answer per wave, in order; waves are mono at 16 kHz."""
        return [self._listen(np.ascontiguousarray(wave, dtype=np.float32)) for wave in waves]

    def _listen(self, wave: NDArray[np.float32]) -> Recognition:
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(zlib.crc32(wave.tobytes()))
            result = self._model.transcribe(wave, **self._options)
        return summarise(result["text"], result["language"], result["segments"])


def _load(whisper: Any, model: ModelFile) -> Any:
    try:
        return whisper.load_model(model.load_name)
    except (
        KeyError,
        TypeError,
        ValueError,
        EOFError,
        pickle.UnpicklingError,
        RuntimeError,
    ) as error:
        if model.path is None:
            raise _not_downloaded(model.name, error) from error
        raise InputCorruptError(
            model.path,
            problem=f"is no Whisper checkpoint ({error})",
            hint="it must hold `dims` and `model_state_dict`, as Whisper's own files do",
        ) from error
    except OSError as error:
        raise _not_downloaded(model.name, error) from error


def _not_downloaded(name: str, error: Exception) -> ToolMissingError:
    return ToolMissingError(
        f"the Whisper model {name!r} (download failed: {error})",
        hint="download it where there is a network and give its path in transcribe.model",
    )


def summarise(text: str, language: str, windows: Sequence[Mapping[str, Any]]) -> Recognition:
    """One set of figures for all windows of a clip: means by tokens, and the worst of the rest."""
    if not windows:
        return Recognition("", language, None, None, None, None)
    weights = [max(1, len(window["tokens"])) for window in windows]
    logprobs = [float(window["avg_logprob"]) for window in windows]
    return Recognition(
        text=" ".join(text.split()),
        language=language,
        avg_logprob=round(float(np.average(logprobs, weights=weights)), 5),
        no_speech_prob=round(max(float(window["no_speech_prob"]) for window in windows), 5),
        compression_ratio=round(max(float(w["compression_ratio"]) for w in windows), 5),
        temperature=max(float(window["temperature"]) for window in windows),
    )
