"""What ``train.changes`` made of a step, read back for whoever asked for it.

A checkpoint that silently restores the old learning rate is the classic fault of a restart with
new hyperparameters. So the first step after a start, and every step from which other changes hold,
is recorded with what the optimiser really had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kamerton.config.changes import CHANGEABLE, MADE_WITH, factors_at
from kamerton.config.schema import TrainParams
from kamerton.training.controls import Controls

if TYPE_CHECKING:
    import torch

__all__ = ["MADE_WITH", "is_to_be_told", "made_with"]


def is_to_be_told(step: int, begun: int, total: int, train: TrainParams) -> bool:
    """Whether the step after ``step`` steps is the first of its kind in this process.

    Args:
        step: Steps made before it.
        begun: Steps made before this process began.
        total: The budget.
        train: Holds the changes.
    """
    if not train.changes:
        return False
    now, before = (factors_at(share / total, train.changes) for share in (step, step - 1))
    return step == begun or now != before


def made_with(
    optimizer: torch.optim.Optimizer, used: Controls, unchanged: Controls
) -> dict[str, dict[str, Any]]:
    """Value and factor of everything that changes can touch; not of what is 0 without them.

    Args:
        optimizer: Just after the step; its groups are read.
        used: What the step was made with.
        unchanged: What it would have been made with but for the changes.
    """
    group = optimizer.param_groups[0]
    values = {name: float(getattr(used, name)) for name in CHANGEABLE}
    values |= {"learning_rate": float(group["lr"]), "weight_decay": float(group["weight_decay"])}
    bases = {name: float(getattr(unchanged, name)) for name in CHANGEABLE}
    return {
        name: {"value": value, "factor": value / bases[name]}
        for name, value in values.items()
        if bases[name]
    }
