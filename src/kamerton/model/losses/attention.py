"""How far attention is from reading the text once and in order; padding never counts.

Shapes use: B batch, T decoder steps, N symbols.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kamerton.model.tacotron2.model import valid_positions


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
