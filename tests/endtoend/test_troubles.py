"""A full disk, a dead MLflow server and a read-only folder are told once and end no run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kamerton.tracking import read_records
from tests.endtoend import trainers
from tests.tiny_corpus import write_stage_inputs

pytestmark = pytest.mark.training

OWN_MOUNTS = ["unshare", "--user", "--map-root-user", "--mount"]
# What must be said, once each, on stderr.
SAID = {
    "full_disk": [
        "could not be saved",
        "checkpoints are written again",
        "the lines wait in memory",
    ],
    "mlflow_closed": ["cannot be reached"],
    "mlflow_dies": ["cannot be reached"],
    "tensorboard_read_only": ["TensorBoard"],
}
EVENTS = {"full_disk": ["checkpoint_failed", "checkpoint_written_again"]}


def _may_mount() -> bool:
    try:
        script = 'd=$(mktemp -d) && mount -t tmpfs tmpfs "$d"'
        done = subprocess.run([*OWN_MOUNTS, "sh", "-c", script], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("calm")
    write_stage_inputs(folder, epochs=500)
    process = trainers.start(folder, trainers.PLAIN)
    process.join(600)
    assert process.exitcode == 0
    return folder


@pytest.mark.parametrize("trouble", SAID)
def test_it_ends_whole_as_if_nothing_had_been(
    tmp_path: Path, repository: Path, calm: Path, trouble: str
) -> None:
    mounts = trouble in ("full_disk", "tensorboard_read_only")
    if mounts and not _may_mount():
        pytest.skip("this system does not let a program mount in a namespace of its own")
    write_stage_inputs(tmp_path, epochs=500)
    program = [sys.executable, "-m", "tests.endtoend.troubled_trainer", trouble, str(tmp_path)]
    done = subprocess.run(
        [*(OWN_MOUNTS if mounts else []), *program], cwd=repository, capture_output=True,
        text=True, timeout=600, check=False,
        env=os.environ | {"NO_PROXY": "127.0.0.1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "kept" if trouble == "full_disk" else tmp_path
    ours, theirs = trainers.figures(folder), trainers.figures(calm)
    assert {step for step, _ in ours} == set(range(1, trainers.STEPS + 1))
    assert ours == theirs
    for name in ("best_model.safetensors", "model.json"):
        assert (tmp_path / "model" / name).read_bytes() == (calm / "model" / name).read_bytes()
    for words in SAID[trouble]:
        assert done.stderr.count(words) == 1, f"{words!r} in: {done.stderr}"
    events = [record.name for record in read_records(trainers.run_of(folder) / "metrics.jsonl")]
    for event in EVENTS.get(trouble, ()):
        assert events.count(event) == 1, event
    assert not trainers.half_written(folder)
