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
from kamerton.data.attribution import attribute
from kamerton.data.transcription import load_recogniser
from kamerton.data.windows import join_waves, lay, pack
from kamerton.demo.toy_whisper import data
from kamerton.metrics.intelligibility import word_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kamerton.data.attribution import Share
    from kamerton.data.transcription import Recogniser

Backend = Literal["whisper", "faster-whisper"]
DEFAULT_MODEL: Final = Path("assets/toy-whisper")
SEED: Final = 4242
_PAUSE_SECONDS = 0.2  # between two sentences of a clip, and the silence at their ends


@dataclass(frozen=True, slots=True)
class Material:
    """A kind of sound to be recognised: its name, waves at 16 kHz and what is said in them.

    ``packed`` clips share windows of 30 s and are heard with timestamps, others are heard alone.
    """

    name: str
    waves: list[NDArray[np.float32]]
    texts: list[str]
    packed: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one backend did on one material; ``logprob`` is the mean of its confidence.

    Of packed clips ``doubted`` is the share that `transcribe` would hear again, alone; the error
    rate is that of the packed answers all the same.
    """

    backend: str
    material: str
    wer: float
    sentences: int
    logprob: float
    doubted: float | None = None


def materials(sentences: int, *, seed: int = SEED) -> list[Material]:
    """Originals, alone and packed, and resyntheses of true and of blurred, warped mels."""
    random = np.random.default_rng(seed)
    texts, originals, copies, rough = [], [], [], []
    for number, (text, wave) in enumerate(data.held_out(sentences, seed=seed)):
        mel = log_mel(wave, data.AUDIO)
        texts.append(text)
        originals.append(_prepared(wave))
        copies.append(_prepared(griffin_lim(mel, data.AUDIO, seed=number)))
        rough.append(_prepared(griffin_lim(data.degraded(mel, random), data.AUDIO, seed=number)))
    pause = np.zeros(round(_PAUSE_SECONDS * data.RATE_HZ), dtype=np.float32)
    pairs = [
        np.concatenate([one, pause, other])
        for one, other in zip(originals[::2], originals[1::2], strict=False)
    ]
    both = [" ".join(pair) for pair in zip(texts[::2], texts[1::2], strict=False)]
    noisy = [_in_a_room(wave, random) for wave in originals]
    return [
        Material("originals", originals, texts),
        Material("copy-synthesis", copies, texts),
        Material("degraded synthesis", rough, texts),
        Material("two in a clip", [_in_a_room(wave, random) for wave in pairs], both),
        Material("packed windows", noisy, texts, packed=True),
        Material(
            "packed, two in a clip", [_in_a_room(w, random) for w in pairs], both, packed=True
        ),
    ]


def evaluate(model: Path, backend: Backend, given: Sequence[Material]) -> list[Outcome]:
    """Recognise every material with one backend."""
    params = TranscribeParams(backend=backend, model=str(model), threads=1)  # a toy needs no more
    recogniser = load_recogniser(params, "en")
    return [
        _packed(recogniser, backend, material)
        if material.packed
        else _alone(recogniser, backend, material)
        for material in given
    ]


def _alone(recogniser: Recogniser, backend: Backend, material: Material) -> Outcome:
    answers = recogniser.transcribe(material.waves)
    errors = word_errors(material.texts, [answer.text for answer in answers])
    sure = float(np.mean([answer.avg_logprob or 0.0 for answer in answers]))
    return Outcome(backend, material.name, errors.wer, len(answers), sure)


def _packed(recogniser: Recogniser, backend: Backend, material: Material) -> Outcome:
    seconds = [len(wave) / data.RATE_HZ for wave in material.waves]
    shares: dict[int, Share] = {}
    for group in pack(seconds):
        wave = join_waves([material.waves[index] for index in group], data.RATE_HZ)
        answer = recogniser.decode_windows([wave])[0]
        places = lay([seconds[index] for index in group])
        shares |= zip(group, attribute(places, answer), strict=True)
    heard = [shares[index] for index in range(len(material.waves))]
    errors = word_errors(material.texts, [share.text for share in heard])
    sure = float(np.mean([share.avg_logprob or 0.0 for share in heard]))
    doubted = float(np.mean([share.redo is not None for share in heard]))
    return Outcome(backend, material.name, errors.wer, len(heard), sure, doubted)


def _prepared(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """As a clip arrives at the recogniser: 16 kHz, a tenth of a second of silence around it."""
    return np.pad(data.to_whisper_rate(wave, data.AUDIO.sample_rate_hz), data.RATE_HZ // 10)


def _in_a_room(
    wave: NDArray[np.float32], random: np.random.Generator, snr_db: float = 40.0
) -> NDArray[np.float32]:
    """With the noise of a quiet room, so that a clip's ends are not digital silence."""
    level = np.sqrt(np.mean(wave**2)) * 10.0 ** (-snr_db / 20.0)
    return np.asarray(wave + random.normal(scale=level, size=len(wave)), dtype=np.float32)


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
    sys.stdout.write(f"{'backend':16}{'material':22}{'WER':>8}{'logprob':>9}{'doubted':>9}\n")
    for backend in get_args(Backend):
        for outcome in evaluate(options.model, backend, given):
            doubted = "" if outcome.doubted is None else f"{outcome.doubted:.1%}"
            sys.stdout.write(
                f"{outcome.backend:16}{outcome.material:22}"
                f"{outcome.wer:8.2%}{outcome.logprob:9.2f}{doubted:>9}\n"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
