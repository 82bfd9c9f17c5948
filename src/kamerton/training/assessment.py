"""An evaluation in the course of a run: what is measured, what hooks say to it, what is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from kamerton.tracking import names
from kamerton.tracking.hooks import EvalFacts
from kamerton.tracking.trouble import first_line
from kamerton.training import phases, recovery
from kamerton.training.evaluation import Example, evaluate, read_example
from kamerton.training.hooks import Hooks, record, steered
from kamerton.training.illustration import illustrate_when_due
from kamerton.training.job import Job, controls_of, to_be_saved
from kamerton.training.recovery_effect import mean_loss
from kamerton.training.state import TrainState
from kamerton.training.step import Trainee


def assess(job: Job, trainee: Trainee, state: TrainState, hooks: Hooks) -> TrainState:
    """Measure the model and ask the hooks; the main process does, and all go on with it."""
    evaluation = evaluate(job.model, job.data, job.train) if job.world.main else None
    found = {"values": evaluation.values, "quality": evaluation.quality} if evaluation else None
    found = job.world.share(found)
    made, state = state, _evaluated(state, found["values"], found["quality"], job)
    answers = hooks.eval(_eval_facts(made, state, found["values"], found["quality"], job))
    steering = job.world.share(steered(state, answers) if evaluation else None)
    state = dataclasses.replace(state, **steering)
    if evaluation is None:
        return state
    if state.best_step == state.step:
        scaler = to_be_saved(job, trainee, state)
        kept = hooks.kept(state)
        job.checkpoints.save_best(job.model, job.optimizer, kept, scaler=scaler)
        job.tracker.log_event("best", step=state.step, quality=evaluation.quality)
    actions = [answer.action for answer in answers]
    measured = record(actions, state.step, job.tracker, job.on_alert)
    job.tracker.log_metrics(evaluation.values | measured, state.step)
    illustrate(job, state.step, evaluation.example)
    job.tracker.flush()
    return state


def _eval_facts(
    made: TrainState, state: TrainState, values: Mapping[str, float], quality: float, job: Job
) -> EvalFacts:
    """What hooks are told; ``made`` is the state before it was evaluated."""
    return EvalFacts(
        step=state.step, total=job.total_steps, epoch=state.epoch,
        epochs=job.total_steps / job.data.steps_per_epoch, phase=state.phase.index,
        values=values, quality=quality, best_step=state.best_step,
        best_quality=state.best_quality, learning_rate=controls_of(made, job).learning_rate,
        train_loss=mean_loss(made),
        adjustments=dict(state.adjustments),
        batch_size=state.epoch_scale * job.train.batch_size, recoveries=state.recovery.count,
        recovery_step=state.recovery.last_step, recovery_cause=state.recovery.last_cause,
        attention_reset_step=state.recovery.attention_reset_step,
    )  # fmt: skip


def illustrate(job: Job, step: int, evaluated: Example | None) -> None:
    """Pictures and sound where they are due; a step that was not evaluated reads for them."""
    if not job.world.main or job.illustrated is None:
        return
    try:
        illustrate_when_due(
            job.tracker, job.train.monitoring, job.illustrated, step, evaluated=evaluated,
            make=lambda: read_example(job.model, job.data, job.train),
        )  # fmt: skip
    except Exception as error:  # whatever it is, no training ends by a picture
        job.pictures.begins(error)
        if job.pictures.count == 1:
            reason = first_line(error)
            job.tracker.log_event("tracking_trouble", step=step, place="pictures", reason=reason)


def _evaluated(state: TrainState, values: dict[str, float], quality: float, job: Job) -> TrainState:
    """Where the run stands after an evaluation."""
    diagonality = values[names.ATTENTION_SCORE]
    forced = values[names.FORCED + names.ATTENTION_SCORE]
    past = dataclasses.replace(
        state.recovery,
        best_diagonality=max(state.recovery.best_diagonality, diagonality),
    )
    past = recovery.with_mel_loss(past, values[names.VAL_MEL_LOSS], job.train)
    phase = phases.next_phase(
        state.phase, state.step, job.total_steps, diagonality, job.train.phases
    )
    state = dataclasses.replace(
        state, awaits_evaluation=False, evaluated_step=state.step, quality=quality,
        diagonality=diagonality,
        forced_diagonality=forced, phase=phase, recovery=past, loss_sum=0.0, loss_steps=0,
    )  # fmt: skip
    if quality < state.best_quality:
        return dataclasses.replace(
            state, best_step=state.step, best_quality=quality, best_values=values
        )
    return state
