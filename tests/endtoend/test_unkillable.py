"""Training that is killed twenty times ends like one that nobody touched, bit for bit."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kamerton.training.checkpoint import read_checkpoint
from tests.endtoend import trainers
from tests.tiny_corpus import write_stage_inputs
from tests.unit.training.test_loop import assert_equal

pytestmark = [
    pytest.mark.training,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks and kills"),
]

KILLS = 20
WRITES = 6  # of them while a checkpoint is written
EARLY = 3  # of them before the first step
STEPS_BETWEEN = 14  # at most, beyond what is on disk


@pytest.mark.parametrize("changes", [trainers.PLAIN, trainers.QUALITY], ids=["plain", "quality"])
def test_killed_at_any_instant_nothing_is_lost(
    tmp_path: Path, changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    for folder in (calm, rough):
        folder.mkdir()
        write_stage_inputs(folder, epochs=500)
    undisturbed = trainers.start(calm, changes)
    dice = random.Random(20)
    plan = ["write"] * WRITES + ["early"] * EARLY + ["step"] * (KILLS - WRITES - EARLY)
    dice.shuffle(plan)
    hits = Counter(_kill(rough, changes, kind, dice) for kind in plan)
    last = trainers.start(rough, changes)
    for process in (last, undisturbed):
        process.join(600)
        assert process.exitcode == 0
    with capsys.disabled():
        print(f"\n{len(plan)} kills: {dict(hits)}")
    assert hits["while writing"] >= 5
    _require_equal(rough, calm)


def _kill(folder: Path, changes: dict[str, Any], kind: str, dice: random.Random) -> str:
    """Start a trainer and kill it at a moment of this kind; what was hit."""
    before = trainers.logged_step(folder)
    process = trainers.start(folder, changes)
    alive = True
    if kind == "early":
        time.sleep(dice.uniform(0.0, 0.6))
    elif kind == "step":
        target = before + dice.randint(1, STEPS_BETWEEN)
        alive = trainers.wait_until(lambda: trainers.logged_step(folder) >= target, process)
        time.sleep(dice.uniform(0.0, 0.03))
    else:
        skip = dice.randint(0, 1)  # the first write, or one after it
        alive = trainers.wait_until(lambda: trainers.logged_step(folder) > before + 7 * skip,
                                    process)  # fmt: skip
        alive = alive and trainers.wait_until(
            lambda: bool(trainers.half_written(folder)), process, pause=0.0
        )
    assert alive, f"the trainer ended by itself with {process.exitcode} at a kill of kind {kind}"
    process.kill()
    process.join(60)
    assert process.exitcode == -9
    return "while writing" if trainers.half_written(folder) else "between writes"


def _require_equal(rough: Path, calm: Path) -> None:
    for name in ("last.pt", "best.pt"):
        ours = read_checkpoint(trainers.run_of(rough) / "checkpoints" / name)
        theirs = read_checkpoint(trainers.run_of(calm) / "checkpoints" / name)
        assert_equal(ours, theirs, name)
    for name in ("model/best_model.safetensors", "model/best_model.pt", "model/model.json",
                 "training.html"):  # fmt: skip
        assert (rough / name).read_bytes() == (calm / name).read_bytes(), name
    ours, theirs = trainers.figures(rough), trainers.figures(calm)
    assert {step for step, _ in ours} == set(range(1, trainers.STEPS + 1))
    assert ours == theirs
    names = [
        {path.name for path in (trainers.run_of(folder) / "checkpoints").iterdir()}
        for folder in (rough, calm)
    ]
    assert names[0] == names[1]  # nothing half written is left
