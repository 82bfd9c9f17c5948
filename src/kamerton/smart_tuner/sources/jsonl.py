"""metrics.jsonl as a source of points: the first record of every run here."""

from __future__ import annotations

import json
import math
import os
import time
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Final

from kamerton.smart_tuner.sources import anchors
from kamerton.smart_tuner.sources.anchors import Mark
from kamerton.smart_tuner.sources.protocol import Cursor, Event, MetricEvent, Rewind, RunEvent
from kamerton.smart_tuner.sources.step_set import StepSet

_CHUNK_BYTES: Final = 4 << 20
_MOST_NOTES: Final = 500
_SETTLED_NS: Final = 2_000_000_000  # beyond what file systems round times to
_STRINGS: Final = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


class JsonlSource:
    """Reads one metrics.jsonl, also while it is written, cut, replaced or rotated.

    Points and events are given; pictures, sound, text and parameters are passed over. Where the
    file was replaced by its own beginning and something else after it (a resumed run), the steps
    that are void are rewound and given as they are now. A file that begins otherwise continues
    the one before (a rotated log), and rewinds where its first step lies before what was reached.
    """

    kind = "jsonl"

    def __init__(self, path: Path, run: str) -> None:
        """Read the log at ``path`` as that of ``run``."""
        self.run = run
        self._path = path

    def poll(self, cursor: Cursor) -> tuple[list[Event], Cursor]:
        """What is new; see ``MetricSource.poll``."""
        try:
            file = self._path.open("rb")
        except OSError:
            return [], cursor
        with file:
            stat = os.fstat(file.fileno())
            identity = [stat.st_ino, stat.st_size, stat.st_mtime_ns]
            if cursor.get("file") == identity:
                return [], cursor
            # As with git's index: a file may be changed again within what its time is rounded to.
            settled = time.time_ns() - stat.st_mtime_ns > _SETTLED_NS
            events, now = self._poll(file, cursor, stat.st_size)
        whole = now["offset"] == stat.st_size
        return events, {**now, "file": identity if settled and whole else None}

    def _poll(self, file: BinaryIO, cursor: Cursor, size: int) -> tuple[list[Event], Cursor]:
        offset = cursor.get("offset", 0)
        if not offset or (size >= offset and anchors.tail_fits(file, offset, cursor["tail"])):
            return self._read_on(file, cursor)
        marks = [Mark(*mark) for mark in cursor["marks"]]
        valid = anchors.still_valid(file, marks)
        if anchors.line_checksum(file) == cursor["head"]:
            return self._read_again(file, cursor, marks, valid)
        # Another file: what was given stays. Its first step tells what of that is made again.
        kept = {name: cursor[name] for name in ("steps", "epoch", "notes")}
        return self._read_on(file, {**kept, "unplaced": True})

    def _read_on(self, file: BinaryIO, cursor: Cursor) -> tuple[list[Event], Cursor]:
        offset = cursor.get("offset", 0)
        file.seek(offset)
        data = _whole_lines(file, _CHUNK_BYTES)
        fold = _Fold(self.run, cursor)
        ends, steps = fold.take(data)
        marks = [Mark(*mark) for mark in cursor.get("marks", ())]
        marks = anchors.extend(marks, data, ends, steps)
        return fold.events, self._cursor(file, fold, marks, offset + len(data))

    def _read_again(
        self, file: BinaryIO, cursor: Cursor, marks: list[Mark], valid: int
    ) -> tuple[list[Event], Cursor]:
        """Read a log whose first ``valid`` marks fit, and whose rest is void."""
        void: int | None = None
        for mark in marks[valid:]:
            void = anchors.lowest(void, mark.low)
        fold = _Fold(self.run, {"notes": cursor["notes"]})
        known_bytes = marks[valid - 1].offset if valid else 0
        file.seek(0)
        known = file.read(known_bytes)
        found = anchors.extend([], known, *fold.take(known))
        # All of that is known, but what the rewinding takes with it.
        events = [] if void is None else [Rewind(self.run, void), *_not_before(void, fold.events)]
        fold.events.clear()
        data = _whole_lines(file, None)
        found = anchors.extend(found, data, *fold.take(data))
        now = self._cursor(file, fold, found, known_bytes + len(data))
        return [*events, *fold.events], now

    @staticmethod
    def _cursor(file: BinaryIO, fold: _Fold, marks: list[Mark], offset: int) -> Cursor:
        return {
            **fold.as_json(),
            "offset": offset,
            "marks": [list(mark) for mark in marks],
            "tail": anchors.tail_of(file, offset),
            "head": anchors.line_checksum(file),
        }


