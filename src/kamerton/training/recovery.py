"""What is done when training goes wrong: a pure decision, and a thin action.

cause        told by                                    action
non_finite   3 steps in a row that were not finite      halve the learning rate
             5 in a row                                 and go back to a checkpoint before them
explosion    3 steps in a row with a gradient far       go back to the best checkpoint before them,
             above the usual one                        halve learning rate and clipping threshold
plateau      evaluations without a better one, and      let the learning rate rise anew, to twice
             budget left                                what it was; once in a run, and taken back
                                                        if that finds nothing better either
collapse     attention that was there and is gone       go back to a checkpoint that could read, or
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
import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import torch

from kamerton.config.schema import TrainParams
from kamerton.core.errors import InputCorruptError
from kamerton.model.tacotron2.model import Tacotron2
from kamerton.tracking import names
from kamerton.training import clipping
from kamerton.training.checkpoint import Checkpoints, read_checkpoint
from kamerton.training.effective import apply_hyperparameters, hyperparameters
from kamerton.training.schedule import plateau_steps
from kamerton.training.state import TrainState
from kamerton.training.step import StepResult

NON_FINITE_TO_SLOW_DOWN: Final = 3
NON_FINITE_TO_GO_BACK: Final = 5
LOUD_STEPS: Final = 3
KNOWN_NORMS: Final = 10  # before so many norms nothing is usual
PLATEAU_EVALUATIONS: Final = 4
PLATEAU_BUDGET_LEFT: Final = 0.2
HEALTHY_DIAGONALITY: Final = 0.6  # of a checkpoint to go back to after a collapse
SLOWER: Final = 0.5
FASTER: Final = 2.0

Cause = Literal["non_finite", "explosion", "plateau", "collapse"]
Deed = Literal[
    "slow_down", "go_back", "go_back_slower", "warm_restart", "take_back", "go_back_aligned", "stop"
]  # fmt: skip

JUDGED: Final = frozenset({"slow_down", "go_back", "go_back_slower", "go_back_aligned"})
ALERTS: Final[Mapping[Cause, str]] = {
    "non_finite": "nan", "explosion": "explosion", "plateau": "recovery", "collapse": "collapse",
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
    if not params.enabled or past.gave_up or state.step >= total:
        return None
    left = past.count < params.max_recoveries
    if state.skipped_in_a_row:
        return _about_non_finite(state) if left or _in_second_act(state) else None
    if past.count and state.step - past.last_step < params.cooldown_share * total:
        return None
    trouble = _explosion(state) or (_collapse(state, train) if evaluated else None)
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


@dataclass(frozen=True, slots=True)
class Patient:
    """What an intervention works on.

    Attributes:
        model: The network.
        optimizer: Of all its parameters.
        checkpoints: Where to go back to.
        train: Bounds.
    """

    model: Tacotron2
    optimizer: torch.optim.Optimizer
    checkpoints: Checkpoints
    train: TrainParams


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done: the run as it goes on, and the words and figures for its record."""

    state: TrainState
    action: str
    values: dict[str, float]


def act(decision: Decision, patient: Patient, state: TrainState) -> Outcome:
    """Do what was decided; every process of a run does the same."""
    past = state.recovery
    if decision.deed != "take_back":  # the end of one that was made long ago
        past = dataclasses.replace(
            past, count=past.count + decision.counts, last_step=state.step, loud_steps=0
        )
    state = dataclasses.replace(state, recovery=past)
    done = _DEEDS[decision.deed](decision, patient, state)
    after = done.state.recovery
    figures = {
        "recoveries": float(after.count),
        "learning_rate_factor": after.learning_rate_factor,
        "clip_factor": after.clip_factor,
    }
    return Outcome(done.state, done.action, {**decision.values, **figures, **done.values})


def _slow_down(decision: Decision, patient: Patient, state: TrainState) -> Outcome:
    del decision, patient
    factor = state.recovery.learning_rate_factor * SLOWER
    return Outcome(_with(state, learning_rate_factor=factor), "halved the learning rate", {})


def _go_back(decision: Decision, patient: Patient, state: TrainState) -> Outcome:
    for saved in _saved(patient.checkpoints, state, decision.before, best_first=False):
        if _is_finite(saved["model"]):
            state = _reload(saved, patient, state)
            return Outcome(state, "went back to a checkpoint", {"checkpoint": _step_of(saved)})
    moments = forget_bad_moments(patient.optimizer)
    action = "reset the optimiser's moments: there is no checkpoint to go back to"
    return Outcome(state, action, {"moments_reset": float(moments)})


def _go_back_slower(decision: Decision, patient: Patient, state: TrainState) -> Outcome:
    values: dict[str, float] = {}
    action = "halved learning rate and clipping threshold"
    for saved in _saved(patient.checkpoints, state, decision.before, best_first=True):
        if _is_finite(saved["model"]):
            state = _reload(saved, patient, state)
            values["checkpoint"] = _step_of(saved)
            action = f"went back to a checkpoint, {action}"
            break
    values["moments_reset"] = float(forget_bad_moments(patient.optimizer))
    past = state.recovery
    state = _with(
        state, learning_rate_factor=past.learning_rate_factor * SLOWER,
        clip_factor=past.clip_factor * SLOWER,
    )  # fmt: skip
    return Outcome(state, action, values)


