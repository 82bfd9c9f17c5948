"""`kamerton runs watch`: runs and studies while they go on."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kamerton.cli.help_text import flowing
from kamerton.cli.output import narrate, print_json
from kamerton.core.errors import UsageError
from kamerton.core.stop import StopRequest

if TYPE_CHECKING:
    from rich.console import Console

    from kamerton.smart_tuner.live_frame import Frame, Settled
    from kamerton.smart_tuner.log_watcher import LogWatcher
    from kamerton.smart_tuner.metrics_store import MetricsStore
    from kamerton.smart_tuner.sources import Event
    from kamerton.smart_tuner.watch_log import WatchLog

_POLL_SECONDS = 0.1  # within which a Ctrl-C is granted


class Source(StrEnum):
    """Which record of a run is read."""

    JSONL = "jsonl"
    TENSORBOARD = "tensorboard"
    MLFLOW = "mlflow"


@flowing
def watch(
    identifier: Annotated[
        str, typer.Argument(help="Part of the id of runs or a study, 'last', or 'all'.")
    ] = "all",
    runs: Annotated[Path, typer.Option("--runs", help="Folder of runs.")] = Path("runs"),
    source: Annotated[
        Source, typer.Option("--source", help="The record that is read.")
    ] = Source.JSONL,
    store: Annotated[
        Path | None,
        typer.Option("--store", help="Where it is kept.", show_default="metrics.db of the runs"),
    ] = None,
    interval: Annotated[
        float, typer.Option("--interval", min=0.2, help="Seconds between two looks.")
    ] = 2.0,
    events: Annotated[int, typer.Option("--events", min=0, help="Last events of a run.")] = 6,
    once: Annotated[bool, typer.Option("--once", help="Show how things stand, and end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON: with --once all, else a line per event.")
    ] = False,
) -> None:
    """Show trials, curves, votes and events of runs while they go on.

    All that is read goes into the store; warnings and decisions also into smart_tuner.log beside
    it. On a terminal the view renews itself, elsewhere lines tell what is new. It ends when the
    named runs are over, or with Ctrl-C; runs do not notice either.
    """
    from kamerton.smart_tuner.log_watcher import LogWatcher, sources_in
    from kamerton.smart_tuner.metrics_store import MetricsStore
    from kamerton.smart_tuner.watch_log import WatchLog

    if not runs.is_dir():
        raise UsageError(f"{runs} is no folder.", hint="name the folder of runs with --runs")
    chosen = _chooser(runs, identifier)
    watcher = LogWatcher(discover=lambda: sources_in(runs, source.value, chosen=chosen))
    place = store or runs / "metrics.db"
    with (
        StopRequest() as stop,
        MetricsStore(place) as opened,
        WatchLog(place.with_name("smart_tuner.log")) as log,
    ):
        session = _Session(runs, chosen, watcher, opened, log, events)
        if once:
            session.collect()
            _show_once(session.frame(), as_json=as_json)
            return
        _follow(
            session, interval=interval, as_json=as_json, ends=identifier != "all",
            asked=lambda: stop.requested,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Session:
    """What one call of the command works with."""

    runs: Path
    chosen: Callable[[str], bool]
    watcher: LogWatcher
    store: MetricsStore
    log: WatchLog
    events: int
    settled: Settled = field(default_factory=dict)

    def collect(self) -> list[Event]:
        """Read on; what nobody had read before."""
        new: list[Event] = []
        for found in self.watcher.collect(self.store):
            self.log.write(found)
            new += found
        return new

    def frame(self) -> Frame:
        """How things stand."""
        from kamerton.smart_tuner.live_frame import take_frame
        from kamerton.smart_tuner.log_watcher import run_folders

        paths = (path.relative_to(self.runs).as_posix() for path in run_folders(self.runs))
        known = [path for path in paths if self.chosen(path)]
        return take_frame(self.store, self.runs, known, events=self.events, settled=self.settled)


def _chooser(runs: Path, identifier: str) -> Callable[[str], bool]:
    """Which runs are meant, by their paths below the runs folder.

    Raises:
        UsageError: no run has the id.
    """
    from kamerton.smart_tuner.log_watcher import run_folders

    if identifier == "all":
        return lambda _run: True
    known = {path.relative_to(runs).as_posix(): path for path in run_folders(runs)}
    wanted = identifier
    if identifier == "last":
        wanted = max(known, key=lambda run: _changed(known[run]), default="")
    if not wanted or not any(wanted in run for run in known):
        raise UsageError(
            f"no run in {runs} with '{identifier}' in the id.",
            hint="`kamerton runs list` shows them",
        )
    return lambda run: wanted in run


def _changed(folder: Path) -> float:
    try:
        return (folder / "metrics.jsonl").stat().st_mtime
    except OSError:  # it went away just now
        return 0.0


def _show_once(frame: Frame, *, as_json: bool) -> None:
    if as_json:
        print_json(frame.as_json())
        return
    from kamerton.smart_tuner.live_view import render

    console = _console()
    console.print(render(frame, console))


def _console() -> Console:
    from rich.console import Console

    # A pipe or a log has no width of its own.
    return Console() if sys.stdout.isatty() else Console(width=80)


def _follow(
    session: _Session, *, interval: float, as_json: bool, ends: bool, asked: Callable[[], bool]
) -> None:
    show = _as_json_lines if as_json else _as_lines
    live = sys.stdout.isatty() and not as_json
    with _live(session) if live else contextlib.nullcontext(show) as tell:
        while True:
            tell(session.collect())
            # Asked before the next look: what was written last is then still read.
            over = ends and session.frame().over
            if over:
                tell(session.collect())
            if over or _wait(interval, asked):
                break
    if asked():
        narrate("no longer watching; the runs go on")


def _wait(seconds: float, asked: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while not asked() and time.monotonic() < until:
        time.sleep(min(_POLL_SECONDS, seconds))
    return asked()


@contextlib.contextmanager
def _live(session: _Session) -> Iterator[Callable[[list[Event]], None]]:
    from rich.live import Live

    from kamerton.smart_tuner.live_view import render

    console = _console()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as picture:

        def tell(_new: list[Event]) -> None:
            picture.update(render(session.frame(), console), refresh=True)

        yield tell


def _as_lines(new: list[Event]) -> None:
    from kamerton.smart_tuner.live_view import lines

    for line in lines(new):
        print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)


def _as_json_lines(new: list[Event]) -> None:
    from kamerton.tracking.metrics_file import json_safe

    for event in new:
        print(json.dumps(json_safe(_plain(event)), ensure_ascii=False), flush=True)


def _plain(event: Event) -> dict[str, Any]:
    from kamerton.smart_tuner.sources import MetricEvent, RunEvent

    if isinstance(event, MetricEvent):
        return {"kind": "point", **event._asdict()}
    if isinstance(event, RunEvent):
        fields = {name: getattr(event, name) for name in event.__dataclass_fields__}
        return {"kind": "event", **fields}
    return {"kind": "rewind", "run": event.run, "step": event.step}
