"""The run directory: where one run's work lives, and how it is found again."""

import contextlib
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, get_args

import yaml

from kamerton.core.environment import environment
from kamerton.core.errors import InputCorruptError, InputMissingError, PipelineError, UsageError
from kamerton.core.files import read_json, write_json, write_text
from kamerton.tracking.protocol import RunState
from kamerton.tracking.redaction import redact, redact_text

_STATUS = "status.json"
_LOCK = ".lock"
_FINGERPRINT_CHARS = 8
_SAME_SECOND_LIMIT = 1000
_LOCK_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class RunStatus:
    """What status.json says: where a run stands and what it is a run of."""

    state: RunState
    name: str
    fingerprint: str
    step: int = 0
    reason: str = ""
    started: str = ""  # UTC, ISO 8601
    updated: str = ""
    facts: dict[str, Any] = field(default_factory=dict)  # best_step, best_value, …

    def as_json(self) -> dict[str, Any]:
        """The fields, as status.json holds them."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """``runs/<utc>-<name>-<fingerprint>/``: the protocol between a trainer and whoever watches it.

    The fingerprint stands for everything that decides the run's outcome, so that an unfinished
    run can be told from one of other parameters or other data.
    """

    path: Path

    @classmethod
    def create(
        cls,
        runs: Path,
        *,
        name: str,
        fingerprint: str,
        params: Mapping[str, Any],
        command: Sequence[str] = (),
        now: datetime | None = None,
    ) -> Self:
        """Make a new run directory below ``runs``; it appears whole or not at all.

        Args:
            runs: the folder of all runs.
            name: a word for people, such as the dataset's name.
            fingerprint: hex digest of everything that decides the outcome.
            params: the resolved parameters, nested by section.
            command: the command line that started the run.
            now: the time of the start; taken from the clock when left out.
        """
        started = now or datetime.now(UTC)
        runs.mkdir(parents=True, exist_ok=True)
        stem = f"{started:%Y%m%dT%H%M%SZ}-{name}-{fingerprint[:_FINGERPRINT_CHARS]}"
        temporary = runs / f".{stem}.partial-{os.getpid()}"
        temporary.mkdir(parents=True)
        text = yaml.safe_dump(redact(params), sort_keys=False, allow_unicode=True)
        write_text(temporary / "params.yaml", text)
        write_json(temporary / "environment.json", environment())
        write_text(temporary / "command.txt", redact_text(shlex.join(command)) + "\n")
        moment = started.isoformat(timespec="seconds")
        status = RunStatus("running", name, fingerprint, started=moment, updated=moment)
        write_json(temporary / _STATUS, status.as_json())
        return cls(_rename_to_free_name(temporary, runs / stem))

    @classmethod
    def open(cls, path: Path) -> Self:
        """The run directory at ``path``.

        Raises:
            InputMissingError: there is none.
        """
        if not (path / _STATUS).is_file():
            raise InputMissingError(path / _STATUS, produced_by="train")
        return cls(path)

    @property
    def metrics_file(self) -> Path:
        """One line per event: what watchers read."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard event files."""
        return self.path / "tensorboard"

    @property
    def figures(self) -> Path:
        """Folder of figures logged while running."""
        return self.path / "figures"

    @property
    def samples(self) -> Path:
        """Folder of sound logged while running."""
        return self.path / "samples"

    def status(self) -> RunStatus:
        """Where the run stands.

        Raises:
            InputCorruptError: status.json is not what this class writes.
        """
        record = read_json(self.path / _STATUS, produced_by="train")
        try:
            status = RunStatus(**record)
        except TypeError as error:
            raise InputCorruptError(
                self.path / _STATUS,
                problem=str(error),
                hint="remove the run directory and train again",
            ) from error
        if status.state not in get_args(RunState):
            raise InputCorruptError(
                self.path / _STATUS,
                problem=f"unknown state {status.state!r}",
                hint="remove the run directory and train again",
            )
        return status

    def write_status(self, state: RunState, *, step: int, reason: str = "", **facts: Any) -> None:
        """Replace status.json; ``facts`` are laid over those already there."""
        old = self.status()
        status = RunStatus(
            state,
            old.name,
            old.fingerprint,
            step=step,
            reason=reason,
            started=old.started,
            updated=datetime.now(UTC).isoformat(timespec="seconds"),
            facts={**old.facts, **facts},
        )
        self.replace_status(status)

    def replace_status(self, status: RunStatus) -> None:
        """Write all of status.json, whatever it holds."""
        write_json(self.path / _STATUS, status.as_json())

    @contextlib.contextmanager
    def hold(self, *, wait_seconds: float = 10.0) -> Iterator[None]:
        """Be the only process that writes here; released by the system when the holder dies.

        A process that was asked to stop may still be saving, so this waits a little.

        Raises:
            UsageError: another process still holds the run after ``wait_seconds``.
        """
        import fcntl  # POSIX only, and only where a lock is taken

        deadline = time.monotonic() + wait_seconds
        with (self.path / _LOCK).open("a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() >= deadline:
                        raise UsageError(
                            f"{self.path} is being written by another process.",
                            hint="wait for it to end, or stop it with Ctrl-C where it runs",
                        ) from error
                    time.sleep(_LOCK_POLL_SECONDS)
            yield

    @property
    def live(self) -> bool:
        """Whether a process holds this run right now."""
        try:
            with self.hold(wait_seconds=0.0):
                return False
        except UsageError:
            return True


def _rename_to_free_name(temporary: Path, wanted: Path) -> Path:
    for number in range(1, _SAME_SECOND_LIMIT):
        target = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        if target.exists():
            continue
        # Another process may take the name here; renaming onto its filled folder fails.
        with contextlib.suppress(OSError):
            temporary.rename(target)
            return target
    raise PipelineError(
        f"no free name for a run at {wanted}.", hint="remove old runs, or name another --runs"
    )


def list_runs(runs: Path) -> list[RunDirectory]:
    """All run directories directly below ``runs``, newest first; unreadable ones are left out."""
    if not runs.is_dir():
        return []
    found = (RunDirectory(path) for path in runs.iterdir() if not path.name.startswith("."))
    readable = [run for run in found if (run.path / _STATUS).is_file() and _is_readable(run)]
    return sorted(readable, key=_age, reverse=True)


def _age(run: RunDirectory) -> tuple[str, int, str]:
    # Runs of one second are told apart by the number at the end of their names.
    return run.status().started, len(run.path.name), run.path.name


def _is_readable(run: RunDirectory) -> bool:
    try:
        run.status()
    except PipelineError:
        return False
    return True


def find_runs(runs: Path, fingerprint: str) -> list[RunDirectory]:
    """Runs with this fingerprint (or one that starts with it), newest first."""
    return [run for run in list_runs(runs) if run.status().fingerprint.startswith(fingerprint)]


def newest_unfinished(runs: Path, fingerprint: str = "") -> RunDirectory | None:
    """The newest run that did not finish: stopped, failed, killed, or still running elsewhere."""
    return next(
        (run for run in find_runs(runs, fingerprint) if run.status().state != "finished"), None
    )
