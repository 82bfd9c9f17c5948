"""Word error rates of the toy recogniser on sentences it never saw, through both backends.

python -m kamerton.demo.toy_whisper.evaluate [--model assets/toy-whisper] [--sentences 200]
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np

from kamerton.audio.griffin_lim import griffin_lim
from kamerton.audio.mel import log_mel
from kamerton.config.schema import TranscribeParams
from kamerton.data.transcription import load_recogniser
from kamerton.demo.toy_whisper import data
from kamerton.metrics.intelligibility import word_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Backend = Literal["whisper", "faster-whisper"]
DEFAULT_MODEL: Final = Path("assets/toy-whisper")
SEED: Final = 4242


@dataclass(frozen=True, slots=True)
class Material:
    """A kind of sound to be recognised: its name, waves at 16 kHz and what is said in them."""

    name: str
    waves: list[NDArray[np.float32]]
    texts: list[str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one backend did on one material; ``logprob`` is the mean of its confidence."""

    backend: str
    material: str
    wer: float
    sentences: int
    logprob: float


def materials(sentences: int, *, seed: int = SEED) -> list[Material]:
    """Originals, their copy-synthesis, and resynthesis of blurred, warped mels."""
    random = np.random.default_rng(seed)
    texts, originals, copies, rough = [], [], [], []
    for number, (text, wave) in enumerate(data.held_out(sentences, seed=seed)):
        mel = log_mel(wave, data.AUDIO)
        texts.append(text)
        originals.append(_prepared(wave))
        copies.append(_prepared(griffin_lim(mel, data.AUDIO, seed=number)))
        rough.append(_prepared(griffin_lim(data.degraded(mel, random), data.AUDIO, seed=number)))
    return [
        Material("originals", originals, texts),
        Material("copy-synthesis", copies, texts),
        Material("degraded synthesis", rough, texts),
    ]


def evaluate(model: Path, backend: Backend, given: Sequence[Material]) -> list[Outcome]:
    """Recognise every material with one backend, one sentence in a window."""
    recogniser = load_recogniser(TranscribeParams(backend=backend, model=str(model)), "en")
    outcomes = []
    for material in given:
        answers = recogniser.transcribe(material.waves)
        errors = word_errors(material.texts, [answer.text for answer in answers])
        sure = float(np.mean([answer.avg_logprob or 0.0 for answer in answers]))
        outcomes.append(Outcome(backend, material.name, errors.wer, len(answers), sure))
    return outcomes


def _prepared(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """As a clip arrives at the recogniser: 16 kHz, a tenth of a second of silence around it."""
    return np.pad(data.to_whisper_rate(wave, data.AUDIO.sample_rate_hz), data.RATE_HZ // 10)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line for each backend and material."""
    parser = argparse.ArgumentParser(
        prog="python -m kamerton.demo.toy_whisper.evaluate",
        description="WER of the toy recogniser on held-out sentences, through both backends.",
    )
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="its folder")
    parser.add_argument("--sentences", type=int, default=200, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="which (%(default)s)")
    options = parser.parse_args(arguments)
    given = materials(options.sentences, seed=options.seed)
    sys.stdout.write(f"{'backend':16}{'material':22}{'WER':>8}{'logprob':>9}\n")
    for backend in get_args(Backend):
        for outcome in evaluate(options.model, backend, given):
            sys.stdout.write(
                f"{outcome.backend:16}{outcome.material:22}"
                f"{outcome.wer:8.2%}{outcome.logprob:9.2f}\n"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
