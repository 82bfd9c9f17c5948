"""The sum that is minimised, and its parts.

Shapes use: B batch, F frames, C mel channels, T decoder steps, N symbols.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from kamerton.model.losses.attention import guided_attention_loss
from kamerton.model.losses.frames import MelKind, gate_loss, mel_loss
from kamerton.model.tacotron2.model import Predicted, steps_of

GuidedKind = Literal["tachibana", "gaussian_mse", "ctc_forward_sum"]


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised.

    Attributes:
        weights: How much each part counts in the total, by its name. A part without a weight is
            not computed, except mel_before, mel_after, gate and guided_attention, which every run
            reports.
        mel: Kind of the mel loss.
        guided_attention: Kind of the guided attention loss.
        guided_attention_sigma: Width of the diagonal that it allows.
        gate_positive_weight: How much the rare last frame counts in the gate's loss.
    """

    weights: Mapping[str, float] = field(
        default_factory=lambda: {"mel_before": 1.0, "mel_after": 1.0, "gate": 1.0}
    )
    mel: MelKind = "l1_l2"
    guided_attention: GuidedKind = "tachibana"
    guided_attention_sigma: float = 0.4
    gate_positive_weight: float = 5.0


@dataclass(frozen=True, slots=True)
class Losses:
    """The total and its parts; ``raw`` parts are unweighted, as they are compared across runs."""

    total: Tensor
    raw: dict[str, Tensor]
    weighted: dict[str, Tensor]

    def detached(self) -> Losses:
        """The same numbers without the graph behind them."""
        return Losses(
            self.total.detach(),
            {name: value.detach() for name, value in self.raw.items()},
            {name: value.detach() for name, value in self.weighted.items()},
        )


@dataclass(frozen=True, slots=True)
class Target:
    """What should have been predicted.

    Attributes:
        frames: Normalised true frames, (B, at most F, C).
        frame_lengths: (B,).
        symbols: Symbol ids, (B, N).
        symbol_lengths: (B,).
    """

    frames: Tensor
    frame_lengths: Tensor
    symbols: Tensor
    symbol_lengths: Tensor


def losses_of(predicted: Predicted, target: Target, objective: Objective) -> Losses:
    """All parts of the training loss and their weighted sum."""
    reduction = predicted.before.shape[1] // predicted.attention.shape[1]
    lengths = target.frame_lengths
    frames = functional.pad(
        target.frames, (0, 0, 0, predicted.before.shape[1] - target.frames.shape[1])
    )
    raw = {
        "mel_before": mel_loss(predicted.before, frames, lengths, objective.mel),
        "mel_after": mel_loss(predicted.after, frames, lengths, objective.mel),
        "gate": gate_loss(
            predicted.gate_logits, lengths, reduction, objective.gate_positive_weight
        ),
        "guided_attention": guided_attention_loss(
            predicted.attention,
            target.symbol_lengths,
            steps_of(lengths, reduction),
            objective.guided_attention_sigma,
        ),
    }
    weighted = {
        name: objective.weights[name] * value
        for name, value in raw.items()
        if objective.weights.get(name)
    }
    return Losses(torch.stack(list(weighted.values())).sum(), raw, weighted)
