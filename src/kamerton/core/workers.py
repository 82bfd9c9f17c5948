"""Tasks on several processes, of which any may die without taking the others along.

A decoder that crashes on a malformed file, or a process that the system kills for its memory, costs
the task it was at. That task is tried once more, alone, and then given up. Workers run with one
thread each, end with the process that started them, and need no ``__main__`` that can be imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, Self, TypeVar

from kamerton.core.process import end_with_parent

_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[2]); "
    "from kamerton.core.workers import serve; serve(int(sys.argv[1]))"
)
# Many workers of one thread each are faster than the same cores shared out inside of libraries.
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)
_CONTROL_GROUP = Path("/sys/fs/cgroup")  # a container sees its own there
_TICK_SECONDS = 0.2
_OUT_OF_MEMORY_EXIT_CODE = 137  # as of a process that the system killed for it
_FIRST_TO_KILL = "700"  # of 1000: where memory runs out a worker goes, and not its parent
_END_SECONDS = 5.0

T = TypeVar("T")
R = TypeVar("R")
Tick = Callable[[float], None]
Function = Callable[[T, Tick], R]


@dataclass(frozen=True, slots=True)
class Crashed:
    """A task at which two processes died, one after the other; the code is that of the last."""

    exit_code: int


def usable_cores() -> int:
    """Cores that this process may use: a container's share, not the machine's."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(cores, _container_limit(_CONTROL_GROUP)))


def _container_limit(folder: Path) -> int:
    """Whole cores that a container's share of time makes up, at least one.

    Affinity does not tell of it: with a limit of one core a pod sees all those of its node.
    """
    for limit_file, period_file in (
        ("cpu.max", None),
        ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"),  # control groups of version 1
    ):
        try:
            words = (folder / limit_file).read_text(encoding="ascii").split()
            if period_file is not None:
                words += (folder / period_file).read_text(encoding="ascii").split()
            limit, period = (int(word) for word in words)
        except (OSError, ValueError):  # "max" is no number
            continue
        if limit > 0 and period > 0:
            return max(1, limit // period)
    return sys.maxsize


@dataclass(slots=True)
class _Worker:
    """A process, our end of the pipe to it, and the number of the task that it is at."""

    process: subprocess.Popen[bytes]
    pipe: Connection
    task: int | None = None


@dataclass(slots=True)
class _Round:
    """The tasks of one call of `Workers.run`, by number."""

    function: Callable[[Any, Tick], Any]
    tasks: Sequence[Any]
    on_tick: Callable[[int, float], None]
    waiting: deque[int]
    died: list[int] = field(default_factory=list)


class Workers:
    """Up to ``count`` processes, started when there is work for them and ended with the block.

    With a count of 0 all is done in this process, which a crash then ends.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        del rest
        if kind is not None:
            for worker in self._busy:
                worker.process.terminate()
        self._end_all()

    def run(
        self,
        function: Function[T, R],
        tasks: Sequence[T],
        on_tick: Callable[[int, float], None] = lambda _number, _position: None,
    ) -> Iterator[tuple[int, R | Crashed]]:
        """Yield (number of the task, its result) as tasks finish; they begin in their order.

        Args:
            function: a function of a module, called with a task and with a function to tell its
                position to. What it raises ends everything and is raised here.
            tasks: what can be pickled.
            on_tick: told the number of a task and the position that it told.
        """
        if self._count == 0:
            for number, task in enumerate(tasks):
                yield number, function(task, _Ticker(number, on_tick))
            return
        work = _Round(function, tasks, on_tick, deque(range(len(tasks))))
        yield from self._serve(work, self._count)
        if work.died:
            self._end_all()  # what the others hold may be what it lacked
        for number in work.died:
            alone = _Round(function, tasks, on_tick, deque([number]))
            yield from self._serve(alone, 1)
            if alone.died:
                yield number, Crashed(self._last_exit_code)

    _last_exit_code = 0

    def _serve(self, work: _Round, count: int) -> Iterator[tuple[int, Any]]:
        while work.waiting or self._busy:
            while work.waiting and len(self._busy) < count:
                self._give(work, work.waiting.popleft())
            ready = set(wait([worker.pipe for worker in self._busy]))
            for worker in [each for each in self._busy if each.pipe in ready]:
                yield from self._hear(worker, work)

    def _give(self, work: _Round, number: int) -> None:
        worker = self._idle.pop() if self._idle else _start()
        worker.task = number
        self._busy.append(worker)
        with contextlib.suppress(OSError):  # a dead one is noticed when it is listened to
            worker.pipe.send((work.function, work.tasks[number]))

    def _hear(self, worker: _Worker, work: _Round) -> Iterator[tuple[int, Any]]:
        number = worker.task
        assert number is not None  # it is among the busy ones
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            self._busy.remove(worker)
            self._last_exit_code = _end(worker)
            work.died.append(number)
            return
        if kind == "tick":
            work.on_tick(number, value)
            return
        self._busy.remove(worker)
        self._idle.append(worker)
        if kind == "raised":
            raise value
        yield number, value

    def _end_all(self) -> None:
        for worker in self._busy + self._idle:
            worker.pipe.close()  # it reads the end of the pipe, and ends
        for worker in self._busy + self._idle:
            _end(worker)
        self._busy, self._idle = [], []


class _Ticker:
    """Passes positions on to ``on_tick``, few enough to cost nothing."""

    def __init__(self, number: int, on_tick: Callable[[int, float], None]) -> None:
        self._number, self._on_tick = number, on_tick

    def __call__(self, position: float) -> None:
        self._on_tick(self._number, position)


def _start() -> _Worker:
    ours, theirs = Pipe()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", _START, str(theirs.fileno()), json.dumps(sys.path)],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # ours belongs to results
            env=os.environ | _ONE_THREAD,
            process_group=0,  # Ctrl-C reaches the parent alone, which then ends its workers
        )
    return _Worker(process, ours)


def _end(worker: _Worker) -> int:
    """Wait for a process that has been told to end, not for ever, and return its exit code."""
    worker.pipe.close()
    try:
        return worker.process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        worker.process.kill()
        return worker.process.wait()


def serve(descriptor: int) -> None:
    """Be a worker: do the tasks that come through a pipe until it is closed."""
    end_with_parent(signal.SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_KILL, encoding="ascii")
    pipe = Connection(descriptor)
    while True:
        try:
            function, task = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer = ("done", function(task, _PipeTicker(pipe)))
        except MemoryError:
            os._exit(_OUT_OF_MEMORY_EXIT_CODE)
        except Exception as error:
            answer = ("raised", _sendable(error))
        try:
            pipe.send(answer)
        except OSError:  # nobody wants it any more
            return


class _PipeTicker:
    """Tells positions to the parent every now and then."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._told = pipe, time.monotonic()

    def __call__(self, position: float) -> None:
        now = time.monotonic()
        if now - self._told >= _TICK_SECONDS:
            self._told = now
            self._pipe.send(("tick", position))


def _sendable(error: Exception) -> Exception:
    """The error, or what it said and where, if it cannot travel."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class does when it is rebuilt
        return RuntimeError("".join(traceback.format_exception(error)))
    return error
