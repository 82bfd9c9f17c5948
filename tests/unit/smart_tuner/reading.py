"""Reads a source as several processes would, one after the other, and notes what it gave."""

import json
import math
from collections.abc import Sequence

from kamerton.smart_tuner.sources import Cursor, Event, MetricEvent, MetricSource, Rewind

Points = dict[tuple[str, int], float | str]


class Reader:
    """Polls as separate processes would, and checks that nothing is given twice."""

    def __init__(self, source: MetricSource) -> None:
        self.source = source
        self.cursor: Cursor = {}
        self.points: Points = {}
        self.events: list[Event] = []
        self.rewinds = 0

    def poll(self) -> int:
        count = 0
        while True:
            before = json.dumps(self.cursor)
            events, after = self.source.poll(self.cursor)
            assert json.dumps(self.cursor) == before, "the given cursor was changed"
            if after == self.cursor:
                assert not events
                return count
            self.cursor = json.loads(json.dumps(after))
            count += len(events)
            self.take(events)

    def take(self, events: Sequence[Event]) -> None:
        self.events += events
        for event in events:
            if isinstance(event, Rewind):
                self.rewinds += 1
                kept = self.points.items()
                self.points = {key: value for key, value in kept if key[1] < event.step}
            elif isinstance(event, MetricEvent):
                key = (event.name, event.step)
                assert key not in self.points, f"{key} was given twice"
                value = event.value
                self.points[key] = value if math.isfinite(value) else str(value)
