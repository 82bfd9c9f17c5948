import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kamerton.cli import main
from kamerton.core.files import file_lock
from kamerton.smart_tuner.metrics_store import MetricsStore
from kamerton.tracking import JsonlTracker, RunDirectory


def make_run(runs: Path, name: str = "voice") -> RunDirectory:
    run = RunDirectory.create(runs, name=name, fingerprint="abcdef12", params={})
    tracker = JsonlTracker(run.path)
    for step in range(1, 31):
        tracker.log_metrics({"train_loss": 1.0 / step}, step)
    tracker.log_metrics({"val_mel_loss": 0.5}, 30)
    tracker.log_event("phase", step=30, phase=1, reason="goal")
    tracker.flush()
    return run


def watch(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main.exit_code(["runs", "watch", *arguments])
    found = capsys.readouterr()
    return code, found.out, found.err


def test_one_picture_then_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path)
    code, out, _ = watch(capsys, "--runs", str(tmp_path), "--once")
    assert code == 0
    assert "killed" in out
    assert "val mel loss" in out
    assert max(map(len, out.splitlines())) <= 80
    assert "phase" in (tmp_path / "smart_tuner.log").read_text(encoding="utf-8")
    with MetricsStore(tmp_path / "metrics.db") as store:
        assert len(store.series(store.runs()[0], "train_loss")) == 30
    watch(capsys, "--runs", str(tmp_path), "--once")
    assert (tmp_path / "smart_tuner.log").read_text(encoding="utf-8").count("phase  ") == 1


def test_json_of_all_and_of_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path)
    make_run(tmp_path, "other")
    code, out, _ = watch(capsys, "other", "--runs", str(tmp_path), "--once", "--json")
    assert code == 0
    frame = json.loads(out)
    assert [item["run"].split("-")[1] for item in frame["runs"]] == ["other"]
    assert frame["runs"][0]["curves"]["val_mel_loss"]["values"] == [0.5]
    # The named run is over: a line per event, then the end by itself.
    code, out, _ = watch(capsys, run.path.name, "--runs", str(tmp_path), "--json")
    assert code == 0
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["kind"] for event in events] == ["point"] * 31 + ["event"]
    assert events[-1]["fields"] == {"phase": 1, "reason": "goal"}


def test_tensorboard_files_are_another_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    from kamerton.tracking.tensorboard import TensorBoardTracker

    run = make_run(tmp_path)
    tracker = TensorBoardTracker(run.path / "tensorboard")
    tracker.log_metrics({"train_loss": 0.25}, 77)
    tracker.close("finished")
    code, out, _ = watch(
        capsys, "last", "--runs", str(tmp_path), "--source", "tensorboard", "--once",
        "--store", str(tmp_path / "else" / "tb.db"),
    )  # fmt: skip
    assert code == 0
    assert "step 77" in out
    assert not (tmp_path / "metrics.db").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["nothing"], "no run in"), (["last"], "no run in"), (["--runs", "/absent"], "is no folder")],
)
def test_what_is_not_there_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    code, _, err = watch(capsys, "--runs", str(tmp_path), *arguments)
    assert code == 2
    assert said in err
    assert "fix:" in err


def test_it_follows_a_run_from_its_beginning_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kamerton", "runs", "watch", "--interval", "0.2"]
    with (tmp_path / "out").open("w") as out:
        child = subprocess.Popen(
            [*command, "--runs", str(tmp_path)], stdout=out, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 30
            while not (tmp_path / "metrics.db").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            make_run(tmp_path)
            while "phase" not in (tmp_path / "out").read_text() and time.monotonic() < deadline:
                time.sleep(0.05)
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=20)
        finally:
            child.kill()
            child.wait()
    assert child.returncode == 0
    assert b"the runs go on" in said
    told = (tmp_path / "out").read_text()
    assert "step 30  val mel loss 0.5" in told
    assert "phase 1, reason goal" in told


def test_a_study_is_watched_until_its_tuner_is_done(tmp_path: Path) -> None:
    study = tmp_path / "studies" / "cafe"
    run = make_run(study / "trials" / "000" / "runs")
    run.write_status("finished", step=30)
    tracker = JsonlTracker(study)
    tracker.log_metrics({"objective": 0.5, "complete": 1.0}, 0)
    tracker.flush()
    command = ["runs", "watch", "cafe", "--runs", str(tmp_path), "--interval", "0.2", "--json"]
    watching = threading.Thread(target=main.exit_code, args=(command,), daemon=True)
    with file_lock(study / ".lock"):  # as a tuner does, here between two trials
        watching.start()
        watching.join(1.5)
        assert watching.is_alive()
    watching.join(20)
    assert not watching.is_alive()
