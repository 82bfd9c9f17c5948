"""What the acoustic model is trained to make small; padding never counts.

Shapes use: B batch, F frames, C mel channels, T decoder steps, N symbols.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from kamerton.model.tacotron2.model import Predicted, steps_of, valid_positions


@dataclass(frozen=True, slots=True)
class LossWeights:
    """How much each part counts in the total."""

    mel: float = 1.0
    gate: float = 1.0
    guided_attention: float = 0.0


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


def mel_loss(predicted: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
    """Mean absolute plus mean squared error over real frames, (B, F, C) against (B, F, C)."""
    real = valid_positions(lengths, target.shape[1]).unsqueeze(2)
    difference = (predicted - target) * real
    values = lengths.sum() * target.shape[2]
    return (difference.abs().sum() + difference.square().sum()) / values


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


def guided_attention_loss(
    attention: Tensor, symbol_lengths: Tensor, steps: Tensor, sigma: float
) -> Tensor:
    """Mean of the weights off the diagonal (Tachibana et al. 2017, arXiv:1710.08969, eq. 5).

    Args:
        attention: Weights, (B, T, N).
        symbol_lengths: (B,).
        steps: Decoder steps of each utterance, (B,).
        sigma: Width of the free band around the diagonal, as a share of the length.
    """
    _, rows, columns = attention.shape
    device = attention.device
    time = torch.arange(rows, device=device) / steps[:, None]  # (B, T)
    place = torch.arange(columns, device=device) / symbol_lengths[:, None]  # (B, N)
    distance = place[:, None, :] - time[:, :, None]
    penalty = 1.0 - torch.exp(-distance.square() / (2 * sigma**2))
    valid = valid_positions(steps, rows)[:, :, None]  # weights are 0 on padded symbols already
    return (attention * penalty * valid).sum() / (steps * symbol_lengths).sum()


def tacotron_losses(
    predicted: Predicted,
    target: Tensor,
    symbol_lengths: Tensor,
    frame_lengths: Tensor,
    *,
    weights: LossWeights,
    gate_positive_weight: float,
    guided_attention_sigma: float,
) -> Losses:
    """All parts of the training loss.

    Args:
        predicted: The model's output, F frames long, a multiple of its r.
        target: Normalised true frames, (B, at most F, C).
        symbol_lengths: (B,).
        frame_lengths: (B,).
        weights: How much each part counts.
        gate_positive_weight: How much the rare last frame counts in the gate's loss.
        guided_attention_sigma: See ``guided_attention_loss``.
    """
    reduction = predicted.before.shape[1] // predicted.attention.shape[1]
    target = functional.pad(target, (0, 0, 0, predicted.before.shape[1] - target.shape[1]))
    raw = {
        "mel_before": mel_loss(predicted.before, target, frame_lengths),
        "mel_after": mel_loss(predicted.after, target, frame_lengths),
        "gate": gate_loss(predicted.gate_logits, frame_lengths, reduction, gate_positive_weight),
        "guided_attention": guided_attention_loss(
            predicted.attention,
            symbol_lengths,
            steps_of(frame_lengths, reduction),
            guided_attention_sigma,
        ),
    }
    factors = {
        "mel_before": weights.mel,
        "mel_after": weights.mel,
        "gate": weights.gate,
        "guided_attention": weights.guided_attention,
    }
    weighted = {name: factors[name] * value for name, value in raw.items()}
    return Losses(torch.stack(list(weighted.values())).sum(), raw, weighted)
