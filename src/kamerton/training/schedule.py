"""How long to train and how fast: pure functions of the step, so that nothing needs saving."""

from __future__ import annotations

import math

from kamerton.config.schema import TrainParams

WARMUP_BUDGET_SHARE = 0.05  # a short run must not spend itself on warming up


def total_steps(train: TrainParams, recommended_epochs: int, batches_per_epoch: int) -> int:
    """The budget in optimiser steps: given or recommended epochs, cut at ``train.max_steps``."""
    epochs = train.epochs if train.epochs is not None else recommended_epochs
    steps = epochs * batches_per_epoch
    return steps if train.max_steps is None else min(steps, train.max_steps)


def learning_rate(step: int, total: int, train: TrainParams) -> float:
    """Learning rate of step number ``step`` (from 0): linear warm-up, then half a cosine.

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
