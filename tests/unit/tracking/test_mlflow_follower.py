import errno
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kamerton.core.files import read_json, write_json
from kamerton.tracking import JsonlTracker
from kamerton.tracking.mlflow_client import ACTIVE_RUN, active_run_id, connect
from kamerton.tracking.mlflow_follower import MlflowFollower, flatten, is_recorded

pytest.importorskip("mlflow")


@pytest.fixture(scope="module")
def client(mlflow_database: str) -> Any:
    return connect(mlflow_database)


def follow(run: Path, uri: str, **more: Any) -> MlflowFollower:
    return MlflowFollower(run, uri=uri, experiment="tests", **more)


def run_id(run: Path) -> str:
    return str(read_json(run / "mlflow.json", produced_by="train")["run_id"])


def points(client: Any, run: Path, name: str) -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in client.get_metric_history(run_id(run), name))


def new_run(tmp_path: Path, name: str = "run") -> Path:
    run = tmp_path / name
    run.mkdir()
    (run / "params.yaml").write_text("a: 1\n")
    return run


def test_a_run_arrives_whole(tmp_path: Path, client: Any, mlflow_database: str) -> None:
    run = new_run(tmp_path)
    tracker = JsonlTracker(run)
    follower = follow(run, mlflow_database, name="first", tags={"kind": "test"})
    tracker.log_params({"train": {"steps": 5, "token": "abcdefgh"}, "empty": {}})
    for step in range(1, 1301):  # more than one request holds
        tracker.log_metrics({"loss": 1.0 / step}, step)
    tracker.log_metrics({"val": float("nan")}, 1300)
    tracker.log_event("best", step=7, value=0.5)
    tracker.log_figure("attention", b"png", 7)
    tracker.log_audio("sample", np.zeros(4, np.float32), 8000, 7)
    tracker.close("finished")
    follower.close("finished")

    found = client.get_run(run_id(run))
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "first"
    assert is_recorded(run, mlflow_database)
    assert not is_recorded(run, "http://127.0.0.1:5000")
    assert points(client, run, "loss") == [(step, 1.0 / step) for step in range(1, 1301)]
    assert np.isnan(points(client, run, "val")[0][1])
    assert found.data.params == {"train.steps": "5", "train.token": "***", "empty": "{}"}
    assert found.data.tags["kind"] == "test"
    assert found.data.tags["event.best"] == "step 7: value=0.5"
    top = {item.path for item in client.list_artifacts(run_id(run))}
    assert top >= {"figures", "samples", "params.yaml", "metrics.jsonl"}
    figures = client.list_artifacts(run_id(run), "figures")
    assert [item.path for item in figures] == ["figures/attention-00000007.png"]
    assert "mlartifacts" in found.info.artifact_uri


def test_a_resumed_run_goes_on_in_the_same_mlflow_run(
    tmp_path: Path, client: Any, mlflow_database: str
) -> None:
    run = new_run(tmp_path)
    tracker, follower = JsonlTracker(run), follow(run, mlflow_database)
    for step in range(1, 6):
        tracker.log_metrics({"loss": float(step)}, step)
    tracker.close("stopped")
    follower.close("stopped")
    first = run_id(run)
    assert client.get_run(first).info.status == "KILLED"

    tracker, follower = JsonlTracker(run, resume_step=3), follow(run, mlflow_database)
    for step in range(4, 9):
        tracker.log_metrics({"loss": float(step)}, step)
    tracker.close("finished")
    follower.close("finished")
    assert run_id(run) == first
    assert points(client, run, "loss") == [(step, float(step)) for step in range(1, 9)]
    assert client.get_run(first).info.status == "FINISHED"


