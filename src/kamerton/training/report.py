"""The HTML page on one training run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kamerton.config.schema import AudioParams
from kamerton.metrics.alignment import AttentionScores
from kamerton.report.figures import lines
from kamerton.report.page import Page
from kamerton.tracking import RunDirectory, names, read_records
from kamerton.training.evaluation import Evaluation
from kamerton.training.illustration import attention_picture, mel_picture, to_wave
from kamerton.training.state import TrainState

MAX_PICTURES = 6  # of the attention over time

Curve = tuple[list[float], list[float]]


@dataclass(frozen=True, slots=True)
class RunStory:
    """What the page tells of.

    Attributes:
        title: Of the page.
        facts: Figures to show first, by name.
        state: How the run ended.
        total_steps: Its budget.
        texts: Sentences of ``final``, in the order of its scores.
        final: The exported model, evaluated again.
    """

    title: str
    facts: dict[str, str]
    state: TrainState
    total_steps: int
    texts: Sequence[str]
    final: Evaluation


def training_page(run: RunDirectory, story: RunStory, audio: AudioParams) -> str:
    """The page as HTML; of equal runs it is equal to the byte."""
    curves = read_curves(run.metrics_file)
    aligned = sum(score.aligned for score in story.final.scores)
    count = len(story.final.scores)
    page = Page(story.title, "Tacotron 2: how it was trained, and how it reads unseen sentences")
    page.verdict(
        f"{aligned} of {count} validation sentences are read in order, in full and to the end.",
        aligned == count,
    )
    page.facts(story.facts)
    page.section("Losses", "Raw values, before weighting; validation is never trained on.")
    for picture, caption in _loss_pictures(curves):
        page.figure(picture, caption)
    page.section(
        "Attention",
        "Which symbol is read at which decoder step. A voice that can read shows one rising line.",
    )
    for step, picture in _chosen(sorted(run.figures.glob("attention-*.png"))):
        page.figure(picture, f"{story.texts[0]!r}, free-running, after step {step}")
    example = story.final.example
    page.figure(attention_picture(example.attention, example.text), "the exported model")
    page.table(
        ("sentence", "diagonality", "coverage", "focus", "monotonicity", "aligned"),
        [_score_row(*item) for item in zip(story.texts, story.final.scores, strict=True)],
        "free-running; a sentence that did not end by itself scores 0",
    )
    page.section("Listen", f"{example.text!r}, a validation sentence.")
    page.audio(
        [
            (label, to_wave(mel, audio), audio.sample_rate_hz)
            for label, mel in (
                ("recorded, through the same vocoder", example.truth),
                ("teacher-forced", example.forced),
                ("free-running", example.spoken),
            )
            if mel.shape[1] > 1
        ],
        "All three by Griffin-Lim, so that only the acoustic model differs.",
    )
    page.figure(mel_picture(example), "mel spectrograms")
    return page.render()


def read_curves(path: Path) -> dict[str, Curve]:
    """Every series of a metrics.jsonl as (steps, values)."""
    curves: dict[str, Curve] = {}
    for record in read_records(path):
        if record.kind != "metrics" or record.step is None:
            continue
        for name, value in record.values.items():
            steps, values = curves.setdefault(name, ([], []))
            steps.append(float(record.step))
            values.append(value)
    return curves


def _loss_pictures(curves: dict[str, Curve]) -> list[tuple[bytes, str]]:
    groups = (
        ("mel loss", "training and validation",
         {"training": names.TRAIN_MEL_LOSS, "validation": names.VAL_MEL_LOSS}, True),
        ("gate loss", "the end of the utterance",
         {"training": names.TRAIN_GATE_LOSS, "validation": names.VAL_GATE_LOSS}, True),
        ("attention", "free-running attention; 1 is best",
         {"diagonality": names.ATTENTION_SCORE, "coverage": names.ATTENTION_COVERAGE,
          "focus": names.ATTENTION_FOCUS}, False),
        ("gradient norm", "before clipping", {"gradient norm": names.GRAD_NORM}, True),
        ("learning rate", "the schedule", {"learning rate": names.LEARNING_RATE}, False),
    )  # fmt: skip
    pictures = []
    for axis, caption, series, logarithmic in groups:
        found = {label: curves[name] for label, name in series.items() if name in curves}
        if found:
            height = 3 if len(found) > 1 else 2
            picture = lines(found, "step", axis, log_y=logarithmic, height=height)
            pictures.append((picture, f"{axis}: {caption}"))
    return pictures


def _chosen(paths: Sequence[Path]) -> list[tuple[int, bytes]]:
    """A few pictures spread evenly over the run, first and last included."""
    count = min(MAX_PICTURES, len(paths))
    indices = [round(i * (len(paths) - 1) / max(1, count - 1)) for i in range(count)]
    return [
        (int(paths[index].stem.rpartition("-")[2]), paths[index].read_bytes())
        for index in dict.fromkeys(indices)
    ]


def _score_row(text: str, score: AttentionScores) -> tuple[str | float | bool, ...]:
    return (
        text, score.diagonality, score.coverage, score.focus, score.monotonicity, score.aligned,
    )  # fmt: skip
