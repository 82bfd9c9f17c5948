"""The live view: a frame as a picture for the terminal, and as lines for a log."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from kamerton.core.progress import clock
from kamerton.smart_tuner.live_frame import CURVES, DECISION, Frame, RunView, StudyView, TrialView
from kamerton.smart_tuner.sources import Event, MetricEvent, Rewind, RunEvent
from kamerton.smart_tuner.sparkline import BLOCKS, PLAIN, sparkline
from kamerton.tracking import names

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

_DETAILED: Final = 2  # runs shown with their curves
_LISTED: Final = 12
_REST_WIDTH: Final = 57  # of a row of the curves, without the curve
_SMALL_WIDTH: Final = 20  # of a curve in a table
_LABELS: Final = {names.ATTENTION_SCORE: "attention"}
_UNIT: Final = (0.0, 1.0)  # of attention
_COLOURS: Final = {
    "running": "green", "finished": "cyan", "complete": "cyan", "stopped": "yellow",
    "pruned": "yellow", "killed": "red", "failed": "red",
}  # fmt: skip
_WORRYING: Final = frozenset(
    {"recovery", "non_finite_step", "unstable_gradients", "intervention", "tracking_trouble",
     "checkpoint_failed", "learning_rate_high"}
)  # fmt: skip
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
    signs = BLOCKS if console.encoding.lower().startswith("utf") else PLAIN
    moment = time.time() if now is None else now
    width = max(10, console.width - _REST_WIDTH)
    running = [run for run in frame.runs if run.state == "running"]
    detailed = (running or list(frame.runs))[: _DETAILED if running else 1]
    parts: list[RenderableType] = [_run_panel(run, width, signs, moment) for run in detailed]
    parts += [_study_panel(study, signs) for study in frame.studies]
    others = [run for run in frame.runs if run not in detailed and not _in_study(run, frame)]
    if others:
        parts.append(_others(others, signs))
    return Group(*parts)


def _in_study(run: RunView, frame: Frame) -> bool:
    return any(run.run.startswith(f"{study.study}/") for study in frame.studies)


def _run_panel(run: RunView, width: int, signs: str, now: float) -> RenderableType:
    from rich import box
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    title = Text.assemble(
        (_short(run.run, 48), "bold"), "  ", (run.state, _COLOURS.get(run.state, "default"))
    )
    parts: list[RenderableType] = [Text(standing(run, now)), _curve_table(run, width, signs)]
    if run.decision is not None:
        parts += ["", _votes(run.decision)]
    if run.events:
        parts += ["", _events(run.events)]
    return Panel(
        Group(*parts), title=title, title_align="left", box=box.SQUARE if signs == PLAIN
        else box.ROUNDED, safe_box=True,
    )  # fmt: skip


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


def _curve_table(run: RunView, width: int, signs: str) -> Table:
    table = _grid(4)
    for name in CURVES:
        curve = run.curves.get(name)
        if curve is None or not len(curve):
            continue
        span = _UNIT if name == names.ATTENTION_SCORE else None
        found = curve.best(lowest=name != names.ATTENTION_SCORE)
        best = "" if found is None else f"best {found[1]:.3g} at {found[0]}"
        line = sparkline(curve.values, width, span=span, blocks=signs)
        label = _LABELS.get(name, name.replace("_", " "))
        table.add_row(label, line, f"{curve.values[-1]:.4g}", best)
    return table


def _grid(columns: int) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for _ in range(columns - 1):
        table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_column(overflow="ellipsis", no_wrap=True)
    return table


def _votes(event: RunEvent) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    table = _grid(4)
    votes = [vote for vote in event.fields.get("votes", ()) if isinstance(vote, Mapping)]
    for vote in votes:
        score, confidence = _number(vote.get("score")), _number(vote.get("confidence"))
        side = "stop" if score > 0 else ("go on" if score < 0 else "-")
        colour = "red" if score > 0 else ("green" if score < 0 else "dim")
        table.add_row(
            f"  {vote.get('voter')}",
            Text(f"{score:+.2f} {side}", style=colour),
            f"sure {confidence:.2f}",
            str(vote.get("reason", "")),
        )
    colour = "bold red" if event.fields.get("stop") else "bold"
    return Group(Text(decision_text(event), style=colour), table)


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
    if fields.get("stop") and fields.get("reason"):
        parts.append(str(fields["reason"]))
    return ", ".join(parts)


def _events(events: Sequence[RunEvent]) -> Table:
    from rich.text import Text

    table = _grid(3)
    for event in events:
        style = "yellow" if event.name in _WORRYING else "default"
        step = "" if event.step is None else f"step {event.step}"
        table.add_row(step, Text(event.name.replace("_", " "), style=style), words(event.fields))
    return table


def words(fields: Mapping[str, Any]) -> str:
    """Nested fields as words."""
    return ", ".join(f"{name.replace('_', ' ')} {_word(value)}" for name, value in fields.items())


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({words(value)})"
    if isinstance(value, list | tuple):
        return " ".join(map(_word, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _study_panel(study: StudyView, signs: str) -> RenderableType:
    from rich import box
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    ended = sum(trial.state in ("complete", "pruned", "failed") for trial in study.trials)
    said = [f"{ended} trials ended" if study.planned is None else f"{ended} of {study.planned}"]
    if study.best is not None:
        said.append(f"best {study.best.objective:.4g} (trial {study.best.number})")
    if study.eta_seconds is not None:
        said.append(f"about {clock(study.eta_seconds)} left")
    title = Text.assemble((_short(study.study, 30), "bold"), "  ", ", ".join(said))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("trial", "state", "objective", "step"):
        table.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
    table.add_column(names.VAL_MEL_LOSS, no_wrap=True, overflow="crop")
    table.add_column("attention", no_wrap=True, justify="right")
    shown = _shown_trials(study)
    for trial in shown:
        table.add_row(*_trial_row(trial, trial is study.best, signs))
    hidden = len(study.trials) - len(shown)
    if hidden:
        table.add_row("", f"and {hidden} more")
    plain = signs == PLAIN
    return Panel(table, title=title, title_align="left", box=box.SQUARE if plain else box.ROUNDED)


def _shown_trials(study: StudyView) -> Sequence[TrialView]:
    """The newest, and the best."""
    newest = list(study.trials[-_LISTED:])
    if study.best is not None and study.best not in newest:
        newest[0] = study.best
    return newest


def _trial_row(trial: TrialView, best: bool, signs: str) -> list[RenderableType]:
    from rich.text import Text

    run = trial.run
    objective = "" if trial.objective is None else f"{trial.objective:.4g}"
    curve = run.curves.get(names.VAL_MEL_LOSS) if run else None
    attention = run.curves.get(names.ATTENTION_SCORE) if run else None
    last = "" if attention is None or not len(attention) else f"{attention.values[-1]:.2f}"
    return [
        f"{'* ' if best else ''}{trial.label}",
        Text(trial.state, style=_COLOURS.get(trial.state, "default")),
        objective,
        "" if run is None else str(run.step),
        "" if curve is None else sparkline(curve.values, _SMALL_WIDTH, blocks=signs),
        last,
    ]


def _others(runs: Sequence[RunView], signs: str) -> RenderableType:
    from rich.text import Text

    table = _grid(4)
    for run in runs[:_LISTED]:
        curve = run.curves.get(names.VAL_MEL_LOSS)
        table.add_row(
            _short(run.run, 40),
            Text(run.state, style=_COLOURS.get(run.state, "default")),
            f"step {run.step}",
            "" if curve is None else sparkline(curve.values, _SMALL_WIDTH, blocks=signs),
        )
    if len(runs) > _LISTED:
        table.add_row(f"and {len(runs) - _LISTED} more")
    return table


def _short(run: str, width: int) -> str:
    """The end of a path, which tells runs apart."""
    return run if len(run) <= width else f"…{run[1 - width :]}"


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
    return told


def _line(event: RunEvent | Rewind) -> str:
    if isinstance(event, Rewind):
        return f"{event.run}  went back: step {event.step} and later are made again"
    if event.name == DECISION:
        return f"{event.run}  {decision_text(event)}"
    step = "" if event.step is None else f"step {event.step}  "
    return f"{event.run}  {step}{event.name.replace('_', ' ')}  {words(event.fields)}".rstrip()
