"""The training loop, to be read from top to bottom.

A run is a function of its seed: before every step the generator is seeded with (seed, step), and
batches and learning rate follow from the step alone. So a run that was killed and goes on from its
last checkpoint makes the same numbers, bit for bit on a CPU, as one that was never disturbed.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any

import torch

from kamerton.config.schema import AudioParams, TrainParams
from kamerton.core.errors import PipelineError, StoppedError
from kamerton.core.progress import Progress
from kamerton.core.stop import StopRequest
from kamerton.model.tacotron2.model import Tacotron2
from kamerton.tracking import RunDirectory, Tracker, names
from kamerton.training.checkpoint import Checkpoints
from kamerton.training.controls import Controls
from kamerton.training.data import TrainingData
from kamerton.training.evaluation import Evaluation, evaluate
from kamerton.training.illustration import illustrate
from kamerton.training.schedule import learning_rate
from kamerton.training.state import TrainState
from kamerton.training.step import StepResult, Trainee, train_step

MAX_SKIPPED_IN_A_ROW = 10  # then the run is beyond what skipping can save


@dataclass(frozen=True, slots=True)
class Job:
    """All that a run works with.

    Attributes:
        illustrated: How sound is made of mels for pictures and samples; None makes none.
    """

    model: Tacotron2
    optimizer: torch.optim.Optimizer
    data: TrainingData
    train: TrainParams
    total_steps: int
    run: RunDirectory
    checkpoints: Checkpoints
    tracker: Tracker
    illustrated: AudioParams | None = None


def train_model(
    job: Job, state: TrainState, *, stop: StopRequest, on_progress: Progress
) -> TrainState:
    """Train from ``state`` to the end of the budget.

    Model and optimiser must be those of ``state``.

    Raises:
        StoppedError: a stop was asked for; everything is saved.
        PipelineError: too many steps in a row gave numbers that are not finite.
    """
    train = job.train
    trainee = Trainee(job.model, job.optimizer, train)
    job.model.train()
    while state.step < job.total_steps and not out_of_patience(state, job):
        controls = controls_at(state, job.total_steps, train)
        torch.manual_seed(_step_seed(train.seed, state.step))
        result = train_step(trainee, [job.data.batch(state.step)], controls)
        state = _after(state, result, job)
        _log_step(job, state, result)

        last = state.step == job.total_steps
        if last or state.step % train.eval_interval_steps == 0:
            state = _evaluate(job, state)
        scheduled = last or state.step % train.checkpoint_interval_steps == 0
        stopping = stop.requested and not last  # asked once: what is not saved must not stop
        if scheduled or stopping:
            job.checkpoints.save(job.model, job.optimizer, state, scheduled=scheduled)
            job.run.write_status("running", step=state.step, **_facts(state))
        note = f"loss {float(result.losses.total):.3f}  attention {_best_attention(state):.2f}"
        on_progress(state.step, job.total_steps, note)
        if stopping:
            raise StoppedError(
                f"training stopped on request at step {state.step} of {job.total_steps}; "
                f"it is saved in {job.run.path}."
            )
    if state.step < job.total_steps:  # out of patience, perhaps between two checkpoints
        job.checkpoints.save(job.model, job.optimizer, state, scheduled=False)
    return state


def controls_at(state: TrainState, total: int, train: TrainParams) -> Controls:
    """What the next step is made with."""
    return Controls(
        learning_rate=learning_rate(state.step, total, train),
        clip_norm=train.grad_clip_thresh,
        guided_attention_weight=train.guided_attention_weight,
        owners={
            "learning_rate": "schedule", "clip_norm": "params", "guided_attention_weight": "params",
        },
    )  # fmt: skip


def out_of_patience(state: TrainState, job: Job) -> bool:
    """Whether the given share of the budget has passed without a better evaluation."""
    share = job.train.patience_share
    if share is None or state.best_step == 0:
        return False
    return state.evaluated_step - state.best_step >= share * job.total_steps


def _step_seed(seed: int, step: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}".encode()).digest()[:7])


def _after(state: TrainState, result: StepResult, job: Job) -> TrainState:
    step = state.step + 1
    position = job.data.plan.position(step)
    skipped_in_a_row = 0 if result.applied else state.skipped_in_a_row + 1
    if not result.applied:
        job.tracker.log_event(
            "non_finite_step", step=step, loss=str(float(result.losses.total)),
            grad_norm=str(result.grad_norm),
        )  # fmt: skip
    if skipped_in_a_row > MAX_SKIPPED_IN_A_ROW:
        raise PipelineError(
            f"Training diverged: {skipped_in_a_row} steps in a row, up to {step}, were not finite.",
            hint="lower train.learning_rate or train.grad_clip_thresh",
        )
    return dataclasses.replace(
        state, step=step, epoch=position.epoch, batch=position.batch,
        skipped=state.skipped + (not result.applied), skipped_in_a_row=skipped_in_a_row,
    )  # fmt: skip


def _log_step(job: Job, state: TrainState, result: StepResult) -> None:
    interval = job.train.monitoring.log_interval_steps
    if state.step != 1 and state.step % interval and state.step != job.total_steps:
        return
    raw, weighted = result.losses.raw, result.losses.weighted
    values = {
        names.TRAIN_LOSS: float(result.losses.total),
        names.TRAIN_MEL_LOSS: float(raw["mel_after"]),
        names.TRAIN_GATE_LOSS: float(raw["gate"]),
        names.TRAIN_GUIDED_ATTENTION_LOSS: float(raw["guided_attention"]),
        names.GRAD_NORM: result.grad_norm,
        names.LEARNING_RATE: float(job.optimizer.param_groups[0]["lr"]),
        "epoch": float(state.epoch),
        "skipped_steps": float(state.skipped),
    }
    values |= {f"train_{name}_weighted": float(value) for name, value in weighted.items()}
    job.tracker.log_metrics(values, state.step)


def _evaluate(job: Job, state: TrainState) -> TrainState:
    evaluation = evaluate(job.model, job.data, job.train)
    job.tracker.log_metrics(evaluation.values, state.step)
    state = dataclasses.replace(state, evaluated_step=state.step)
    if evaluation.quality < state.best_quality:
        state = _new_best(job, state, evaluation)
    if job.illustrated is not None:
        illustrate(job.tracker, evaluation.example, job.illustrated, state.step)
    job.tracker.flush()
    return state


def _new_best(job: Job, state: TrainState, evaluation: Evaluation) -> TrainState:
    state = dataclasses.replace(
        state, best_step=state.step, best_quality=evaluation.quality, best_values=evaluation.values
    )
    job.checkpoints.save_best(job.model, job.optimizer, state)
    job.tracker.log_event("best", step=state.step, quality=evaluation.quality)
    return state


def _facts(state: TrainState) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "best_step": float(state.best_step),
        "skipped_steps": float(state.skipped),
    }
    return facts | ({"best_quality": state.best_quality} if state.best_step else {})


def _best_attention(state: TrainState) -> float:
    return state.best_values.get(names.ATTENTION_SCORE, 0.0)