class _Fold:
    """Turns lines into events, with what must be remembered of the lines before."""

    def __init__(self, run: str, cursor: Cursor) -> None:
        self._run = run
        self._steps = StepSet(cursor.get("steps"))
        self._epoch: float | None = cursor.get("epoch")
        self._notes: list[int] = list(cursor.get("notes", ()))  # lines without a step
        self._unplaced = bool(cursor.get("unplaced"))  # another file, whose first step is to come
        self.events: list[Event] = []

    def as_json(self) -> Cursor:
        """What is remembered, as plain values."""
        return {
            "steps": self._steps.as_json(),
            "epoch": self._epoch,
            "notes": self._notes[-_MOST_NOTES:],
            "unplaced": self._unplaced,
        }

    def take(self, data: bytes) -> tuple[list[int], list[int | None]]:
        """Read whole lines; returns where each ends and its step, where it has one."""
        ends: list[int] = []
        steps: list[int | None] = []
        at = 0
        for line in data.split(b"\n")[:-1]:
            at += len(line) + 1
            ends.append(at)
            steps.append(self._line(line))
        return ends, steps

    def _line(self, line: bytes) -> int | None:
        try:
            raw = json.loads(line)
            kind, when = raw["kind"], float(raw["time"])
            step = None if raw.get("step") is None else int(raw["step"])
            if kind == "metrics" and step is not None:
                self._points(step, when, raw["values"])
            elif kind == "event":
                self._event(line, step, when, str(raw["name"]), dict(raw.get("fields", {})))
        except (ValueError, TypeError, KeyError, AttributeError):
            return None  # torn, or of another program
        return step

    def _points(self, step: int, when: float, values: dict[str, Any]) -> None:
        numbers = {
            name: _STRINGS[value] if value.__class__ is str else float(value)
            for name, value in values.items()
        }
        if self._unplaced:
            self._place(step, numbers)
        if math.isfinite(told := numbers.get("epoch", math.nan)):
            self._epoch = told
        epoch = self._epoch
        run, add, append = self._run, self._steps.add, self.events.append
        for name, value in numbers.items():
            if add(name, step):
                append(MetricEvent(run, step, epoch, name, value, when))

    def _event(
        self, line: bytes, step: int | None, when: float, name: str, fields: dict[str, Any]
    ) -> None:
        if step is None:
            checksum = zlib.crc32(line)
            if checksum in self._notes:
                return
            self._notes.append(checksum)
        elif self._unplaced:
            self._place(step, ())
        if name == "resumed" and step is not None and self._steps.cut(step + 1):
            self.events.append(Rewind(self._run, step + 1))
        self.events.append(RunEvent(self._run, step, name, fields, when))

    def _place(self, step: int, names: Iterable[str]) -> None:
        """Rewind where the first step of another file lies before what was reached."""
        self._unplaced = False
        last = self._steps.last()
        if last is None or step > last:
            return
        if step < last or any(self._steps.has(name, step) for name in names):
            self._steps.cut(step)
            self.events.append(Rewind(self._run, step))


def _whole_lines(file: BinaryIO, limit: int | None) -> bytes:
    """Lines from where the file stands, at least one if there is one, at most ``limit`` bytes."""
    data = file.read() if limit is None else file.read(limit)
    while limit is not None and b"\n" not in data and (more := file.read(limit)):
        data += more  # a line that is longer than that
    return data[: data.rfind(b"\n") + 1]


def _not_before(step: int, events: Iterable[Event]) -> list[Event]:
    found: list[Event] = []
    for event in events:
        if isinstance(event, Rewind):
            found.append(Rewind(event.run, max(event.step, step)))
        elif event.step is None or event.step >= step:
            found.append(event)
    return found
