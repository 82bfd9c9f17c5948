"""Let the voice read the test sentences, copy the recordings, and have all of it written down."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kamerton.audio.griffin_lim import griffin_lim
from kamerton.audio.mel import log_mel
from kamerton.audio.resample import resample
from kamerton.config.schema import AudioParams, TextParams
from kamerton.core.progress import Progress
from kamerton.evaluation.measure import (
    Heard,
    Sounds,
    UtteranceScores,
    errors_of,
    plain_metrics,
    warped_metrics,
)
from kamerton.metrics.alignment import FAILED, attention_scores
from kamerton.text.normalise import normalise_for

Wave = NDArray[np.float32]
In = TypeVar("In")
Out = TypeVar("Out")

RECOGNISER_HZ = 16_000
BATCH_ITEMS = 16  # fixed: how sentences are batched may change the last digits of a float
MAX_THREADS = 8


class Reading(Protocol):
    """One text as a voice reads it, before the vocoder."""

    @property
    def mel(self) -> NDArray[np.float32]:
        """Log-mel spectrogram, (C, F)."""

    @property
    def attention(self) -> NDArray[np.float32]:
        """Attention weights, (T, N)."""

    @property
    def stopped(self) -> bool:
        """Whether the voice ended by itself."""


class Description(Protocol):
    """What a voice says of itself."""

    @property
    def audio(self) -> AudioParams:
        """The mel spectrogram that it draws."""

    @property
    def text(self) -> TextParams:
        """How its texts are normalised."""


class SpeakingVoice(Protocol):
    """What evaluation needs of a voice."""

    @property
    def description(self) -> Description:
        """What the voice says of itself."""

    def read(
        self, texts: Sequence[str], *, seed: int = 0, speaker: str | None = None
    ) -> Sequence[Reading]:
        """Read the texts freely, as one speaker: no recording helps along."""


class Writer(Protocol):
    """What evaluation needs of a recogniser."""

    def transcribe(self, waves: Sequence[Wave]) -> Sequence[Any]:
        """Texts (``.text``) of mono waves at 16 kHz, in their order."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """One test sentence: what is to be said and how it was said, mono.

    ``speaker`` is who said it, where the voice has several.
    """

    id: str
    text: str
    wave: Wave
    rate_hz: int
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class Take:
    """One sentence, read: everything that the report shows of it."""

    scores: UtteranceScores
    sounds: Sounds
    mel: NDArray[np.float32]
    attention: NDArray[np.float32]


def read_sentences(
    sentences: Sequence[Sentence],
    voice: SpeakingVoice,
    recogniser: Writer,
    *,
    iterations: int,
    seed: int,
    on_progress: Progress,
) -> list[Take]:
    """Synthesise, copy, write down and measure every sentence; the order is kept.

    Args:
        sentences: The test sentences.
        voice: Reads their texts.
        recogniser: Writes down the recordings, their copies and what the voice said.
        iterations: Of Griffin-Lim, for the voice's mel and for the copies alike.
        seed: Of the voice's dropout and of the vocoder's first phase.
        on_progress: Told of the work done, in passes over a sentence (four each).
    """
    total = 4 * len(sentences)
    audio = voice.description.audio
    readings: list[Reading] = []
    for batch in _batches(sentences):
        for speaker, group in itertools.groupby(batch, lambda sentence: sentence.speaker):
            readings += voice.read([one.text for one in group], seed=seed, speaker=speaker)
        on_progress(len(readings), total, "speaking")

    def vocode(index: int) -> Sounds:
        return _sounds(sentences[index], readings[index].mel, audio, iterations, seed)

    sounds = _parallel(vocode, range(len(sentences)))
    on_progress(2 * len(sentences), total, "vocoding")

    heard: list[Heard] = []
    for part in _batches(sounds):
        heard += _write_down(part, recogniser, voice.description.text)
        on_progress(2 * len(sentences) + len(heard), total, "writing down")

    def measure(index: int) -> UtteranceScores:
        reading, sound = readings[index], sounds[index]
        return _measure(sentences[index], reading, sound, heard[index], audio.hop_samples)

    scores = _parallel(measure, range(len(sentences)))
    on_progress(total, total, "measuring")
    return [
        Take(score, sound, reading.mel, reading.attention)
        for score, sound, reading in zip(scores, sounds, readings, strict=True)
    ]


def _batches(items: Sequence[In]) -> Iterator[Sequence[In]]:
    for start in range(0, len(items), BATCH_ITEMS):
        yield items[start : start + BATCH_ITEMS]


def _parallel(work: Callable[[In], Out], items: Sequence[In]) -> list[Out]:
    """Numpy and the compiled loops let go of the interpreter, so threads are enough."""
    with ThreadPoolExecutor(max_workers=min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        return list(pool.map(work, items))


def _sounds(
    sentence: Sentence,
    mel: NDArray[np.float32],
    audio: AudioParams,
    iterations: int,
    seed: int,
) -> Sounds:
    """The three sounds at the voice's rate; copy and voice go through one and the same vocoder."""
    rate_hz = audio.sample_rate_hz
    reference = resample(sentence.wave, sentence.rate_hz, rate_hz)

    def vocode(picture: NDArray[np.float32]) -> Wave:
        if not np.isfinite(picture).all():  # the metrics will say so
            frames = max(2, picture.shape[1])
            return np.full((frames - 1) * audio.hop_samples, np.nan, dtype=np.float32)
        return griffin_lim(picture, audio, iterations=iterations, seed=seed)

    return Sounds(reference, vocode(log_mel(reference, audio)), vocode(mel), rate_hz)


def _write_down(sounds: Sequence[Sounds], recogniser: Writer, text: TextParams) -> list[Heard]:
    waves = [
        _for_recogniser(wave, sound.rate_hz)
        for sound in sounds
        for wave in (sound.reference, sound.copy_synthesis, sound.synthesis)
    ]
    # In the form of the dataset's texts, so that "20" and "twenty" are one word.
    texts = [normalise_for(answer.text, text) for answer in recogniser.transcribe(waves)]
    return [Heard(*texts[index : index + 3]) for index in range(0, len(texts), 3)]


def _for_recogniser(wave: Wave, rate_hz: int) -> Wave:
    """At 16 kHz and finite; a wave that is not finite is silence to the recogniser."""
    if not np.isfinite(wave).all():
        return np.zeros(RECOGNISER_HZ, dtype=np.float32)
    return resample(np.clip(wave, -1.0, 1.0), rate_hz, RECOGNISER_HZ)


def _measure(
    sentence: Sentence, reading: Reading, sounds: Sounds, heard: Heard, hop_samples: int
) -> UtteranceScores:
    reference, copy, rate_hz = sounds.reference, sounds.copy_synthesis, sounds.rate_hz
    return UtteranceScores(
        id=sentence.id,
        text=sentence.text,
        reference_seconds=reference.size / rate_hz,
        synthesis_seconds=sounds.synthesis.size / rate_hz,
        stopped=reading.stopped,
        attention=attention_scores(reading.attention) if reading.stopped else FAILED,
        synthesis=warped_metrics(reference, sounds.synthesis, rate_hz),
        copy_synthesis={
            **warped_metrics(reference, copy, rate_hz),
            **plain_metrics(reference, copy, rate_hz, hop_samples),
        },
        heard=heard,
        errors=errors_of(sentence.text, heard),
    )
