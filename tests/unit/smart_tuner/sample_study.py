"""A study that was never made, as files and dataclasses: for tests of its page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from kamerton.config.schema import Params
from kamerton.smart_tuner.early_stop import decision_fields, decision_figures
from kamerton.smart_tuner.generation_tree import Candidate, Generation, GenerationTree
from kamerton.smart_tuner.report_story import StudyStory, read_story
from kamerton.smart_tuner.study import StudyFolder
from kamerton.smart_tuner.trials import TrialResult
from kamerton.stopping.types import Decision, Vote
from kamerton.tracking import JsonlTracker, RunDirectory, names

STEPS = 200
EVERY = 20
SPACE = {
    "train.learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-2},
    "train.decoder_dropout": {"type": "uniform", "low": 0.0, "high": 0.5},
    "train.batch_size": {"type": "choice", "choices": [8, 16, 32]},
    "audio.mel_fmax_hz": {"type": "choice", "choices": [8000.0, None]},
}
TUNE = Params.model_validate(
    {"tune": {"trial_steps": STEPS, "trials": 6, "search_space": SPACE}}
).tune  # fmt: skip


def values_at(number: int, step: int) -> dict[str, float]:
    """Evaluations of a trial: the higher its number, the faster it learns, but for 2."""
    speed = {2: 0.2}.get(number, 0.6 + 0.2 * number)
    learned = speed * step / (step + 90)
    bump = 0.02 * math.sin(step / 7 + number)
    return {
        names.VAL_MEL_LOSS: 2.0 - learned + bump,
        names.ATTENTION_SCORE: min(0.97, learned),
        names.GATE_F1: min(1.0, 0.2 + learned),
        names.ATTENTION_COVERAGE: min(1.0, 0.3 + 0.7 * learned),
        names.ATTENTION_FOCUS: 0.1 + 0.5 * learned,
        names.ATTENTION_ENTROPY: max(0.0, 0.9 - 0.8 * learned),
        names.ATTENTION_MONOTONICITY: 0.5 + 0.4 * learned,
        names.ALIGNED_SHARE: round(min(1.0, learned), 1),
    }


def objective_at(number: int, step: int) -> float:
    given = values_at(number, step)
    parts = (given[names.VAL_MEL_LOSS] / 1.5, 1 - given[names.ATTENTION_SCORE],
             1 - given[names.GATE_F1])  # fmt: skip
    return sum(w * part for w, part in zip((0.4, 0.25, 0.2), parts, strict=True)) / 0.85


def params_of(number: int) -> dict[str, Any]:
    return {
        "train.learning_rate": 10 ** (-2 - 0.5 * number), "train.decoder_dropout": 0.08 * number,
        "train.batch_size": (8, 16, 32)[number % 3],
        "audio.mel_fmax_hz": None if number % 2 else 8000.0,
    }  # fmt: skip


def result_of(
    number: int, state: Any = "complete", last: int = STEPS, **fields: Any
) -> TrialResult:
    curve = {step: objective_at(number, step) for step in range(EVERY, last + 1, EVERY)}
    best = min(curve, key=lambda step: curve[step])
    given = {"objective": curve[best], "step": best, "metrics": values_at(number, best),
             "curve": curve}  # fmt: skip
    return TrialResult(number, state, params_of(number), **(given | fields))


def results() -> list[TrialResult]:
    return [
        result_of(0),
        result_of(1),
        result_of(2, "pruned", 60, reason="worse than others at step 60"),
        TrialResult(3, "failed", params_of(3), reason="the trainer ended with exit code 1"),
        result_of(4, last=140),
        result_of(5),
    ]


def decision(step: int, *, stop: bool = False) -> Decision:
    wait = step - 120 if step > 120 else 0
    return Decision(
        step=step, stop=stop, cause="patience" if stop else "",
        reason="nothing better for 60 steps, patience is 55" if stop else "patience is not used up",
        votes=(
            Vote("cusum", "statistical_consensus", -0.2, 0.5, "the mean has not shifted"),
            Vote("mann_kendall", "statistical_consensus", 0.1, 0.9, "no trend is left"),
            Vote("convergence", "bayesian_prediction", 0.6, 0.8, "3 % are left to be gained"),
            Vote("attention_health", "attention_analysis", -0.9, 0.9, "attention <still> sharpens"),
            Vote("overfitting", None, 0.3, 0.4, "the gap grows slowly"),
        ),
        evidence=0.3, patience_steps=55.0, waited_steps=wait, best_step=120.0,
        overfitting="medium", overfitting_score=0.4, status="converged" if stop else "converging",
    )  # fmt: skip


def write_run(
    run: RunDirectory, number: int, last: int, *, first: int = 0, stop_at: int = 0
) -> None:
    """The record of a trial's trainer, with a recovery in the middle of trial 1."""
    tracker = JsonlTracker(run.path)
    for step in range(10, last + 1, 10):
        tracker.log_metrics({names.TRAIN_LOSS: 3.0 / step}, step)
        if step % EVERY:
            continue
        said = decision(step, stop=step == stop_at)
        tracker.log_event("decision", step=step, **decision_fields(said), planned_steps=STEPS)
        tracker.log_metrics(values_at(number, step) | decision_figures(said), step)
        if step == stop_at:
            tracker.log_event("stop", step=step, cause=said.cause, reason=said.reason)
        if number == 1 and step == 80:
            tracker.log_event("recovery", step=step, cause="explosion", values={},
                              action="went back to <a> checkpoint")  # fmt: skip
        if number == 1 and step == 120:
            tracker.log_event("recovery_effect", step=step, cause="explosion", verdict="helped",
                              reverted=False, quality_before=4.25, quality_after=1.5)  # fmt: skip
    tracker.close("finished")