def test_a_resume_while_mlflow_is_away_loses_nothing(
    tmp_path: Path, client: Any, mlflow_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path)
    tracker, follower = JsonlTracker(run), follow(run, mlflow_database)
    for step in range(1, 6):
        tracker.log_metrics({"loss": float(step)}, step)
    tracker.close("stopped")
    follower.close("stopped")

    # The resume replaces the file by its beginning, and the first request after it fails.
    real, failures = MlflowFollower._request, [ConnectionError("nobody there")]

    def request(self: MlflowFollower, method: str, **arguments: Any) -> None:
        if failures:
            raise failures.pop()
        real(self, method, **arguments)

    monkeypatch.setattr(MlflowFollower, "_request", request)
    tracker = JsonlTracker(run, resume_step=1)
    for step in range(2, 9):
        tracker.log_metrics({"loss": float(step), "extra": float(step)}, step)
    follower = follow(run, mlflow_database, retry_seconds=0.05)
    tracker.close("finished")
    follower.close("finished")
    assert points(client, run, "extra") == [(step, float(step)) for step in range(2, 9)]


def test_what_was_sent_but_not_noted_is_not_doubled(
    tmp_path: Path, client: Any, mlflow_database: str
) -> None:
    run = new_run(tmp_path)
    tracker, follower = JsonlTracker(run), follow(run, mlflow_database)
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.close("finished")
    follower.close("finished")
    # Killed between sending and noting: the note is older than what MLflow has.
    record = read_json(run / "mlflow.json", produced_by="train")
    write_json(run / "mlflow.json", {**record, "offset": 0, "sent": {}})
    follow(run, mlflow_database).close("finished")
    assert points(client, run, "loss") == [(1, 1.0)]
    # Killed between making the MLflow run and noting its id.
    write_json(run / "mlflow.json", {**record, "offset": 0, "sent": {}, "run_id": ""})
    follow(run, mlflow_database).close("finished")
    assert run_id(run) == record["run_id"]


def test_children_are_nested_below_their_parent(
    tmp_path: Path, client: Any, mlflow_database: str
) -> None:
    parent, child = new_run(tmp_path, "parent"), new_run(tmp_path, "child")
    for run in (parent, child):
        JsonlTracker(run).close("finished")
    # The child comes first and waits until its parent has a run.
    inner = follow(child, mlflow_database, parent=parent)
    outer = follow(parent, mlflow_database)
    outer.close("finished")
    inner.close("finished")
    assert client.get_run(run_id(child)).data.tags["mlflow.parentRunId"] == run_id(parent)


@pytest.fixture
def pipeline_step(client: Any) -> str:
    """An MLflow run that somebody else opened and is still inside of."""
    found = client.get_experiment_by_name("pipeline")
    experiment = found.experiment_id if found else client.create_experiment("pipeline")
    return str(client.create_run(experiment, run_name="step").info.run_id)


def test_an_active_run_is_taken_and_left_open_under_its_own_name(
    tmp_path: Path, client: Any, mlflow_database: str, pipeline_step: str
) -> None:
    run = new_run(tmp_path)
    tracker, follower = JsonlTracker(run), follow(run, mlflow_database, active=pipeline_step)
    tracker.log_params({"a": 1})
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.close("stopped")
    follower.close("stopped")
    assert run_id(run) == pipeline_step
    found = client.get_run(pipeline_step)
    assert (found.info.status, found.info.run_name) == ("RUNNING", "step")
    assert found.data.params == {"a": "1"}
    assert found.data.tags["kamerton.run_directory"] == run.name
    assert found.data.tags["kamerton.state"] == "stopped"
    assert is_recorded(run, mlflow_database)

    # Resumed outside of it, the run goes on there all the same, and still does not end it.
    tracker, follower = JsonlTracker(run, resume_step=1), follow(run, mlflow_database)
    tracker.log_metrics({"loss": 2.0}, 2)
    tracker.close("finished")
    follower.close("finished")
    assert points(client, run, "loss") == [(1, 1.0), (2, 2.0)]
    assert client.get_run(pipeline_step).info.status == "RUNNING"


