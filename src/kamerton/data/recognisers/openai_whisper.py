"""openai-whisper, the reference implementation."""

import pickle
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kamerton.config.schema import TranscribeParams
from kamerton.core.errors import InputCorruptError, ToolMissingError
from kamerton.data.attribution import WindowAnswer
from kamerton.data.recognisers.tokens import read_tokens
from kamerton.data.transcription import (
    FALLBACK_COMPRESSION_RATIO,
    FALLBACK_LOGPROB,
    WINDOWS_AT_ONCE,
    ModelFile,
    Recognition,
    require_language,
    unknown_model,
)

_INSTALL = (
    "pip install 'kamerton[whisper]', then `pip install --no-deps openai-whisper`; "
    "or set transcribe.backend: faster-whisper"
)


class OpenAIWhisper:
    """Whisper's own ``decode`` for windows and ``transcribe`` for clips; fp16 on a GPU only.

    Clips alone are decoded without timestamps, so that one of up to 30 s is exactly one window;
    sampling (temperatures above 0) is seeded by the sound, so an answer does not depend on what
    came before.
    """

    def __init__(self, model: ModelFile, params: TranscribeParams, language: str) -> None:
        """Load the weights; see ``load_recogniser`` for errors."""
        torch, whisper = _packages()
        if params.threads:
            torch.set_num_threads(params.threads)
        if model.path is None and model.name not in whisper.available_models():
            raise unknown_model(model.name, whisper.available_models())
        self._model = _load(whisper, model)
        require_language(language, multilingual=bool(self._model.is_multilingual), model=model.name)
        self._language = language
        self._on_gpu = self._model.device.type == "cuda"
        self._beam_size = params.beam_size if params.beam_size > 1 else None
        self._options: dict[str, Any] = {
            "fp16": self._on_gpu,
            "temperature": params.temperatures,
            "beam_size": self._beam_size,
            "logprob_threshold": FALLBACK_LOGPROB,
            "compression_ratio_threshold": FALLBACK_COMPRESSION_RATIO,
            # Whether it is silence is for the filters to say; here it would drop the figures.
            "no_speech_threshold": None,
            "condition_on_previous_text": False,
            "without_timestamps": True,
            "verbose": None,
        }

    @property
    def windows_at_once(self) -> int:
        """More on a GPU than on a CPU."""
        return WINDOWS_AT_ONCE["cuda" if self._on_gpu else "cpu"]

    def transcribe(
        self, waves: Sequence[NDArray[np.float32]], language: str | None = None
    ) -> list[Recognition]:
        """One answer per wave, in order; waves are mono at 16 kHz."""
        return [
            self._listen(np.ascontiguousarray(wave, dtype=np.float32), language or self._language)
            for wave in waves
        ]

    def _listen(self, wave: NDArray[np.float32], language: str) -> Recognition:
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(zlib.crc32(wave.tobytes()))
            result = self._model.transcribe(wave, language=language, **self._options)
        return summarise(result["text"], result["language"], result["segments"])

    def decode_windows(
        self, waves: Sequence[NDArray[np.float32]], language: str | None = None
    ) -> list[WindowAnswer]:
        """One answer per window, in order, at temperature 0."""
        import torch
        import whisper

        if not waves:
            return []
        mels = torch.stack([self._mel(wave) for wave in waves])
        options = whisper.DecodingOptions(
            language=language or self._language, beam_size=self._beam_size, fp16=self._on_gpu
        )
        task = whisper.decoding.DecodingTask(self._model, options)
        return [self._timed(task, result) for result in task.run(mels)]

    def _timed(self, task: Any, result: Any) -> WindowAnswer:
        tokenizer, tokens = task.tokenizer, result.tokens
        texts = read_tokens(
            tokens,
            self._logprobs(task, tokens, result.audio_features),
            first_timestamp=tokenizer.timestamp_begin,
            end_of_text=tokenizer.eot,
            decode=tokenizer.decode,
        )
        return WindowAnswer(
            texts,
            round(float(result.no_speech_prob), 5),
            # One that was cut also has an end put after it, so only its length can tell.
            ended=len(tokens) < min(task.sample_len, task.n_ctx + 1 - len(task.initial_tokens)),
        )

    def _logprobs(self, task: Any, tokens: list[int], features: Any) -> list[float]:
        """Of each token in its place: ``decode`` keeps their sum only, so it is read once more."""
        import torch

        if not tokens:
            return []
        spoken = torch.tensor([[*task.initial_tokens, *tokens]], device=features.device)
        with torch.no_grad():
            logits = self._model.decoder(spoken[:, :-1], features[None])[0]
        logits = logits[len(task.initial_tokens) - 1 :].float()
        logits[:, list(task._get_suppress_tokens())] = -torch.inf
        sure = logits.log_softmax(dim=-1).gather(
            1, torch.tensor(tokens, device=logits.device)[:, None]
        )
        return [float(value) for value in sure[:, 0]]

    def language_probabilities(self, wave: NDArray[np.float32]) -> Mapping[str, float]:
        """By language code; an English-only model knows one."""
        if not self._model.is_multilingual:
            return {"en": 1.0}
        probabilities: Mapping[str, float] = self._model.detect_language(self._mel(wave))[1]
        return probabilities

    def _mel(self, wave: NDArray[np.float32]) -> Any:
        import whisper

        padded = whisper.pad_or_trim(np.ascontiguousarray(wave, dtype=np.float32))
        mel = whisper.log_mel_spectrogram(padded, n_mels=self._model.dims.n_mels)
        return mel.to(self._model.device)


def on_gpu() -> bool:
    """Whether Whisper would put its weights on a GPU.

    Raises:
        ToolMissingError: it, or torch, is not installed.
    """
    torch, _ = _packages()
    return bool(torch.cuda.is_available())


def _packages() -> tuple[Any, Any]:
    try:
        import torch
        import whisper
    except ImportError as error:
        raise ToolMissingError("openai-whisper", hint=_INSTALL) from error
    return torch, whisper


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
