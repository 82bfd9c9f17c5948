"""Whatever happens to the places a run is recorded in, it ends whole and with the same numbers."""

from __future__ import annotations

import errno
import logging
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from kamerton.core.stop import StopRequest
from kamerton.data.manifest import Dataset
from kamerton.tracking import RunDirectory, names, read_records
from kamerton.training.session import Session, fixed_threads
from tests.tiny_corpus import tiny_params, write_tiny_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.open(write_tiny_dataset(tmp_path_factory.mktemp("corpus") / "dataset"))


def trained(dataset: Dataset, folder: Path, tracking: dict[str, Any], prepare: Any) -> RunDirectory:
    params = tiny_params(
        monitoring={"log_interval_steps": 1, "debug_interval_steps": 4,
                    "sample_interval_steps": 6, "figure_interval_steps": 6},
    )  # fmt: skip
    params = params.model_copy(
        update={"tracking": params.tracking.model_copy(update=tracking)}
    )  # fmt: skip
    work = Session.prepare(dataset, 50, params, runs=folder, threads=1, trial=False)
    run = work.find_run(resume=False, anew=False)
    prepare(run)
    with fixed_threads(params.train), run.hold():
        work.train(run, stop=StopRequest())
    return run


def numbers(run: RunDirectory) -> list[Any]:
    return [
        (record.step, name, value)
        for record in read_records(run.metrics_file)
        for name, value in record.values.items()
        if not name.startswith(names.SYSTEM)
    ]


@pytest.fixture
def closed_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_broken_places_are_told_once_each_and_change_no_number(
    dataset: Dataset, tmp_path: Path, closed_port: str, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    undisturbed = trained(
        dataset, tmp_path / "a", {"tensorboard": False, "mlflow_uri": None}, lambda _run: None
    )
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING and "fail" in r.message]
    caplog.clear()

    real, calls = os.write, []

    def write(file: int, data: Any) -> int:
        """A disk that is full for a while, and takes half a line before it is."""
        calls.append(1)
        if 5 <= len(calls) < 30:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, bytes(data[: len(data) // 2])) if len(calls) == 4 else real(file, data)

    def break_places(run: RunDirectory) -> None:
        run.tensorboard.write_text("in the way")
        (run.path / "debug").write_text("in the way")
        run.figures.write_text("in the way")
        monkeypatch.setattr("kamerton.tracking.metrics_file.os.write", write)

    monkeypatch.setattr("kamerton.tracking.mlflow_follower._HURRIED_SECONDS", 0.5)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    disturbed = trained(
        dataset, tmp_path / "b", {"tensorboard": True, "mlflow_uri": closed_port}, break_places
    )
    assert len(calls) > 30
    assert numbers(disturbed) == numbers(undisturbed)
    assert disturbed.status().state == "finished"
    told = [record.getMessage() for record in caplog.records]
    for trouble in ("metrics.jsonl failed", "TensorBoardTracker failed", "debug report of",
                    "picture or sound of", "cannot be reached"):  # fmt: skip
        assert len([text for text in told if trouble in text]) <= 1, trouble
    for trouble in ("metrics.jsonl failed", "TensorBoardTracker failed", "debug report of",
                    "picture or sound of"):  # fmt: skip
        assert [text for text in told if trouble in text], trouble
    events = [record.name for record in read_records(disturbed.metrics_file)]
    assert {"tracking_trouble", "tracking_recovered"} <= set(events)
