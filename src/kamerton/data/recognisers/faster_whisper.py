"""faster-whisper: the same models on CTranslate2, without torch."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kamerton.config.schema import TranscribeParams
from kamerton.core.errors import InputCorruptError, InputEmptyError, ToolMissingError
from kamerton.data.recognisers.openai_whisper import summarise
from kamerton.data.transcription import ModelFile, Recognition, require_language, unknown_model

_SEED = 1234
_NEEDED_FILES = ("config.json", "tokenizer.json")


class FasterWhisper:
    """Whole numbers of 8 bits on a CPU, half precision on a GPU; each clip one window."""

    def __init__(self, model: ModelFile, params: TranscribeParams, language: str) -> None:
        """Load the weights; see ``load_recogniser`` for errors."""
        try:
            import ctranslate2
            import faster_whisper
        except ImportError as error:
            raise ToolMissingError("faster-whisper", extra="asr") from error
        known = faster_whisper.available_models()
        if model.path is None and "/" not in model.name and model.name not in known:
            raise unknown_model(model.name, known)
        # Read by each worker thread when it first samples, so it must be set before loading.
        ctranslate2.set_random_seed(_SEED)
        on_gpu = ctranslate2.get_cuda_device_count() > 0
        self._model = _load(
            faster_whisper,
            model,
            device="cuda" if on_gpu else "cpu",
            compute_type="float16" if on_gpu else "int8",
            cpu_threads=params.threads or len(os.sched_getaffinity(0)),
        )
        multilingual = bool(self._model.model.is_multilingual)
        require_language(language, multilingual=multilingual, model=model.name)
        self._options: dict[str, Any] = {
            "language": None if params.detect_language and multilingual else language,
            "temperature": list(params.temperatures),
            "beam_size": params.beam_size,
            "best_of": 1,
            "log_prob_threshold": params.min_avg_logprob,
            "compression_ratio_threshold": params.max_compression_ratio,
            "no_speech_threshold": None,
            "condition_on_previous_text": False,
            "without_timestamps": True,
        }

    def transcribe(self, waves: Sequence[NDArray[np.float32]]) -> list[Recognition]:
        """One answer per wave, in order; waves are mono at 16 kHz."""
        return [self._listen(np.ascontiguousarray(wave, dtype=np.float32)) for wave in waves]

    def _listen(self, wave: NDArray[np.float32]) -> Recognition:
        segments, info = self._model.transcribe(wave, **self._options)
        windows = [asdict(segment) for segment in segments]
        text = "".join(window["text"] for window in windows)
        return summarise(text, info.language, windows)


def _load(faster_whisper: Any, model: ModelFile, **options: Any) -> Any:
    if model.path is not None:
        for name in _NEEDED_FILES:
            if not (model.path / name).is_file():
                hint = "convert the model again with --copy_files tokenizer.json"
                raise InputEmptyError(model.path, wanted=name, hint=hint)
    try:
        return faster_whisper.WhisperModel(model.load_name, **options)
    except Exception as error:  # both a download and CTranslate2's own errors come in many types
        if model.path is None:
            raise ToolMissingError(
                f"the Whisper model {model.name!r} (download failed: {error})",
                hint="download it where there is a network and give its path in transcribe.model",
            ) from error
        raise InputCorruptError(
            model.path,
            problem=f"is no CTranslate2 Whisper model ({error})",
            hint="convert it again from the original checkpoint",
        ) from error
