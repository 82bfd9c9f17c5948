"""How long work tells how far it is, and how a terminal or a log shows it."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol

PLAIN_LINE_SECONDS = 10.0


class Progress(Protocol):
    """Called with work done and in all (any unit) and a few words on what is going on."""

    def __call__(self, done: float, total: float, note: str = "") -> None:
        """Take one report; must be cheap and must not raise."""


def silent(done: float, total: float, note: str = "") -> None:
    """Ignore progress."""
    del done, total, note


def clock(seconds: float) -> str:
    """A duration as m:ss or h:mm:ss."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


class PlainProgress:
    """One line on stderr every few seconds, for logs and pipes."""

    def __init__(
        self,
        title: str,
        interval_seconds: float = PLAIN_LINE_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title = title
        self._interval_seconds = interval_seconds
        self._now = now
        self._shown = now()
        self._first: tuple[float, float] | None = None  # time and share of the first report
        self._before = (0.0, 0.0)  # the last report's done and total

    def __call__(self, done: float, total: float, note: str = "") -> None:
        """Print when the last line is old enough."""
        now = self._now()
        share = done / total if total else 0.0
        # What is left is told from the first report on: work that goes on where it was interrupted
        # did not do what was there before. Another total, or less done, is work of another kind.
        if total != self._before[1] or done < self._before[0]:
            self._first = None
        self._before = (done, total)
        began, before = self._first = self._first or (now, share)
        if now - self._shown < self._interval_seconds:
            return
        self._shown = now
        left = (now - began) * (1 - share) / (share - before) if share > before else None
        eta = "" if left is None else f", {clock(left)} left"
        words = f"  {note}" if note else ""
        print(f"{self._title}: {share:.0%}{eta}{words}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def shown_progress(title: str, *, quiet: bool) -> Iterator[Progress]:
    """A bar on a terminal, plain lines elsewhere, nothing when ``quiet``."""
    if quiet:
        yield silent
    elif not sys.stderr.isatty():
        yield PlainProgress(title)
    else:
        with _bar(title) as progress:
            yield progress


@contextlib.contextmanager
def _bar(title: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import (
        Progress as RichProgress,
    )

    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=None, note="")

        def show(done: float, total: float, note: str = "") -> None:
            bars.update(task, completed=done, total=total, note=note)

        yield show
