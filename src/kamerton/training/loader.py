"""The batches of the next steps, prepared in a thread while the current step is computed.

What is prepared is a function of the position alone, so it does not matter whether, or how far,
the thread was ahead when a process died: nothing of it is ever saved.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol, Self

import torch

from kamerton.data.batching import Position
from kamerton.training.data import TensorBatch

AHEAD_STEPS = 2  # one that is taken next and one that is being made; more would only cost memory


class Source(Protocol):
    """What batches come from, such as ``TrainingData``; called from another thread."""

    @property
    def device(self) -> torch.device:
        """Where batches go."""

    def prepare(self, position: Position) -> list[TensorBatch]:
        """The batches of one step, in the host's memory."""

    def after(self, position: Position, share: float, scale: float) -> Position:
        """The position of the next step."""


@dataclass(slots=True)
class _Desk:
    """What the thread and its caller share; only touched by who holds ``changed``.

    Attributes:
        wanted: What the thread makes now or next; None: it waits to be told.
        ready: What is made, in order; an error stands for the batches it prevented.
        request: Counts the changes of course, so that what was begun before one is dropped.
    """

    changed: threading.Condition = field(default_factory=threading.Condition)
    wanted: Position | None = None
    ready: deque[tuple[Position, list[TensorBatch] | BaseException]] = field(default_factory=deque)
    request: int = 0
    closed: bool = False


class Loader:
    """Takes batches from a source a few steps before they are asked for.

    It expects one position after the other, and the share and scale of an epoch to stay what they
    are. Where it expected wrongly, at the begin of an epoch of others or after a rollback, the
    caller waits for its batches to be made, as it would without a loader.

    The thread ends with ``close``, with the loader itself, or with the process, whose end it does
    not delay.
    """

    def __init__(self, source: Source, *, ahead: int = AHEAD_STEPS) -> None:
        """Start the thread, which rests until the first batches are asked for."""
        self.waited_seconds = 0.0
        self._source = source
        self._desk = _Desk()
        thread = threading.Thread(
            target=_work, args=(source, self._desk, ahead), name="kamerton-loader", daemon=True
        )
        thread.start()
        # Also at the end of the process: a daemon thread that is inside torch then would crash it.
        self._close = weakref.finalize(self, _stop, self._desk, thread)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def batches(self, position: Position) -> list[TensorBatch]:
        """The batches of one step, on the device; time spent waiting adds to ``waited_seconds``.

        Raises:
            Exception: what preparing them raised.
            RuntimeError: the loader was closed.
        """
        began = time.perf_counter()
        desk = self._desk
        with desk.changed:
            if (desk.ready[0][0] if desk.ready else desk.wanted) != position:
                desk.ready.clear()
                desk.wanted = position
                desk.request += 1
                desk.changed.notify_all()
            desk.changed.wait_for(lambda: desk.ready or desk.closed)
            if desk.closed:
                raise RuntimeError("batches asked of a loader that was closed")
            _, made = desk.ready.popleft()
            desk.changed.notify_all()
        self.waited_seconds += time.perf_counter() - began
        if isinstance(made, BaseException):
            raise made
        # Here and not in the thread, so that the copy is ordered before the step that needs it.
        return [batch.to(self._source.device) for batch in made]

    def close(self) -> None:
        """End the thread; more than once does no harm."""
        self._close()


def _work(source: Source, desk: _Desk, ahead: int) -> None:
    while True:
        with desk.changed:
            desk.changed.wait_for(
                lambda: desk.closed or (desk.wanted is not None and len(desk.ready) < ahead)
            )
            if desk.closed or desk.wanted is None:
                return
            position, request = desk.wanted, desk.request
        made: list[TensorBatch] | BaseException
        following: Position | None = None
        try:
            made = source.prepare(position)
            following = source.after(position, position.share, position.scale)
        except BaseException as error:  # whatever it is, the caller must hear of it
            made = error
        with desk.changed:
            if desk.request == request:
                desk.ready.append((position, made))
                desk.wanted = following
                desk.changed.notify_all()


def _stop(desk: _Desk, thread: threading.Thread) -> None:
    with desk.changed:
        desk.closed = True
        desk.ready.clear()
        desk.changed.notify_all()
    if thread is not threading.current_thread():  # which may be the one that collects garbage
        thread.join()
