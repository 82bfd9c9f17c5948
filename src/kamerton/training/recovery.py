"""What is done when training goes wrong: a pure decision, and a thin action.

cause        told by                                    action
non_finite   3 steps in a row that were not finite      halve the learning rate
             5 in a row                                 and go back to a checkpoint before them
explosion    3 steps in a row with a gradient far       go back to the best checkpoint before them,
             above the usual one                        halve learning rate and clipping threshold
divergence   two evaluations in a row whose mel loss   the same
             is far above the best
plateau      evaluations without a better one, and      let the learning rate rise anew, to twice
             budget left                                what it was; once in a run, and taken back
                                                        if that finds nothing better either
collapse     attention that was there and is gone       go back to a checkpoint that could read (the
                                                        second time at half the learning rate), or
                                                        make the attention layer anew

A way back takes weights and the optimiser's moments from a checkpoint. The step goes on counting,
so data and random numbers are others than those that led into trouble. Only checkpoints that any
equal run has are taken, those of the schedule and the best, never ``last.pt``, which a stop may
have written at any step: so a run that is killed recovers as one that is not.

What came of an intervention is measured and, where it did harm, undone: see ``recovery_effect``.
At most ``max_recoveries`` interventions are made, with a pause between them. The last one is kept
for what is worse than a plateau, and taking a restart back is none. A stretch of steps
that are not finite is one, and needs no pause, for nothing is learned in it. When none is left,
explosion and collapse end the run with its best model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from kamerton.config.schema import TrainParams
from kamerton.training import clipping
from kamerton.training.schedule import plateau_steps
from kamerton.training.state import RecoveryState, TrainState
from kamerton.training.step import StepResult

DIVERGED_EVALUATIONS: Final = 2
DIVERGED_RISE: Final = 0.5  # of the best: less is no divergence where little was gained so far
NON_FINITE_TO_SLOW_DOWN: Final = 3
NON_FINITE_TO_GO_BACK: Final = 5
LOUD_STEPS: Final = 3
KNOWN_NORMS: Final = 10  # before so many norms nothing is usual
PLATEAU_EVALUATIONS: Final = 4
PLATEAU_BUDGET_LEFT: Final = 0.2

Cause = Literal["non_finite", "explosion", "divergence", "plateau", "collapse"]
Deed = Literal[
    "slow_down", "go_back", "go_back_slower", "warm_restart", "take_back", "go_back_aligned", "stop"
]  # fmt: skip

JUDGED: Final = frozenset({"slow_down", "go_back", "go_back_slower", "go_back_aligned"})
ALERTS: Final[Mapping[Cause, str]] = {
    "non_finite": "nan", "explosion": "explosion", "divergence": "explosion",
    "plateau": "recovery", "collapse": "collapse",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about what.

    Attributes:
        cause: The trouble.
        deed: The action; what comes of it depends on the checkpoints there are.
        before: A checkpoint to go back to must be of this step or an earlier one.
        counts: Whether it is a new intervention, not the second act of one.
        values: What was measured.
    """

    cause: Cause
    deed: Deed
    before: int = 0
    counts: bool = True
    values: Mapping[str, float] = field(default_factory=dict)


def count_loud(state: TrainState, result: StepResult, train: TrainParams) -> int:
    """Steps in a row, with this one, whose gradient is far above the usual; see ``clipping``."""
    if not result.applied:
        return state.recovery.loud_steps  # neither loud nor quiet
    if result.grad_norm <= train.recovery.explosion_norm or len(state.clip.norms) < KNOWN_NORMS:
        return 0
    usual = clipping.usual_norm(state.clip)
    loud = result.grad_norm > train.recovery.explosion_factor * usual
    return state.recovery.loud_steps + 1 if loud else 0


def decide(
    state: TrainState, total: int, train: TrainParams, *, evaluated: bool
) -> Decision | None:
    """What must be done after a step, if anything.

    Args:
        state: After the step, and after its evaluation.
        total: The budget.
        train: Thresholds.
        evaluated: Whether there was an evaluation at this step.
    """
    params, past = train.recovery, state.recovery
    if not params.enabled or past.gave_up or state.stopped or state.step >= total:
        return None
    left = past.count < params.max_recoveries
    if state.skipped_in_a_row:
        return _about_non_finite(state) if left or _in_second_act(state) else None
    if past.count and state.step - past.last_step < params.cooldown_share * total:
        return None
    trouble = _explosion(state)
    if trouble is None and evaluated:
        # Where none is left, the stop decision has its own rule for a run that diverges.
        trouble = _collapse(state, train) or (_divergence(state) if left else None)
    if trouble is not None:
        return trouble if left else dataclasses.replace(trouble, deed="stop", counts=False)
    if not evaluated:
        return None
    return _failed_restart(state, total, train) or _plateau(state, total, train)


