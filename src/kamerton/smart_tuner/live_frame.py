"""What the live view shows at one moment: runs, their curves and votes, and a study's trials."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from kamerton.core.errors import PipelineError
from kamerton.smart_tuner.metrics_store import MetricsStore
from kamerton.smart_tuner.series import Series
from kamerton.smart_tuner.sources import RunEvent
from kamerton.tracking import names
from kamerton.tracking.metrics_file import json_safe
from kamerton.tracking.run_directory import RunDirectory, RunStatus

DECISION: Final = "decision"  # the event that holds the votes on stopping
WORRYING: Final = frozenset(
    {"recovery", "non_finite_step", "unstable_gradients", "intervention", "tracking_trouble",
     "checkpoint_failed", "learning_rate_high", "resumed"}
)  # fmt: skip
CURVES: Final[tuple[str, ...]] = (
    names.VAL_MEL_LOSS, names.VAL_GATE_LOSS, names.VAL_LOSS, names.TRAIN_LOSS,
    names.ATTENTION_SCORE,
)  # fmt: skip
# Of every evaluation, or of bookkeeping: they would push out what one looks for.
_ORDINARY: Final = frozenset({DECISION, "evaluating", "effective", "surroundings_changed"})
_PART: Final = re.compile(r"(?P<study>.+)/(?P<kind>trials|generations)/(?P<label>[^/]+)/runs/[^/]+")
_POINTS: Final = 200
_RATE_POINTS: Final = 30
_SETTLED_SECONDS: Final = 30.0
_PAUSE: Final = 10.0  # times the usual time between two points: the run was interrupted


@dataclass(frozen=True, slots=True)
class RunView:
    """One run.

    Attributes:
        run: Its path below the runs folder.
        state: running, finished, stopped, failed or killed.
        step: Of the last point.
        total: The budget in steps; None where the record does not tell.
        epoch: Of the last point that has one.
        updated: Time of the last point, Unix seconds.
        rate: Steps per second, evaluations included; None where there are too few points.
        curves: Some series by name, of few points.
        best: Step and value of the lowest ``val_mel_loss``.
        decision: The last votes on stopping.
        events: The last ones, oldest first.
    """

    run: str
    state: str
    step: int
    total: int | None
    epoch: float | None
    updated: float
    rate: float | None
    curves: Mapping[str, Series] = field(default_factory=dict)
    best: tuple[int, float] | None = None
    decision: RunEvent | None = None
    events: Sequence[RunEvent] = ()

    @property
    def eta_seconds(self) -> float | None:
        """Until the budget is used up; None where it cannot be told."""
        if self.state != "running" or self.total is None or not self.rate:
            return None
        return max(0.0, self.total - self.step) / self.rate

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values, with strings for numbers that are not finite."""
        curves = {
            name: {"steps": curve.steps.tolist(), "values": curve.values.tolist()}
            for name, curve in self.curves.items()
        }
        plain: dict[str, Any] = json_safe({
            "run": self.run, "state": self.state, "step": self.step, "total": self.total,
            "epoch": self.epoch, "updated": self.updated, "steps_per_second": self.rate,
            "eta_seconds": self.eta_seconds, "best": self.best, "curves": curves,
            "decision": None if self.decision is None else _event(self.decision),
            "events": [_event(event) for event in self.events],
        })  # fmt: skip
        return plain


@dataclass(frozen=True, slots=True)
class TrialView:
    """One part of a study: a trial, or a candidate of a generation, which has no number.

    ``state`` is complete, pruned, failed, or that of its run.
    """

    label: str
    state: str
    number: int | None = None
    objective: float | None = None
    run: RunView | None = None


