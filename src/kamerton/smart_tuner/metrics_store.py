"""MetricsStore: the history of every series of every run, in one SQLite file."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from kamerton.core.errors import InputCorruptError, PipelineError
from kamerton.smart_tuner.series import Robust, Series
from kamerton.smart_tuner.sources.protocol import Cursor, Event, MetricEvent, Rewind, RunEvent
from kamerton.tracking.metrics_file import json_safe

_WAIT_SECONDS: Final = 30.0
_VERSION: Final = 1
# A value that is not finite is NULL with its kind beside it: SQLite keeps NaN as NULL by itself.
_KINDS: Final = {1: math.nan, 2: math.inf, 3: -math.inf}
_SCHEMA: Final = """
create table if not exists series (
    id integer primary key, run text not null, name text not null, unique (run, name)
);
create table if not exists points (
    series integer not null, step integer not null, value real, kind integer not null,
    time real not null, epoch real, primary key (series, step)
) without rowid;
create table if not exists events (
    run text not null, step integer, time real not null, name text not null, fields text not null
);
create unique index if not exists one_event
    on events (run, name, time, ifnull(step, -1), fields);
create table if not exists cursors (source text primary key, cursor text not null);
"""
# Of two values of one step the later counts, whatever order they come in.
_PUT: Final = """
insert into points values (?, ?, ?, ?, ?, ?) on conflict (series, step) do update set
    value = excluded.value, kind = excluded.kind, time = excluded.time, epoch = excluded.epoch