def candidate(generation: int, number: int, delta: dict[str, float], base: float, start: int,
              end: int, folder: StudyFolder) -> Candidate:  # fmt: skip
    label = f"g{generation}c{number}"
    run = RunDirectory.create(folder.path / "generations" / label / "runs", name="g",
                              fingerprint="e" * 8, params={})  # fmt: skip
    write_run(run, 5, end + 20)
    curve = {step: base - 0.0004 * (step - start) for step in range(start + 10, end + 1, 10)}
    probe = {end + 2 * i: base - 0.0004 * (end - start) - 0.01 * i for i in (1, 2, 3, 4)}
    return Candidate(number, delta, "complete", score=probe[end + 6], curve=curve, probe=probe,
                     effective=delta, run=str(run.path.relative_to(folder.path)))  # fmt: skip


def tree_of(folder: StudyFolder, generations: int = 2) -> GenerationTree:
    made, base = [], 0.62
    for number in range(1, generations + 1):
        start = 120 + 30 * (number - 1)
        candidates = [
            candidate(number, index, delta, base - gain, start, start + 30, folder)
            for index, (delta, gain) in enumerate(
                [({}, 0.0), ({"learning_rate": 0.5}, 0.02 * (number % 2)),
                 ({"dropout": 1.25, "guided_attention_weight": 0.8}, -0.015)]
            )
        ]  # fmt: skip
        failed = Candidate(3, {"weight_decay": 2.0}, "failed", reason="its trainer <failed>")
        made.append(
            Generation(number, start, start + 30, "trunk" if number == 1 else made[-1].label,
                       "a" * 64, (*candidates, failed), sigma=0.006,
                       accepted=1 if number % 2 else 0, reason=f"reason {number}")
        )  # fmt: skip
        base -= 0.02
    changes = ({"from_share": 0.6, "learning_rate": 0.5},)
    return GenerationTree("key", 5, 0.61, STEPS, tuple(made), changes, 0.2832, kept=True,
                          verdict="with the changes a whole run reaches 0.2832")  # fmt: skip


def write_study(path: Path) -> StudyFolder:
    """Runs of all trials but 3, whose trainer failed at once."""
    folder = StudyFolder(path / "studies" / "0123456789abcdef", path)
    for number, last in ((0, STEPS), (1, STEPS), (2, 60), (4, 140), (5, STEPS)):
        run = RunDirectory.create(
            folder.trial_runs(number), name="trial", fingerprint="f" * 8, params={}
        )
        write_run(run, number, last, stop_at=140 if number == 4 else 0)
    return folder


def make_story(path: Path, *, generations: int = 2, **changed: Any) -> StudyStory:
    folder, found = write_study(path), results()
    tree = tree_of(folder, generations) if generations else None
    shares = {"train.learning_rate": 0.7, "train.decoder_dropout": 0.3}
    given = {"shares": shares, "tree": tree, "from_history": 1, **changed}
    return read_story(folder, found, found[5], TUNE, **given)
