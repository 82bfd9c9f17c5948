"""What a source of points gives, and the one call by which it gives it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

Cursor = dict[str, Any]  # JSON values only; {} is the beginning


class MetricEvent(NamedTuple):
    """One point of one series.

    A tuple, where other results are dataclasses: a log holds a hundred thousand, and a frozen
    dataclass takes four times as long to make.
    """

    run: str
    step: int
    epoch: float | None  # that the step belongs to, where the record tells
    name: str
    value: float  # NaN and infinities as they were recorded
    time: float  # Unix seconds


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that happened in a run: a phase, a recovery, a decision."""

    run: str
    step: int | None
    name: str
    fields: dict[str, Any] = field(default_factory=dict)
    time: float = 0.0  # Unix seconds


@dataclass(frozen=True, slots=True)
class Rewind:
    """The run went back: everything of it at ``step`` and later is void, and follows anew."""

    run: str
    step: int


Event = MetricEvent | RunEvent | Rewind


class MetricSource(Protocol):
    """The growing record of one run.

    Between two rewinds no (run, name, step) is given twice, whatever process asks: all that is
    remembered is in the cursor.
    """

    kind: str  # of the record; cursors of one kind mean nothing to another
    run: str

    def poll(self, cursor: Cursor) -> tuple[list[Event], Cursor]:
        """What was recorded since ``cursor``, in order, and the cursor to ask with next.

        One call takes a bounded part of a large record: ask until the cursor stays as it is. The
        given cursor is not changed, so what is not kept with it is simply given again. A record
        that is absent, torn or out of reach gives nothing; it never raises for that.
        """
