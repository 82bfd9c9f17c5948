"""Alerts as lines of the log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from kamerton.smart_tuner.channels.delivery import Part
from kamerton.smart_tuner.channels.message import Message

_LOG = logging.getLogger("kamerton.alerts")
# What a person need not act on.
_INFORMATION: Final = frozenset(
    {"started", "restarted", "phase", "milestone", "best", "done", "report", "sample"}
)


class LogChannel:
    """One line per message: a warning where something is wrong."""

    name = "log"
    limited = False
    spacing_seconds = 0.0

    def secrets(self) -> Sequence[str]:
        """None."""
        return []

    def parts(self, message: Message) -> Sequence[Part]:
        """One line."""
        line = "; ".join([message.title, *message.body().splitlines()]).replace("\n", " ")
        level = logging.INFO if message.kind in _INFORMATION else logging.WARNING
        return [Part(line, lambda: _LOG.log(level, "%s", line))]
