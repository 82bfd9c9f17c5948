"""An end to a conversation with a server, however slowly it answers."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class Deadline:
    """Hangs up the sockets it watches when its time is over.

    A socket's own timeout begins anew with every byte, so that a server that sends one now and
    then would hold a sender for days.
    """

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._hang_up)
        self._timer.daemon = True

    def watch(self, connection: socket.socket) -> None:
        """Hang this one up, too."""
        with self._lock:
            self._sockets.append(connection)
            if self.passed:
                _shut(connection)

    def _hang_up(self) -> None:
        with self._lock:
            self.passed = True
            for connection in self._sockets:
                _shut(connection)

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        # Of the plain socket: one with TLS would drop what its reader is in the middle of.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
