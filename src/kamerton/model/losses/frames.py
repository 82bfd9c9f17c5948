"""How wrong predicted mel frames and stops are; padding never counts.

Shapes use: B batch, F frames, C mel channels.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

from kamerton.model.tacotron2.model import steps_of, valid_positions

MelKind = Literal["l1_l2", "mse"]


def mel_loss(predicted: Tensor, target: Tensor, lengths: Tensor, kind: MelKind = "l1_l2") -> Tensor:
    """Mean squared, or absolute plus squared, error over real frames, (B, F, C) each."""
    real = valid_positions(lengths, target.shape[1]).unsqueeze(2)
    difference = (predicted - target) * real
    values = lengths.sum() * target.shape[2]
    squared = difference.square().sum()
    return (squared if kind == "mse" else difference.abs().sum() + squared) / values


def gate_targets(lengths: Tensor, size: int) -> Tensor:
    """1.0 from the last real frame on, (B, size)."""
    return 1.0 - valid_positions(lengths - 1, size)


def gate_loss(logits: Tensor, lengths: Tensor, reduction: int, positive_weight: float) -> Tensor:
    """Cross-entropy of the gate, (B, F).

    Counts up to the end of the last decoder step of each utterance: the frames between its last
    real frame and the end of that step are the model's own, not padding of the batch.
    """
    counted = valid_positions(steps_of(lengths, reduction) * reduction, logits.shape[1])
    losses = functional.binary_cross_entropy_with_logits(
        logits,
        gate_targets(lengths, logits.shape[1]),
        pos_weight=logits.new_tensor(positive_weight),
        reduction="none",
    )
    return (losses * counted).sum() / counted.sum()
