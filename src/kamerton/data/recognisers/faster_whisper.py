"""faster-whisper: the same models on CTranslate2, without torch."""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kamerton.config.schema import TranscribeParams
from kamerton.core.errors import InputCorruptError, InputEmptyError, ToolMissingError
from kamerton.core.workers import usable_cores
from kamerton.data.attribution import WindowAnswer
from kamerton.data.recognisers.openai_whisper import summarise
from kamerton.data.recognisers.tokens import read_tokens
from kamerton.data.transcription import (
    FALLBACK_COMPRESSION_RATIO,
    FALLBACK_LOGPROB,
    RATE_HZ,
    WINDOWS_AT_ONCE,
    ModelFile,
    Recognition,
    require_language,
    unknown_model,
)
from kamerton.data.windows import WINDOW_SECONDS

_NEEDED_FILES = ("config.json", "tokenizer.json")
_WINDOW_SAMPLES = round(WINDOW_SECONDS * RATE_HZ)
_WINDOW_FRAMES = 3000
_LAST_FIRST_TIMESTAMP = 50  # a window's first text starts within a second, as in Whisper
_SEED_BITS = 0x7FFFFFFF
_LEAST_PROBABILITY = 1e-30


class FasterWhisper:
    """Whole numbers of 8 bits on a CPU, half precision on a GPU."""

    def __init__(self, model: ModelFile, params: TranscribeParams, language: str) -> None:
        """Load the weights; see ``load_recogniser`` for errors."""
        ctranslate2, faster_whisper = _packages()
        known = faster_whisper.available_models()
        if model.path is None and "/" not in model.name and model.name not in known:
            raise unknown_model(model.name, known)
        gpu = ctranslate2.get_cuda_device_count() > 0
        self._placement: dict[str, Any] = {
            "device": "cuda" if gpu else "cpu",
            "compute_type": "float16" if gpu else "int8",
            "cpu_threads": params.threads or usable_cores(),
        }
        self._on_gpu = gpu
        self._file = model
        self._model = _load(faster_whisper, model, **self._placement)
        multilingual = bool(self._model.model.is_multilingual)
        require_language(language, multilingual=multilingual, model=model.name)
        self._language = language
        self._beam_size = params.beam_size
        self._temperatures = list(params.temperatures)
        self._options: dict[str, Any] = {
            "beam_size": params.beam_size,
            "best_of": 1,
            "log_prob_threshold": FALLBACK_LOGPROB,
            "compression_ratio_threshold": FALLBACK_COMPRESSION_RATIO,
            "no_speech_threshold": None,
            "condition_on_previous_text": False,
            "without_timestamps": True,
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
        """Without chance first; only an answer that fails the limits climbs the ladder."""
        if self._temperatures[0] == 0.0:
            answer = self._ask(self._model, wave, language, self._temperatures[:1])
            if len(self._temperatures) == 1 or _is_good(answer):
                return answer
        return self._ask(self._reseeded(wave), wave, language, self._temperatures)

    def _ask(
        self, model: Any, wave: NDArray[np.float32], language: str, temperatures: list[float]
    ) -> Recognition:
        segments, info = model.transcribe(
            wave, language=language, temperature=temperatures, **self._options
        )
        windows = [asdict(segment) for segment in segments]
        text = "".join(window["text"] for window in windows)
        return summarise(text, info.language, windows)

    def _reseeded(self, wave: NDArray[np.float32]) -> Any:
        """The model in new threads, so that chance begins with this sound and nothing before it.

        A thread of CTranslate2 takes its seed when it first samples and never again.
        """
        import ctranslate2
        import faster_whisper

        ctranslate2.set_random_seed(zlib.crc32(wave.tobytes()) & _SEED_BITS)
        return _load(faster_whisper, self._file, **self._placement)

    def decode_windows(
        self, waves: Sequence[NDArray[np.float32]], language: str | None = None
    ) -> list[WindowAnswer]:
        """One answer per window, in order, at temperature 0."""
        if not waves:
            return []
        features = self._encode(waves)
        tokenizer = self._tokenizer(language or self._language)
        prompt = list(tokenizer.sot_sequence)
        results = self._model.model.generate(
            features,
            [prompt] * len(waves),
            beam_size=self._beam_size,
            max_length=self._model.max_length,
            return_no_speech_prob=True,
            # With several beams CTranslate2 gives empty ones (4.8.5).
            return_logits_vocab=self._beam_size == 1,
            max_initial_timestamp_index=_LAST_FIRST_TIMESTAMP,
        )
        # CTranslate2 keeps half of the places for a prompt, as Whisper does.
        room = min(self._model.max_length // 2, self._model.max_length - len(prompt))
        answers = []
        for number, result in enumerate(results):
            tokens = list(result.sequences_ids[0])
            texts = read_tokens(
                tokens,
                self._logprobs(result, tokens, tokenizer, features, number),
                first_timestamp=tokenizer.timestamp_begin,
                end_of_text=tokenizer.eot,
                decode=tokenizer.decode,
            )
            silence = round(float(result.no_speech_prob), 5)
            answers.append(WindowAnswer(texts, silence, ended=len(tokens) < room))
        return answers

    def _logprobs(
        self, result: Any, tokens: list[int], tokenizer: Any, features: Any, number: int
    ) -> list[float]:
        """Of each token of text in its place; those of times are left at 0."""
        if not tokens:
            return []
        if self._beam_size == 1:
            logits = result.logits[0]
            return [
                _logprob(step, token) if token < tokenizer.eot else 0.0  # of times nobody asks
                for step, token in zip(logits, tokens, strict=False)
            ]
        return self._aligned_logprobs(tokens, tokenizer, features, number)

    def _aligned_logprobs(
        self, tokens: list[int], tokenizer: Any, features: Any, number: int
    ) -> list[float]:
        """The same from a second reading, as text without times."""
        import ctranslate2

        words = [token for token in tokens if token < tokenizer.eot]
        if not words:
            return [0.0] * len(tokens)
        one = _row(ctranslate2, features, number)
        aligned = self._model.model.align(
            one, list(tokenizer.sot_sequence), [words], _WINDOW_FRAMES // 2
        )[0]
        sure = (math.log(max(p, _LEAST_PROBABILITY)) for p in aligned.text_token_probs)
        return [next(sure) if token < tokenizer.eot else 0.0 for token in tokens]

    def _tokenizer(self, language: str) -> Any:
        from faster_whisper.tokenizer import Tokenizer

        return Tokenizer(
            self._model.hf_tokenizer,
            self._model.model.is_multilingual,
            task="transcribe",
            language=language,
        )

    def language_probabilities(self, wave: NDArray[np.float32]) -> Mapping[str, float]:
        """By language code; an English-only model knows one."""
        if not self._model.model.is_multilingual:
            return {"en": 1.0}
        found = self._model.model.detect_language(self._encode([wave]))[0]
        return {token.strip("<|>"): float(probability) for token, probability in found}

    def _encode(self, waves: Sequence[NDArray[np.float32]]) -> Any:
        """The encoder's output for windows filled up with silence."""
        import ctranslate2

        mels = [np.ascontiguousarray(self._mel(wave)[None], dtype=np.float32) for wave in waves]
        batches = [np.concatenate(mels)] if self._on_gpu else mels
        encoded = [
            self._model.model.encode(ctranslate2.StorageView.from_array(batch), to_cpu=False)
            for batch in batches
        ]
        if len(encoded) == 1:
            return encoded[0]
        return ctranslate2.StorageView.from_array(np.concatenate([np.asarray(e) for e in encoded]))

    def _mel(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        padded = np.zeros(_WINDOW_SAMPLES, dtype=np.float32)
        length = min(len(wave), _WINDOW_SAMPLES)
        padded[:length] = wave[:length]
        mel: NDArray[np.float32] = self._model.feature_extractor(padded)[:, :_WINDOW_FRAMES]
        return mel


def _is_good(answer: Recognition) -> bool:
    return (answer.avg_logprob or 0.0) >= FALLBACK_LOGPROB and (
        answer.compression_ratio or 0.0
    ) <= FALLBACK_COMPRESSION_RATIO


def _logprob(step: Any, token: int) -> float:
    """From one step's logits over the vocabulary, in which what may not come is masked."""
    logits = _as_array(step).ravel()
    top = logits.max()
    with np.errstate(over="ignore"):  # the lowest float less something is minus infinity
        total = float(np.exp(logits - top).sum(dtype=np.float64))
    return float(logits[token]) - float(top) - math.log(total)


def _as_array(view: Any) -> NDArray[np.float32]:
    """A copy on this side of a tensor that may lie on the GPU."""
    if view.device != "cpu":
        import ctranslate2

        view = view.to_device(ctranslate2.Device.cpu)
    return np.asarray(view)


def _row(ctranslate2: Any, features: Any, number: int) -> Any:
    """The encoder's output of one window, as a batch of one."""
    if features.shape[0] == 1:
        return features
    rows = _as_array(features.to(ctranslate2.DataType.float32))
    return ctranslate2.StorageView.from_array(np.ascontiguousarray(rows[number : number + 1]))


def on_gpu() -> bool:
    """Whether CTranslate2 finds a GPU.

    Raises:
        ToolMissingError: it, or faster-whisper, is not installed.
    """
    ctranslate2, _ = _packages()
    return bool(ctranslate2.get_cuda_device_count() > 0)


def _packages() -> tuple[Any, Any]:
    try:
        import ctranslate2
        import faster_whisper
    except ImportError as error:
        raise ToolMissingError("faster-whisper", extra="asr") from error
    return ctranslate2, faster_whisper


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
