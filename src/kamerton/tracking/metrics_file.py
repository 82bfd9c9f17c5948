"""metrics.jsonl: the first record of a run, one line per event.

A line is a JSON object with ``kind`` (metrics, event, params, figure, audio, text), ``time`` (Unix
seconds) and ``step`` (null for events outside training). Metrics carry ``values``; numbers that are
not finite are the strings "nan", "inf" and "-inf", which JSON has no numbers for. Figures and sound
are files of the run directory that a line points at.
"""

import io
import json
import logging
import math
import os
import time
import wave as wave_format
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from kamerton.core.files import write_bytes
from kamerton.tracking.protocol import EndState
from kamerton.tracking.redaction import redact
from kamerton.tracking.trouble import Trouble

_log = logging.getLogger(__name__)

EVALUATING: Final = "evaluating"  # a state was saved; what follows at this step is its evaluation
_NOT_FINITE: Final = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_PCM16_PEAK: Final = 32767
_TAIL_BYTES: Final = 8 << 20
_CLOSE_SECONDS: Final = 5.0
_CLOSE_POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Record:
    """One line of metrics.jsonl."""

    kind: str
    time: float  # Unix seconds
    step: int | None = None
    name: str = ""  # of an event, figure, sound or text
    values: dict[str, float] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    file: str = ""  # relative to the run directory

    @classmethod
    def parse(cls, line: bytes) -> Self | None:
        """The record on one line, or None where the line is torn or of another program."""
        try:
            raw = json.loads(line)
            values = {name: _number(value) for name, value in raw.get("values", {}).items()}
            step = None if raw.get("step") is None else int(raw["step"])
            return cls(
                kind=str(raw["kind"]),
                time=float(raw["time"]),
                step=step,
                name=str(raw.get("name", "")),
                values=values,
                fields=dict(raw.get("fields", {})),
                file=str(raw.get("file", "")),
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def line(self) -> bytes:
        """The line that ``parse`` reads back, with its line end."""
        raw: dict[str, Any] = {"kind": self.kind, "step": self.step, "time": round(self.time, 3)}
        if self.name:
            raw["name"] = self.name
        if self.values:
            raw["values"] = {name: _jsonable(value) for name, value in self.values.items()}
        if self.fields:
            raw["fields"] = json_safe(self.fields)
        if self.file:
            raw["file"] = self.file
        text = json.dumps(
            raw, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=str
        )
        return text.encode("utf-8") + b"\n"


def _number(value: Any) -> float:
    return _NOT_FINITE[value] if isinstance(value, str) else float(value)


def _jsonable(value: float) -> float | str:
    number = float(value)  # numpy and torch scalars too
    if math.isfinite(number):
        return number
    return "nan" if math.isnan(number) else ("inf" if number > 0 else "-inf")


def json_safe(value: Any) -> Any:
    """The same with strings for numbers that JSON has not, however deep they lie."""
    if isinstance(value, Mapping):
        return {str(name): json_safe(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value]
    return _jsonable(value) if isinstance(value, float) else value


def last_events(path: Path, count: int) -> list[Record]:
    """The newest events of a metrics.jsonl, the oldest of them first.

    Reads from the end and gives up after ``_TAIL_BYTES``: the file of a long run is large.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    events: list[Record] = []
    for line in reversed(lines):
        # Parsing is the slow part, and most lines are numbers.
        record = Record.parse(line) if b'"kind":"event"' in line else None
        if record is not None and len(events) < count:
            events.append(record)
    return events[::-1]


def read_records(path: Path) -> list[Record]:
    """All whole records of a metrics.jsonl; an absent file holds none."""
    return MetricsCursor(path).poll()


class MetricsCursor:
    """Reads a growing metrics.jsonl; each point is returned once, also across resumes.

    A run that resumes at an earlier step replaces the file by its beginning, so the file's
    identity changes. The cursor then starts over and drops what it has returned before.
    """

    def __init__(
        self,
        path: Path,
        *,
        offset: int = 0,
        seen: Mapping[str, int] | None = None,
        inode: int | None = None,
    ) -> None:
        """Read ``path`` from its beginning, or on from the fields of another cursor."""
        self.path = path
        self.offset = offset  # bytes read
        self.seen = dict(seen or {})  # series -> the last step returned
        self.inode = inode  # which file it was

    def poll(self, *, limit: int | None = None) -> list[Record]:
        """Whole records that were added since the last call, at most ``limit`` lines of them."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return []
        with file:
            stat = os.fstat(file.fileno())
            replaced = self.inode is not None and stat.st_ino != self.inode
            if replaced or stat.st_size < self.offset:
                self.offset = 0
            self.inode = stat.st_ino
            file.seek(self.offset)
            records = []
            for taken, line in enumerate(file):
                if not line.endswith(b"\n") or (limit is not None and taken >= limit):
                    break
                self.offset += len(line)
                record = Record.parse(line)
                fresh = self._fresh(record) if record else None
                if fresh:
                    records.append(fresh)
        return records

    def _fresh(self, record: Record) -> Record | None:
        """The part of a record that was not returned before."""
        if record.step is None:
            # No step to tell it by, so the whole line does.
            return record if self._advance(f"line/{zlib.crc32(record.line())}", 0) else None
        if record.kind != "metrics":
            return record if self._advance_to(record, record.step) else None
        values = {
            name: value for name, value in record.values.items() if self._advance(name, record.step)
        }
        if not values:
            return None
        return Record("metrics", record.time, record.step, values=values)

    def _advance_to(self, record: Record, step: int) -> bool:
        """Note that something happened; several of one name at one step differ in what they say."""
        series = f"{record.kind}/{record.name}"
        said = json.dumps([record.fields, record.file], sort_keys=True, default=str)
        one = f"{series}#{step}#{zlib.crc32(said.encode())}"
        if self.seen.get(series, -1) > step or one in self.seen:
            return False
        if self._advance(series, step):  # what was said at earlier steps is behind
            prefix = f"{series}#"
            for known in [name for name in self.seen if name.startswith(prefix)]:
                del self.seen[known]
        self.seen[one] = step
        return True

    def _advance(self, series: str, step: int) -> bool:
        if self.seen.get(series, -1) >= step:
            return False
        self.seen[series] = step
        return True


class JsonlTracker:
    """Writes metrics.jsonl and the files it points at; readers see only whole lines.

    A disk that is full or fails never ends a run: lines wait in memory, in their order, and are
    written with the next one that the disk takes. Pictures and sound are not kept waiting; one that
    cannot be written is lost and counted.
    """

    def __init__(
        self, run: Path, *, resume_step: int | None = None, unevaluated: bool = False
    ) -> None:
        """Open the record of the run at ``run``.

        Args:
            run: the run directory.
            resume_step: the step of the checkpoint that the run continues from. What was recorded
                beyond it is dropped, because those steps will be made again.
            unevaluated: whether that checkpoint was written before its step was evaluated. What
                was recorded at that step after the event ``EVALUATING`` is dropped too.
        """
        self._run = run
        path = run / "metrics.jsonl"
        dropped = (
            _drop_torn_line(path)
            if resume_step is None
            else _drop_beyond(path, resume_step, unevaluated=unevaluated)
        )
        self._waiting = bytearray()
        self._trouble = Trouble(str(path), "the lines wait in memory")
        self._lost_files = Trouble(f"a picture or sound of {run}", "it is left out")
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        if resume_step is not None:
            self.log_event("resumed", step=resume_step, dropped_lines=dropped)

    @property
    def lost_files(self) -> int:
        """Pictures and sounds that could not be written."""
        return self._lost_files.count

    def _append(self, record: Record) -> None:
        self._waiting += record.line()
        self._write_waiting()

    def _write_waiting(self) -> None:
        # One write for whole lines, in append mode: a reader never sees lines mixed, and a process
        # that is killed leaves whole lines. A disk that fills up takes part of a line; its rest is
        # the first to be written later, and until then readers see no end of that line.
        try:
            while self._waiting:
                del self._waiting[: os.write(self._file, self._waiting)]
        except OSError as error:
            self._trouble.begins(error)
            return
        if self._trouble.ends():
            self.log_event(
                "tracking_recovered", place="metrics.jsonl", attempts=self._trouble.count
            )

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record parameters, with secrets masked."""
        self._append(Record("params", time.time(), fields=redact(params)))

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record one line of numbers."""
        if values:
            numbers = {name: float(value) for name, value in values.items()}
            self._append(Record("metrics", time.time(), step, values=numbers))

    def log_event(self, kind: str, *, step: int | None = None, **fields: Any) -> None:
        """Record that something happened."""
        self._append(Record("event", time.time(), step, name=kind, fields=redact(fields)))

    def log_figure(self, name: str, png: bytes, step: int) -> None:
        """Write ``figures/<name>-<step>.png`` and record it."""
        self._store("figure", f"figures/{name}-{step:08d}.png", png, name, step)

    def log_audio(self, name: str, wave: NDArray[np.float32], rate_hz: int, step: int) -> None:
        """Write ``samples/<name>-<step>.wav`` and record it."""
        self._store(
            "audio", f"samples/{name}-{step:08d}.wav", encode_wav(wave, rate_hz), name, step
        )

    def log_text(self, name: str, text: str, step: int) -> None:
        """Record a piece of text on a line of its own."""
        self._append(Record("text", time.time(), step, name=name, fields={"text": text}))

    def _store(self, kind: str, file: str, data: bytes, name: str, step: int) -> None:
        try:
            write_bytes(self._run / file, data)
        except OSError as error:
            self._lost_files.begins(error)
            return
        self._append(Record(kind, time.time(), step, name=name, file=file))

    def flush(self) -> None:
        """Put the lines on disk; other processes see them even before."""
        self._write_waiting()
        try:
            os.fsync(self._file)
        except OSError as error:
            self._trouble.begins(error)

    def close(self, state: EndState) -> None:
        """Record the end and close the file, waiting a little for a disk that is in trouble."""
        self.log_event("ended", state=state)
        deadline = time.monotonic() + _CLOSE_SECONDS
        while self._waiting and time.monotonic() < deadline:
            time.sleep(_CLOSE_POLL_SECONDS)
            self._write_waiting()
        if self._waiting:
            _log.warning(
                "%d lines of %s could not be written and are lost",
                self._waiting.count(b"\n"), self._run / "metrics.jsonl",
            )  # fmt: skip
        self.flush()
        os.close(self._file)


def _drop_beyond(path: Path, step: int, *, unevaluated: bool) -> int:
    """Replace the file by its lines up to ``step``, or to its evaluation; returns how many went."""
    if not path.is_file():
        return 0
    lines = path.read_bytes().splitlines(keepends=True)
    kept, last = [], step
    for line in lines:
        record = Record.parse(line) if line.endswith(b"\n") else None
        # How often a run was interrupted is no outcome of its evaluation.
        if record is None or (
            record.step is not None and record.step > (step if record.name == "resumed" else last)
        ):
            continue
        kept.append(line)
        if unevaluated and record.name == EVALUATING and record.step == step:
            last = step - 1
    if len(kept) < len(lines):  # a run that was stopped, not killed, needs no room on the disk
        write_bytes(path, b"".join(kept))
    return len(lines) - len(kept)


def _drop_torn_line(path: Path) -> int:
    """Cut an unfinished last line off, so that the next line starts a line of its own."""
    if not path.is_file():
        return 0
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole == len(data):
        return 0
    write_bytes(path, data[:whole])
    return 1


def encode_wav(wave: NDArray[np.float32], rate_hz: int) -> bytes:
    """A mono wave in [-1, 1] as the bytes of a 16-bit WAV file; louder samples are clipped."""
    samples = np.round(np.clip(wave, -1.0, 1.0) * _PCM16_PEAK).astype("<i2")
    buffer = io.BytesIO()
    with wave_format.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()
