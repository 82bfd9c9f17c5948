"""A real study with generations that is killed goes on as one that was not."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from kamerton.tracking import RunDirectory, read_records

pytest.importorskip("optuna")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="trainers die with their tuner on Linux"),
]

STUDY = Path(__file__).with_name("tiny_study.py")
SECONDS = 900.0


def start(folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, str(STUDY), str(folder)], env=environment)


def tree(folder: Path) -> dict[str, Any]:
    (file,) = folder.glob("runs/studies/*/generations.json")
    # Names of run directories hold the time, and hashes of checkpoints their files' making.
    text = re.sub(r"\d{8}T\d{6}Z", "", file.read_text())
    found: dict[str, Any] = json.loads(text)
    return found


def stretch_begun(folder: Path, label: str, step: int) -> bool:
    for file in folder.glob(f"runs/studies/*/generations/{label}/runs/*/metrics.jsonl"):
        return any((record.step or 0) >= step for record in read_records(file))
    return False


def kill_in(folder: Path, label: str, step: int) -> None:
    """Kill the tuner, and with it its trainer, once a stretch has come so far."""
    process, deadline = start(folder), time.monotonic() + SECONDS
    while not stretch_begun(folder, label, step):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_a_killed_study_makes_the_same_generations(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert start(whole).wait(SECONDS) == 0
    kill_in(killed, "trunk", 3)
    kill_in(killed, "g1c1", 22)
    kill_in(killed, "g2c0-probe", 37)
    assert start(killed).wait(SECONDS) == 0
    assert tree(killed) == tree(whole)
    best = (whole / "best_params.yaml").read_bytes()
    assert (killed / "best_params.yaml").read_bytes() == best

    found = tree(whole)
    assert [len(item["candidates"]) for item in found["generations"]] == [3, 3]
    assert all(
        one["state"] == "complete" for item in found["generations"] for one in item["candidates"]
    )
    assert ("changes" in yaml.safe_load(best)["train"]) == found["kept"]
    for generation in found["generations"]:
        for one in generation["candidates"][1:]:
            for name, factor in one["delta"].items():
                assert one["effective"][name] / _before(found, generation, name) == pytest.approx(
                    factor
                )
    (study,) = whole.glob("runs/studies/*")
    ends = [RunDirectory(path).status().state for path in study.glob("generations/g*c?/runs/2*")]
    # Ended by SIGINT, saved, and gone on from; steps this short may all be over before it comes.
    assert "stopped" in ends
    assert set(ends) <= {"stopped", "finished"}
    assert not list(study.rglob("*.pt"))


def _before(found: dict[str, Any], generation: dict[str, Any], name: str) -> float:
    control = generation["candidates"][0]["effective"]
    assert (generation["number"] == 1) <= (control == {})
    return float(control.get(name, 1.0))
