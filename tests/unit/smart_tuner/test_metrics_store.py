"""The store against plain dictionaries and formulas, between processes, and under kill -9."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kamerton.core.errors import InputCorruptError, PipelineError
from kamerton.smart_tuner.log_watcher import LogWatcher
from kamerton.smart_tuner.metrics_store import MetricsStore
from kamerton.smart_tuner.series import Series
from kamerton.smart_tuner.sources import Event, JsonlSource, MetricEvent, Rewind, RunEvent
from kamerton.tracking import JsonlTracker

COLLECTOR = """
import sys
from pathlib import Path
from kamerton.smart_tuner.log_watcher import LogWatcher
from kamerton.smart_tuner.metrics_store import MetricsStore
from kamerton.smart_tuner.sources import JsonlSource

log, database = map(Path, sys.argv[1:3])
watcher = LogWatcher([JsonlSource(log, "run")])
with MetricsStore(database) as store:
    print("ready", flush=True)
    while True:
        for events in watcher.collect(store):
            print(len(events), flush=True)
"""


def point(step: int, value: float, *, name: str = "loss", when: float = 1.0) -> MetricEvent:
    return MetricEvent("run", step, None, name, value, when)


def series_of(values: list[float]) -> Series:
    numbers = np.array(values, np.float64)
    count = len(values)
    return Series(np.arange(count), numbers, np.zeros(count), np.zeros(count))


EVENTS = st.one_of(
    st.builds(
        lambda name, step, value: MetricEvent("run", step, None, name, value, 0.0),
        st.sampled_from(["loss", "val"]),
        st.integers(0, 12),
        st.floats(),
    ),
    st.builds(lambda step: Rewind("run", step), st.integers(0, 14)),
    st.builds(
        lambda step, name: RunEvent("run", step, name, {"x": 1.0}),
        st.one_of(st.none(), st.integers(0, 12)),
        st.sampled_from(["best", "phase"]),
    ),
)


@settings(max_examples=40)
@given(batches=st.lists(st.lists(EVENTS, max_size=12), max_size=4))
def test_it_keeps_what_a_dictionary_keeps(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Event]]
) -> None:
    points: dict[tuple[str, int], float] = {}
    events: set[tuple[int | None, str]] = set()
    with MetricsStore(tmp_path_factory.mktemp("store") / "metrics.db") as store:
        for number, batch in enumerate(batches):
            timed = [
                item._replace(time=float(number)) if isinstance(item, MetricEvent) else item
                for item in batch
            ]
            for repetition in range(2):  # the same once more changes nothing
                if repetition and any(isinstance(item, Rewind) for item in batch):
                    break
                store.add(timed)
            for item in batch:
                match item:
                    case MetricEvent():
                        points[item.name, item.step] = item.value
                    case Rewind():
                        points = {key: v for key, v in points.items() if key[1] < item.step}
                        events = {e for e in events if e[0] is None or e[0] < item.step}
                    case RunEvent():
                        events.add((item.step, item.name))
        found = {
            (name, step): value
            for name in store.names("run")
            for step, value in zip(
                store.series("run", name).steps.tolist(),
                store.series("run", name).values.tolist(),
                strict=True,
            )
        }
        told = [(event.step, event.name) for event in store.events("run")]
        assert found.keys() == points.keys()
        for key, value in points.items():
            np.testing.assert_array_equal(found[key], value)  # SQLite knows no -0
        assert sorted(told, key=str) == sorted(events, key=str)


def test_the_later_of_two_values_counts_in_either_order(tmp_path: Path) -> None:
    with MetricsStore(tmp_path / "metrics.db") as store:
        store.add([point(1, 5.0, when=2.0), point(1, 4.0, when=1.0)])
        assert store.series("run", "loss").values.tolist() == [5.0]
        store.add([point(1, math.nan, when=3.0)])
        assert math.isnan(store.series("run", "loss").values[0])


def test_windows_statistics_and_the_best(tmp_path: Path) -> None:
    values = [5.0, math.nan, 1.0, 2.0, math.inf, 1.0, 40.0]
    with MetricsStore(tmp_path / "metrics.db") as store:
        store.add(
            MetricEvent("run", 10 * place, place / 2, "loss", value, 100.0 + place)
            for place, value in enumerate(values)
        )
        store.add([MetricEvent("other", 0, None, "loss", -9.0, 0.0)])
        assert store.runs() == ["other", "run"]
        window = store.window("run", "loss", 3)
        assert window.steps.tolist() == [40, 50, 60]
        assert window.values.tolist() == [math.inf, 1.0, 40.0]
        assert window.times.tolist() == [104.0, 105.0, 106.0]
        assert window.epochs.tolist() == [2.0, 2.5, 3.0]
        robust = store.robust("run", "loss")
        assert (robust.count, robust.not_finite) == (5, 2)
        assert (robust.median, robust.mad) == (2.0, 1.0)  # of 5 1 2 1 40; of 3 1 0 1 38
        assert robust.sigma == pytest.approx(1.4826)
        assert store.robust("run", "loss", 2).median == 20.5
        assert store.best("run", "loss") == (20, 1.0)
        assert store.best("run", "loss", lowest=False) == (60, 40.0)
        assert store.latest("run")["loss"].value == 40.0
        assert len(store.series("run", "absent")) == 0
        assert store.best("run", "absent") is None
        assert store.robust("run", "absent").count == 0


def test_the_median_and_its_distance_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(1).normal(3.0, 2.0, 20_001)
    robust = series_of(values.tolist()).robust()
    assert robust.mad == pytest.approx(stats.median_abs_deviation(values))
    assert robust.sigma == pytest.approx(2.0, rel=0.05)


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), half=st.floats(0.5, 20))
def test_the_moving_average_is_the_weighted_mean(values: list[float], half: float) -> None:
    """Closed form: weights 2^(-age / half-life), normalised."""
    found = series_of([*values, math.nan]).ema(half)
    weights = 0.5 ** (np.arange(len(values))[::-1] / half)
    expected = float(np.dot(weights, values) / weights.sum())
    assert found[-1] == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert found[-2] == found[-1]  # what is not finite changes nothing
    assert math.isnan(series_of([math.inf, 1.0]).ema(half)[0])


VALUES = st.one_of(st.floats(-100, 100), st.sampled_from([math.nan, math.inf, -math.inf]))


@given(values=st.lists(VALUES, max_size=200), most=st.integers(5, 60))
def test_fewer_points_keep_the_shape(values: list[float], most: int) -> None:
    whole = series_of(values)
    fewer = whole.downsample(most)
    assert len(fewer) <= most
    assert set(fewer.steps.tolist()) <= set(whole.steps.tolist())
    np.testing.assert_equal(fewer.values, whole.values[fewer.steps])
    good = whole.finite
    if len(good):
        kept = fewer.finite
        assert kept.values.min() == good.values.min()
        assert kept.values.max() == good.values.max()
        assert kept.steps[0] == good.steps[0]
        assert kept.steps[-1] == good.steps[-1]
    assert (len(good) < len(whole)) == (len(fewer.finite) < len(fewer))


def test_a_single_peak_among_a_hundred_thousand_stays() -> None:
    values = np.zeros(100_000)
    values[77_777] = 3.0
    fewer = series_of(values.tolist()).downsample(100)
    assert fewer.values.max() == 3.0
    assert len(fewer) <= 100


def test_too_few_points_and_strange_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least"):
        series_of([1.0]).downsample(2)
    strange = tmp_path / "metrics.db"
    strange.write_bytes(b"no database at all, but longer than a header would be " * 40)
    with pytest.raises(InputCorruptError):
        MetricsStore(strange)
    with pytest.raises(PipelineError, match="cannot be opened"):
        MetricsStore(strange / "below" / "metrics.db")


def test_all_or_nothing_is_entered(tmp_path: Path) -> None:
    bad = MetricEvent("run", 2, None, "new", object(), 0.0)  # type: ignore[arg-type]
    with MetricsStore(tmp_path / "metrics.db") as store:
        with pytest.raises(TypeError):
            store.advance("jsonl:run", [point(1, 1.0), bad], before={}, after={"offset": 1})
        assert store.runs() == []
        assert store.cursor("jsonl:run") == {}
        assert store.advance("jsonl:run", [point(1, 1.0)], before={}, after={"a": 1})
        assert store.names("run") == ["loss"]
        # Another process was faster: what it entered is not entered again.
        assert not store.advance("jsonl:run", [point(9, 1.0)], before={}, after={"a": 2})
        assert store.series("run", "loss").steps.tolist() == [1]
        assert store.cursor("jsonl:run") == {"a": 1}


def collector(log: Path, database: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", COLLECTOR, str(log), str(database)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def end(child: subprocess.Popen[str]) -> list[int]:
    child.send_signal(signal.SIGKILL)
    told, _ = child.communicate()
    return [int(line) for line in told.splitlines()]


def test_two_processes_enter_each_point_once_and_a_third_reads_meanwhile(tmp_path: Path) -> None:
    log, database = tmp_path / "metrics.jsonl", tmp_path / "metrics.db"
    tracker = JsonlTracker(tmp_path)
    children = [collector(log, database) for _ in range(2)]
    lengths = []
    with MetricsStore(database) as store:
        for step in range(1, 301):
            tracker.log_metrics({"loss": float(step)}, step)
            if step % 30 == 0:
                series = store.series("run", "loss")  # never waits, never a part of a line
                assert series.values.tolist() == series.steps.tolist()
                lengths.append(len(series))
                time.sleep(0.01)
        deadline = time.monotonic() + 20
        while len(store.series("run", "loss")) < 300 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert store.series("run", "loss").steps.tolist() == list(range(1, 301))
    tracker.close("finished")
    told = [end(child) for child in children]
    assert sum(map(sum, told)) in (300, 301)  # one of them may have told of the end, too
    assert lengths == sorted(lengths)


def test_a_collector_that_is_killed_loses_and_doubles_nothing(tmp_path: Path) -> None:
    log, database = tmp_path / "metrics.jsonl", tmp_path / "metrics.db"
    moments, step = random.Random(3), 0
    for number in range(4):
        step = max(0, step - 20)
        tracker = JsonlTracker(tmp_path, resume_step=step if number else None)
        child = collector(log, database)
        until = time.monotonic() + moments.uniform(0.02, 0.12)
        while time.monotonic() < until:
            step += 1
            tracker.log_metrics({"loss": moments.random(), "grad": math.nan}, step)
        end(child)
        tracker.close("stopped")
    with MetricsStore(database) as store:
        list(LogWatcher([JsonlSource(log, "run")]).collect(store))
        found = store.series("run", "loss")
        events = [event.step for event in store.events("run", ["resumed"])]
        assert np.isnan(store.series("run", "grad").values).all()
    rows = [json.loads(row) for row in log.read_bytes().splitlines()]
    expected = {row["step"]: row["values"]["loss"] for row in rows if row["kind"] == "metrics"}
    assert dict(zip(found.steps.tolist(), found.values.tolist(), strict=True)) == expected
    assert events == [row["step"] for row in rows if row.get("name") == "resumed"]
    assert not os.path.exists(f"{database}-journal")
