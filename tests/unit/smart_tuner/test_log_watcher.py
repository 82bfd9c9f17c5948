"""Many records as one: which there are, and whose cursor is whose."""

import json
from pathlib import Path

import pytest

from kamerton.core.files import write_json
from kamerton.smart_tuner.log_watcher import LogWatcher, SourceKind, run_folders, sources_in
from kamerton.smart_tuner.metrics_store import MetricsStore
from kamerton.smart_tuner.sources import JsonlSource, MlflowSource, TensorBoardSource
from kamerton.tracking import JsonlTracker


def add_points(folder: Path, first: int, last: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tracker = JsonlTracker(folder)
    for step in range(first, last + 1):
        tracker.log_metrics({"loss": float(step)}, step)
    tracker.flush()


def test_runs_studies_and_their_trials_are_found_and_nothing_else(tmp_path: Path) -> None:
    wanted = [
        "one",
        "studies/cafe",
        "studies/cafe/generations/g1/runs/four",
        "studies/cafe/trials/000/runs/two",
        "studies/cafe/trials/001/runs/three",
    ]
    for name in [*wanted, ".one.partial-3", "one/checkpoints", "cache/x"]:
        add_points(tmp_path / name, 1, 1)
    found = [folder.relative_to(tmp_path).as_posix() for folder in run_folders(tmp_path)]
    assert sorted(found) == wanted
    chosen = sources_in(tmp_path, chosen=lambda run: "trials" in run)
    assert sorted(chosen) == [name for name in wanted if "trials" in name]
    assert isinstance(chosen[wanted[-1]](), JsonlSource)


def test_each_kind_of_record_is_its_own_source(tmp_path: Path) -> None:
    add_points(tmp_path / "run", 1, 1)
    kinds: tuple[SourceKind, ...] = ("tensorboard", "mlflow")
    assert [sources_in(tmp_path, kind) for kind in kinds] == [{}, {}]
    (tmp_path / "run" / "tensorboard").mkdir()
    write_json(tmp_path / "run" / "mlflow.json", {"uri": "sqlite:///x.db", "run_id": ""})
    assert sources_in(tmp_path, "mlflow") == {}  # not made there yet
    write_json(tmp_path / "run" / "mlflow.json", {"uri": "sqlite:///x.db", "run_id": "abc"})
    opened = [sources_in(tmp_path, kind)["run"]() for kind in kinds]
    assert isinstance(opened[0], TensorBoardSource)
    assert isinstance(opened[1], MlflowSource)
    assert [source.run for source in opened] == ["run", "run"]


def test_one_cursor_holds_those_of_all_runs_over_restarts(tmp_path: Path) -> None:
    add_points(tmp_path / "one", 1, 3)
    events, cursor = LogWatcher(discover=lambda: sources_in(tmp_path)).poll({})
    assert len(events) == 3
    add_points(tmp_path / "two", 1, 2)
    add_points(tmp_path / "one", 4, 4)
    again = LogWatcher(discover=lambda: sources_in(tmp_path))
    events, cursor = again.poll(json.loads(json.dumps(cursor)))
    assert sorted((event.run, event.step or 0) for event in events) == [
        ("one", 4),
        ("two", 1),
        ("two", 2),
    ]
    assert again.poll(cursor)[0] == []
    assert sorted(again.runs) == ["one", "two"]


def test_a_large_log_is_collected_in_parts_that_hold_what_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kamerton.smart_tuner.sources.jsonl._CHUNK_BYTES", 400)
    add_points(tmp_path / "one", 1, 100)
    watcher = LogWatcher(discover=lambda: sources_in(tmp_path))
    with MetricsStore(tmp_path / "metrics.db") as store:
        parts = watcher.collect(store)
        first = next(parts)
        assert 0 < len(first) < 10
        parts.close()  # as a process that is killed between two parts
        rest = LogWatcher(discover=lambda: sources_in(tmp_path)).collect(store)
        assert len(first) + sum(map(len, rest)) == 100
        assert store.series("one", "loss").steps.tolist() == list(range(1, 101))


def test_two_kinds_of_record_of_one_run_go_into_one_series(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from kamerton.tracking.tensorboard import TensorBoardTracker

    add_points(tmp_path / "one", 1, 3)
    tracker = TensorBoardTracker(tmp_path / "one" / "tensorboard")
    for step in (3, 4):
        tracker.log_metrics({"loss": float(step)}, step)
    tracker.close("finished")
    kinds: tuple[SourceKind, ...] = ("jsonl", "tensorboard", "jsonl")
    with MetricsStore(tmp_path / "metrics.db") as store:
        counts = []
        for kind in kinds:
            watcher = LogWatcher(discover=lambda kind=kind: sources_in(tmp_path, kind))
            counts.append(sum(map(len, watcher.collect(store))))
        assert counts == [3, 2, 0]  # each kind goes on where it was itself
        assert store.series("one", "loss").steps.tolist() == [1, 2, 3, 4]
