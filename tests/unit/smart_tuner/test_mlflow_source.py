"""MLflow as a source: latest values first, histories only of what moved."""

import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from kamerton.smart_tuner.sources import MetricEvent, MlflowSource
from kamerton.tracking.mlflow_client import connect
from tests.unit.smart_tuner.reading import Reader


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Server:
    """An MLflow client in memory that counts what it is asked."""

    def __init__(self) -> None:
        self.points: dict[str, list[Any]] = {}
        self.asked: Counter[str] = Counter()
        self.down = False

    def log(self, name: str, step: int, value: float, when: int = 0) -> None:
        point = SimpleNamespace(key=name, step=step, value=value, timestamp=when or step)
        self.points.setdefault(name, []).append(point)

    def get_run(self, run_id: str) -> Any:
        assert run_id == "abc"
        self.asked["run"] += 1
        if self.down:
            raise ConnectionError("refused\nwith many lines")
        latest = [
            max(points, key=lambda item: (item.step, item.timestamp))
            for points in self.points.values()
        ]
        return SimpleNamespace(data=SimpleNamespace(_metric_objs=latest))

    def get_metric_history(self, run_id: str, name: str) -> list[Any]:
        assert run_id == "abc"
        self.asked[name] += 1
        return list(self.points[name])


@pytest.fixture
def server() -> Server:
    return Server()


def reader_of(server: Server, clock: Clock, **more: Any) -> Reader:
    client: Any = server
    return Reader(
        MlflowSource("http://localhost:1", "abc", "run", client=client, now=clock, **more)
    )


def test_only_series_that_moved_are_asked_for_and_not_too_often(server: Server) -> None:
    clock = Clock()
    reader = reader_of(server, clock, interval_seconds=0.0)  # less than a second is a second
    server.log("loss", 1, 1.0)
    server.log("val", 1, 5.0)
    assert reader.poll() == 2
    server.log("loss", 2, 0.5)
    clock.now += 0.5
    assert reader.poll() == 0
    assert server.asked["run"] == 1
    clock.now += 0.5
    assert reader.poll() == 1
    clock.now += 1.0
    assert reader.poll() == 0
    assert server.asked == {"run": 3, "loss": 2, "val": 1}
    assert reader.points == {("loss", 1): 1.0, ("val", 1): 5.0, ("loss", 2): 0.5}


def test_a_server_that_is_away_is_no_error_and_asked_ever_more_seldom(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    reader = reader_of(server, clock)
    server.log("loss", 1, 1.0)
    server.down = True
    for _ in range(60):
        assert reader.poll() == 0
        clock.now += 1.0
    assert 3 <= server.asked["run"] < 10
    assert caplog.text.count("failed (refused)") == 1
    server.down = False
    clock.now += 40.0
    assert reader.poll() == 1
    assert "works again" in caplog.text


def test_a_long_history_is_asked_for_seldom(server: Server) -> None:
    clock = Clock()
    reader = reader_of(server, clock)
    plain = server.get_metric_history

    def slow(run_id: str, name: str) -> list[Any]:
        clock.now += 2.0
        return plain(run_id, name)

    server.get_metric_history = slow  # type: ignore[method-assign]
    for step in range(100):
        server.log("loss", step, 1.0)
        reader.poll()
        clock.now += 1.0
    assert server.asked["loss"] == 5 + 1  # two seconds of every twenty, from the first on


def test_points_that_were_sent_twice_are_one(server: Server) -> None:
    clock = Clock()
    reader = reader_of(server, clock)
    for _ in range(2):
        server.log("loss", 1, 1.0)
    server.log("loss", 1, 9.0, when=50)
    reader.poll()
    assert reader.points == {("loss", 1): 1.0}


def test_a_real_database_gives_what_was_logged(mlflow_database: str) -> None:
    pytest.importorskip("mlflow")
    client = connect(mlflow_database)
    run_id = client.create_run("0").info.run_id
    clock = Clock()
    reader = Reader(MlflowSource(mlflow_database, run_id, now=clock))
    for step, value in enumerate([1.0, math.nan, math.inf, -math.inf]):
        client.log_metric(run_id, "loss", value, timestamp=5_000 + step, step=step)
    assert reader.poll() == 4
    client.log_metric(run_id, "val", 0.25, timestamp=9_000, step=3)
    clock.now += 60.0
    assert reader.poll() == 1
    assert list(reader.points.values()) == [1.0, "nan", "inf", "-inf", 0.25]
    event = next(item for item in reader.events if isinstance(item, MetricEvent))
    assert (event.run, event.time) == (run_id, 5.0)
