"""Stand-ins for a trained voice and a recogniser, and whole evaluations, for unit tests."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kamerton.audio.mel import log_mel
from kamerton.config.schema import AudioParams, Params, TextParams
from kamerton.core.files import sha256_file, write_json, write_jsonl
from kamerton.evaluation.measure import DEFINITIONS, Heard, UtteranceScores, errors_of
from kamerton.evaluation.scorecard import (
    METRICS_FILE,
    UTTERANCES_FILE,
    Scorecard,
    attention_block,
    eval_set_hash,
    half_wrong_share,
    score_utterances,
)
from kamerton.metrics.alignment import FAILED, AttentionScores
from kamerton.metrics.measurement import invalid, measured
from kamerton.metrics.statistics import Bootstrap
from tests.speechlike import noise_at, speechlike

AUDIO = AudioParams(
    sample_rate_hz=16_000,
    fft_samples=512,
    window_samples=512,
    hop_samples=128,
    mel_channels=40,
    mel_fmax_hz=8000.0,
)
WORDS = ["red", "green", "blue", "white", "black", "brown"]


def sentence(index):
    """Five words, another order for every index."""
    return " ".join(np.random.default_rng(index).permutation(WORDS)[:5])


def spoken(index, rate_hz=16_000):
    """How sentence ``index`` sounds."""
    return speechlike(1.0 + 0.05 * (index % 3), rate_hz=rate_hz, seed=100 + index)


@dataclass
class FakeReading:
    mel: np.ndarray
    attention: np.ndarray
    stopped: bool


@dataclass
class FakeDescription:
    audio: AudioParams
    text: TextParams


class FakeVoice:
    """Speaks as the recordings do, with noise, and runs away on texts in ``runaways``."""

    def __init__(self, texts, *, snr_db=20.0, runaways=(), silent=(), broken=()):
        self.description = FakeDescription(AUDIO, TextParams())
        self.asked, self.speakers = [], []
        self._waves = {text: spoken(index) for index, text in enumerate(texts)}
        self._snr_db, self._runaways = snr_db, set(runaways)
        self._silent, self._broken = set(silent), set(broken)

    def read(self, texts, *, seed=0, speaker=None):
        self.asked += texts
        self.speakers += [speaker] * len(texts)
        return [self._read(text, seed) for text in texts]

    def _read(self, text, seed):
        wave = self._waves[text]
        wave = wave + noise_at(wave, self._snr_db, seed=seed).astype(np.float32)
        mel = log_mel(wave.astype(np.float32), AUDIO)
        if text in self._silent:
            mel = np.full_like(mel, np.log(1e-5))
        if text in self._broken:
            mel[:, 3] = np.nan
        steps, symbols = mel.shape[1], len(text) + 1
        attention = np.zeros((steps, symbols), dtype=np.float32)
        attention[np.arange(steps), np.arange(steps) * symbols // steps] = 1
        return FakeReading(mel, attention, text not in self._runaways)


@dataclass
class FakeAnswer:
    text: str


class FakeRecogniser:
    """Knows the recordings by heart; hears ``mistakes`` (text to text) in the voice alone.

    Waves come in threes: recording, copy-synthesis, voice.
    """

    def __init__(self, texts, mistakes=None):
        self._queue = [
            said for text in texts for said in (text, text, (mistakes or {}).get(text, text))
        ]
        self.rates = []

    def transcribe(self, waves):
        self.rates += [wave.dtype for wave in waves]
        return [FakeAnswer(self._queue.pop(0).upper() + ".") for _ in waves]


def write_model(folder: Path, *, weights: bytes = b"weights", **training) -> Path:
    """A folder with the files that evaluation and promotion look at."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "best_model.safetensors").write_bytes(weights)
    facts = {"seed": 1234, "steps": 100, "params_sha256": "p" * 64, **training}
    (folder / "model.json").write_text(json.dumps({"training": facts}))
    return folder


def utterance(index, *, wrong_words=0, mcd=5.0, estoi=0.6, aligned=True):
    """Scores of sentence ``index`` as if measured; None for a metric that failed."""
    said = sentence(index)
    heard = " ".join(["wrong"] * wrong_words + said.split()[wrong_words:])
    texts = Heard(said, said, heard)

    def found(value):
        return invalid("the synthesis is silent") if value is None else measured(value)

    voice = {
        "mcd_dtw": found(mcd),
        "dur_ratio": found(1.1),
        "stoi_dtw": found(0.8),
        "estoi_dtw": found(estoi),
        "pesq_wb_dtw": found(1.3),
    }
    ceiling = {
        "mcd_dtw": 2.5, "dur_ratio": 1.0, "stoi_dtw": 0.97, "estoi_dtw": 0.94, "pesq_wb_dtw": 2.9,
        "stoi": 0.96, "estoi": 0.93, "pesq_wb": 2.8,
    }  # fmt: skip
    return UtteranceScores(
        id=f"{index:016x}",
        text=said,
        reference_seconds=2.0,
        synthesis_seconds=2.2,
        stopped=aligned,
        attention=AttentionScores(0.97, 1.0, 0.7, 0.1, 1.0, 0.99) if aligned else FAILED,
        synthesis=voice,
        copy_synthesis={name: measured(value) for name, value in ceiling.items()},
        heard=texts,
        errors=errors_of(said, texts),
    )


def scorecard(rows, *, model_sha256="m" * 64, **changes) -> Scorecard:
    """The scorecard of ``rows``, as the evaluate stage would make it."""
    bootstrap = Bootstrap(samples=500)
    metrics, coverage, plain = score_utterances(rows, bootstrap)
    card = Scorecard(
        items=len(rows),
        eval_set_sha256=eval_set_hash([(row.id, row.text, "0" * 64) for row in rows]),
        dataset_sha256="d" * 64,
        model_sha256=model_sha256,
        definitions={**DEFINITIONS, "wer": "wer/1", "recogniser": "whisper tiny"},
        bootstrap={"samples": 500, "level": 0.95, "seed": 1234},
        metrics=metrics,
        coverage=coverage,
        copy_synthesis=plain,
        attention=attention_block(rows),
        half_wrong_share=half_wrong_share(rows),
        training={"seed": 1234, "params_sha256": "p" * 64},
    )
    return replace(card, **changes)


def write_evaluation(folder: Path, rows, model: Path, **changes) -> Path:
    """An evaluation folder of ``model``."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = sha256_file(model / "best_model.safetensors")
    card = scorecard(rows, model_sha256=weights, **changes)
    write_json(folder / METRICS_FILE, card.as_dict())
    write_jsonl(folder / UTTERANCES_FILE, [row.as_dict() for row in rows])
    return folder


def small_params(tmp: Path, **sections) -> Params:
    """Parameters for small sets: a database in ``tmp`` unless said otherwise."""
    given = {
        "promote": {"min_items": 5},
        "tracking": {"mlflow_uri": f"sqlite:///{tmp}/mlflow.db"},
        "transcribe": {"model": "tiny"},
        "evaluate": {"bootstrap_samples": 200, "griffin_lim_iterations": 8, "report_items": 2},
    }
    for name, values in sections.items():
        given[name] = {**given.get(name, {}), **values}
    return Params.model_validate(given)
