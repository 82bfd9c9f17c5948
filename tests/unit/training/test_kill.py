"""The train command's work in a process that is really killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kamerton.tracking import read_records
from kamerton.training.checkpoint import read_checkpoint
from tests.tiny_corpus import write_stage_inputs
from tests.unit.training.test_loop import assert_equal, only_run

CHILD = """
import sys
from pathlib import Path
from kamerton.core.errors import PipelineError
from kamerton.stages.train import train
from kamerton.training import fingerprint
from tests.tiny_corpus import tiny_params
folder = Path(sys.argv[1])
ports = {name: folder / file for name, file in (
    ("dataset", "dataset"), ("analysis", "analysis.json"), ("best_params", "best_params.yaml"),
    ("model", "model"), ("report", "training.html"))}
fingerprint.code_digest = lambda: "fixed"  # sources that are edited meanwhile make other runs
params = tiny_params(max_steps=60, eval_interval_steps=30, checkpoint_interval_steps=7)
try:
    train(**ports, params=params, runs=folder / "runs")
except PipelineError as error:
    print(error.message, file=sys.stderr)
    raise SystemExit(error.exit_code)
"""


Start = Callable[[Path], "subprocess.Popen[bytes]"]


@pytest.fixture
def start(repository: Path) -> Iterator[Start]:
    """Starts a trainer; none outlives the test."""
    children: list[subprocess.Popen[bytes]] = []

    def begin(folder: Path) -> subprocess.Popen[bytes]:
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], cwd=repository,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
        children.append(child)
        return child

    yield begin
    for child in children:
        if child.poll() is None:
            child.kill()
            child.communicate()


def wait_for_step(folder: Path, step: int, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and child.poll() is None:
        files = list(folder.glob("runs/*/metrics.jsonl"))
        if files and any((record.step or 0) >= step for record in read_records(files[0])):
            return
        time.sleep(0.005)
    pytest.fail(f"step {step} was not reached: {child.communicate()[1].decode()}")


def test_killed_stopped_and_continued_equals_undisturbed(tmp_path: Path, start: Start) -> None:
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    for folder in (calm, rough):
        folder.mkdir()
        write_stage_inputs(folder)
    calm_child = start(calm)

    child = start(rough)
    wait_for_step(rough, 20, child)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert not (rough / "model").exists()
    assert only_run(rough / "runs").status().state == "running"

    child = start(rough)
    wait_for_step(rough, 40, child)
    os.kill(child.pid, signal.SIGTERM)
    _, said = child.communicate()
    assert child.returncode == 75, said.decode()
    assert b"saved" in said

    child = start(rough)
    _, said = child.communicate()
    assert child.returncode == 0, said.decode()
    assert calm_child.communicate() is not None
    assert calm_child.returncode == 0

    for name in ("last.pt", "best.pt"):
        assert_equal(
            read_checkpoint(only_run(rough / "runs").checkpoints / name),
            read_checkpoint(only_run(calm / "runs").checkpoints / name),
        )
    for name in ("best_model.safetensors", "best_model.pt", "model.json"):
        assert (rough / "model" / name).read_bytes() == (calm / "model" / name).read_bytes()
    assert (rough / "training.html").read_bytes() == (calm / "training.html").read_bytes()
