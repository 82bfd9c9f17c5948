"""What the next step is made with: one value and one owner for everything that changes in a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Controls:
    """The values of one step; who decided each is in ``owners``.

    Attributes:
        learning_rate: Of every parameter.
        clip_norm: Gradient norm above which gradients are scaled down.
        guided_attention_weight: Of that loss.
        gate_weight: Of the gate loss.
        variational_kl_weight: Of the cost of learned noise widths.
        owners: By the name of a field above: schedule, phase, recovery, adaptive or params.
    """

    learning_rate: float
    clip_norm: float
    guided_attention_weight: float
    gate_weight: float = 1.0
    variational_kl_weight: float = 0.0
    owners: Mapping[str, str] = field(default_factory=dict)
