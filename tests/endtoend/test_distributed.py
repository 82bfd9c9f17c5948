"""Two processes that train together, started by torchrun as a person would, and what kills them.

Whatever happens in between, the losses are those of one process that accumulates two batches.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from kamerton.tracking import read_records
from tests.tiny_corpus import tiny_params, write_stage_inputs

pytestmark = pytest.mark.training

STEPS = 60
SECTIONS = ("audio", "train", "tracking")
KILL_AT = 9  # between two checkpoints
SECONDS = 120  # for a run, on a machine with much else to do
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

Figures = dict[tuple[int, str], float]


def write_project(folder: Path, *, accumulation: int) -> Path:
    write_stage_inputs(folder)
    params = tiny_params(
        max_steps=STEPS, accumulation=accumulation, preset="quality", eval_interval_steps=20,
        monitoring={"log_interval_steps": 1},
    ).model_dump(mode="json")  # fmt: skip
    chosen = {section: params[section] for section in SECTIONS}
    (folder / "params.yaml").write_text(yaml.safe_dump(chosen))
    return folder


def start(project: Path, *launcher: str) -> subprocess.Popen[str]:
    command = [
        sys.executable, *launcher, "-m", "kamerton", "train", "--dataset", "dataset", "--analysis",
        "analysis.json", "--best-params", "best_params.yaml", "--model", "model", "--report",
        "training.html",
    ]  # fmt: skip
    return subprocess.Popen(
        command, cwd=project, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[str], seconds: float = SECONDS) -> tuple[int, str, str]:
    try:
        out, errors = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, out, errors


def status(project: Path) -> dict[str, object]:
    (found,) = project.glob("runs/*/status.json")
    return dict(json.loads(found.read_text()))


def at_step(project: Path, process: subprocess.Popen[str], step: int) -> None:
    """Wait until the run has made ``step`` steps."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        for file in project.glob("runs/*/metrics.jsonl"):
            made = [record.step or 0 for record in read_records(file)]
            if max(made, default=0) >= step:
                return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    raise AssertionError(f"step {step} was not reached")


def ranks(launcher: subprocess.Popen[str]) -> dict[int, int]:
    """Process of each rank."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if folder.name.isdigit() and parent == launcher.pid:
                words = (folder / "environ").read_bytes().decode().split("\0")
                pairs = dict(word.split("=", 1) for word in words if "=" in word)
                found[int(pairs["RANK"])] = int(folder.name)
        except (OSError, KeyError):
            continue
    return found


def figures(project: Path) -> Figures:
    """All losses and scores by step and name; the newest where a step was made again."""
    (file,) = project.glob("runs/*/metrics.jsonl")
    return {
        (record.step, name): value
        for record in read_records(file)
        if record.kind == "metrics" and record.step is not None
        for name, value in record.values.items()
        if not name.startswith("system/")
    }


def require_equal(project: Path, reference: Path) -> None:
    ours, theirs = figures(project), figures(reference)
    assert ours.keys() == theirs.keys()
    steps = {step for step, name in ours if name == "train_loss"}
    assert steps == set(range(1, STEPS + 1))
    assert any(name == "val_loss" for _, name in ours)
    assert ours == pytest.approx(theirs, abs=1e-5, rel=1e-5)
    weights = [
        torch.load(next(folder.glob("runs/*/checkpoints/last.pt")), weights_only=True)["model"]
        for folder in (project, reference)
    ]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process that accumulates two batches per step."""
    project = write_project(tmp_path_factory.mktemp("alone") / "project", accumulation=2)
    code, _, errors = finish(start(project))
    assert code == 0, errors
    return project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "project", accumulation=1)


def resume(project: Path, reference: Path) -> None:
    """The same command goes on with the run, to the losses of the reference."""
    code, out, errors = finish(start(project, *TORCHRUN))
    assert code == 0, errors
    assert out.count("validation mel loss") == 1  # one process tells of the run
    assert errors.count("next: kamerton evaluate") == 1
    assert status(project)["state"] == "finished"
    assert (project / "model").is_dir()
    require_equal(project, reference)


def test_all_processes_killed(project: Path, reference: Path) -> None:
    process = start(project, *TORCHRUN)
    at_step(project, process, KILL_AT)
    for pid in [process.pid, *ranks(process).values()]:
        os.kill(pid, signal.SIGKILL)
    finish(process)
    assert status(project)["state"] == "running"
    resume(project, reference)


@pytest.mark.parametrize("rank", [0, 1])
def test_one_process_killed_ends_the_run_and_loses_nothing(
    project: Path, reference: Path, rank: int
) -> None:
    process = start(project, *TORCHRUN)
    at_step(project, process, KILL_AT)
    os.kill(ranks(process)[rank], signal.SIGKILL)
    killed = time.monotonic()
    code, _, errors = finish(process)
    assert time.monotonic() - killed < 30
    assert code == 1
    assert "of this training ended before its work was done; this one ends too." in errors
    resume(project, reference)


def test_killing_the_launcher_leaves_no_process_behind(project: Path) -> None:
    process = start(project, *TORCHRUN)
    at_step(project, process, 1)
    pids = ranks(process).values()
    os.kill(process.pid, signal.SIGKILL)
    killed = time.monotonic()
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() - killed < 30
        time.sleep(0.1)
    finish(process)


@pytest.mark.parametrize("to", ["launcher", "rank 1"])
def test_a_stop_on_request_is_saved(project: Path, reference: Path, to: str) -> None:
    process = start(project, *TORCHRUN)
    at_step(project, process, KILL_AT)
    os.kill(process.pid if to == "launcher" else ranks(process)[1], signal.SIGTERM)
    code, _, errors = finish(process)
    assert code == 1  # torchrun's own; each of its processes ended with 75
    assert "training stopped on request at step" in errors
    now = status(project)
    assert now["state"] == "stopped"
    assert isinstance(now["step"], int)
    assert KILL_AT <= now["step"] < STEPS
    resume(project, reference)
