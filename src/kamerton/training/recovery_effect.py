"""What came of an intervention: measured some evaluations later, and undone where it did harm.

A plateau's restart is judged by ``recovery`` itself, which waits as long as a plateau takes.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Final, Literal

from kamerton.config.schema import TrainParams
from kamerton.training.state import TrainState, TrialState

EVALUATIONS: Final = 2  # at least, before an intervention is judged
MARGIN: Final = 0.02  # of the figure before it; what is closer is no effect

Verdict = Literal["helped", "no_effect", "harmed"]


@dataclass(frozen=True, slots=True)
class Effect:
    """The verdict on an intervention.

    Attributes:
        state: The run as it goes on: what was harmful is undone.
        verdict: What it was.
        reverted: Whether something was undone.
        fields: For the record: cause, action, step and figures before and after.
    """

    state: TrainState
    verdict: Verdict
    reverted: bool
    fields: dict[str, Any]


def mean_loss(state: TrainState) -> float:
    """Of the steps since the last evaluation; NaN where there were none."""
    return state.loss_sum / state.loss_steps if state.loss_steps else math.nan


def begun(
    before: TrainState, after: TrainState, cause: str, action: str, *, counts: bool,
    train_loss: float,
) -> TrainState:  # fmt: skip
    """Remember how things stood, so that the intervention between the two can be judged.

    The second act of one intervention, which does not count, is judged by how things stood before
    the first.

    Args:
        before: The run before it.
        after: The run after it.
        cause: The trouble.
        action: What was done.
        counts: Whether it is an intervention of its own.
        train_loss: Mean over the steps that led into the trouble.
    """
    trial = TrialState(
        step=after.step, cause=cause, action=action,
        quality=before.quality if before.evaluated_step else math.nan, loss=train_loss,
        learning_rate_factor=before.recovery.learning_rate_factor,
        clip_factor=before.recovery.clip_factor, bad_steps=before.recovery.bad_steps,
    )  # fmt: skip
    first = before.recovery.trial
    if first is not None and not counts:
        trial = dataclasses.replace(
            first, step=after.step, action=f"{first.action}; {action}", bad_steps=trial.bad_steps
        )
    # The mean loss begins anew: what led into trouble is not to be counted for what came after.
    recovery = dataclasses.replace(after.recovery, trial=trial)
    return dataclasses.replace(after, recovery=recovery, loss_sum=0.0, loss_steps=0)


def judge(state: TrainState, total: int, train: TrainParams, *, train_loss: float) -> Effect | None:
    """The verdict, at an evaluation that is late enough; None where there is nothing to judge.

    Args:
        state: After the evaluation.
        total: The budget.
        train: Parameters.
        train_loss: Mean of the steps since the evaluation before; NaN where there were none.
    """
    trial = state.recovery.trial
    wait = max(train.recovery.cooldown_share * total, EVALUATIONS * train.eval_interval_steps)
    if trial is None or (state.step - trial.step < wait and state.step < total):
        return None
    verdict = _verdict(trial, state.quality, train_loss)
    if trial.cause == "non_finite" and verdict != "harmed":
        # What was not finite is in no mean, neither before nor after: the steps themselves say it.
        verdict = "helped" if state.recovery.bad_steps == trial.bad_steps else "no_effect"
    past = dataclasses.replace(state.recovery, trial=None)
    reverted = verdict == "harmed" and (
        past.learning_rate_factor != trial.learning_rate_factor
        or past.clip_factor != trial.clip_factor
    )
    if reverted:
        past = dataclasses.replace(
            past, learning_rate_factor=trial.learning_rate_factor, clip_factor=trial.clip_factor
        )
    fields = {
        "cause": trial.cause, "action": trial.action, "since_step": trial.step,
        "verdict": verdict, "reverted": reverted, "quality_before": trial.quality,
        "quality_after": state.quality, "loss_before": trial.loss, "loss_after": train_loss,
    }  # fmt: skip
    return Effect(dataclasses.replace(state, recovery=past), verdict, reverted, fields)


def _verdict(trial: TrialState, quality: float, loss: float) -> Verdict:
    """By the evaluations where there was one before, else by the loss.

    A run that blew up is often stopped between two evaluations: the last one then shows it as it
    was before the trouble, so a loss that fell counts as well.
    """
    pairs = [(trial.quality, quality), (trial.loss, loss)]
    known = [(before, after) for before, after in pairs if not math.isnan(before + after)]
    changes = [_change(before, after) for before, after in known]
    if any(change < -MARGIN for change in changes):
        return "helped"
    return "harmed" if any(change > MARGIN for change in changes) else "no_effect"


def _change(before: float, after: float) -> float:
    """By how much a figure grew, as a share of what it was."""
    if before == after:
        return 0.0
    if not math.isfinite(after):
        return math.inf
    if not math.isfinite(before):
        return -math.inf
    return (after - before) / max(abs(before), 1e-9)
