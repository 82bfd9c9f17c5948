import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kamerton.config.schema import TrackingParams
from kamerton.core.errors import ToolMissingError
from kamerton.tracking import (
    CompositeTracker,
    JsonlTracker,
    RunDirectory,
    Tracker,
    open_trackers,
    read_records,
)

CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("log_params", ({"a": 1},)),
    ("log_metrics", ({"loss": 1.0}, 1)),
    ("log_event", ("best",)),
    ("log_figure", ("attention", b"png", 1)),
    ("log_audio", ("sample", np.zeros(4, np.float32), 8000, 1)),
    ("log_text", ("note", "words", 1)),
    ("flush", ()),
    ("close", ("finished",)),
]


class Recording:
    """Notes every call; raises on all of them when it is ``broken``."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def take(*_: Any, **__: Any) -> None:
            self.calls.append(name)
            if self.broken:
                raise OSError("disk full")

        return take


def call_all(tracker: Tracker) -> None:
    for name, arguments in CALLS:
        getattr(tracker, name)(*arguments)


def test_every_call_reaches_every_tracker_whatever_one_of_them_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken, sound = Recording(broken=True), Recording()
    tracker = CompositeTracker([broken, sound])  # type: ignore[list-item]
    call_all(tracker)
    assert broken.calls == [name for name, _ in CALLS]
    # The first of them is also an event in the places that work.
    assert sound.calls == ["log_event", *(name for name, _ in CALLS)]
    assert tracker.failures == len(CALLS)
    assert len(caplog.records) == 1  # reported once
    assert "disk full" in caplog.text


def test_trouble_is_in_the_record_with_the_step_it_began_at(tmp_path: Path) -> None:
    broken = Recording()
    tracker = CompositeTracker([JsonlTracker(tmp_path), broken])  # type: ignore[list-item]
    tracker.log_metrics({"loss": 1.0}, 7)
    broken.broken = True
    tracker.log_metrics({"loss": 1.0}, 8)
    tracker.flush()
    tracker.close("finished")
    found = [r for r in read_records(tmp_path / "metrics.jsonl") if r.name == "tracking_trouble"]
    assert [(r.step, r.fields) for r in found] == [
        (8, {"place": "Recording", "reason": "disk full"})
    ]


def test_followers_are_woken_and_closed_after_the_trackers() -> None:
    order: list[str] = []

    class Noting:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getattr__(self, call: str) -> Any:
            return lambda *_: order.append(f"{self.name}.{call}")

    tracker = CompositeTracker([Noting("tracker")], [Noting("follower")])  # type: ignore[list-item]
    tracker.flush()
    tracker.close("stopped")
    assert order == ["tracker.flush", "follower.wake", "tracker.close", "follower.close"]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path, name="voice", fingerprint="f" * 8, params={})


def test_a_run_is_recorded_in_its_directory(run: RunDirectory) -> None:
    tracker = open_trackers(run, TrackingParams(mlflow_uri=None))
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.close("finished")
    assert read_records(run.metrics_file)[0].values == {"loss": 1.0}
    assert len(list(run.tensorboard.iterdir())) == 1
    assert tracker.failures == 0


def test_tensorboard_can_be_turned_off(run: RunDirectory) -> None:
    open_trackers(run, TrackingParams(mlflow_uri=None, tensorboard=False)).close("finished")
    assert not run.tensorboard.exists()


def test_a_resumed_run_forgets_the_steps_it_makes_again(run: RunDirectory) -> None:
    params = TrackingParams(mlflow_uri=None)
    first = open_trackers(run, params)
    for step in (1, 2, 3):
        first.log_metrics({"loss": 1.0}, step)
    first.close("stopped")
    second = open_trackers(run, params, resume_step=2)
    second.log_metrics({"loss": 2.0}, 3)
    second.close("finished")
    values = [r.values["loss"] for r in read_records(run.metrics_file) if r.kind == "metrics"]
    assert values == [1.0, 1.0, 2.0]


def test_a_tracker_that_is_not_installed_is_left_out(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with caplog.at_level(logging.WARNING):
        tracker = open_trackers(run, TrackingParams(mlflow_uri=None, wandb_project="voice"))
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.close("finished")
    assert "wandb is not installed" in caplog.text
    assert read_records(run.metrics_file)


def test_a_trial_leaves_services_to_its_tuner(run: RunDirectory) -> None:
    params = TrackingParams(mlflow_uri="http://127.0.0.1:9", wandb_project="voice")
    open_trackers(run, params, services=False).close("finished")
    assert not (run.path / "mlflow.json").exists()


def test_mlflow_is_followed_where_it_is_named(run: RunDirectory, mlflow_database: str) -> None:
    pytest.importorskip("mlflow")
    from kamerton.tracking.mlflow_client import connect

    tracker = open_trackers(run, TrackingParams(mlflow_uri=mlflow_database, experiment="opened"))
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.flush()
    tracker.close("finished")
    client = connect(mlflow_database)
    experiment = client.get_experiment_by_name("opened")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.data.metrics) == (run.path.name, {"loss": 1.0})


def test_the_active_mlflow_run_is_reused(
    run: RunDirectory, mlflow_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    from kamerton.tracking.mlflow_client import ACTIVE_RUN, connect

    client = connect(mlflow_database)
    step = client.create_run(client.create_experiment("of the pipeline")).info.run_id
    monkeypatch.setenv(ACTIVE_RUN, step)
    tracker = open_trackers(run, TrackingParams(mlflow_uri=mlflow_database, experiment="own"))
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.close("finished")
    found = client.get_run(step)
    assert (found.data.metrics, found.info.status) == ({"loss": 1.0}, "RUNNING")
    assert client.get_experiment_by_name("own") is None


def test_wandb_without_its_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kamerton.tracking.wandb_tracker import WandbTracker

    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ToolMissingError) as error:
        WandbTracker(tmp_path, project="voice")
    assert error.value.hint == "pip install 'kamerton[wandb]'"
