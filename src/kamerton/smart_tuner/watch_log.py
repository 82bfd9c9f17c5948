"""smart_tuner.log: what the watcher saw that a person may ask for later, in a file that rotates."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from kamerton.smart_tuner.channels.message import one_line
from kamerton.smart_tuner.live_frame import DECISION, WORRYING
from kamerton.smart_tuner.live_view import lines
from kamerton.smart_tuner.sources import Event, MetricEvent, RunEvent

_BYTES: Final = 1 << 20
_KEPT: Final = 3
# Of every evaluation, and no decision.
_PASSED_OVER: Final = frozenset({"evaluating", "best", "control", "effective"})


class WatchLog:
    """Writes decisions, phases, ends and warnings; points only where they are not finite."""

    def __init__(self, path: Path) -> None:
        """Append to the file at ``path``; it is made with the first line."""
        self._handler = RotatingFileHandler(
            path, maxBytes=_BYTES, backupCount=_KEPT, encoding="utf-8", delay=True
        )
        self._handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%S%z")
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._handler.close()

    def write(self, events: Iterable[Event]) -> None:
        """Write what is worth a line."""
        wild: Counter[tuple[str, str]] = Counter()
        first: dict[tuple[str, str], MetricEvent] = {}
        for event in events:
            if isinstance(event, MetricEvent):
                if not math.isfinite(event.value):
                    wild[event.run, event.name] += 1
                    first.setdefault((event.run, event.name), event)
            elif not (isinstance(event, RunEvent) and event.name in _PASSED_OVER):
                self._emit(_level(event), lines([event])[0])
        for key, count in wild.items():
            point = first[key]
            more = f", and {count - 1} points after it" if count > 1 else ""
            self._emit(
                logging.WARNING,
                one_line(f"{point.run}  {point.name} is {point.value} at step {point.step}{more}"),
            )

    def _emit(self, level: int, text: str) -> None:
        record = logging.LogRecord("smart_tuner", level, "", 0, text, (), None)
        self._handler.handle(record)


def _level(event: Event) -> int:
    if not isinstance(event, RunEvent):
        return logging.WARNING  # it went back
    stop = event.name == DECISION and event.fields.get("stop")
    failed = event.name == "ended" and event.fields.get("state") == "failed"
    return logging.WARNING if stop or failed or event.name in WORRYING else logging.INFO