where excluded.time >= points.time
"""


@dataclass(frozen=True, slots=True)
class Latest:
    """The last point of a series."""

    step: int
    epoch: float | None
    value: float
    time: float


class MetricsStore:
    """Points and events of runs; other processes may read and write the same file meanwhile.

    The file is in WAL mode: readers see whole transactions and wait for nobody. It must lie on a
    local disk. Adding the same twice changes nothing, and a rewinding forgets what it makes void.
    Where a source was read up to is kept in the transaction of what was read, so that a process
    that is killed at any instant has neither lost nor doubled a point.
    """

    def __init__(self, path: Path) -> None:
        """Open the store at ``path``, made if there is none.

        Raises:
            PipelineError: it cannot be opened.
            InputCorruptError: the file is something else.
        """
        self._path = path
        self._ids: dict[tuple[str, str], int] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # isolation_level None: transactions begin where the code says.
            self._db = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None)
        except (sqlite3.OperationalError, OSError) as error:
            raise PipelineError(
                f"{path} cannot be opened ({error}).", hint="name another place with --store"
            ) from error
        try:
            self._prepare()
        except sqlite3.OperationalError as error:
            self._db.close()
            raise PipelineError(
                f"{path} cannot be used ({error}).", hint="name another place with --store"
            ) from error
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise InputCorruptError(
                path, problem=f"is no store of metrics ({error})",
                hint="remove it: it is made again from the runs",
            ) from error  # fmt: skip

    def _prepare(self) -> None:
        if self._db.execute("pragma user_version").fetchone()[0] == _VERSION:
            self._db.execute("pragma synchronous = normal")
            return
        self._db.execute("pragma journal_mode = wal")
        # A power cut may take the last transactions, their cursors with them; a kill takes none.
        self._db.execute("pragma synchronous = normal")
        with self._transaction():
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.execute(f"pragma user_version = {_VERSION}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        # "immediate": a transaction that reads first and finds another writer then would fail.
        self._db.execute("begin immediate")
        try:
            yield
        except BaseException:
            self._db.execute("rollback")
            self._ids.clear()  # some may have been of series that are not there now
            raise
        self._db.execute("commit")

    # Writing.

    def add(self, events: Iterable[Event]) -> None:
        """Enter points and events, all or none of them."""
        with self._transaction():
            self._enter(events)

    def cursor(self, source: str) -> Cursor:
        """Where the reading of ``source`` stands; empty at the beginning."""
        row = self._db.execute("select cursor from cursors where source = ?", (source,)).fetchone()
        cursor: Cursor = json.loads(row[0]) if row else {}
        return cursor

    def advance(
        self, source: str, events: Iterable[Event], *, before: Cursor, after: Cursor
    ) -> bool:
        """Enter what was read between two cursors, and the second, all or nothing.

        Returns:
            False where another process has read on from ``before`` meanwhile; nothing is entered.
        """
        with self._transaction():
            if self.cursor(source) != before:
                return False
            self._enter(events)
            put = "insert or replace into cursors values (?, ?)"
            self._db.execute(put, (source, json.dumps(after)))
        return True

    def _enter(self, events: Iterable[Event]) -> None:
        rows: list[tuple[Any, ...]] = []
        for event in events:
            if isinstance(event, MetricEvent):
                run, step, epoch, name, value, time = event
                kind = 0
                if not math.isfinite(value):
                    kind = 1 if math.isnan(value) else (2 if value > 0 else 3)
                number = self._ids.get((run, name)) or self._series_id(run, name)
                rows.append((number, step, None if kind else value, kind, time, epoch))
                continue
            self._db.executemany(_PUT, rows)
            rows.clear()
            if isinstance(event, RunEvent):
                fields = json.dumps(json_safe(event.fields), sort_keys=True, default=str)
                values = (event.run, event.step, event.time, event.name, fields)
                self._db.execute("insert or ignore into events values (?, ?, ?, ?, ?)", values)
            else:
                self._forget(event)
        self._db.executemany(_PUT, rows)

    def _series_id(self, run: str, name: str) -> int:
        self._db.execute("insert or ignore into series (run, name) values (?, ?)", (run, name))
        query = "select id from series where run = ? and name = ?"
        number = int(self._db.execute(query, (run, name)).fetchone()[0])
        self._ids[run, name] = number
        return number

    def _forget(self, rewind: Rewind) -> None:
        series = "series in (select id from series where run = ?)"
        self._db.execute(f"delete from points where {series} and step >= ?", _pair(rewind))
        self._db.execute("delete from events where run = ? and step >= ?", _pair(rewind))

    # Reading.

    def runs(self) -> list[str]:
        """All runs, by name."""
        query = "select run from series union select run from events order by run"
        return [row[0] for row in self._db.execute(query)]

    def names(self, run: str) -> list[str]:
        """The series of a run that have points."""
        query = (
            "select name from series where run = ? and exists "
            "(select 1 from points where series = series.id) order by name"
        )
        return [row[0] for row in self._db.execute(query, (run,))]

    def series(self, run: str, name: str) -> Series:
        """All points of a series; an unknown one has none."""
        return self._select(run, name, "order by step")

    def window(self, run: str, name: str, count: int) -> Series:
        """The last ``count`` points, without reading the others."""
        return self._select(run, name, "order by step desc limit ?", (count,))

    def _select(self, run: str, name: str, rest: str, more: Sequence[Any] = ()) -> Series:
        query = (
            "select step, value, kind, time, epoch from points where series = "
            f"(select id from series where run = ? and name = ?) {rest}"
        )
        rows = self._db.execute(query, (run, name, *more)).fetchall()
        if more:
            rows.reverse()
        steps, values, kinds, times, epochs = zip(*rows, strict=True) if rows else ((),) * 5
        numbers = [
            _KINDS[kind] if kind else value for value, kind in zip(values, kinds, strict=True)
        ]
        return Series(np.array(steps, np.int64), _real(numbers), _real(times), _real(epochs))

    def latest(self, run: str) -> dict[str, Latest]:
        """The last point of every series of a run."""
        query = (
            "select name, max(step), epoch, value, kind, time from series "
            "join points on series = id where run = ? group by id order by name"
        )
        return {
            name: Latest(step, epoch, _KINDS[kind] if kind else value, time)
            for name, step, epoch, value, kind, time in self._db.execute(query, (run,))
        }

    def ema(self, run: str, name: str, *, half_life: float) -> NDArray[np.float64]:
        """See ``Series.ema``."""
        return self.series(run, name).ema(half_life)

    def robust(self, run: str, name: str, count: int | None = None) -> Robust:
        """Median and MAD of the last ``count`` points, or of all."""
        chosen = self.series(run, name) if count is None else self.window(run, name, count)
        return chosen.robust()

    def best(self, run: str, name: str, *, lowest: bool = True) -> tuple[int, float] | None:
        """Step and value of the best finite point; None where there is none."""
        return self.series(run, name).best(lowest=lowest)

    def downsample(self, run: str, name: str, most: int) -> Series:
        """See ``Series.downsample``."""
        return self.series(run, name).downsample(most)

    def events(
        self, run: str, names: Sequence[str] | None = None, *, last: int | None = None
    ) -> list[RunEvent]:
        """Events of a run in the order of time, the ``last`` ones of them, of some names or all."""
        chosen = "" if names is None else f"and name in ({','.join('?' * len(names))})"
        query = (
            f"select step, name, fields, time from events where run = ? {chosen} "
            "order by time desc, rowid desc limit ?"
        )
        limit = -1 if last is None else last
        rows = self._db.execute(query, (run, *(names or ()), limit)).fetchall()
        return [
            RunEvent(run, step, name, json.loads(fields), time)
            for step, name, fields, time in reversed(rows)
        ]


def _pair(rewind: Rewind) -> tuple[str, int]:
    return rewind.run, rewind.step


def _real(values: Iterable[float | None]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in values], np.float64)
