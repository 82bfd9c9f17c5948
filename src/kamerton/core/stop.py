"""SIGINT and SIGTERM as a wish that long work grants at its next good point."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

from kamerton.core.errors import StoppedError
from kamerton.core.progress import Progress

# A launcher and the system above it may both pass one wish on.
REPEAT_SECONDS = 2.0


class StopRequest:
    """While entered, the first SIGINT or SIGTERM only sets ``requested``.

    Another within ``REPEAT_SECONDS`` is taken for the same wish. A later one acts as it would have
    without this class, for whoever cannot wait. Outside the main thread, where Python takes no
    signals, it does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._asked: float | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def granted_in(self, on_progress: Progress, message: str) -> Progress:
        """``on_progress`` for work that may be left at any point where it tells of its progress.

        Where a stop was asked for, the work is left with StoppedError(``message``).
        """

        def tell(done: float, total: float, note: str = "") -> None:
            on_progress(done, total, note)
            if self.requested:
                raise StoppedError(message)

        return tell

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.requested = True
        now = time.monotonic()
        if self._asked is None:
            self._asked = now
        elif now - self._asked >= REPEAT_SECONDS:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
