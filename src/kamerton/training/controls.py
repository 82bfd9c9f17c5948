"""What the next step is made with: one value and one owner for everything that changes in a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Controls:
    """The values of one step; who decided each is in ``owners``.

    Attributes:
        learning_rate: Of every parameter.
        clip_norm: Gradient norm above which gradients are scaled down.
        guided_attention_weight: Of that loss.
        gate_weight: Of the gate loss.
        variational_kl_weight: Of the cost of learned noise widths.
        weight_decay: Of every parameter.
        dropout: Factor of the noise in the two LSTMs.
        owners: By the name of a field above: schedule, phase, recovery,
            quality, adaptive, changes or params.
        factors: By the same names, what the owner made of the value it was given; 1 where it is
            taken as it stands or decided anew at every step.
    """

    learning_rate: float
    clip_norm: float
    guided_attention_weight: float
    gate_weight: float = 1.0
    variational_kl_weight: float = 0.0
    weight_decay: float = 0.0
    dropout: float = 1.0
    owners: Mapping[str, str] = field(default_factory=dict)
    factors: Mapping[str, float] = field(default_factory=dict)


def changes(before: Controls | None, after: Controls) -> dict[str, dict[str, Any]]:
    """Owner, factor and value of everything that another owner, or its owner otherwise, decides."""
    return {
        name: {
            "owner": owner,
            "factor": after.factors.get(name, 1.0),
            "value": float(getattr(after, name)),
        }
        for name, owner in after.owners.items()
        if before is None
        or before.owners.get(name) != owner
        or before.factors.get(name, 1.0) != after.factors.get(name, 1.0)
    }