@dataclass(frozen=True, slots=True)
class StudyView:
    """A study.

    Attributes:
        study: Its path below the runs folder.
        trials: By number, and then its generations.
        planned: How many trials there will be.
        eta_seconds: Until they are made.
        running: Whether a tuner works on it, also between two trials.
    """

    study: str
    trials: Sequence[TrialView]
    planned: int | None = None
    eta_seconds: float | None = None
    running: bool = False

    @property
    def best(self) -> TrialView | None:
        """The complete trial of lowest objective."""
        complete = [item for item in self.trials if item.state == "complete"]
        scored = [item for item in complete if item.objective is not None]
        return min(scored, key=lambda item: (item.objective or 0.0, item.number or 0), default=None)

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values; trials name their runs."""
        best = self.best
        trials = [
            {
                "label": item.label, "number": item.number, "state": item.state,
                "objective": item.objective,
                "run": None if item.run is None else item.run.run,
            }
            for item in self.trials
        ]  # fmt: skip
        plain: dict[str, Any] = json_safe({
            "study": self.study, "running": self.running, "planned": self.planned,
            "eta_seconds": self.eta_seconds,
            "best": None if best is None else best.number, "trials": trials,
        })  # fmt: skip
        return plain


@dataclass(frozen=True, slots=True)
class Frame:
    """All that is shown: runs, the newest first, and studies."""

    runs: Sequence[RunView]
    studies: Sequence[StudyView] = ()

    @property
    def over(self) -> bool:
        """Whether nothing goes on any more: no run, and no study between two of its trials."""
        going = any(run.state == "running" for run in self.runs)
        going = going or any(study.running for study in self.studies)
        return bool(self.runs or self.studies) and not going

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "runs": [run.as_json() for run in self.runs],
            "studies": [study.as_json() for study in self.studies],
        }


Settled = dict[str, tuple[list[tuple[int, int]], RunView]]  # views that stay, by run


def take_frame(
    store: MetricsStore, runs: Path, watched: Iterable[str], *, events: int,
    settled: Settled | None = None,
) -> Frame:  # fmt: skip
    """What the store and the run directories say now.

    Args:
        store: What was recorded.
        runs: The runs folder.
        watched: Runs and studies, by their paths below it.
        events: How many events of a run are shown.
        settled: Views of runs that are over, kept from one frame to the next: a folder may hold
            hundreds, and only their files are looked at again.
    """
    views: list[RunView] = []
    studies: list[str] = []
    for run in watched:
        folder = RunDirectory(runs / run)
        if (folder.path / "status.json").is_file():
            views.append(_known_view(store, folder, run, events, settled))
        elif (folder.path / "trials").is_dir():
            studies.append(run)
    views.sort(key=lambda view: (view.updated, view.run), reverse=True)
    found = [_study_view(store, runs, study, views) for study in studies]
    return Frame(views, sorted(found, key=lambda view: view.study))


def _known_view(
    store: MetricsStore, folder: RunDirectory, run: str, events: int, settled: Settled | None
) -> RunView:
    if settled is None:
        return _run_view(store, folder, run, events)
    marks = [_mark(folder.path / "status.json"), _mark(folder.metrics_file)]
    known = settled.get(run)
    if known is not None and known[0] == marks:
        return known[1]
    view = _run_view(store, folder, run, events)
    # Young files may be in the store in part only, if another process is entering them.
    old = max(changed for changed, _ in marks) / 1e9 < time.time() - _SETTLED_SECONDS
    if old and view.state != "running":
        settled[run] = marks, view
    return view


def _mark(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _run_view(store: MetricsStore, folder: RunDirectory, run: str, events: int) -> RunView:
    latest = store.latest(run)
    status = _status(folder)
    last = max(latest.values(), key=lambda item: item.time, default=None)
    curves = {name: store.downsample(run, name, _POINTS) for name in CURVES if name in latest}
    decisions = store.events(run, [DECISION], last=1)
    return RunView(
        run=run,
        state=_state(folder, status),
        step=max((item.step for item in latest.values()), default=0),
        total=_total_steps(folder, status),
        epoch=latest["epoch"].value if "epoch" in latest else None,
        updated=last.time if last else 0.0,
        rate=_rate(store, run, names.TRAIN_LOSS),
        curves=curves,
        best=store.best(run, names.VAL_MEL_LOSS),
        decision=decisions[-1] if decisions else None,
        events=_shown(store.events(run), events),
    )


def _shown(events: Sequence[RunEvent], most: int) -> Sequence[RunEvent]:
    """The last of some events, of "best" only the last."""
    kept: list[RunEvent] = []
    found_best = False
    for event in reversed(events):
        if len(kept) == most:
            break
        best = event.name == "best"
        if event.name not in _ORDINARY and not (best and found_best):
            kept.append(event)
        found_best = found_best or best
    return kept[::-1]


def _status(folder: RunDirectory) -> RunStatus | None:
    try:
        return folder.status()
    except PipelineError:
        return None


def _state(folder: RunDirectory, status: RunStatus | None) -> str:
    if status is None:
        return "unknown"
    if status.state != "running":
        return status.state
    try:
        return "running" if folder.live else "killed"
    except OSError:  # somebody else's, who does not let us lock it
        return "running"


def _total_steps(folder: RunDirectory, status: RunStatus | None) -> int | None:
    told = status.facts.get("total_steps") if status else None
    if told is None:
        told = _parameter(folder.path / "params.yaml", "train", "max_steps")
    return None if told is None else int(told)


def _parameter(file: Path, section: str, name: str) -> Any:
    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
        return loaded[section][name]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None


def _rate(store: MetricsStore, run: str, name: str) -> float | None:
    """Steps per second over the last points, without the pauses between two processes."""
    recent = store.window(run, name, _RATE_POINTS)
    seconds, steps = np.diff(recent.times), np.diff(recent.steps)
    good = seconds > 0
    if not good.any():
        return None
    good &= seconds <= _PAUSE * float(np.median(seconds[good]))
    return float(steps[good].sum() / seconds[good].sum())


def _study_view(store: MetricsStore, runs: Path, study: str, views: Sequence[RunView]) -> StudyView:
    objectives = store.series(study, "objective")
    scores = dict(zip(objectives.steps.tolist(), objectives.values.tolist(), strict=True))
    ended = {
        int(number): state
        for state in ("complete", "pruned", "failed")
        for number in store.series(study, state).steps.tolist()
    }
    going: dict[int, RunView] = {}
    later: dict[str, RunView] = {}
    for view in views:  # the newest comes first
        match = _PART.fullmatch(view.run)
        if match is None or match["study"] != study:
            continue
        if match["kind"] == "trials" and match["label"].isdecimal():
            going.setdefault(int(match["label"]), view)
        else:
            later.setdefault(match["label"], view)
    trials = [
        TrialView(
            str(number), ended.get(number) or (run.state if run else "unknown"), number,
            scores.get(number), run,
        )
        for number in sorted(ended.keys() | going.keys())
        for run in (going.get(number),)
    ]  # fmt: skip
    trials += [TrialView(label, later[label].state, run=later[label]) for label in sorted(later)]
    told = _parameter(runs / study / "trials" / "000" / "params.yaml", "tune", "trials")
    planned = None if told is None else int(told)
    eta = _study_eta(trials, planned, len(ended))
    return StudyView(study, trials, planned, eta, _is_held(runs / study / ".lock"))


def _is_held(lock: Path) -> bool:
    """Whether a tuner holds a study: it does from the first trial to the last generation."""
    import fcntl  # POSIX only

    with contextlib.suppress(FileNotFoundError), lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: watchers do not count
        except OSError:  # held, or a disk that cannot tell: rather too long than too short
            return True
    return False


def _study_eta(trials: Sequence[TrialView], planned: int | None, ended: int) -> float | None:
    """Seconds until all planned trials took as long as the middle one of those that ended."""
    durations = [
        float(curve.times[-1] - curve.times[0])
        for item in trials
        if item.run is not None and item.state in ("complete", "pruned")
        for curve in (item.run.curves.get(names.TRAIN_LOSS),)
        if curve is not None and len(curve) > 1
    ]
    if planned is None or not durations or ended >= planned:
        return None
    return (planned - ended) * float(np.median(durations))


def _event(event: RunEvent) -> dict[str, Any]:
    return {"step": event.step, "name": event.name, "time": event.time, "fields": event.fields}
