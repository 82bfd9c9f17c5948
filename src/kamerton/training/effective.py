"""The optimiser's hyperparameters after a checkpoint was loaded: those asked for, and read back.

``Optimizer.load_state_dict`` brings the hyperparameters of the checkpoint back with the moments.
A run that goes on with other parameters would quietly keep the old ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from kamerton.core.errors import PipelineError

Group = Mapping[str, Any]


def hyperparameters(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """All of each parameter group but the parameters themselves."""
    return [
        {name: value for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]


def apply_hyperparameters(optimizer: torch.optim.Optimizer, asked: Sequence[Group]) -> list[str]:
    """Give every parameter group what was asked for, and read it back.

    The learning rate is the peak; the schedule sets that of each step.

    Args:
        optimizer: Just loaded from a checkpoint, or new.
        asked: ``hyperparameters`` of a new optimiser.

    Returns:
        What the checkpoint had otherwise, in words; the learning rate is not among it.

    Raises:
        PipelineError: the optimiser does not have what it was given.
    """
    loaded = hyperparameters(optimizer)
    for group, wanted in zip(optimizer.param_groups, asked, strict=True):
        group.update(wanted)
    require_effective(optimizer, asked)
    return [
        f"{name} was {old.get(name)}, is {wanted[name]}"
        for old, wanted in zip(loaded, asked, strict=True)
        for name in wanted
        if name != "lr" and old.get(name) != wanted[name]
    ]


def require_effective(optimizer: torch.optim.Optimizer, asked: Sequence[Group]) -> None:
    """Read the hyperparameters back.

    Raises:
        PipelineError: one is not what was asked for.
    """
    wrong = [
        f"{name} is {found.get(name)}, asked {wanted[name]}"
        for found, wanted in zip(hyperparameters(optimizer), asked, strict=True)
        for name in wanted
        if found.get(name) != wanted[name]
    ]
    if wrong:
        raise PipelineError(
            f"the optimiser did not take its parameters: {'; '.join(wrong)}.",
            hint="begin anew: `kamerton train --force`",
        )


def facts(asked: Sequence[Group]) -> dict[str, Any]:
    """What is logged of them: those of the first group, and the decays where groups differ."""
    first = asked[0]
    values = {name: _plain(first[name]) for name in ("lr", "weight_decay", "betas", "eps")}
    decays = [float(group["weight_decay"]) for group in asked]
    return values | ({"weight_decays": decays} if len(set(decays)) > 1 else {})


def _plain(value: Any) -> Any:
    return [float(item) for item in value] if isinstance(value, list | tuple) else float(value)
