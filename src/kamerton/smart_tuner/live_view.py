"""The live view: a frame as a picture for the terminal, and as lines for a log."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from kamerton.core.progress import clock
from kamerton.smart_tuner.channels.message import one_line
from kamerton.smart_tuner.live_frame import (
    CURVES,
    DECISION,
    WORRYING,
    Frame,
    RunView,
    StudyView,
    TrialView,
)
from kamerton.smart_tuner.sources import Event, MetricEvent, Rewind, RunEvent
from kamerton.smart_tuner.sparkline import BLOCKS, PLAIN, sparkline
from kamerton.tracking import names

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

_DETAILED: Final = 2  # runs shown with their curves
_LISTED: Final = 12
_FRAME_WIDTH: Final = 4  # of a panel, without what is in it
_REST_WIDTH: Final = 57  # of a row of the curves, without the curve
_SMALL_WIDTH: Final = 20  # of a curve in a table
_LABELS: Final = {names.ATTENTION_SCORE: "attention"}
_UNIT: Final = (0.0, 1.0)  # of attention
_COLOURS: Final = {
    "running": "green", "finished": "cyan", "complete": "cyan", "stopped": "yellow",
    "pruned": "yellow", "killed": "red", "failed": "red",
}  # fmt: skip
_TOLD_VALUES: Final[tuple[str, ...]] = (
    names.VAL_MEL_LOSS, names.VAL_LOSS, names.ATTENTION_SCORE, names.TRAIN_LOSS, "objective",
)  # fmt: skip


def render(frame: Frame, console: Console, *, now: float | None = None) -> RenderableType:
    """The frame for ``console``, as wide as that is.

    Args:
        frame: What is shown.
        console: Where.
        now: Unix seconds; the clock's where left out.
    """
    from rich.console import Group
    from rich.text import Text

    if not frame.runs and not frame.studies:
        return Text("no run yet: waiting for one")
    moment = time.time() if now is None else now
    running = [run for run in frame.runs if run.state == "running"]
    detailed = running[:_DETAILED] or _newest(frame)
    parts: list[RenderableType] = [_run_panel(run, console, moment) for run in detailed]
    parts += [_study_panel(study, console) for study in frame.studies]
    others = [run for run in frame.runs if run not in detailed and not _in_study(run, frame)]
    if others:
        parts.append(_others(others, console))
    return Group(*parts)


def _signs(console: Console) -> str:
    """What curves are drawn with: the blocks, where the output can hold them."""
    return BLOCKS if console.encoding.lower().startswith("utf") else PLAIN


def _newest(frame: Frame) -> list[RunView]:
    """The run to look at where none goes on: rather one by itself than a trial."""
    return [*[run for run in frame.runs if not _in_study(run, frame)], *frame.runs][:1]


def _in_study(run: RunView, frame: Frame) -> bool:
    return any(run.run.startswith(f"{study.study}/") for study in frame.studies)


def _run_panel(run: RunView, console: Console, now: float) -> RenderableType:
    from rich.text import Text

    title = [
        (_short(run.run, 48), "bold"),
        (f"  {one_line(run.state)}", _COLOURS.get(run.state, "")),
    ]
    parts: list[RenderableType] = [Text(standing(run, now)), _curves(run, console)]
    if run.decision is not None:
        parts += ["", _votes(run.decision, console)]
    if run.events:
        parts += ["", _events(run.events, console)]
    return _panel(title, parts, console)


def _panel(
    title: Sequence[tuple[str, str]], parts: Sequence[RenderableType], console: Console
) -> RenderableType:
    from rich import box
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    edge = box.ASCII if _signs(console) == PLAIN else box.ROUNDED
    return Panel(Group(*parts), title=Text.assemble(*title), title_align="left", box=edge)


def standing(run: RunView, now: float) -> str:
    """Where a run stands, in words."""
    share = f" of {run.total} ({run.step / run.total:.0%})" if run.total else ""
    parts = [f"step {run.step}{share}"]
    if run.epoch is not None:
        parts.append(f"epoch {run.epoch:.0f}")
    if run.rate is not None and run.state == "running":
        parts.append(f"{run.rate:.3g} steps/s")
    if run.eta_seconds is not None:
        parts.append(f"{clock(run.eta_seconds)} left")
    if run.updated and run.state == "running":
        parts.append(f"heard {clock(now - run.updated)} ago")
    return "  ".join(parts)


def _curves(run: RunView, console: Console) -> RenderableType:
    rows: list[list[str | Text]] = []
    width = max(10, console.width - _REST_WIDTH)
    for name in CURVES:
        curve = run.curves.get(name)
        if curve is None or not len(curve):
            continue
        span = _UNIT if name == names.ATTENTION_SCORE else None
        found = curve.best(lowest=name != names.ATTENTION_SCORE)
        best = "" if found is None else f"best {found[1]:.3g} at {found[0]}"
        line = sparkline(curve.values, width, span=span, blocks=_signs(console))
        label = _LABELS.get(name, name.replace("_", " "))
        rows.append([label, line, f"{curve.values[-1]:.4g}", best])
    return _rows(rows, console)


def _rows(
    rows: Sequence[Sequence[str | Text]], console: Console, *, right: Iterable[int] = ()
) -> RenderableType:
    """Cells below each other, cut where the panel ends; ``right`` columns end at one place.

    Rich's tables make all columns narrower where one is too wide; here only the last gives way.
    """
    from rich.text import Text

    cells = [[Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    columns = max(map(len, cells), default=0)
    widths = [
        max((row[place].cell_len for row in cells if place < len(row)), default=0)
        for place in range(columns)
    ]
    overflow: Literal["crop", "ellipsis"] = "crop" if _signs(console) == PLAIN else "ellipsis"
    lines: list[Text] = []
    for row in cells:
        line = Text()
        for place, cell in enumerate(row):
            gap = " " * (widths[place] - cell.cell_len)
            parts = (gap, cell) if place in right else (cell, gap)
            line.append_text(Text.assemble(*parts, "  "))
        line.rstrip()
        line.truncate(console.width - _FRAME_WIDTH, overflow=overflow)
        lines.append(line)
    return Text("\n").join(lines)


def _votes(event: RunEvent, console: Console) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    rows: list[list[str | Text]] = []
    for vote in event.fields.get("votes", ()):
        if not isinstance(vote, Mapping):
            continue
        score, confidence = _number(vote.get("score")), _number(vote.get("confidence"))
        side = "stop" if score > 0 else ("go on" if score < 0 else "no opinion")
        colour = "red" if score > 0 else ("green" if score < 0 else "dim")
        rows.append([
            one_line(f"  {vote.get('voter')}").replace("_", " "),
            Text(f"{score:+.2f} {side}", style=colour),
            f"sure {confidence:.2f}", one_line(str(vote.get("reason", ""))),
        ])  # fmt: skip
    colour = "bold red" if event.fields.get("stop") else "bold"
    return Group(Text(decision_text(event), style=colour), _rows(rows, console))


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def decision_text(event: RunEvent) -> str:
    """A decision on stopping in one line."""
    fields = event.fields
    word = f"stop ({fields.get('cause')})" if fields.get("stop") else "go on"
    parts = [f"votes at step {event.step}: {word}"]
    if fields.get("status"):
        parts.append(str(fields["status"]).replace("_", " "))
    if fields.get("overfitting"):
        parts.append(f"overfitting {fields['overfitting']}")
    if "waited_steps" in fields and "patience_steps" in fields:
        waited, patience = _number(fields["waited_steps"]), _number(fields["patience_steps"])
        parts.append(f"waited {waited:.0f} of {patience:.0f} steps")
    if fields.get("guarded") and not fields.get("stop"):
        parts.append("guarded")
    if fields.get("remaining_steps") is not None:
        parts.append(f"better until about {_number(fields['remaining_steps']):.0f} steps on")
    if fields.get("stop") and fields.get("reason"):
        parts.append(str(fields["reason"]))
    return one_line(", ".join(parts))


def _events(events: Sequence[RunEvent], console: Console) -> RenderableType:
    from rich.text import Text

    rows: list[list[str | Text]] = []
    for event in events:
        style = "yellow" if event.name in WORRYING else ""
        step = "" if event.step is None else f"step {event.step}"
        name = one_line(event.name).replace("_", " ")
        rows.append([step, Text(name, style=style), words(event.fields)])
    return _rows(rows, console)


def words(fields: Mapping[str, Any]) -> str:
    """Nested fields as words; empty ones are left out."""
    told = ((name, _word(value)) for name, value in fields.items())
    return one_line(", ".join(f"{name.replace('_', ' ')} {word}" for name, word in told if word))


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({words(value)})" if value else ""
    if isinstance(value, list | tuple):
        return " ".join(map(_word, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _study_panel(study: StudyView, console: Console) -> RenderableType:
    ended = sum(trial.state in ("complete", "pruned", "failed") for trial in study.trials)
    said = [f"{ended} trials ended" if study.planned is None else f"{ended} of {study.planned}"]
    if study.best is not None:
        said.append(f"best {study.best.objective:.4g} (trial {study.best.number})")
    if study.eta_seconds is not None:
        said.append(f"about {clock(study.eta_seconds)} left")
    head: list[str | Text] = ["trial", "state", "objective", "step", "val mel loss", "attention"]
    shown = _shown_trials(study)
    rows = [head, *(_trial_row(trial, trial is study.best, console) for trial in shown)]
    if len(study.trials) > len(shown):
        rows.append(["", f"and {len(study.trials) - len(shown)} more"])
    title = [(_short(study.study, 30), "bold"), ("  " + ", ".join(said), "")]
    return _panel(title, [_rows(rows, console, right=(2, 3))], console)


def _shown_trials(study: StudyView) -> Sequence[TrialView]:
    """The newest, and the best."""
    newest = list(study.trials[-_LISTED:])
    if study.best is not None and study.best not in newest:
        newest[0] = study.best
    return newest


def _trial_row(trial: TrialView, best: bool, console: Console) -> list[str | Text]:
    from rich.text import Text

    run = trial.run
    objective = "" if trial.objective is None else f"{trial.objective:.4g}"
    attention = run.curves.get(names.ATTENTION_SCORE) if run else None
    last = "" if attention is None or not len(attention) else f"{attention.values[-1]:.2f}"
    return [
        one_line(f"{'*' if best else ' '} {trial.label}"),
        Text(one_line(trial.state), style=_COLOURS.get(trial.state, "")),
        objective,
        "" if run is None else str(run.step),
        "" if run is None else _small_curve(run, console),
        last,
    ]


def _small_curve(run: RunView, console: Console) -> str:
    curve = run.curves.get(names.VAL_MEL_LOSS)
    return "" if curve is None else sparkline(curve.values, _SMALL_WIDTH, blocks=_signs(console))


def _others(runs: Sequence[RunView], console: Console) -> RenderableType:
    from rich.text import Text

    rows: list[list[str | Text]] = [
        [
            _short(run.run, 40), Text(one_line(run.state), style=_COLOURS.get(run.state, "")),
            f"step {run.step}", _small_curve(run, console),
        ]
        for run in runs[:_LISTED]
    ]  # fmt: skip
    if len(runs) > _LISTED:
        rows.append([f"and {len(runs) - _LISTED} more"])
    return _rows(rows, console)


def _short(run: str, width: int) -> str:
    """The end of a path, which tells runs apart."""
    run = one_line(run)
    return run if len(run) <= width else f"..{run[2 - width :]}"


def lines(events: Iterable[Event]) -> list[str]:
    """Events as lines for a log: the points of one step are one line."""
    told: list[str] = []
    points: dict[str, float] = {}
    place: tuple[str, int] | None = None

    def flush() -> None:
        chosen = {name: points[name] for name in _TOLD_VALUES if name in points}
        if place is not None and chosen:
            run, step = place
            told.append(f"{run}  step {step}  {words(chosen)}")
        points.clear()

    for event in events:
        here = (event.run, event.step) if isinstance(event, MetricEvent) else None
        if here is None or here != place:
            flush()
            place = here
        if isinstance(event, MetricEvent):
            points[event.name] = event.value
        else:
            told.append(_line(event))
    flush()
    return [one_line(line) for line in told]


def _line(event: RunEvent | Rewind) -> str:
    if isinstance(event, Rewind):
        return f"{event.run}  went back: step {event.step} and later are made again"
    if event.name == DECISION:
        return f"{event.run}  {decision_text(event)}"
    step = "" if event.step is None else f"step {event.step}  "
    return f"{event.run}  {step}{event.name.replace('_', ' ')}  {words(event.fields)}".rstrip()
