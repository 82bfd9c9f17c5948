"""Trouble with a place that a run is recorded in: reported once, counted, and told when over."""

import logging
from collections.abc import Callable
from typing import Final

_log = logging.getLogger(__name__)

MAX_PAUSE_SECONDS: Final = 30.0


def first_line(error: Exception) -> str:
    """What went wrong, in one line."""
    return (str(error) or type(error).__name__).splitlines()[0]


class Trouble:
    """The trouble of one place; a disk that is full for hours must not fill the log too."""

    def __init__(self, place: str, remedy: str = "it is tried again") -> None:
        """Say what ``place`` is and what becomes of it while it is in trouble."""
        self._place, self._remedy = place, remedy
        self._told_over = False
        self.count = 0
        self.active = False

    def begins(self, error: Exception) -> None:
        """Something was not taken."""
        if not self.count:
            _log.warning(
                "%s failed (%s); the run goes on, and %s",
                self._place, first_line(error), self._remedy,
            )  # fmt: skip
        self.count += 1
        self.active = True

    def ends(self, words: str = "nothing was lost") -> bool:
        """It works again; whether it had not just before."""
        ended = self.active
        if ended and not self._told_over:
            _log.warning("%s works again; %s", self._place, words)
            self._told_over = True
        self.active = False
        return ended


class Pause:
    """Lets an attempt through at growing intervals, so that trying costs a run nothing."""

    def __init__(self, now: Callable[[], float], first_seconds: float = 1.0) -> None:
        """Tell the time by ``now``."""
        self._now, self._first = now, first_seconds
        self._seconds = self._until = 0.0

    @property
    def over(self) -> bool:
        """Whether it is time to try again."""
        return self._now() >= self._until

    def failed(self) -> None:
        """Wait, and longer than the last time."""
        self._seconds = min(MAX_PAUSE_SECONDS, 2 * self._seconds or self._first)
        self._until = self._now() + self._seconds

    def reset(self) -> None:
        """It worked."""
        self._seconds = self._until = 0.0