def _about_non_finite(state: TrainState) -> Decision | None:
    values = {"skipped_in_a_row": float(state.skipped_in_a_row)}
    if state.skipped_in_a_row == NON_FINITE_TO_SLOW_DOWN:
        return Decision("non_finite", "slow_down", values=values)
    if state.skipped_in_a_row == NON_FINITE_TO_GO_BACK:
        before = state.step - state.skipped_in_a_row
        second = _in_second_act(state)
        return Decision("non_finite", "go_back", before, counts=not second, values=values)
    return None


def _in_second_act(state: TrainState) -> bool:
    """Whether something was done about this very stretch of steps before."""
    first_act = state.step - (state.skipped_in_a_row - NON_FINITE_TO_SLOW_DOWN)
    return first_act < state.step and state.recovery.last_step == first_act


def _explosion(state: TrainState) -> Decision | None:
    loud = state.recovery.loud_steps
    if loud < LOUD_STEPS:
        return None
    values = {"grad_norm": state.clip.norms[-1], "usual_norm": clipping.usual_norm(state.clip)}
    return Decision("explosion", "go_back_slower", state.step - loud, values=values)


def with_mel_loss(past: RecoveryState, mel_loss: float, train: TrainParams) -> RecoveryState:
    """What is known after an evaluation of teacher-forced mel loss ``mel_loss``.

    Not the figure of merit is compared: half of that is attention, free-running, which a gate that
    does not open brings to nothing in one evaluation.
    """
    diverged = count_diverged(past, mel_loss, train)
    first, best = past.first_mel_loss, past.best_mel_loss
    if math.isfinite(mel_loss):
        first = first if math.isfinite(first) else mel_loss
        best = min(best, mel_loss)
    return dataclasses.replace(
        past, mel_loss=mel_loss, first_mel_loss=first, best_mel_loss=best, diverged=diverged
    )


def count_diverged(past: RecoveryState, mel_loss: float, train: TrainParams) -> int:
    """Evaluations in a row, with this one, whose mel loss is far above the best.

    That is by a share of what was gained since the first one, and by half of the best: a run that
    begins with weights that are good already gains little, and its noise is no divergence.

    Args:
        past: Before the evaluation.
        mel_loss: What it found.
        train: Parameters.
    """
    best = past.best_mel_loss
    if not math.isfinite(best):
        return 0
    gained = train.recovery.divergence_share * (past.first_mel_loss - best)
    bound = best + max(gained, DIVERGED_RISE * abs(best))
    return 0 if mel_loss <= bound else past.diverged + 1  # also where it is not a number


def _divergence(state: TrainState) -> Decision | None:
    if state.recovery.diverged < DIVERGED_EVALUATIONS:
        return None
    past = state.recovery
    values = {"best_mel_loss": past.best_mel_loss, "mel_loss": past.mel_loss}
    return Decision("divergence", "go_back_slower", state.best_step, values=values)


def _collapse(state: TrainState, train: TrainParams) -> Decision | None:
    params, best = train.recovery, state.recovery.best_diagonality
    if best <= params.collapse_after or state.diagonality >= params.collapse_below:
        return None
    # A sentence that does not end scores 0 free-running. If attention holds while the true frames
    # are given, it is the gate that is lost, and attention must not be thrown away for it.
    if state.forced_diagonality > params.collapse_after:
        return None
    values = {
        "diagonality": state.diagonality,
        "forced_diagonality": state.forced_diagonality,
        "best_diagonality": best,
    }
    return Decision("collapse", "go_back_aligned", state.step - 1, values=values)


def _plateau(state: TrainState, total: int, train: TrainParams) -> Decision | None:
    past = state.recovery
    if not state.best_step or past.restart_step or past.count + 1 >= train.recovery.max_recoveries:
        return None
    since = max(state.best_step, past.last_step)
    interval = train.eval_interval_steps
    evaluations = state.step // interval - since // interval
    long_enough = state.step - since >= plateau_steps(total, train)
    worth_it = total - state.step > PLATEAU_BUDGET_LEFT * total
    if evaluations < PLATEAU_EVALUATIONS or not (long_enough and worth_it):
        return None
    values = {"best_step": float(state.best_step), "evaluations": float(evaluations)}
    return Decision("plateau", "warm_restart", values=values)


def _failed_restart(state: TrainState, total: int, train: TrainParams) -> Decision | None:
    past = state.recovery
    if past.restart_gain == 1.0 or state.best_step > past.restart_step:
        return None
    if state.step - past.restart_step < plateau_steps(total, train):
        return None
    values = {"best_step": float(state.best_step), "restart_step": float(past.restart_step)}
    return Decision("plateau", "take_back", counts=False, values=values)
