"""The HTML page on one training run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kamerton.config.schema import AudioParams
from kamerton.metrics.alignment import AttentionScores
from kamerton.report.curves import Panel, Timeline, draw_panels
from kamerton.report.page import Page
from kamerton.tracking import Record, RunDirectory, names, read_records
from kamerton.tracking.curves import read_curves
from kamerton.training.evaluation import Evaluation
from kamerton.training.event_lines import happenings
from kamerton.training.illustration import attention_picture, mel_picture, to_wave
from kamerton.training.progress_note import PHASE_NAMES
from kamerton.training.report_decisions import add_decisions, add_plan
from kamerton.training.state import TrainState

MAX_PICTURES = 5  # of the attention over time
MAX_EVENTS = 60

Curves = Mapping[str, tuple[list[float], list[float]]]

_FREE, _FORCED = "free-running", "teacher-forced"
_TRAINING, _VALIDATION = "training", "validation"
_SHARE: Final = (-0.03, 1.03)  # limits that leave 0 and 1 in sight
# Name, title and limits of each measure of attention.
_ATTENTION: Final = (
    (names.ATTENTION_SCORE, "diagonality", (-0.1, 1.03)),
    (names.ATTENTION_COVERAGE, "coverage", _SHARE),
    (names.ATTENTION_FOCUS, "focus", _SHARE),
    (names.ATTENTION_MONOTONICITY, "monotonicity", _SHARE),
    (names.ATTENTION_ENTROPY, "entropy (0 is sharp)", _SHARE),
    (names.ALIGNED_SHARE, "share of sentences aligned", _SHARE),
)


@dataclass(frozen=True, slots=True)
class RunStory:
    """What the page tells of.

    Attributes:
        title: Of the page.
        facts: Figures to show first, by name.
        state: How the run ended.
        total_steps: Its budget.
        phases: How many phases it could go through.
        texts: Sentences of ``final``, in the order of its scores.
        final: The exported model, evaluated again.
    """

    title: str
    facts: dict[str, str]
    state: TrainState
    total_steps: int
    phases: int
    texts: Sequence[str]
    final: Evaluation


def training_page(run: RunDirectory, story: RunStory, audio: AudioParams) -> str:
    """The page as HTML; of equal runs it is equal to the byte, however often they were stopped."""
    records = read_records(run.metrics_file)
    curves, timeline = read_curves(records), timeline_of(records, story)
    aligned = sum(score.aligned for score in story.final.scores)
    count = len(story.final.scores)
    page = Page(story.title, "Tacotron 2: how it was trained, and how it reads unseen sentences")
    page.verdict(
        f"{aligned} of {count} validation sentences are read in order, in full and to the end.",
        aligned == count,
    )
    page.facts(story.facts)
    _losses(page, curves, timeline)
    _attention(page, run, story, curves, timeline)
    _endings(page, curves, timeline)
    _course(page, curves, timeline)
    _events(page, records)
    add_plan(page, records)
    add_decisions(page, records, curves, timeline)
    _listening(page, story, audio)
    return page.render()


def timeline_of(records: Iterable[Record], story: RunStory) -> Timeline:
    """Phases and interventions of the run."""
    phases, marks = [(PHASE_NAMES[0], 0.0)], []
    for record in records:
        if record.kind == "event" and record.step is not None:
            if record.name == "phase" and record.step < story.state.step:
                phases.append((PHASE_NAMES[int(record.fields["phase"])], float(record.step)))
            elif record.name == "recovery":
                marks.append(float(record.step))
    return Timeline(float(max(1, story.state.step)), phases if story.phases > 1 else (), marks)


def _losses(page: Page, curves: Curves, timeline: Timeline) -> None:
    page.section(
        "Losses",
        "Unweighted, in units that compare across runs; validation is never trained on.",
    )
    mel = {
        _TRAINING: curves.get(names.TRAIN_MEL_LOSS), _VALIDATION: curves.get(names.VAL_MEL_LOSS)
    }  # fmt: skip
    gate = {
        _TRAINING: curves.get(names.TRAIN_GATE_LOSS), _VALIDATION: curves.get(names.VAL_GATE_LOSS)
    }  # fmt: skip
    parts = _parts(curves)
    raw = {_words(part): curves.get(names.train_loss(part)) for part in parts}
    weighted = {_words(part): curves.get(names.weighted_loss(part)) for part in parts}
    noisy = frozenset({_TRAINING, *raw})
    page.figure(
        draw_panels(
            [
                _panel("mel loss, after the postnet", mel, noisy=noisy, logarithmic=True),
                _panel("gate loss: the end of the utterance", gate, noisy=noisy, logarithmic=True),
                _panel("training, every part, raw", raw, noisy=noisy, logarithmic=True),
                _panel("training, every part, as weighted", weighted, noisy=noisy,
                       logarithmic=True),
            ],
            timeline,
        ),
        _caption("what is trained (smoothed over its noise) against what is held out; below, the "
                 "parts as they are, and as they count in the sum", timeline),
    )  # fmt: skip


def _parts(curves: Curves) -> list[str]:
    """Names of the parts of the training loss, in the order that they are logged in."""
    prefix, suffix = names.weighted_loss("|").split("|")
    return [
        name.removeprefix(prefix).removesuffix(suffix)
        for name in curves
        if name.startswith(prefix) and name.endswith(suffix)
    ]


def _attention(
    page: Page, run: RunDirectory, story: RunStory, curves: Curves, timeline: Timeline
) -> None:
    page.section(
        "Attention",
        "Which symbol is read at which decoder step. A voice that can read shows one rising line. "
        "Teacher-forced, the model is given the true frames and finds its way more easily; what "
        "counts is free-running, where it hears only itself.",
    )
    panels = [
        _panel(title, {_FREE: curves.get(name), _FORCED: curves.get(names.FORCED + name)},
               dashed=frozenset({_FORCED}), limits=limits)
        for name, title, limits in _ATTENTION
    ]  # fmt: skip
    page.figure(
        draw_panels(panels, timeline, columns=3),
        _caption("medians over sentences; 1 is best, but for entropy", timeline),
    )
    example = story.final.example
    pictures = [(png, f"after step {step}") for step, png in _chosen(run, story.state.step)]
    pictures.append((attention_picture(example.attention, example.text), "the exported model"))
    page.gallery(pictures, f"{story.texts[0]!r}, free-running:")
    page.table(
        ("sentence", "diagonality", "coverage", "focus", "monotonicity", "aligned"),
        [_score_row(*item) for item in zip(story.texts, story.final.scores, strict=True)],
        "free-running; a sentence that did not end by itself scores 0",
    )


def _endings(page: Page, curves: Curves, timeline: Timeline) -> None:
    page.section(
        "Where it stops, and how it sounds",
        "The gate must open at the last frame of the recording, teacher-forced; free-running, a "
        "sentence must neither end before its text does nor go on for ever.",
    )
    found = {
        "F1": curves.get(names.GATE_F1), "recall": curves.get(names.GATE_RECALL),
        "precision": curves.get(names.GATE_PRECISION),
    }  # fmt: skip
    silence = {
        "spoken": curves.get(names.SILENCE_SHARE),
        "recorded": curves.get(names.RECORDED_SILENCE_SHARE),
    }
    endings = {
        "too early": curves.get(names.PREMATURE_STOPPING),
        "never": curves.get(names.RUNAWAY_SHARE),
    }
    page.figure(
        draw_panels(
            [
                _panel("stop frame found", found, limits=_SHARE),
                _panel("frames off the end, mean", {"": curves.get(names.GATE_FRAMES_OFF)}),
                _panel("sentences that end", endings, limits=_SHARE),
                _panel("share of silence", silence, dashed=frozenset({"recorded"}), limits=_SHARE),
                _panel("mel variance, spoken to recorded",
                       {"": curves.get(names.MEL_VARIANCE_RATIO)}),
            ],
            timeline,
            columns=3,
        ),
        _caption("the first two teacher-forced, the others free-running", timeline),
    )  # fmt: skip


def _course(page: Page, curves: Curves, timeline: Timeline) -> None:
    page.section("The course of training")
    norms = {
        "before clipping": curves.get(names.GRAD_NORM),
        "threshold": curves.get(names.CLIP_NORM),
    }
    page.figure(
        draw_panels(
            [
                _panel("learning rate", {"": curves.get(names.LEARNING_RATE)}),
                _panel("gradient norm", norms, noisy=frozenset({"before clipping"}),
                       dashed=frozenset({"threshold"}), logarithmic=True),
            ],
            timeline,
        ),
        _caption("what each step was made with", timeline),
    )  # fmt: skip


def _events(page: Page, records: Sequence[Record]) -> None:
    rows = [(line.step, line.what, line.why, line.action) for line in happenings(records)]
    if not rows:
        page.text("Nothing out of the ordinary happened.")
        return
    more = f"; {len(rows) - MAX_EVENTS} more are in metrics.jsonl" if len(rows) > MAX_EVENTS else ""
    page.table(
        ("step", "what happened", "why", "what was done"),
        rows[:MAX_EVENTS],
        f"phases, interventions and troubles{more}",
    )


def _listening(page: Page, story: RunStory, audio: AudioParams) -> None:
    example = story.final.example
    page.section("Listen", f"{example.text!r}, a validation sentence.")
    page.audio(
        [
            (label, to_wave(mel, audio), audio.sample_rate_hz)
            for label, mel in (
                ("recorded, through the same vocoder", example.truth),
                (_FORCED, example.forced),
                (_FREE, example.spoken),
            )
            if mel.shape[1] > 1
        ],
        "All three by Griffin-Lim, so that only the acoustic model differs.",
    )
    page.figure(mel_picture(example), "mel spectrograms")


def _panel(
    title: str, curves: Mapping[str, tuple[list[float], list[float]] | None], *,
    noisy: frozenset[str] = frozenset(), dashed: frozenset[str] = frozenset(),
    logarithmic: bool = False, limits: tuple[float, float] | None = None,
) -> Panel:  # fmt: skip
    found = {name: curve for name, curve in curves.items() if curve is not None}
    return Panel(title, found, noisy, dashed, logarithmic, limits)


def _caption(text: str, timeline: Timeline) -> str:
    marks = "; dotted red: an intervention" if timeline.marks else ""
    return f"{text}{'; bands are phases' if len(timeline.bands) > 1 else ''}{marks}"


def _words(part: str) -> str:
    return part.replace("_", " ")


def _chosen(run: RunDirectory, last_step: int) -> list[tuple[int, bytes]]:
    """A few pictures spread evenly over the run, first and last included."""
    paths = [
        path for path in sorted(run.figures.glob("attention-*.png"))
        if int(path.stem.rpartition("-")[2]) <= last_step
    ]  # fmt: skip
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
