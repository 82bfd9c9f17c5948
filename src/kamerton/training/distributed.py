"""The processes that train together, one per device, as torchrun starts them.

Every process makes the same steps on batches of its own, and the mean of their gradients moves the
same weights. What decides anything is agreed on: a flag of one is a flag of all, and what only the
main process can know (an evaluation, the run's folder) it tells the others.

A process that dies must not leave the others waiting. Over gloo its connections break and whoever
waits for it is told at once; over nccl, and while a process is busy by itself, nobody is. So every
process also shows a sign of life once per second, and ends when that of another stays away.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, Protocol, Self, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from kamerton.config.schema import TrainParams
from kamerton.core.errors import ParamsError, PipelineError, StoppedError
from kamerton.core.ranks import Ranks
from kamerton.core.workers import usable_cores

MEETING_SECONDS = 120.0  # until all processes have started
# The others wait while the main process evaluates and exports, which may take long; that it is
# alive they know from its signs of life. This ends a run in which a process lives and hangs.
WAITING_SECONDS = 4 * 3600.0
BEAT_SECONDS = 1.0
SILENT_SECONDS = 15.0  # no sign of life for so long: dead
LEAVING_SECONDS = 5.0  # for a process to notice by itself that another left
STOPPING_SECONDS = 120.0  # for the main process to save where all stop
LOST_EXIT_CODE = PipelineError.exit_code

_CONTINUE = "what ended it is said above; the same command continues from the last checkpoint"
_BROKEN_CONNECTION = re.compile(
    r"connection (closed|reset|refused)|broken pipe|timed out|timeout|socket|nccl|"
    r"remote process|process group",
    re.IGNORECASE,
)


class Store(Protocol):
    """What is used of torch's key-value store, whose own types leave out ``clone``."""

    def get(self, key: str) -> bytes:
        """The value of a key that is there."""

    def set(self, key: str, value: str) -> None:
        """Give a key a value."""

    def check(self, keys: list[str]) -> bool:
        """Whether all keys are there."""

    def clone(self) -> Self:
        """The same store over a connection of its own, for another thread."""


class LostPeerError(PipelineError):
    """Another process of the training is gone."""

    def __init__(self, who: str = "another process of this training") -> None:
        super().__init__(
            f"{who} ended before its work was done; this one ends too.", hint=_CONTINUE
        )


