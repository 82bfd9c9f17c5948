"""A storage of studies that is away for a while: waited for, and in the end an error with a fix."""

import contextlib
import functools
import importlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from kamerton.core.errors import PipelineError
from kamerton.tracking.trouble import Trouble

if TYPE_CHECKING:
    import optuna

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
# Less than the time after which others take a silent tuner for dead.
_PATIENCE_SECONDS: Final = 300.0


class StorageAwayError(PipelineError):
    """The storage did not answer for as long as is waited."""


class Outages:
    """Makes the calls of a shared storage again while it is away, with growing pauses.

    A call may have been done although its answer was lost: a trial may then be there that nobody
    runs, which is written off like that of a tuner that was killed.
    """

    def __init__(self, place: str) -> None:
        """Name the storage as ``place``, without its credentials."""
        self._place = place
        self._trouble = Trouble(f"tune.storage ({place})")
        self._patience = _PATIENCE_SECONDS

    def watch(self, storage: "optuna.storages.BaseStorage") -> None:
        """Let every call of ``storage`` wait for it."""
        import optuna

        for name in vars(optuna.storages.BaseStorage):
            if not name.startswith("_"):
                setattr(storage, name, self._patient(getattr(storage, name)))

    @contextlib.contextmanager
    def hurried(self) -> Iterator[None]:
        """Here nobody waits: a call that fails raises at once."""
        before, self._patience = self._patience, 0.0
        try:
            yield
        finally:
            self._patience = before

    def _patient(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def made(*args: Any, **options: Any) -> Any:
            began, pause = time.monotonic(), _FIRST_PAUSE
            while True:
                try:
                    answer = call(*args, **options)
                except _driver_errors() as error:
                    kind = type(error).__name__  # its words may hold the URL with its password
                else:
                    self._trouble.ends("nothing was lost")
                    return answer
                self._trouble.begins(StorageAwayError(f"{kind}.", hint=""))
                if time.monotonic() - began + pause > self._patience:
                    raise StorageAwayError(
                        f"tune.storage: {self._place} does not answer ({kind}).",
                        hint="see that its server runs; then the same command goes on",
                    )
                time.sleep(pause)
                pause = min(_LONGEST_PAUSE, 2 * pause)

        return made


@functools.cache
def _driver_errors() -> tuple[type[Exception], ...]:
    """What a storage raises where it cannot be reached; its other errors are about the call."""
    import optuna

    found: list[type[Exception]] = [optuna.exceptions.StorageInternalError, OSError]
    with contextlib.suppress(ImportError):
        import sqlalchemy.exc

        found.append(sqlalchemy.exc.SQLAlchemyError)
    with contextlib.suppress(ImportError):
        found.append(importlib.import_module("grpc").RpcError)
    return tuple(found)
