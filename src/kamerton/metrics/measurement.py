"""What a metric answers: a number, or no number and the reason; never 0 in place of a failure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """Whether a metric could be computed."""

    OK = "ok"
    INVALID = "invalid"  # this pair cannot be measured: silence, NaN, too short
    UNAVAILABLE = "unavailable"  # the metric's package is not installed


@dataclass(frozen=True, slots=True)
class Measurement:
    """One metric of one utterance.

    Attributes:
        value: The number, or None unless the status is ``OK``.
        status: Why there is or is no number.
        reason: In words, when there is no number; otherwise empty.
    """

    value: float | None
    status: Status
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is a number."""
        return self.status is Status.OK


def measured(value: float) -> Measurement:
    """A number; one that is not finite becomes an invalid measurement."""
    if not math.isfinite(value):
        return invalid("the metric gave no finite number")
    return Measurement(float(value), Status.OK)


def invalid(reason: str) -> Measurement:
    """No number, because of the audio."""
    return Measurement(None, Status.INVALID, reason)


def unavailable(reason: str) -> Measurement:
    """No number, because of the installation."""
    return Measurement(None, Status.UNAVAILABLE, reason)