@dataclass(frozen=True, slots=True)
class World(Ranks):
    """This process among those that train together; alone, every method is free.

    All methods but ``device`` and ``threads`` are meetings: every process has to call the same
    ones in the same order. They raise LostPeerError where one cannot come any more.
    """

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        if self.size == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag))) > 0)

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.any(False)

    def share(self, value: Any = None) -> Any:
        """What the main process gives, in every process.

        Args:
            value: Anything that JSON can hold; only the main process's counts.
        """
        if self.size == 1:
            return value
        data = json.dumps(value).encode() if self.main else b""
        with lost_peers_told():
            size = torch.tensor(len(data))
            dist.broadcast(size, src=0)
            buffer = torch.frombuffer(bytearray(data or bytes(int(size))), dtype=torch.uint8)
            dist.broadcast(buffer, src=0)
        return json.loads(buffer.numpy().tobytes())

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """What is done within, the others do when the main process has done it.

        Raises:
            StoppedError: in all processes, where one of them left it so.
        """
        stopped: StoppedError | None = None
        message = None if self.main else self.share()
        if message is not None:
            raise StoppedError(message)
        try:
            yield
        except StoppedError as asked:
            stopped = asked
        if self.main:
            self.share(stopped.message if stopped else None)
            if stopped is not None:
                raise stopped
        if self.any(stopped is not None):
            raise stopped or StoppedError("another process of this training was asked to stop.")

    def require_equal(self, what: str, value: str) -> None:
        """Make sure that every process has the same.

        Raises:
            PipelineError: in all processes, where one has another ``value`` than the main one.
        """
        if self.any(self.share(value) != value):
            raise PipelineError(
                f"the processes of this training do not agree on {what}.",
                hint="give all machines the same code, parameters and files, and start them again",
            )

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.size > 1:
            with lost_peers_told():
                dist.all_reduce(tensor)
        return tensor

    def mean(self, tensor: Tensor) -> Tensor:
        """Mean over all processes, in place."""
        return self.sum(tensor).div_(self.size) if self.size > 1 else tensor

    def device(self, train: TrainParams) -> torch.device:
        """Where this process trains: a GPU of its own, or the CPU.

        Raises:
            ParamsError: there is no GPU, or fewer than processes.
        """
        if train.device == "cpu" or not torch.cuda.is_available():
            if train.device == "cuda":
                raise ParamsError(
                    "train.device is cuda and no CUDA device answers.",
                    hint="set train.device to auto",
                )
            return torch.device("cpu")
        if self.local_size > torch.cuda.device_count():
            raise ParamsError(
                f"{self.local_size} processes were started for {torch.cuda.device_count()} GPUs.",
                hint="start one per GPU: torchrun --nproc-per-node gpu",
            )
        if self.size == 1:
            return torch.device("cuda")
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def threads(self, asked: int) -> int:
        """Processor threads for this process: as asked, or (0) its share of the cores."""
        return asked or max(1, usable_cores() // self.local_size)


@contextlib.contextmanager
def lost_peers_told() -> Iterator[None]:
    """Turn what torch says about a broken connection into LostPeerError."""
    try:
        yield
    except RuntimeError as error:  # gloo's errors have no class of their own
        if isinstance(error, dist.DistError) or _BROKEN_CONNECTION.search(str(error)):
            raise LostPeerError from error
        raise


@contextlib.contextmanager
def joined_world(train: TrainParams) -> Iterator[World]:
    """Meet the other processes that the launcher started; yields this one's place among them.

    Without a launcher this process is the world. When one process leaves by an exception, the
    others end with LostPeerError, or at the latest SILENT_SECONDS after, wherever they are.

    Raises:
        PipelineError: not all processes came within MEETING_SECONDS.
        UsageError: the launcher's environment makes no sense.
    """
    ranks = Ranks.of_environment()
    world = World(ranks.rank, ranks.size, ranks.local_rank, ranks.local_size)
    if world.size == 1:
        yield world
        return
    on_gpu = train.device != "cpu" and torch.cuda.is_available()
    with _quiet_unless(world.main):
        store = _meet(world)
        watch = _Watch(store.clone(), world)
        try:
            with lost_peers_told():
                dist.init_process_group(
                    "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
                    store=dist.PrefixStore("group", cast(Any, store)),  # type: ignore[attr-defined]
                    rank=world.rank,
                    world_size=world.size,
                    timeout=timedelta(seconds=WAITING_SECONDS),
                )
            yield world
            world.barrier()  # the others stay until the main process has written everything
        except StoppedError:
            watch.leave("stopped")
            raise
        except BaseException:
            watch.leave("failed")
            raise
        watch.leave("done")
        dist.destroy_process_group()


@contextlib.contextmanager
def _quiet_unless(main: bool) -> Iterator[None]:
    """The others have nothing to tell that the main process does not tell as well."""
    before = logging.root.manager.disable
    if not main:
        logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


def _meet(world: World) -> Store:
    """The store that the launcher keeps for its processes, once all are there."""
    try:
        limit, deadline = timedelta(seconds=MEETING_SECONDS), time.monotonic() + MEETING_SECONDS
        store = cast(Store, next(rendezvous("env://", timeout=limit))[0])
        store.set(f"here/{world.rank}", "")
        while not store.check([f"here/{rank}" for rank in range(world.size)]):
            if time.monotonic() > deadline:
                raise RuntimeError("some did not come")
            time.sleep(BEAT_SECONDS / 10)  # here, and not in the store, a signal is heard
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise PipelineError(
            f"the {world.size} processes of this training did not meet within "
            f"{MEETING_SECONDS:.0f} s ({reason}).",
            hint="start all of them with torchrun, and let them reach MASTER_ADDR and MASTER_PORT",
        ) from error
    return store


class _Watch:
    """Shows that this process lives, and ends it when another does not.

    Each process watches its neighbour, so that the work per process does not grow with their
    number, and reads one place where whoever finds a dead neighbour writes its number. A thread
    does this: the process may be in the middle of a call that never returns.
    """

    def __init__(self, store: Store, world: World) -> None:
        self._store = store
        self._world = world
        self._neighbour = (world.rank + 1) % world.size
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kamerton-watch", daemon=True)
        self._thread.start()

    def leave(self, how: Literal["done", "stopped", "failed"]) -> None:
        """Tell the others that this process ends now, and stop watching.

        Where all stop on request, the main process leaves first: it still has to save, and a
        launcher that sees one process gone ends the others.
        """
        with contextlib.suppress(RuntimeError):  # the launcher may be gone
            self._store.set(f"left/{self._world.rank}", how)
            deadline = time.monotonic() + STOPPING_SECONDS
            while how == "stopped" and not (self._world.main or self._value("left/0")):
                if time.monotonic() > deadline:
                    break
                time.sleep(BEAT_SECONDS / 4)
        self._left.set()
        self._thread.join(timeout=LEAVING_SECONDS)

    def _run(self) -> None:
        beats, seen, since = 0, b"", time.monotonic()
        try:
            while not self._left.wait(BEAT_SECONDS):
                beats += 1
                self._store.set(f"beat/{self._world.rank}", str(beats))
                now = self._value(f"beat/{self._neighbour}")
                left = self._value(f"left/{self._neighbour}")
                if left in (b"done", b"stopped") or (now != seen and not left):
                    seen, since = now, time.monotonic()
                limit = LEAVING_SECONDS if left else SILENT_SECONDS
                lost = self._value("lost").decode()
                if not lost and time.monotonic() - since > limit:
                    lost = str(self._neighbour)
                    self._store.set("lost", lost)
                if lost:
                    self._end(LostPeerError(f"process {lost} of this training"))
        except RuntimeError:
            if not self._left.is_set():
                self._end(LostPeerError("the launcher of this training"))

    def _value(self, key: str) -> bytes:
        return bytes(self._store.get(key)) if self._store.check([key]) else b""

    def _end(self, error: LostPeerError) -> None:
        """Exit, unless the main thread is already on its way out with an error of its own."""
        if self._left.wait(LEAVING_SECONDS):
            return
        print(f"error: {error.message}\nfix:   {error.hint}", file=sys.stderr, flush=True)
        os._exit(LOST_EXIT_CODE)
