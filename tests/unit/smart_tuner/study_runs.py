"""Studies without a trainer, for tests of the search."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kamerton.config.schema import Params
from kamerton.smart_tuner.opt_engine import (
    Evaluation,
    OptimizationEngine,
    RunningTrial,
    TrialResult,
)
from kamerton.tracking.names import ATTENTION_SCORE, VAL_MEL_LOSS

SPACE = {
    "train.learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-2},
    "train.decoder_dropout": {"type": "uniform", "low": 0.0, "high": 0.5},
}
MIXED = {
    **SPACE,
    "train.batch_size": {"type": "choice", "choices": [8, 16, 32]},
    "audio.mel_fmax_hz": {"type": "choice", "choices": [7600.0, None]},
    "train.gate_pos_weight": {"type": "int", "low": 1, "high": 9},
}


def make_params(space: dict[str, Any] | None = None, **tune: Any) -> Params:
    fields = {"trials": 12, "trial_steps": 100, "search_space": space or MIXED, **tune}
    return Params.model_validate({"tune": fields})


def curve(params: dict[str, Any], step: int) -> Evaluation:
    rate = float(params["train.learning_rate"])
    quality = 1 / (1 + abs(math.log10(rate) + 3) + float(params["train.decoder_dropout"]))
    learned = quality * step / (step + 30)
    return Evaluation(step, {VAL_MEL_LOSS: 2.0 - learned, ATTENTION_SCORE: learned})


def run_trial(trial: RunningTrial) -> None:
    for step in range(20, 101, 20):
        if trial.report(curve(trial.params, step)):
            return


def run_study(journal: Path, params: Params, interrupt: Callable[[int], bool] | None = None) -> (
    list[TrialResult]
):  # fmt: skip
    """Run to the end; where ``interrupt`` says so, the engine is dropped and opened again."""
    while True:
        engine = OptimizationEngine(journal, params, name="study")
        while trial := engine.next_trial():
            run_trial(trial)
            if interrupt is not None and interrupt(trial.number):
                break
            engine.finish(trial)
        else:
            return engine.finished()
