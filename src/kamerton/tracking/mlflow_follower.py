"""MLflow follows the run directory: a background thread sends on what metrics.jsonl holds.

The file is the queue. Training never waits for MLflow, not even for its import; a server that is
away for a while misses nothing; and a run that is killed goes on where its record in mlflow.json
says. A point that is sent twice is one point, because it carries the time of its line.
"""

import errno
import logging
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kamerton.core.errors import PipelineError, ToolMissingError
from kamerton.core.files import read_json, write_json
from kamerton.tracking.metrics_file import MetricsCursor, Record
from kamerton.tracking.mlflow_client import connect, experiment_id, is_open_run
from kamerton.tracking.protocol import EndState
from kamerton.tracking.trouble import first_line

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_log = logging.getLogger(__name__)

_RECORD: Final = "mlflow.json"
_DIRECTORY_TAG: Final = "kamerton.run_directory"  # which run directory an MLflow run records
_INTERVAL_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 15.0
_PARENT_POLL_SECONDS: Final = 1.0
_HURRIED_SECONDS: Final = 10.0
_DRAIN_POLL_SECONDS: Final = 0.1
_DRAIN_RETRY_SECONDS: Final = 2.0
_BATCH_LINES: Final = 200  # at most 1000 metrics go into one request
_BATCH_METRICS: Final = 1000
_BATCH_PARAMS: Final = 100
_PARAM_CHARS: Final = 6000
_TAG_CHARS: Final = 5000
_END_STATUS: Final = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_KEPT_FILES: Final = ("params.yaml", "environment.json", "command.txt", "metrics.jsonl")
_DISK_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES})
# Requests that will be refused for ever; sending them again would block all that follow.
_REFUSED: Final = frozenset(
    {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "PERMISSION_DENIED"}
)


@dataclass(slots=True)
class _Progress:
    """What mlflow.json keeps: the MLflow run and how much of the file it has."""

    uri: str
    adopted: bool = False  # the MLflow run is somebody else's, who also ends it
    key: str = ""  # tag by which a run is found whose id was not noted in time
    run_id: str = ""
    ended: bool = False  # the MLflow run has all and knows how the run ended
    offset: int = 0
    inode: int | None = None
    sent: dict[str, int] = field(default_factory=dict)  # series -> the last step sent

    @classmethod
    def load(cls, path: Path, uri: str) -> "_Progress":
        if path.is_file():
            record = read_json(path, produced_by="train")
            if record.get("uri") == uri:
                return cls(**record)
        return cls(uri)

    def save(self, path: Path) -> None:
        write_json(path, {name: getattr(self, name) for name in self.__dataclass_fields__})


