"""One optimiser step: batches in, weights changed, numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from kamerton.config.schema import TrainParams
from kamerton.model.losses import Losses, Target, losses_of
from kamerton.model.tacotron2.model import Tacotron2
from kamerton.training.controls import Controls
from kamerton.training.data import TensorBatch
from kamerton.training.distributed import World
from kamerton.training.objective import objective_of


@dataclass(frozen=True, slots=True)
class Trainee:
    """The network in training and what changes it.

    Attributes:
        model: The network itself, whose weights are saved.
        optimizer: Of all its parameters.
        train: Resolved parameters.
        world: The processes that train it.
    """

    model: Tacotron2
    optimizer: torch.optim.Optimizer
    train: TrainParams
    world: World = field(default_factory=World)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one optimiser step did.

    Attributes:
        losses: Means over the batches of all processes.
        grad_norm: Of the averaged gradient, before clipping.
        applied: Whether weights were changed; not where a number was not finite.
    """

    losses: Losses
    grad_norm: float
    applied: bool


def make_optimizer(model: Tacotron2, train: TrainParams) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay; the fused form is five times faster on a CPU."""
    return torch.optim.AdamW(
        model.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay, fused=True
    )


def train_step(trainee: Trainee, batches: Sequence[TensorBatch], controls: Controls) -> StepResult:
    """Forward and backward passes of this process's batches and, if all is finite, one update."""
    model, optimizer, train = trainee.model, trainee.optimizer, trainee.train
    (batch,) = batches
    for group in optimizer.param_groups:
        group["lr"] = controls.learning_rate
    frames = model.normalise(batch.frames)
    with torch.autocast(
        frames.device.type, torch.bfloat16, enabled=uses_bf16(train, frames.device)
    ):
        predicted = model(batch.symbols, batch.symbol_lengths, frames, batch.frame_lengths)
    target = Target(frames, batch.frame_lengths, batch.symbols, batch.symbol_lengths)
    losses = losses_of(predicted.widened(), target, objective_of(train, controls))
    optimizer.zero_grad(set_to_none=True)
    losses.total.backward()  # type: ignore[no-untyped-call]
    losses = losses.detached()
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), controls.clip_norm))
    applied = math.isfinite(norm) and math.isfinite(float(losses.total))
    if applied:
        optimizer.step()
    return StepResult(losses, norm, applied)


def uses_bf16(train: TrainParams, device: torch.device) -> bool:
    """Whether the large products are made in bfloat16.

    ``auto`` is single precision on a CPU, where the demo's small network gains nothing from
    bfloat16, and bfloat16 on the GPUs that have it.
    """
    if train.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return train.precision == "bf16"
