"""SIGINT and SIGTERM as a wish to stop at the next good point."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether someone asked this process to stop."""

    def __init__(self) -> None:
        self._asked = False

    def __bool__(self) -> bool:
        return self._asked

    def ask(self) -> None:
        """Ask to stop."""
        self._asked = True


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Take the first SIGINT or SIGTERM as a request; a second one interrupts at once.

    Signals belong to the main thread; elsewhere the request is only what ``ask`` makes it.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def take(number: int, frame: FrameType | None) -> None:
        del number, frame
        if request:
            raise KeyboardInterrupt
        request.ask()

    before = {number: signal.signal(number, take) for number in _SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
