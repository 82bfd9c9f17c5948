"""TrainerWrapper: a trainer as a child process, watched through its run directory."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from kamerton.core.errors import (
    InputMissingError,
    StoppedError,
    ToolMissingError,
    UsageError,
)
from kamerton.core.process import PARENT_MARKER
from kamerton.smart_tuner.opt_engine import Evaluation
from kamerton.tracking.metrics_file import MetricsCursor, Record
from kamerton.tracking.names import VAL_MEL_LOSS
from kamerton.tracking.run_directory import RunDirectory, list_runs

Ending = Literal["finished", "ended", "stopped", "failed"]

# A trainer that ends so would end so with any hyperparameters.
ENVIRONMENT_FAULTS: Final = frozenset(
    error.exit_code for error in (UsageError, InputMissingError, ToolMissingError)
)
_CHILD: Final = Path(__file__).with_name("child.py")
_STOPPED: Final = StoppedError.exit_code
_RESTARTS: Final = 3
_TAIL_BYTES: Final = 4000
_TAIL_LINES: Final = 3


@dataclass(frozen=True, slots=True)
class TrainerOutcome:
    """How a trainer's process ended.

    ``finished``: by itself, all done. ``ended``: we told it to, having seen enough. ``stopped``: we
    were told to stop. ``failed``: anything else; ``exit_code`` and ``message`` say what.
    """

    ending: Ending
    exit_code: int = 0
    message: str = ""  # the last words of its log


@dataclass(frozen=True, slots=True)
class Watch:
    """What a trainer's watcher wants to know, and what it may decide.

    Attributes:
        on_evaluation: takes each evaluation once, in order; True ends the trainer.
        on_step: takes the last step recorded.
        on_run: takes the run directory when it appears.
        stop: whether we were asked to stop.
        enough: whether the trainer did what it was started for, in whatever it wrote; ends it.
    """

    on_evaluation: Callable[[Evaluation], bool]
    on_step: Callable[[int], None]
    on_run: Callable[[RunDirectory], None]
    stop: Callable[[], bool]
    enough: Callable[[], bool] = lambda: False


class TrainerWrapper:
    """Starts a trainer, passes on what it records, and stops it with patience.

    The trainer is any command that makes a run directory below ``runs``, continues an unfinished
    one there by itself, and on SIGINT saves and exits 75.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        runs: Path,
        log: Path,
        grace_seconds: float = 60.0,
        poll_seconds: float = 0.2,
    ) -> None:
        """Prepare, without starting anything.

        Args:
            command: the command line of the trainer.
            runs: folder of this trainer's run directory, of nobody else's.
            log: file that takes its output.
            grace_seconds: how long a stop may take before the next, harder signal.
            poll_seconds: pause between looks at the run directory.
        """
        self._command, self._runs, self._log = list(command), runs, log
        self._grace_seconds, self._poll_seconds = grace_seconds, poll_seconds
        self._run: RunDirectory | None = None
        self._cursor: MetricsCursor | None = None

    def run(self, watch: Watch) -> TrainerOutcome:
        """Train until the trainer is done, has been ended, or failed.

        A trainer that was stopped or killed by somebody else is started again, a few times; it
        goes on from its checkpoint.
        """
        outcome = TrainerOutcome("failed")
        for _ in range(1 + _RESTARTS):
            if self._is_finished():
                self._look(watch)
                return TrainerOutcome("finished")
            outcome = self._run_once(watch)
            interrupted = outcome.exit_code == _STOPPED or outcome.exit_code < 0
            if outcome.ending != "failed" or not interrupted:
                return outcome
        return outcome

    def _is_finished(self) -> bool:
        return any(run.status().state == "finished" for run in list_runs(self._runs)[:1])

    def _run_once(self, watch: Watch) -> TrainerOutcome:
        child = self._start()
        try:
            ending: Ending | None = None
            while child.poll() is None and ending is None:
                if self._look(watch) or watch.enough():
                    ending = "ended"
                elif watch.stop():
                    ending = "stopped"
                else:
                    time.sleep(self._poll_seconds)
            if ending is not None:
                self._stop(child)
            code = child.wait()
        finally:
            # Whatever interrupted us, no trainer stays behind.
            if child.poll() is None:
                _signal(child, signal.SIGKILL)
                child.wait()
        if ending is None and self._look(watch):
            ending = "ended"  # what it recorded last
        if ending is not None:
            return TrainerOutcome(ending, code)
        if code == 0:
            return TrainerOutcome("finished")
        return TrainerOutcome("failed", code, last_words(self._log))

    def _start(self) -> subprocess.Popen[bytes]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        # -I -S: the launcher needs no packages; the command it becomes is a Python of its own.
        launcher = [sys.executable, "-I", "-S", str(_CHILD), str(os.getpid())]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                launcher + self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
                # A Ctrl-C in the terminal must reach the trainer through us, once.
                start_new_session=True,
            )

    def _stop(self, child: subprocess.Popen[bytes]) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            child.send_signal(number)
            try:
                child.wait(self._grace_seconds)
                return
            except subprocess.TimeoutExpired:
                continue
        _signal(child, signal.SIGKILL)

    def _look(self, watch: Watch) -> bool:
        """Pass on what is new; True when the watcher has seen enough."""
        for record in self._records(watch):
            if record.step is not None:
                watch.on_step(record.step)
            evaluation = evaluation_of(record)
            if evaluation is not None and watch.on_evaluation(evaluation):
                return True
        return False

    def _records(self, watch: Watch) -> list[Record]:
        if self._run is None:
            self._run = next(iter(list_runs(self._runs)), None)
            if self._run is None:
                return []
            self._cursor = MetricsCursor(self._run.metrics_file)
            watch.on_run(self._run)
        return self._cursor.poll() if self._cursor else []


def last_words(log: Path) -> str:
    """The last lines of a trainer's log, which say why it failed; empty where there is none."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return "\n".join([line for line in lines if line.strip()][-_TAIL_LINES:])


def _environment() -> dict[str, str]:
    """Ours, without the mark that would make the trainer choose a gentler end than child.py's."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    environment.pop(PARENT_MARKER, None)
    return environment


def evaluation_of(record: Record) -> Evaluation | None:
    """The evaluation that a record tells of, if it tells of one."""
    if record.kind != "metrics" or record.step is None or VAL_MEL_LOSS not in record.values:
        return None
    return Evaluation(record.step, record.values)


def _signal(child: subprocess.Popen[bytes], number: int) -> None:
    """Signal the child's whole group: it leads one of its own."""
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        child.poll()
