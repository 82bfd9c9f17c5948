"""A folder of TensorBoard's event files as a source of points."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import BinaryIO, Final

from kamerton.smart_tuner.sources import tfrecord
from kamerton.smart_tuner.sources.protocol import Cursor, Event, MetricEvent, Rewind
from kamerton.smart_tuner.sources.step_set import StepSet

_log = logging.getLogger(__name__)

_CHUNK_BYTES: Final = 4 << 20
_FRAME_BYTES: Final = tfrecord.HEADER_BYTES + tfrecord.FOOTER_BYTES
_PATTERN: Final = "*tfevents*"


class TensorBoardSource:
    """Reads the scalars of one folder, of both styles, on from where it was.

    Files are read in the order of their names, which begin with the time they were opened at. A
    record that ends early is asked for again from its beginning, for its writer may not have
    flushed. A session's START rewinds to its step, as TensorBoard itself does; the points it then
    makes again are given again. Pictures, sound, histograms and text are passed over unread.
    """

    kind = "tensorboard"

    def __init__(self, folder: Path, run: str) -> None:
        """Read the event files in ``folder`` as those of ``run``."""
        self.run = run
        self._folder = folder

    def poll(self, cursor: Cursor) -> tuple[list[Event], Cursor]:
        """What is new; see ``MetricSource.poll``. One call reads some megabytes."""
        offsets = dict(cursor.get("files", {}))
        steps: StepSet | None = None
        events: list[Event] = []
        for path in sorted(self._folder.glob(_PATTERN)):
            start = offsets.get(path.name, 0)
            try:
                size = path.stat().st_size
                if size - start < _FRAME_BYTES:
                    continue
                steps = steps or StepSet(cursor.get("steps"))
                with path.open("rb") as file:
                    file.seek(start)
                    used = self._take(file, size - start, steps, events)
            except OSError as error:
                _log.warning("%s cannot be read now: %s", path, error)
                break
            if used:
                offsets[path.name] = start + used
                if size - start > _CHUNK_BYTES:
                    break  # the rest of it comes before the next file
        if steps is None or offsets == cursor.get("files", {}):
            return [], cursor
        return events, {"files": offsets, "steps": steps.as_json()}

    def _take(self, file: BinaryIO, there: int, steps: StepSet, events: list[Event]) -> int:
        """Read records; returns how many bytes of whole ones were used."""
        data = file.read(min(there, _CHUNK_BYTES))
        at, end = 0, len(data)
        while end - at >= _FRAME_BYTES:
            begin = at + tfrecord.HEADER_BYTES
            length = tfrecord.length_at(data, at)
            after = begin + length + tfrecord.FOOTER_BYTES
            if after > end:
                # No scalar takes megabytes: where such a record is all there, it is passed over.
                return after if at == 0 and after <= there else at
            try:
                self._event(tfrecord.read_event(data, begin, begin + length), steps, events)
            except tfrecord.MalformedError as error:
                _log.warning("a record of %s cannot be read: %s", self._folder, error)
            at = after
        return at

    def _event(self, found: tfrecord.TensorEvent, steps: StepSet, events: list[Event]) -> None:
        time, step, scalars, restart = found
        if restart and steps.cut(step):
            events.append(Rewind(self.run, step))
        for name, value in scalars:
            if steps.add(name, step):
                events.append(MetricEvent(self.run, step, None, name, value, time))
