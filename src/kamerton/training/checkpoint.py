"""The checkpoints of a run: each is either whole or not there, and none is lost to a full disk.

``last.pt`` is what a run goes on from. ``best.pt`` is replaced as soon as there is a better one;
until ``last.pt`` knows of it, the one that ``last.pt`` speaks of is kept as ``best_before.pt``. So
at every instant the best checkpoint of the state on disk is there, whatever was killed when.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from kamerton.core.errors import InputCorruptError, PipelineError
from kamerton.core.files import link_file, write_bytes
from kamerton.training.checkpoint_format import FORMAT_VERSION, encode, read_checkpoint
from kamerton.training.meaning import Meaning
from kamerton.training.state import TrainState

__all__ = ["FORMAT_VERSION", "Checkpoints", "Restored", "read_checkpoint"]

RETRY_SECONDS = 30.0  # between attempts to write what the disk did not take
_STEP_NAME = re.compile(r"step_(\d+)\.pt")
_FIRST_PAUSE_SECONDS = 0.25
_MIB = 1 << 20

_log = logging.getLogger("kamerton.train")


class EventLog(Protocol):
    """Where troubles are recorded."""

    def __call__(self, kind: str, *, step: int | None = None, **fields: Any) -> None:
        """Record that something happened."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a checkpoint held besides what it was loaded into.

    Attributes:
        state: Where the run stood.
        scaler: State of the gradient scaler; None where the run has none.
        path: The file.
    """

    state: TrainState
    scaler: Mapping[str, Any] | None
    path: Path


@dataclass(slots=True)
class _Pending:
    """Bytes that are not on disk yet."""

    step: int
    data: bytes
    scheduled: bool = False


class Checkpoints:
    """The checkpoint folder of one run: ``last.pt``, ``best.pt`` and the newest ``step_*.pt``.

    A disk that is full never ends a run: it is reported once, the bytes are kept, and they are
    written when there is room again.
    """

    def __init__(
        self, folder: Path, *, keep: int, meaning: Meaning | None = None,
        on_event: EventLog | None = None, retry_seconds: float = RETRY_SECONDS,
    ) -> None:  # fmt: skip
        """Work in ``folder``, which need not exist.

        Args:
            folder: The run's folder of checkpoints.
            keep: How many ``step_*.pt`` stay.
            meaning: What the weights mean; None where only the names and shapes are to fit.
            on_event: Told of troubles and of their ends.
            retry_seconds: Pause after a write that failed, before ``overdue`` asks for another.
        """
        self._folder = folder
        self._keep = keep
        self._meaning = meaning
        self._retry_seconds = retry_seconds
        self._best: _Pending | None = None
        self._last: _Pending | None = None
        self._trouble: OSError | None = None
        self._tried = 0.0
        self._owed = False
        self.on_event = on_event

    @property
    def last(self) -> Path:
        """The newest state."""
        return self._folder / "last.pt"

    @property
    def best(self) -> Path:
        """The state of the best evaluation."""
        return self._folder / "best.pt"

    @property
    def _best_before(self) -> Path:
        return self._folder / "best_before.pt"

    @property
    def overdue(self) -> bool:
        """Whether a state could not be written and it is time to try again with the newest."""
        return self._owed and time.monotonic() - self._tried >= self._retry_seconds

    def save(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, state: TrainState,
        *, scheduled: bool, scaler: Mapping[str, Any] | None = None,
    ) -> bool:  # fmt: skip
        """Replace ``last.pt``; a scheduled one is also kept under its step's name.

        Returns:
            Whether all is on disk. If not, it was reported, and the next call or ``settle`` tries
            again.
        """
        data = encode(model, optimizer, state, scaler=scaler, meaning=self._meaning)
        self._last = _Pending(state.step, data, scheduled)
        return self._write(state.step)

    def save_best(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, state: TrainState,
        *, scaler: Mapping[str, Any] | None = None,
    ) -> bool:  # fmt: skip
        """Replace ``best.pt``; returns what ``save`` does."""
        data = encode(model, optimizer, state, scaler=scaler, meaning=self._meaning)
        # A state that waits knows nothing of this one; the next state takes its place.
        self._best, self._last = _Pending(state.step, data), None
        return self._write(state.step)

    def settle(self, *, seconds: float) -> None:
        """Write what is not on disk yet, trying again for so long.

        Raises:
            PipelineError: it is still not on disk; how much room it needs is said.
        """
        deadline, pause = time.monotonic() + seconds, _FIRST_PAUSE_SECONDS
        while self._best is not None or self._last is not None:
            step = max(pending.step for pending in (self._best, self._last) if pending)
            if self._write(step):
                return
            if time.monotonic() + pause > deadline:
                raise self._not_saved(step)
            time.sleep(pause)
            pause *= 2

    def _not_saved(self, step: int) -> PipelineError:
        size = sum(len(pending.data) for pending in (self._best, self._last) if pending)
        reason = self._trouble.strerror if self._trouble else "unknown"
        return PipelineError(
            f"step {step} could not be saved in {self._folder} ({reason}); "
            f"it needs {-(-size // _MIB)} MiB.",
            hint="free some space and run the same command again: it goes on from the last state "
            "that was saved",
        )

    def _write(self, step: int) -> bool:
        """Write what waits, the best first: ``last.pt`` must not speak of one that is not there."""
        self._tried = time.monotonic()
        try:
            if self._best is not None:
                self._write_best(self._best.data)
                self._best = None
            if self._last is not None:
                self._write_last(self._last)
                self._last, self._owed = None, False
        except OSError as error:
            self._owed = True
            self._report(error, step)
            return False
        if self._trouble is not None:
            self._trouble = None
            _log.warning("%s: checkpoints are written again, at step %d", self._folder, step)
            self._event("checkpoint_written_again", step)
        return True

    def _write_best(self, data: bytes) -> None:
        if self.best.exists() and not self._best_before.exists():
            link_file(self.best, self._best_before)
        write_bytes(self.best, data)

    def _write_last(self, pending: _Pending) -> None:
        if pending.scheduled:
            path = self._step_path(pending.step)
            write_bytes(path, pending.data)
            link_file(path, self.last)  # the same bytes: written once
            for _, old in self.steps()[: -self._keep]:
                old.unlink()
        else:
            write_bytes(self.last, pending.data)
        self._best_before.unlink(missing_ok=True)

    def _report(self, error: OSError, step: int) -> None:
        if self._trouble is None:
            size = sum(len(pending.data) for pending in (self._best, self._last) if pending)
            _log.warning(
                "%s: step %d could not be saved (%s; %d MiB are needed); the run goes on, and it "
                "is tried again",
                self._folder, step, error.strerror, -(-size // _MIB),
            )  # fmt: skip
            self._event("checkpoint_failed", step, reason=error.strerror, bytes_needed=size)
        self._trouble = error

    def _event(self, kind: str, step: int, **fields: Any) -> None:
        if self.on_event is not None:
            self.on_event(kind, step=step, **fields)

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Restored | None:
        """Load ``last.pt`` into both, or the newest older checkpoint if it is damaged.

        Returns:
            What else was in it, or None when nothing was saved yet.

        Raises:
            InputCorruptError: there are checkpoints and none can be read.
            ParamsError: it is of another network, other mels or other symbols.
        """
        candidates = [self.last] if self.last.exists() else []
        candidates += [path for _, path in reversed(self.steps())]
        problem: InputCorruptError | None = None
        for path in candidates:
            try:
                record = read_checkpoint(path)
                self.load(record, path, model, optimizer)
            except InputCorruptError as error:
                problem = problem or error
                continue
            if problem is not None:
                _log.warning("%s; %s is used instead", problem.message, path.name)
            return Restored(TrainState.from_dict(record["state"]), record["scaler"], path)
        if problem is not None:
            raise problem
        return None

    def load(
        self, record: Mapping[str, Any], path: Path, model: nn.Module,
        optimizer: torch.optim.Optimizer | None,
    ) -> None:  # fmt: skip
        """Load what ``read_checkpoint`` gave for ``path``.

        Raises:
            InputCorruptError: its names or shapes do not fit.
            ParamsError: it is of another network, other mels or other symbols.
        """
        if self._meaning is not None and record["meaning"] is not None:
            Meaning.from_dict(record["meaning"]).require_equal(self._meaning, path)
        try:
            model.load_state_dict(record["model"])
            if optimizer is not None:
                optimizer.load_state_dict(record["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputCorruptError(
                path, problem=f"does not fit this network ({reason})",
                hint="give the parameters it was trained with, or begin anew",
            ) from error  # fmt: skip

    def reconcile(self, state: TrainState) -> TrainState:
        """Make ``best.pt`` the one that ``state``, just restored, speaks of.

        A run that was killed between the two may have written a better one that ``state`` does not
        know of. On a CPU it would be made again; on a GPU perhaps not. What a killed process of
        any host had half written is removed; so whoever calls this must hold the run.

        Returns:
            ``state``, or the same without a best evaluation where its checkpoint is gone.
        """
        for partial in self._folder.glob(".*.pt.partial-*"):
            partial.unlink(missing_ok=True)
        # What was kept of a step that awaits its evaluation knows of one that is made again.
        self._forget_the_future(state.step - state.awaits_evaluation)
        if state.best_step == 0:
            for path in (self.best, self._best_before):
                path.unlink(missing_ok=True)
            return state
        candidates = (self.best, self._best_before, self._step_path(state.best_step))
        found = next((path for path in candidates if _step_of(path) == state.best_step), None)
        if found is None:
            _log.warning("%s: the best checkpoint is gone; the next one counts", self._folder)
            self._event("best_lost", state.step, best_step=state.best_step)
            return dataclasses.replace(
                state, best_step=0, best_quality=float("inf"), best_values={}
            )
        if found != self.best:
            link_file(found, self.best)
        self._best_before.unlink(missing_ok=True)
        return state

    def _forget_the_future(self, step: int) -> None:
        """Remove checkpoints that a killed run made beyond ``step``, and those not to be kept."""
        steps = self.steps()
        beyond = [path for number, path in steps if number > step]
        known = [path for number, path in steps if number <= step]
        for path in beyond + known[: -self._keep]:
            path.unlink(missing_ok=True)

    def _step_path(self, step: int) -> Path:
        return self._folder / f"step_{step:08d}.pt"

    def steps(self) -> list[tuple[int, Path]]:
        """The checkpoints that bear their step's name, with that step, in its order."""
        found = ((_STEP_NAME.fullmatch(path.name), path) for path in self._folder.glob("step_*.pt"))
        return sorted((int(match[1]), path) for match, path in found if match)


def _step_of(path: Path) -> int | None:
    """The step of a checkpoint; None where there is none, or it is damaged."""
    if not path.exists():
        return None
    try:
        return int(read_checkpoint(path, mapped=True)["state"]["step"])
    except InputCorruptError:
        return None
