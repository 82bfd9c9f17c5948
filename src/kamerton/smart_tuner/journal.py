"""The journal of a study: an append-only file of finished trials that survives any kill."""

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from kamerton.core.errors import InputCorruptError, ToolMissingError

if TYPE_CHECKING:
    import optuna


class FlockLock:
    """A journal lock that the system releases when its holder dies.

    Optuna's own locks are files that a killed process leaves behind, and everyone else waits half
    a minute for.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def open_study(path: Path, name: str) -> "optuna.Study":
    """The study called ``name`` in the journal at ``path``, made if there is none.

    Raises:
        ToolMissingError: optuna is not installed.
        InputCorruptError: the journal is not one.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise ToolMissingError("optuna", extra="tune") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True)
    drop_torn_line(path)
    lock = FlockLock(path.with_name(f".{path.name}.lock"))
    try:
        storage = JournalStorage(JournalFileBackend(str(path), lock_obj=lock))  # type: ignore[arg-type]
        return optuna.create_study(
            study_name=name, storage=storage, direction="minimize", load_if_exists=True
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputCorruptError(
            path, problem=f"is not a study's journal ({error})", hint="remove it to search again"
        ) from error


def drop_torn_line(path: Path) -> None:
    """Cut off a last line without its end, which a later line would be joined to.

    Only a full disk or a power cut leaves one: a line is appended by one write.
    """
    if not path.is_file():
        return
    with path.open("rb+") as file:
        data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            file.truncate(whole)
