"""The training loop, to be read from top to bottom.

A run is a function of its seed: the noise of every step follows from (seed, step), and everything
else from the step and the state that a checkpoint holds. So a run that was
killed and goes on from its last checkpoint makes the same numbers, bit for bit on a CPU, as one
that was never disturbed.

Where several processes train together, each goes through the same steps and decisions; one of
them, the main one, evaluates, logs and saves.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from kamerton.config.phase_ends import boundaries
from kamerton.core.errors import PipelineError, StoppedError
from kamerton.core.progress import Progress
from kamerton.core.stop import StopRequest
from kamerton.data.batching import Position
from kamerton.tracking import names
from kamerton.tracking.metrics_file import EVALUATING
from kamerton.training import (
    adaptive_gate,
    clipping,
    interventions,
    phases,
    recovery,
    recovery_effect,
)
from kamerton.training.assessment import assess, illustrate
from kamerton.training.controls import changes
from kamerton.training.hooks import (
    Hooks,
    LoopFacts,
    without_strangers,
)
from kamerton.training.job import Job, controls_of, to_be_saved
from kamerton.training.loader import Loader
from kamerton.training.made_with import MADE_WITH, is_to_be_told, made_with
from kamerton.training.progress_note import ShownProgress
from kamerton.training.schedule import (
    TOLD_FROM,
    safe_learning_rate,
)
from kamerton.training.speed import Speedometer
from kamerton.training.state import TrainState
from kamerton.training.status import note_status
from kamerton.training.step import StepResult, Trainee, train_step

MAX_SKIPPED_IN_A_ROW = 10  # then the run is beyond what skipping can save


def train_model(
    job: Job, state: TrainState, *, stop: StopRequest, on_progress: Progress
) -> TrainState:
    """Train from ``state`` to the end of the budget.

    Model and optimiser must be those of ``state``.

    Raises:
        StoppedError: a stop was asked for; everything is saved.
        PipelineError: too many steps in a row gave numbers that are not finite.
    """
    train, total = job.train, job.total_steps
    trainee = Trainee(job.model, job.optimizer, train, job.data.audio, job.world)
    trainee.load_scaler(job.scaler)
    state, hooks = _taken_up(job, state)
    shown = ShownProgress(on_progress, phases=len(boundaries(train.phases)))
    speed = Speedometer(job.data.device)
    state, stopping, begun = _first(state, job), False, state.step
    job.model.train()
    with Loader(job.data) as loader, hooks.told_of_errors():
        if state.awaits_evaluation:  # the run was interrupted before it was made
            state, stopping = _conclude(job, trainee, state, hooks, stop)
        while state.step < total and not stopping and not is_over(state):
            before, facts = state, _step(job, trainee, loader, speed, state)
            state = facts.state
            _log_step(job, facts, speed)
            _log_made_with(job, before, facts, begun)
            _log_changes(job, before, state)
            _tell(hooks, facts, before)
            stopping = state.awaits_evaluation and _save_unevaluated(
                job, trainee, state, hooks, stop
            )
            if not stopping:
                state, stopping = _conclude(job, trainee, state, hooks, stop)
            shown(state, facts.result, total)
        if stopping:
            raise StoppedError(
                f"training stopped on request at step {state.step} of {total}; "
                f"it is saved in {job.run.path}."
            )
    if state.step < total:  # it ended early, perhaps between two checkpoints
        _save(job, trainee, state, hooks, scheduled=False, now=True)
    return state


def _save_unevaluated(
    job: Job, trainee: Trainee, state: TrainState, hooks: Hooks, stop: StopRequest
) -> bool:
    """Save what is to be evaluated, where it is due: an evaluation takes long.

    Whoever goes on from this state evaluates first. Under the step's own name, which a recovery may
    go back to, it is kept with its evaluation only.

    Returns:
        Whether a stop was asked for; there is no time for the evaluation then.
    """
    last = state.step == job.total_steps
    stopping = job.world.any(stop.requested) and not last
    if job.world.main and (last or stopping or _is_scheduled(state, job)):
        job.tracker.log_event(EVALUATING, step=state.step)
        _save(job, trainee, state, hooks, scheduled=False, now=True)
    return stopping


def _conclude(
    job: Job, trainee: Trainee, state: TrainState, hooks: Hooks, stop: StopRequest
) -> tuple[TrainState, bool]:
    """Evaluate a step where it is its turn, do something about trouble, and save it.

    Returns:
        Where the run stands now, and whether a stop was asked for.
    """
    made, evaluated = state, state.awaits_evaluation
    if evaluated:
        state = _judge_recovery(job, assess(job, trainee, state, hooks), made)
    else:
        illustrate(job, state.step, None)
    untroubled, state = state, _recover(job, state, made, evaluated=evaluated)
    _log_changes(job, made, state)

    stopping = job.world.any(stop.requested) and state.step < job.total_steps
    scheduled = _is_scheduled(state, job)
    now = stopping or state is not untroubled
    _save(job, trainee, state, hooks, scheduled=scheduled, now=now)
    return state, stopping


def _is_scheduled(state: TrainState, job: Job) -> bool:
    interval = job.train.checkpoint_interval_steps
    return state.step == job.total_steps or state.step % interval == 0


def is_over(state: TrainState) -> bool:
    """Whether the run ends before its budget does: a hook said so, or recoveries are used up."""
    return bool(state.stopped or state.recovery.gave_up)


def _taken_up(job: Job, state: TrainState) -> tuple[TrainState, Hooks]:
    """The hooks, as they were; what was made by others, which are no longer attached, is undone.

    Nobody would take it back: whoever goes on without a hook goes on without what it did.
    """
    hooks = Hooks(job.hooks if job.world.main else (), failed=state.hooks_failed)
    hooks.restore(state.hooks)
    attached = job.world.share([hook.name for hook in job.hooks] if job.world.main else None)
    state, dropped = without_strangers(state, attached)
    if dropped and job.world.main:
        job.tracker.log_event("adjustments_dropped", step=state.step, dropped=dropped)
    return state, hooks


def _first(state: TrainState, job: Job) -> TrainState:
    """The state to start from: the first epoch has its share of the clips, too."""
    if state.step:
        return state
    share = phases.curriculum_share(state.phase, 0, job.total_steps, job.train.phases)
    return dataclasses.replace(state, epoch_share=share)


def _step(
    job: Job, trainee: Trainee, loader: Loader, speed: Speedometer, state: TrainState
) -> LoopFacts:
    """One optimiser step from ``state``."""
    controls = controls_of(state, job)
    waited = loader.waited_seconds
    with speed.step():
        batches = loader.batches(_position(state))
        result = train_step(trainee, batches, controls, step=state.step)
    speed.took(result, loader.waited_seconds - waited)
    after = _after(state, result, job, trainee)
    return LoopFacts(
        step=after.step, total=job.total_steps, epoch=after.epoch, phase=after.phase.index,
        loss=float(result.losses.total), grad_norm=result.grad_norm,
        module_norms=result.module_norms, clip_norm=controls.clip_norm,
        learning_rate=controls.learning_rate, applied=result.applied,
        batch_size=state.epoch_scale * job.train.batch_size,
        state=after, result=result, controls=controls,
    )  # fmt: skip


def _position(state: TrainState) -> Position:
    return Position(state.epoch, state.batch, state.epoch_share, state.epoch_scale)


def _after(state: TrainState, result: StepResult, job: Job, trainee: Trainee) -> TrainState:
    """Where the run stands after a step, before it is evaluated."""
    step, train, total = state.step + 1, job.train, job.total_steps
    phase = phases.next_phase(state.phase, step, total, None, train.phases)
    position = job.data.after(
        _position(state), phases.curriculum_share(phase, step, total, train.phases),
        state.batch_scale,
    )  # fmt: skip
    loud = recovery.count_loud(state, result, train)
    clip, gate = state.clip, state.gate
    if result.applied:
        clip = clipping.remember(clip, result.grad_norm)
        if train.losses.adaptive_gate:
            gate = adaptive_gate.updated(gate, result.stops, step)
    skipped_in_a_row, bad_steps = state.skipped_in_a_row, state.recovery.bad_steps
    if not _is_overflow(trainee, result):
        skipped_in_a_row = 0 if result.applied else skipped_in_a_row + 1
        bad_steps += not result.applied
    return dataclasses.replace(
        state, step=step, epoch=position.epoch, batch=position.batch, epoch_share=position.share,
        epoch_scale=position.scale,
        loss_sum=state.loss_sum + (float(result.losses.total) if result.applied else 0.0),
        loss_steps=state.loss_steps + result.applied,
        skipped=state.skipped + (not result.applied),
        skipped_in_a_row=skipped_in_a_row, phase=phase, clip=clip, gate=gate,
        awaits_evaluation=step == total or step % train.eval_interval_steps == 0,
        recovery=dataclasses.replace(state.recovery, loud_steps=loud, bad_steps=bad_steps),
    )  # fmt: skip


def _is_overflow(trainee: Trainee, result: StepResult) -> bool:
    """Whether a step was skipped because the loss scaler is finding its scale: no trouble.

    Scaled gradients overflow now and then; those that overflow unscaled are not the scaler's.
    """
    return (
        not result.applied and math.isfinite(float(result.losses.total))
        and trainee.scaler is not None and trainee.scaler.get_scale() >= 1.0
    )  # fmt: skip


def _log_step(job: Job, facts: LoopFacts, speed: Speedometer) -> None:
    state, result = facts.state, facts.result
    if not job.world.main:
        return
    if not result.applied:
        job.tracker.log_event(
            "non_finite_step", step=state.step, loss=str(float(result.losses.total)),
            grad_norm=str(result.grad_norm),
        )  # fmt: skip
    interval = job.train.monitoring.log_interval_steps
    if state.step != 1 and state.step % interval and state.step != job.total_steps:
        return
    raw, weighted = result.losses.raw, result.losses.weighted
    values = {
        names.TRAIN_LOSS: float(result.losses.total),
        names.GRAD_NORM: result.grad_norm,
        names.CLIP_NORM: facts.controls.clip_norm,
        names.LEARNING_RATE: facts.controls.learning_rate,
        names.PHASE: float(state.phase.index),
        "epoch": float(state.epoch),
        "epoch_share": state.epoch_share,
        "skipped_steps": float(state.skipped),
    }
    values |= {names.train_loss(part): float(value) for part, value in raw.items()}
    values |= {names.weighted_loss(part): float(value) for part, value in weighted.items()}
    job.tracker.log_metrics(values | speed.read(), state.step)


def _judge_recovery(job: Job, state: TrainState, made: TrainState) -> TrainState:
    """Say what came of the last intervention, and undo it where it did harm."""
    loss = recovery_effect.mean_loss(made)
    effect = recovery_effect.judge(state, job.total_steps, job.train, train_loss=loss)
    if effect is None:
        return state
    if job.world.main:
        job.tracker.log_event("recovery_effect", step=state.step, **effect.fields)
    return effect.state


def _recover(job: Job, state: TrainState, made: TrainState, *, evaluated: bool) -> TrainState:
    """Act on trouble, if there is some; the state is another one then, to be saved at once."""
    decision = recovery.decide(state, job.total_steps, job.train, evaluated=evaluated)
    if decision is not None:
        patient = interventions.Patient(job.model, job.optimizer, job.checkpoints, job.train)
        job.world.barrier()  # what the main process has saved is there for all
        outcome = interventions.act(decision, patient, state)
        done = json.dumps([outcome.action, outcome.values])
        job.world.require_equal("what was done about trouble", done)
        job.world.barrier()  # and stays until all have read it
        before, state = state, outcome.state
        if decision.deed in recovery.JUDGED:
            state = recovery_effect.begun(
                before, state, decision.cause, outcome.action, counts=decision.counts,
                train_loss=recovery_effect.mean_loss(made),
            )  # fmt: skip
        if job.world.main:
            record = {"cause": decision.cause, "action": outcome.action, "values": outcome.values}
            job.tracker.log_event("recovery", step=state.step, **record)
            text = f"{decision.cause} at step {state.step}: {outcome.action}"
            job.on_alert(recovery.ALERTS[decision.cause], text, outcome.values)
    if state.skipped_in_a_row > MAX_SKIPPED_IN_A_ROW:
        raise PipelineError(
            f"Training diverged: {state.skipped_in_a_row} steps in a row, up to {state.step}, "
            "were not finite.",
            hint="lower train.learning_rate or train.grad_clip_thresh",
        )
    return state


def _log_made_with(job: Job, before: TrainState, facts: LoopFacts, begun: int) -> None:
    """Record what ``train.changes`` really made of the step, where they begin to hold."""
    if job.world.main and is_to_be_told(before.step, begun, job.total_steps, job.train):
        plain = dataclasses.replace(job, train=job.train.model_copy(update={"changes": ()}))
        found = made_with(job.optimizer, facts.controls, controls_of(before, plain))
        job.tracker.log_event(MADE_WITH, step=facts.step, **found)


def _log_changes(job: Job, before: TrainState, state: TrainState) -> None:
    """Record each change of phase and of what owns a parameter, once."""
    if not job.world.main or state is before:
        return
    log, first = job.tracker.log_event, before.step == 0
    safe = safe_learning_rate(job.train, job.world.size)
    if first and job.train.learning_rate >= TOLD_FROM * safe:
        log("learning_rate_high", step=state.step, asked=job.train.learning_rate, safe=safe)
    if state.phase.index != before.phase.index:
        log("phase", step=state.step, phase=state.phase.index, reason=state.phase.reason)
    earlier = None if first else controls_of(before, job)
    changed = changes(earlier, controls_of(state, job))
    if changed:
        log("control", step=state.step, changes=changed)


def _save(
    job: Job, trainee: Trainee, state: TrainState, hooks: Hooks, *, scheduled: bool, now: bool
) -> None:
    """Save where it is due, or overdue for want of room on the disk."""
    if job.world.main and (scheduled or now or job.checkpoints.overdue):
        job.tracker.flush()  # what leads up to a state is on disk when the state is
        scaler = to_be_saved(job, trainee, state)
        kept = hooks.kept(state)
        job.checkpoints.save(job.model, job.optimizer, kept, scheduled=scheduled, scaler=scaler)
        note_status(job.run, "running", step=state.step, **_status(state, job.total_steps))


def _tell(hooks: Hooks, facts: LoopFacts, before: TrainState) -> None:
    hooks.step(facts)
    if facts.state.epoch != before.epoch:
        hooks.epoch(facts)


def _status(state: TrainState, total: int) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "total_steps": float(total),
        "best_step": float(state.best_step),
        "skipped_steps": float(state.skipped),
        "phase": float(state.phase.index),
        "recoveries": float(state.recovery.count),
    }
    return facts | ({"best_quality": state.best_quality} if state.best_step else {})
