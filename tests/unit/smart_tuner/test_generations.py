"""The warm loop on a trainer that takes no time."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kamerton.config.schema import Params
from kamerton.core.errors import PipelineError, StoppedError
from kamerton.core.files import sha256_file
from kamerton.smart_tuner import generations as module
from kamerton.smart_tuner.generation_tree import CONTROL, FILE, GenerationTree
from kamerton.smart_tuner.generations import finished_generations, run_generations
from kamerton.smart_tuner.objective import Objective
from kamerton.smart_tuner.opt_engine import TrialResult
from kamerton.smart_tuner.param_scheduler import ParamScheduler
from kamerton.smart_tuner.recorder import StudyRecorder
from kamerton.smart_tuner.study import StudyFolder
from kamerton.smart_tuner.trainer_wrapper import TrainerWrapper
from kamerton.tracking import list_runs, read_records
from kamerton.tracking.names import ATTENTION_SCORE, GATE_F1, VAL_MEL_LOSS

FAKE = Path(__file__).with_name("fake_warm_trainer.py")
STEPS = 80
OBJECTIVE = Objective({VAL_MEL_LOSS: 1.0, ATTENTION_SCORE: 0.5, GATE_F1: 0.5})
BEST = TrialResult(0, "complete", {}, objective=2.0)
FASTER = {"learning_rate": 2.0}
SLOWER = {"learning_rate": 0.5}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    real = TrainerWrapper.__init__

    def quick(self: TrainerWrapper, command: Any, **more: Any) -> None:
        real(self, command, **more, poll_seconds=0.01)

    monkeypatch.setattr(TrainerWrapper, "__init__", quick)


def propose(monkeypatch: pytest.MonkeyPatch, *deltas: dict[str, float]) -> None:
    monkeypatch.setattr(ParamScheduler, "propose", lambda *_: list(deltas))


def make_params(**generations: Any) -> Params:
    asked = {"count": 1, "candidates": 2, "length_share": 0.3, **generations}
    tune = {"trials": 1, "trial_steps": STEPS, "generations": asked}
    return Params.model_validate({"tune": tune, "tracking": {"mlflow_uri": None}})


def go(tmp_path: Path, params: Params, *, best: TrialResult = BEST,
       stop: Callable[[], bool] = lambda: False) -> GenerationTree:  # fmt: skip
    folder = StudyFolder(tmp_path / "study", tmp_path)
    folder.path.mkdir(exist_ok=True)
    recorder = StudyRecorder(folder, params)
    try:
        return run_generations(
            folder, params, best, OBJECTIVE, command=[sys.executable, str(FAKE)],
            recorder=recorder, stop=stop,
        )  # fmt: skip
    finally:
        recorder.close("finished")


def test_a_change_that_helps_is_accepted_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose(monkeypatch, FASTER)
    tree = go(tmp_path, make_params())
    (generation,) = tree.generations
    assert generation.accepted == 1
    assert generation.reason.startswith("learning_rate × 2 beat the control")
    (change,) = tree.best_changes
    assert change.learning_rate == 2.0
    assert change.from_share == generation.from_step / STEPS
    assert tree.kept
    assert tree.objective is not None
    assert tree.objective < BEST.objective  # type: ignore[operator]
    print(tree)
