"""Copies of runs, cut at a checkpoint."""

from pathlib import Path

import pytest

from kamerton.core.errors import PipelineError
from kamerton.smart_tuner.fork import checkpoint_at, fork
from kamerton.tracking import JsonlTracker, RunDirectory, list_runs


@pytest.fixture
def source(tmp_path: Path) -> RunDirectory:
    run = RunDirectory.create(
        tmp_path / "runs", name="voice-trial", fingerprint="ab" * 16, params={"train": {"seed": 1}}
    )
    (run.path / "origin.json").write_text("{}")
    (run.path / "mlflow.json").write_text("{}")
    JsonlTracker(run.path).log_metrics({"loss": 1.0}, 30)
    run.checkpoints.mkdir()
    for name in ("step_00000010.pt", "step_00000020.pt", "step_00000030.pt", "last.pt", "best.pt"):
        (run.checkpoints / name).write_text(name)
    run.write_status("stopped", step=33, best_step=30)
    return run


def test_a_copy_stands_where_it_was_cut(source: RunDirectory, tmp_path: Path) -> None:
    copy = fork(source, tmp_path / "child" / "runs", 20)
    assert list_runs(tmp_path / "child" / "runs") == [copy]
    files = {path.name: path.read_text() for path in copy.checkpoints.iterdir()}
    assert files == {
        "step_00000010.pt": "step_00000010.pt", "step_00000020.pt": "step_00000020.pt",
        "last.pt": "step_00000020.pt", "best.pt": "best.pt",
    }  # fmt: skip
    status = copy.status()
    assert (status.state, status.step, status.facts) == ("stopped", 20, {})
    assert (status.name, status.fingerprint) == ("voice-trial", "ab" * 16)
    assert (copy.path / "params.yaml").read_bytes() == (source.path / "params.yaml").read_bytes()
    assert (copy.path / "origin.json").exists()
    # The copy records its own steps, in an MLflow run of its own.
    assert not (copy.path / "metrics.jsonl").exists()
    assert not (copy.path / "mlflow.json").exists()


@pytest.mark.parametrize(
    ("steps", "kept"),
    [([10], {"best.pt", "best_before.pt"}), ([10, 20], {"best.pt", "best_before.pt"}),
     ([10, 30], {"best_before.pt"}), ([30], {"best_before.pt"}), ([10, 25, 30], set())],
)  # fmt: skip
def test_the_best_of_after_the_cut_stays_behind(
    source: RunDirectory, tmp_path: Path, steps: list[int], kept: set[str]
) -> None:
    (source.checkpoints / "best_before.pt").write_text("best_before.pt")
    tracker = JsonlTracker(source.path)
    for step in steps:
        tracker.log_event("best", step=step, quality=1.0 / step)
    tracker.close("stopped")
    copy = fork(source, tmp_path / "child", 20)
    assert {path.name for path in copy.checkpoints.glob("best*")} == kept


def test_what_the_copy_replaces_stays_in_its_parent(source: RunDirectory, tmp_path: Path) -> None:
    copy = fork(source, tmp_path / "child", 20)
    for path in copy.checkpoints.iterdir():
        path.unlink()
    assert checkpoint_at(source, 20).read_text() == "step_00000020.pt"
    assert (source.checkpoints / "last.pt").read_text() == "last.pt"


def test_a_copy_needs_a_checkpoint(source: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no checkpoint of step 25"):
        fork(source, tmp_path / "child", 25)
    assert not list_runs(tmp_path / "child")
