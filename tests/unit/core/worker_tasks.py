"""What worker processes are given to do in tests."""

import os
import signal
import time
from pathlib import Path

from kamerton.core.errors import InputMissingError


def double(task, tick):
    tick(0.5)
    return os.getpid(), 2 * task


def mark(folder, name):
    """Note that a task begins; return how often it has begun."""
    place = Path(folder) / f"{name}-{time.monotonic_ns()}-{os.getpid()}"
    place.touch()
    return len(list(Path(folder).glob(f"{name}-*")))


def fragile(task, tick):
    """``task`` is (folder, name, how often its process dies)."""
    del tick
    folder, name, deaths = task
    if mark(folder, name) <= deaths:
        os.kill(os.getpid(), signal.SIGSEGV)
    return name


def hungry(task, tick):
    del task, tick
    raise MemoryError


def missing(task, tick):
    del task, tick
    raise InputMissingError("a.wav", produced_by="you")


class UnportableError(Exception):
    def __init__(self, one, two):
        super().__init__(one + two)


def unportable(task, tick):
    del task, tick
    raise UnportableError("this ", "and that")


def environment(task, tick):
    tick(float(task))
    print("not a result")
    return os.environ.get("OMP_NUM_THREADS"), os.environ.get("OPENBLAS_NUM_THREADS")


def slow_ticks(task, tick):
    for step in range(4):
        tick(float(step))
        time.sleep(0.25)
    return task


def wait_for_ever(task, tick):
    del tick
    Path(task).touch()
    time.sleep(60)
