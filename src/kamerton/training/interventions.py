"""The acts of ``recovery``: what is done to a run about its trouble."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from kamerton.config.schema import TrainParams
from kamerton.core.errors import InputCorruptError
from kamerton.model.tacotron2.model import Tacotron2
from kamerton.tracking import names
from kamerton.training.checkpoint import Checkpoints, read_checkpoint
from kamerton.training.effective import apply_hyperparameters, hyperparameters
from kamerton.training.recovery import Decision
from kamerton.training.state import TrainState

HEALTHY_DIAGONALITY: Final = 0.6  # of a checkpoint to go back to after a collapse
SLOWER: Final = 0.5
FASTER: Final = 2.0


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
            past, count=past.count + decision.counts, last_step=state.step,
            last_cause=decision.cause, loud_steps=0, diverged=0,
        )  # fmt: skip
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
    again = state.recovery.collapses > 0  # the same steps at the same rate would lead there again
    state = _with(state, collapses=state.recovery.collapses + 1)
    for saved in _saved(patient.checkpoints, state, decision.before, best_first=False):
        if _is_finite(saved["model"]) and _diagonality(saved) >= HEALTHY_DIAGONALITY:
            slower = SLOWER if again else 1.0
            factor = state.recovery.learning_rate_factor * slower
            state = _reload(saved, patient, state)
            state = _with(state, warmup_step=state.step, learning_rate_factor=factor)
            action = "went back to a checkpoint that could read"
            return Outcome(
                state, f"{action}, halved the learning rate" if again else action,
                {"checkpoint": _step_of(saved), "checkpoint_diagonality": _diagonality(saved)},
            )  # fmt: skip
    count = reset_attention(patient.model, patient.optimizer, patient.train.seed, state.step)
    state = _with(
        state, warmup_step=state.step, best_diagonality=0.0, attention_reset_step=state.step
    )
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