class MlflowFollower:
    """Keeps one MLflow run equal to one run directory, in the background."""

    def __init__(
        self,
        run: Path,
        *,
        uri: str,
        experiment: str,
        name: str = "",
        parent: Path | None = None,
        active: str = "",
        tags: Mapping[str, str] | None = None,
        drain_seconds: float = 60.0,
        retry_seconds: float = _RETRY_SECONDS,
    ) -> None:
        """Start to follow the run directory at ``run``; returns at once.

        Args:
            run: the run directory.
            uri: MLflow's tracking URI.
            experiment: name of the MLflow experiment.
            name: what MLflow calls the run; the run directory's name where left out.
            parent: run directory of the run that this one is a part of (a study, for its trials);
                it must be followed too, at the latest soon.
            active: id of an MLflow run that the caller is inside of, see ``active_run_id``. It is
                taken instead of a new one, and neither renamed nor ended. A run with a parent has
                one of its own below the parent's.
            tags: tags of the MLflow run.
            drain_seconds: how long ``close`` waits for what is not sent yet.
            retry_seconds: pause after a failed attempt.
        """
        self._run, self._uri, self._experiment, self._parent = run, uri, experiment, parent
        self._name, self._tags = name or run.name, dict(tags or {})
        self._active = "" if parent is not None else active
        self._drain_seconds, self._retry_seconds = drain_seconds, retry_seconds
        self._client: MlflowClient | None = None
        self._progress: _Progress | None = None
        self._end: EndState | None = None
        self._troubled, self._troubled_since = False, 0.0
        self._wake = threading.Event()
        self._give_up = threading.Event()
        # A daemon: a server that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._follow, name=f"mlflow-{run.name}", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str:
        """The MLflow run's id, or "" while there is none."""
        return self._progress.run_id if self._progress else ""

    def wake(self) -> None:
        """Look for new lines now."""
        self._wake.set()

    def end(self, state: EndState) -> None:
        """Say that nothing more will be recorded, without waiting; ``close`` waits."""
        if self._end is None:
            self._end = state
        self._wake.set()

    def close(self, state: EndState) -> None:
        """Send the rest and end the MLflow run; give up, and say so, after ``drain_seconds``."""
        self.end(state)
        began = time.monotonic()
        while self._thread.is_alive() and time.monotonic() - began < self._patience(began, state):
            self._thread.join(_DRAIN_POLL_SECONDS)
        if self._thread.is_alive():
            self._give_up.set()
            self._wake.set()
            _log.warning(
                "MLflow at %s did not take all of %s within %.0f s; the run directory has it",
                self._uri, self._run, time.monotonic() - began,
            )  # fmt: skip

    def _patience(self, began: float, state: EndState) -> float:
        """Seconds from ``began`` that ``close`` waits, as things stand."""
        hurried = min(self._drain_seconds, _HURRIED_SECONDS)
        if state == "stopped":  # it goes on later, and so does what is sent
            return hurried
        if self._troubled:  # a server that did not answer a moment ago hardly will now
            return min(self._drain_seconds, max(0.0, self._troubled_since - began) + hurried)
        return self._drain_seconds

    def _follow(self) -> None:
        while not self._give_up.is_set():
            ending = self._end  # read first: what was written before it is then sent before it
            pause = _INTERVAL_SECONDS
            try:
                if self._attempt(ending):
                    return
            except ToolMissingError as error:
                _log.warning("%s The run is not recorded there; %s.", error.message, error.hint)
                return
            # The service may fail in any way; the run must not notice.
            except Exception as error:
                pause = self._retry_seconds
                if ending is not None:
                    pause = min(pause, _DRAIN_RETRY_SECONDS)
                self._report(error)
            self._wake.wait(pause if self._end is ending else 0.0)
            self._wake.clear()

    def _attempt(self, ending: EndState | None) -> bool:
        """Send what is new; True when the run has ended and all is sent."""
        if not self._connected():
            time.sleep(_PARENT_POLL_SECONDS)
            return False
        while self._send_batch():
            pass
        if self._troubled:
            _log.warning("MLflow at %s answers again; nothing was lost", self._uri)
            self._troubled = False
        if ending is None:
            return False
        self._finish(ending)
        return True

    def _report(self, error: Exception) -> None:
        if not self._troubled:
            words = (
                error.message
                if isinstance(error, PipelineError)
                else f"{type(error).__name__}: {error}"
            )
            # Refused by the disk of the run directory, where what was sent is noted.
            own = getattr(error, "errno", None) in _DISK_ERRORS
            _log.warning(
                "%s (%s); the run goes on, and it is tried again",
                f"what MLflow has of {self._run} cannot be noted there" if own
                else f"MLflow at {self._uri} cannot be reached",
                words.splitlines()[0],
            )  # fmt: skip
            self._troubled_since = time.monotonic()
        self._troubled = True

    def _connected(self) -> bool:
        """Open or make the MLflow run; False while the parent's run does not exist yet."""
        if self._progress is not None:
            return True
        if self._client is None:
            self._client = connect(self._uri)
        progress = _Progress.load(self._run / _RECORD, self._uri)
        if self._active and self._active != progress.run_id and self._usable():
            progress = self._adopt(self._client)
        elif progress.run_id:
            if not progress.adopted:
                self._client.update_run(progress.run_id, status="RUNNING")
            progress.ended = False
        elif not self._open_run(self._client, progress):
            return False
        self._cursor = MetricsCursor(
            self._run / "metrics.jsonl",
            offset=progress.offset,
            seen=progress.sent,
            inode=progress.inode,
        )
        self._progress = progress
        return True

    def _usable(self) -> bool:
        """Whether the active run can be taken; what cannot is reported and not asked for again."""
        assert self._client is not None
        owner = ""
        if is_open_run(self._client, self._active):
            tags = self._client.get_run(self._active).data.tags
            owner = str(tags.get(_DIRECTORY_TAG, ""))
            if owner in ("", self._run.name):
                return True
        _log.warning(
            "%s is named as the active run, and %s; %s has an MLflow run of its own",
            self._active,
            f"it records {owner}" if owner else f"MLflow at {self._uri} has no such run",
            self._run.name,
        )  # fmt: skip
        self._active = ""
        return False

    def _adopt(self, client: "MlflowClient") -> _Progress:
        """Take the active run, from the beginning of the file."""
        for name, value in {**self._tags, _DIRECTORY_TAG: self._run.name}.items():
            client.set_tag(self._active, name, value)
        progress = _Progress(self._uri, run_id=self._active, adopted=True)
        progress.save(self._run / _RECORD)
        return progress

    def _open_run(self, client: "MlflowClient", progress: _Progress) -> bool:
        """Give ``progress`` an MLflow run; False while the parent's does not exist yet."""
        tags = {**self._tags, _DIRECTORY_TAG: self._run.name}
        if self._parent is not None:
            parent_id = _Progress.load(self._parent / _RECORD, self._uri).run_id
            if not parent_id:
                return False
            tags["mlflow.parentRunId"] = parent_id
        experiment = experiment_id(client, self._uri, self._experiment)
        # Noted before the run is made: killed in between, the run is found by it again.
        known = bool(progress.key)
        progress.key = progress.key or uuid.uuid4().hex
        progress.save(self._run / _RECORD)
        query = f"tags.`kamerton.key` = '{progress.key}'"
        found = client.search_runs([experiment], filter_string=query) if known else []
        if found:
            progress.run_id = str(found[0].info.run_id)
        else:
            tags["kamerton.key"] = progress.key
            created = client.create_run(experiment, tags=tags, run_name=self._name)
            progress.run_id = str(created.info.run_id)
        progress.save(self._run / _RECORD)
        return True

    def _send_batch(self) -> bool:
        """Send some lines; False when there were none. What was not sent stays to be sent."""
        assert self._progress is not None  # connected before
        cursor = self._cursor
        before = (cursor.offset, dict(cursor.seen), cursor.inode)
        records = cursor.poll(limit=_BATCH_LINES)
        moved = cursor.offset != before[0]
        try:
            self._send(records)
        except BaseException:
            # The file's identity too: an old offset means nothing in a file that replaced it.
            cursor.offset, cursor.seen, cursor.inode = before
            raise
        if moved:
            self._progress.offset, self._progress.inode = cursor.offset, cursor.inode
            self._progress.sent = dict(cursor.seen)
            self._progress.save(self._run / _RECORD)
        return moved

    def _send(self, records: list[Record]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, round(record.time * 1000), record.step or 0)
            for record in records
            if record.kind == "metrics"
            for name, value in record.values.items()
        ]
        for start in range(0, len(metrics), _BATCH_METRICS):
            self._request("log_batch", metrics=metrics[start : start + _BATCH_METRICS])
        for record in records:
            self._send_other(record)

    def _send_other(self, record: Record) -> None:
        from mlflow.entities import Param, RunTag

        if record.kind == "params":
            pairs = [
                Param(name, value[:_PARAM_CHARS]) for name, value in flatten(record.fields).items()
            ]
            for start in range(0, len(pairs), _BATCH_PARAMS):
                self._request("log_batch", params=pairs[start : start + _BATCH_PARAMS])
        elif record.kind == "event":
            words = " ".join(f"{name}={value}" for name, value in record.fields.items())
            tag = RunTag(f"event.{record.name}", f"step {record.step}: {words}"[:_TAG_CHARS])
            self._request("log_batch", tags=[tag])
        elif record.file and (self._run / record.file).is_file():
            folder = str(Path(record.file).parent)
            self._request(
                "log_artifact", local_path=str(self._run / record.file), artifact_path=folder
            )

    def _request(self, method: str, **arguments: Any) -> None:
        """Call the client; what the server refuses for good is reported and passed over."""
        from mlflow.exceptions import MlflowException

        assert self._client is not None
        assert self._progress is not None
        try:
            getattr(self._client, method)(self._progress.run_id, **arguments)
        except MlflowException as error:
            if error.error_code not in _REFUSED:
                raise
            _log.warning("MLflow refused part of %s: %s", self._run.name, first_line(error))

    def _finish(self, state: EndState) -> None:
        for name in _KEPT_FILES:
            if (self._run / name).is_file():
                self._request("log_artifact", local_path=str(self._run / name))
        assert self._progress is not None  # connected before
        if self._progress.adopted:  # its owner may have more to do
            self._request("set_tag", key="kamerton.state", value=state)
        else:
            self._request("set_terminated", status=_END_STATUS[state])
        self._progress.ended = True
        self._progress.save(self._run / _RECORD)


def is_recorded(run: Path, uri: str) -> bool:
    """Whether MLflow has everything of an ended run."""
    return _Progress.load(run / _RECORD, uri).ended


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters as dotted names with their values in words."""
    flat: dict[str, str] = {}
    for key, value in nested.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = str(value)
    return flat