def _warm_restart(decision: Decision, patient: Patient, state: TrainState) -> Outcome:
    del decision, patient
    before = state.recovery.learning_rate_factor
    factor = min(FASTER, before * FASTER)
    state = _with(
        state, learning_rate_factor=factor, warmup_step=state.step,
        restart_step=state.step, restart_gain=factor / before,
    )  # fmt: skip
    return Outcome(state, "let the learning rate rise anew", {})


def _take_back(decision: Decision, patient: Patient, state: TrainState) -> Outcome:
    del decision, patient
    past = state.recovery
    factor = past.learning_rate_factor / past.restart_gain  # what else was halved stays so
    state = _with(state, learning_rate_factor=factor, restart_gain=1.0)
    return Outcome(state, "took the restart back", {})


def _go_back_aligned(decision: Decision, patient: Patient, state: TrainState) -> Outcome:
    for saved in _saved(patient.checkpoints, state, decision.before, best_first=False):
        if _is_finite(saved["model"]) and _diagonality(saved) >= HEALTHY_DIAGONALITY:
            state = _with(_reload(saved, patient, state), warmup_step=state.step)
            return Outcome(
                state, "went back to a checkpoint that could read",
                {"checkpoint": _step_of(saved), "checkpoint_diagonality": _diagonality(saved)},
            )  # fmt: skip
    count = reset_attention(patient.model, patient.optimizer, patient.train.seed, state.step)
    state = _with(state, warmup_step=state.step, best_diagonality=0.0)
    return Outcome(state, "made the attention layer anew", {"tensors_reset": float(count)})


def _stop(decision: Decision, patient: Patient, state: TrainState) -> Outcome:
    del patient
    return Outcome(_with(state, gave_up=decision.cause), "ended the run: no recovery is left", {})


_DEEDS: Final = {
    "slow_down": _slow_down,
    "go_back": _go_back,
    "go_back_slower": _go_back_slower,
    "warm_restart": _warm_restart,
    "take_back": _take_back,
    "go_back_aligned": _go_back_aligned,
    "stop": _stop,
}


def reset_attention(
    model: Tacotron2, optimizer: torch.optim.Optimizer, seed: int, step: int
) -> int:
    """Make the attention layers anew, not the LSTM that drives them, and forget their moments.

    Returns:
        How many tensors were reset.
    """
    digest = hashlib.sha256(f"{seed}/{step}/attention".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:7]))
    fresh = dict(Tacotron2(model.architecture).named_parameters())
    count = 0
    for name, parameter in model.named_parameters():
        if "attention" in name.split("."):
            with torch.no_grad():
                parameter.copy_(fresh[name])
            optimizer.state.pop(parameter, None)
            count += 1
    return count


def forget_bad_moments(optimizer: torch.optim.Optimizer) -> int:
    """Drop Adam's state of every parameter where it is not finite; returns of how many."""
    bad = [
        parameter
        for parameter, moments in optimizer.state.items()
        if not all(
            bool(torch.isfinite(value).all())
            for value in moments.values()
            if isinstance(value, torch.Tensor)
        )
    ]
    for parameter in bad:
        del optimizer.state[parameter]
    return len(bad)


def _with(state: TrainState, **changes: Any) -> TrainState:
    return dataclasses.replace(state, recovery=dataclasses.replace(state.recovery, **changes))


def _saved(
    checkpoints: Checkpoints, state: TrainState, before: int, *, best_first: bool
) -> Iterator[Mapping[str, Any]]:
    """Whole checkpoints of steps up to ``before``, the newest first; one is in memory at a time."""
    order = [known for known in reversed(checkpoints.steps()) if known[0] <= before]
    if 0 < state.best_step <= before:
        best = (state.best_step, checkpoints.best)
        order = [best, *order] if best_first else sorted([best, *order], reverse=True)
    for step, path in order:
        try:
            record = read_checkpoint(path)  # the file, which is what every process sees
        except InputCorruptError:
            continue
        if int(_step_of(record)) == step:
            yield record


def _reload(saved: Mapping[str, Any], patient: Patient, state: TrainState) -> TrainState:
    """Take weights, moments and all that describes them; time, phase and the best stay."""
    asked = hyperparameters(patient.optimizer)
    patient.model.load_state_dict(saved["model"])
    patient.optimizer.load_state_dict(saved["optimizer"])
    apply_hyperparameters(patient.optimizer, asked)
    then = TrainState.from_dict(saved["state"])
    state = dataclasses.replace(state, clip=then.clip, gate=then.gate, skipped_in_a_row=0)
    return _with(state, best_diagonality=then.recovery.best_diagonality)


def _step_of(saved: Mapping[str, Any]) -> float:
    return float(saved["state"]["step"])


def _diagonality(saved: Mapping[str, Any]) -> float:
    """What the weights of a checkpoint were measured to read; -inf where they were not."""
    state = saved["state"]
    if state["best_step"] == state["step"]:
        return float(state["best_values"].get(names.ATTENTION_SCORE, -math.inf))
    return float(state["diagonality"]) if state["evaluated_step"] == state["step"] else -math.inf


def _is_finite(weights: Mapping[str, torch.Tensor]) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in weights.values())
