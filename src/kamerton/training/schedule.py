"""How long to train and with what: pure functions of the step and the state of the run.

One owner decides each value. The learning rate is schedule x phase x recovery; the threshold of
clipping is adaptive clipping x recovery; guided attention follows the phases; the gate's weight
follows how well stops are found. Hooks scale what comes of that, and a larger batch is learned
from at a learning rate larger by the root of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Final

from kamerton.config.changes import factors_at
from kamerton.config.schema import TrainParams
from kamerton.training import clipping, phases
from kamerton.training.controls import Controls
from kamerton.training.state import TrainState

WARMUP_BUDGET_SHARE: Final = 0.05  # a short run must not spend itself on warming up
REWARMUP_BUDGET_SHARE: Final = 0.02  # after a recovery: 50 epochs of 2500
KL_WARMUP_BUDGET_SHARE: Final = 0.1  # learned noise widths cost nothing until there is a model

# Above this, times the root of batch / 64, Tacotron 2 is known to diverge.
SAFE_LEARNING_RATE: Final = 3e-3
SAFE_BATCH_SIZE: Final = 64
PLATEAU_PATIENCE_SHARE: Final = 0.5  # of the patience; the rest shows what a restart brings
TOLD_FROM: Final = 3.0  # times the safe one: small models and batches bear more than that


def total_steps(train: TrainParams, recommended_epochs: int, batches_per_epoch: int) -> int:
    """The budget in optimiser steps: given or recommended epochs, cut at ``train.max_steps``."""
    epochs = train.epochs if train.epochs is not None else recommended_epochs
    steps = epochs * batches_per_epoch
    return steps if train.max_steps is None else min(steps, train.max_steps)


def learning_rate(step: int, total: int, train: TrainParams) -> float:
    """The schedule alone, for step number ``step`` (from 0): linear warm-up, then half a cosine.

    Args:
        step: Steps made so far.
        total: The budget.
        train: Gives the peak, the share of it that is left at the end, and the warm-up.
    """
    warmup = min(train.warmup_steps, math.ceil(total * WARMUP_BUDGET_SHARE))
    if step < warmup:
        return train.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    floor = train.min_learning_rate_share
    share = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return train.learning_rate * share


def safe_learning_rate(train: TrainParams, processes: int = 1) -> float:
    """The peak up to which training is known not to diverge, by the utterances of one step.

    One that is ``TOLD_FROM`` times as high is warned of and used: its owner is the user. No
    recovery raises the learning rate above the safe one.
    """
    utterances = train.batch_size * train.accumulation * processes
    return SAFE_LEARNING_RATE * math.sqrt(utterances / SAFE_BATCH_SIZE)


def plateau_steps(total: int, train: TrainParams) -> float:
    """How long nothing better is a plateau: half of the patience at most."""
    shares = [train.recovery.plateau_share]
    if train.early_stopping.enabled:
        shares.append(PLATEAU_PATIENCE_SHARE * train.early_stopping.patience_share)
    return min(shares) * total


def controls_at(
    state: TrainState, total: int, train: TrainParams, *, processes: int = 1
) -> Controls:
    """What the next step is made with, who decided it and by what factor."""
    safe = safe_learning_rate(train, processes)
    rate, rate_owner, rate_factor = _learning_rate(state, total, train, safe)
    clip, clip_owner = train.grad_clip_thresh, "params"
    if train.adaptive_clip:
        clip, clip_owner = clipping.threshold(state.clip, train.grad_clip_thresh), "adaptive"
    clip_factor = state.recovery.clip_factor
    guided_factor = phases.guided_factor(state.phase, train.phases)
    adaptive_gate = bool(train.losses.adaptive_gate)
    kl_warmup = _kl_warmup(state, total, train)
    controls = Controls(
        learning_rate=rate,
        clip_norm=clip * clip_factor,
        guided_attention_weight=train.guided_attention_weight * guided_factor,
        gate_weight=state.gate.weight if adaptive_gate else 1.0,
        variational_kl_weight=train.regularisation.variational_kl_weight * kl_warmup,
        weight_decay=train.weight_decay,
        owners={
            "learning_rate": rate_owner,
            "clip_norm": "recovery" if clip_factor != 1.0 else clip_owner,
            "guided_attention_weight": "phase" if train.phases.count else "params",
            "gate_weight": "adaptive" if adaptive_gate else "params",
            "variational_kl_weight": "schedule" if kl_warmup < 1.0 else "params",
            "weight_decay": "params",
            "dropout": "params",
        },
        factors={
            "learning_rate": rate_factor,
            "clip_norm": clip_factor,
            "guided_attention_weight": guided_factor,
            "gate_weight": state.gate.weight if adaptive_gate else 1.0,
        },
    )
    controls = _scaled(controls, {"learning_rate": math.sqrt(state.epoch_scale)}, "batch_size")
    controls = _scaled(controls, factors_at(state.step / total, train.changes), "changes")
    return _scaled(controls, state.adjustments, "quality")


def _kl_warmup(state: TrainState, total: int, train: TrainParams) -> float:
    """What learned widths cost so far, of what they will."""
    noise = train.regularisation
    if noise.recurrent != "variational" or noise.variational != "learned":
        return 1.0
    return min(1.0, (state.step + 1) / (total * KL_WARMUP_BUDGET_SHARE))


def _scaled(controls: Controls, factors: Mapping[str, float], owner: str) -> Controls:
    """What another owner makes of some values; recovery keeps what it decided as its own."""
    factors = {name: factor for name, factor in factors.items() if factor != 1.0}
    if not factors:
        return controls
    values = {name: getattr(controls, name) * factor for name, factor in factors.items()}
    owners, combined = dict(controls.owners), dict(controls.factors)
    for name, factor in factors.items():
        combined[name] = combined.get(name, 1.0) * factor
        if owners[name] != "recovery":
            owners[name] = owner
    return dataclasses.replace(controls, **values, owners=owners, factors=combined)


def _learning_rate(
    state: TrainState, total: int, train: TrainParams, safe: float
) -> tuple[float, str, float]:
    """Value, owner and the owner's factor: recovery before phase before schedule."""
    phase = phases.learning_rate_factor(state.phase, train.phases)
    rate = learning_rate(state.step, total, train) * phase
    factor, rise = state.recovery.learning_rate_factor, _rewarmup(state, total)
    if factor == rise == 1.0:
        return rate, "phase" if phase != 1.0 else "schedule", phase
    floor = min(rate, train.recovery.min_learning_rate)
    changed = rate * factor
    if factor > 1.0:
        changed = max(rate, min(changed, safe))
    return max(changed * rise, floor), "recovery", factor


def _rewarmup(state: TrainState, total: int) -> float:
    """How far the learning rate has come back after a recovery that let it rise anew."""
    begun = state.recovery.warmup_step
    if not begun:
        return 1.0
    return min(1.0, (state.step - begun + 1) / math.ceil(total * REWARMUP_BUDGET_SHARE))
