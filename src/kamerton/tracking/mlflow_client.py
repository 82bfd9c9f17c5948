"""How this project reaches MLflow: one place for the quirks of its client."""

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kamerton.core.errors import ToolMissingError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

ARTIFACTS: Final = "mlartifacts"  # beside mlflow.db; a server decides for itself
_SQLITE: Final = "sqlite:///"

# A vanished server must cost seconds, not the client's own minutes of retries.
_LIMITS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}


ACTIVE_RUN: Final = "MLFLOW_RUN_ID"  # by which MLflow's own tools hand a run to a child process

_connecting = threading.Lock()


def active_run_id() -> str:
    """The run that the caller is inside of, or "": the step of a pipeline, or a notebook's run.

    The environment names it to a process that was started for it. In a process that uses MLflow's
    own functions, it is what ``mlflow.start_run`` opened; only the thread that opened it sees it.
    """
    named = os.environ.get(ACTIVE_RUN, "").strip()
    fluent = sys.modules.get("mlflow.tracking.fluent")  # never imported for the question alone
    if named or fluent is None:
        return named
    active = fluent.active_run()
    return "" if active is None else str(active.info.run_id)


def is_open_run(client: "MlflowClient", run_id: str) -> bool:
    """Whether the server has this run and it is not deleted."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return False
        raise
    return bool(found.info.lifecycle_stage == "active")


def connect(uri: str) -> "MlflowClient":
    """A client of the tracking server or database at ``uri``.

    Importing mlflow takes seconds and the first use of a database some more, so call this where
    nobody waits, or where the result is needed at once.

    Raises:
        ToolMissingError: mlflow is not installed.
    """
    for name, value in _LIMITS.items():
        os.environ.setdefault(name, value)
    uri = _absolute(uri)
    with _connecting, _database_lock(uri):  # nobody else may make the tables meanwhile
        try:
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise ToolMissingError("mlflow", extra="track") from error
        for noisy in ("mlflow.store.db.utils", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _absolute(uri: str) -> str:
    """``uri`` with a database's path made absolute: mlflow keeps databases by their names."""
    database = sqlite_file(uri)
    if database is None:
        return uri
    _, mark, options = uri.partition("?")
    return f"{_SQLITE}{database}{mark}{options}"


def sqlite_file(uri: str) -> Path | None:
    """The file behind a ``sqlite:///`` address; None for a server."""
    if not uri.startswith(_SQLITE):
        return None
    return Path(uri.removeprefix(_SQLITE).partition("?")[0]).absolute()


@contextlib.contextmanager
def _database_lock(uri: str) -> Iterator[None]:
    database = sqlite_file(uri)
    if database is None:
        yield
        return
    import fcntl  # POSIX only, and only where a lock is taken

    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f".{database.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def experiment_id(client: "MlflowClient", uri: str, name: str) -> str:
    """The id of the experiment called ``name``, made if there is none."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    database = sqlite_file(uri)
    location = None if database is None else (database.parent / ARTIFACTS).as_uri()
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException:
        found = client.get_experiment_by_name(name)  # made by another process meanwhile
        if found is None:
            raise
        return str(found.experiment_id)