def test_a_run_resumed_inside_another_active_run_is_whole_in_that_one(
    tmp_path: Path, client: Any, mlflow_database: str, pipeline_step: str
) -> None:
    run = new_run(tmp_path)
    tracker, follower = JsonlTracker(run), follow(run, mlflow_database)
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.close("stopped")
    follower.close("stopped")
    own = run_id(run)
    tracker = JsonlTracker(run, resume_step=1)
    tracker.log_metrics({"loss": 2.0}, 2)
    follower = follow(run, mlflow_database, active=pipeline_step)
    tracker.close("finished")
    follower.close("finished")
    assert run_id(run) == pipeline_step != own
    assert points(client, run, "loss") == [(1, 1.0), (2, 2.0)]


def test_an_active_run_that_is_not_there_is_reported_and_another_made(
    tmp_path: Path, client: Any, mlflow_database: str, pipeline_step: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    client.delete_run(pipeline_step)
    for name, active in (("gone", pipeline_step), ("never", "0" * 32)):
        run = new_run(tmp_path, name)
        tracker, follower = JsonlTracker(run), follow(run, mlflow_database, active=active)
        tracker.log_metrics({"loss": 1.0}, 1)
        tracker.close("finished")
        follower.close("finished")
        assert run_id(run) != active
        assert client.get_run(run_id(run)).info.status == "FINISHED"
        assert f"{active} is named as the active run" in caplog.text
        assert "has no such run" in caplog.text


def test_an_active_run_that_records_another_directory_is_left_to_it(
    tmp_path: Path, client: Any, mlflow_database: str, pipeline_step: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    first, second = new_run(tmp_path, "first"), new_run(tmp_path, "second")
    for run, loss in ((first, 1.0), (second, 2.0)):
        tracker, follower = JsonlTracker(run), follow(run, mlflow_database, active=pipeline_step)
        tracker.log_metrics({"loss": loss}, 1)
        tracker.close("finished")
        follower.close("finished")
    assert run_id(first) == pipeline_step != run_id(second)
    assert points(client, first, "loss") == [(1, 1.0)]
    assert points(client, second, "loss") == [(1, 2.0)]
    assert client.get_run(pipeline_step).data.tags["kamerton.run_directory"] == first.name
    assert f"it records {first.name}" in caplog.text


def test_runs_below_an_active_run_are_nested_in_it(
    tmp_path: Path, client: Any, mlflow_database: str, pipeline_step: str
) -> None:
    parent, child = new_run(tmp_path, "parent"), new_run(tmp_path, "child")
    for run in (parent, child):
        JsonlTracker(run).close("finished")
    outer = follow(parent, mlflow_database, active=pipeline_step)
    inner = follow(child, mlflow_database, active=pipeline_step, parent=parent)
    outer.close("finished")
    inner.close("finished")
    assert run_id(child) != pipeline_step
    assert client.get_run(run_id(child)).data.tags["mlflow.parentRunId"] == pipeline_step


def test_the_active_run_is_named_by_the_environment_or_by_the_process_itself(
    mlflow_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.delenv(ACTIVE_RUN, raising=False)
    assert active_run_id() == ""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(mlflow_database)
    try:
        with mlflow.start_run(run_name="notebook") as opened:
            assert active_run_id() == opened.info.run_id
            monkeypatch.setenv(ACTIVE_RUN, "given")
            assert active_run_id() == "given"
    finally:
        mlflow.set_tracking_uri(before)


class _Refusing(BaseHTTPRequestHandler):
    """Answers every request with an error, like a server on its way up."""

    def _refuse(self) -> None:
        self.send_response(503)
        self.end_headers()

    do_GET = do_POST = do_PUT = _refuse  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def dead_uri() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def refusing_uri() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Refusing)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def hanging_uri() -> Iterator[str]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("server", ["dead_uri", "refusing_uri", "hanging_uri"])
def test_a_server_that_does_not_answer_costs_the_run_nothing(
    server: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    run = new_run(tmp_path)
    tracker = JsonlTracker(run)
    follower = follow(run, request.getfixturevalue(server), drain_seconds=2.0, retry_seconds=0.2)
    slowest = 0.0
    for step in range(50):
        started = time.perf_counter()
        tracker.log_metrics({"loss": 1.0}, step)
        follower.wake()
        slowest = max(slowest, time.perf_counter() - started)
        time.sleep(0.005)
    tracker.close("finished")
    started = time.perf_counter()
    follower.close("finished")
    assert time.perf_counter() - started < 4.0
    assert slowest < 0.5
    reported = [r for r in caplog.records if "cannot be reached" in r.getMessage()]
    assert len(reported) <= 1
    assert any("did not take all" in record.getMessage() for record in caplog.records)


def test_a_server_found_dead_only_at_the_end_is_not_waited_for_at_length(
    tmp_path: Path, dead_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("kamerton.tracking.mlflow_follower._HURRIED_SECONDS", 0.2)
    run = new_run(tmp_path)
    JsonlTracker(run).close("finished")
    follower = follow(run, dead_uri, drain_seconds=120.0)
    started = time.perf_counter()
    follower.close("finished")
    assert time.perf_counter() - started < 60.0


def test_a_database_that_comes_back_gets_everything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
    client: Any, mlflow_database: str,
) -> None:  # fmt: skip
    import kamerton.tracking.mlflow_follower as module

    def away(_uri: str) -> Any:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(module, "connect", away)
    run = new_run(tmp_path)
    tracker, follower = JsonlTracker(run), follow(run, mlflow_database, retry_seconds=0.05)
    tracker.log_metrics({"loss": 1.0}, 1)
    time.sleep(0.4)
    assert len([r for r in caplog.records if "cannot be reached" in r.getMessage()]) == 1
    assert not (run / "mlflow.json").exists()
    monkeypatch.setattr(module, "connect", connect)
    tracker.log_metrics({"loss": 2.0}, 2)
    tracker.close("finished")
    follower.close("finished")
    assert points(client, run, "loss") == [(1, 1.0), (2, 2.0)]
    assert any("answers again" in record.getMessage() for record in caplog.records)


def test_a_disk_that_cannot_note_what_was_sent_is_named_and_tried_again(
    tmp_path: Path, client: Any, mlflow_database: str, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    import kamerton.tracking.mlflow_follower as module

    run = new_run(tmp_path)
    tracker = JsonlTracker(run)
    refusals = [OSError(errno.ENOSPC, "No space left on device") for _ in range(3)]

    def write(path: Path, value: object) -> None:
        if refusals:
            raise refusals.pop()
        write_json(path, value)

    monkeypatch.setattr(module, "write_json", write)
    follower = follow(run, mlflow_database, retry_seconds=0.05)
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.close("finished")
    follower.close("finished")
    assert not refusals
    assert points(client, run, "loss") == [(1, 1.0)]
    told = [r.getMessage() for r in caplog.records if "No space left" in r.getMessage()]
    assert len(told) == 1
    assert "noted" in told[0]


def test_without_the_package_the_run_ends_at_once_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    run = new_run(tmp_path)
    follower = follow(run, f"sqlite:///{tmp_path / 'mlflow.db'}")
    started = time.perf_counter()
    follower.close("finished")
    assert time.perf_counter() - started < 2.0
    assert "pip install 'kamerton[track]'" in caplog.text
    assert "did not take all" not in caplog.text


def test_what_mlflow_refuses_does_not_block_the_rest(
    tmp_path: Path, client: Any, mlflow_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = new_run(tmp_path)
    tracker, follower = JsonlTracker(run), follow(run, mlflow_database)
    tracker.log_params({"a": 1})
    tracker.log_params({"a": 2})  # MLflow never changes a parameter
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.close("finished")
    follower.close("finished")
    assert client.get_run(run_id(run)).data.params == {"a": "1"}
    assert points(client, run, "loss") == [(1, 1.0)]
    assert any("refused" in record.getMessage() for record in caplog.records)


def test_parameters_are_flattened_to_dotted_names() -> None:
    nested = {"a": {"b": {"c": 1}, "d": [1, 2]}, "e": None}
    assert flatten(nested) == {"a.b.c": "1", "a.d": "[1, 2]", "e": "None"}
