"""How far attention is from reading the text once and in order; padding never counts.

Shapes use: B batch, T decoder steps, N symbols. ``steps`` are the decoder steps of each utterance,
the frames divided by the reduction factor and rounded up, (B,).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from kamerton.model.losses.masks import real_cells, real_positions, zero_unless

GuidedKind = Literal["tachibana", "gaussian_mse", "ctc_forward_sum"]

BLANK_LOG_WEIGHT = -1.0  # of a step that reads no symbol, before normalisation (RAD-TTS)
SMALLEST_WEIGHT = 1e-8  # added to weights before their logarithm: bounds it and its gradient
_NOWHERE = -1e4  # a logarithm whose exponential is 0 and that gradients survive


def guided_loss(
    attention: Tensor, symbol_lengths: Tensor, steps: Tensor, *, kind: GuidedKind, sigma: float
) -> Tensor:
    """The guided attention loss of that kind; see the functions below."""
    if kind == "ctc_forward_sum":
        return forward_sum_loss(attention, symbol_lengths, steps)
    loss = gaussian_attention_loss if kind == "gaussian_mse" else guided_attention_loss
    return loss(attention, symbol_lengths, steps, sigma)


def guided_attention_loss(
    attention: Tensor, symbol_lengths: Tensor, steps: Tensor, sigma: float
) -> Tensor:
    """Mean of the weights off the diagonal (Tachibana et al. 2017, arXiv:1710.08969, eq. 5).

    Args:
        attention: Weights, (B, T, N).
        symbol_lengths: (B,).
        steps: (B,).
        sigma: Width of the free band around the diagonal, as a share of the length.
    """
    real = real_cells(steps, symbol_lengths, attention)
    exponent = _diagonal_exponent(attention, symbol_lengths, steps, sigma)
    return (zero_unless(real, attention) * (1.0 - exponent.exp())).sum() / real.sum()


def gaussian_attention_loss(
    attention: Tensor, symbol_lengths: Tensor, steps: Tensor, sigma: float
) -> Tensor:
    """Mean squared difference from a Gaussian around the diagonal, whose rows sum to 1.

    Arguments as of ``guided_attention_loss``. Unlike that loss it also forbids attention that is
    narrower than ``sigma``, so a small one is wanted.
    """
    real = real_cells(steps, symbol_lengths, attention)
    exponent = _diagonal_exponent(attention, symbol_lengths, steps, sigma)
    padding = ~real_positions(symbol_lengths, attention.shape[2])[:, None, :]
    wanted = exponent.masked_fill(padding, -torch.inf).softmax(dim=2)
    return zero_unless(real, attention - wanted).square().sum() / real.sum()


def forward_sum_loss(attention: Tensor, symbol_lengths: Tensor, steps: Tensor) -> Tensor:
    """How improbable it is to read all symbols in order (Shih et al. 2021, arXiv:2108.10447).

    Minus the logarithm of the summed probability of all monotonic paths through the weights, per
    symbol; mean over utterances. A path reads every symbol in order, each for one step or more,
    and may read none, a blank, before, between and after them. Steps are normalised over their
    symbols and the blank. No prior is laid over the weights. An utterance of more symbols than
    steps has no path; it counts as 0 and gives no gradient.
    """
    real = real_cells(steps, symbol_lengths, attention)
    weights = (zero_unless(real, attention) + SMALLEST_WEIGHT).log().masked_fill(~real, _NOWHERE)
    log_probabilities = functional.pad(weights, (1, 0), value=BLANK_LOG_WEIGHT).log_softmax(dim=2)
    symbols = torch.arange(1, attention.shape[2] + 1, device=attention.device)
    losses = functional.ctc_loss(
        log_probabilities.transpose(0, 1),
        symbols.expand(len(attention), -1),
        steps,
        symbol_lengths,
        blank=0,
        reduction="none",
        zero_infinity=True,
    )
    return (losses / symbol_lengths).mean()


def monotonic_loss(attention: Tensor, symbol_lengths: Tensor, steps: Tensor) -> Tensor:
    """How far attention goes back, and leaps ahead, from step to step.

    With p the expected position in symbols, mean over steps of relu(p[t-1] - p[t]) +
    0.5 relu(p[t] - p[t-1] - J), where a leap is more than J = max(3, 4 N / T) symbols; mean over
    utterances. An utterance of one step counts as 0.
    """
    real = real_cells(steps, symbol_lengths, attention)
    places = torch.arange(attention.shape[2], device=attention.device, dtype=attention.dtype)
    expected = zero_unless(real, attention) @ places  # (B, T)
    move = zero_unless(real[:, 1:, 0], expected[:, 1:] - expected[:, :-1])
    leap = (4.0 * symbol_lengths.to(expected.dtype) / steps).clamp(min=3.0)[:, None]
    cost = (-move).relu() + 0.5 * (move - leap).relu()
    return (cost.sum(dim=1) / (steps - 1).clamp(min=1)).mean()


def coarse_agreement_loss(
    fine: Tensor,
    coarse: Tensor,
    symbol_lengths: Tensor,
    *,
    fine_steps: Tensor,
    coarse_steps: Tensor,
    fine_reduction: int,
    coarse_reduction: int,
) -> Tensor:
    """Mean absolute difference between the attentions of two decoders of other reductions.

    The coarse one is interpolated linearly between the middles of its steps in time, and held
    before the first and after the last. Both get gradients.

    Args:
        fine: Weights of the decoder of less frames per step, (B, T, N).
        coarse: Weights of the other, (B, T', N).
        symbol_lengths: (B,).
        fine_steps: Decoder steps of each utterance, (B,).
        coarse_steps: The same of the coarse decoder, (B,).
        fine_reduction: Frames per step.
        coarse_reduction: Frames per coarse step.
    """
    ratio = fine_reduction / coarse_reduction
    times = torch.arange(fine.shape[1], device=fine.device, dtype=fine.dtype)
    place = ((times + 0.5) * ratio - 0.5).clamp(min=0.0)  # in coarse steps
    place = torch.minimum(place, (coarse_steps - 1)[:, None].to(fine.dtype))  # (B, T)
    known = torch.arange(coarse.shape[1], device=fine.device, dtype=fine.dtype)
    # A product with hat functions: its gradient has no order of summation left open, as that of
    # gathered rows has on a GPU.
    shares = (1.0 - (place[:, :, None] - known).abs()).relu()  # (B, T, T')
    stretched = shares @ zero_unless(real_cells(coarse_steps, symbol_lengths, coarse), coarse)
    real = real_cells(fine_steps, symbol_lengths, fine)
    return zero_unless(real, fine - stretched).abs().sum() / real.sum()


def _diagonal_exponent(
    attention: Tensor, symbol_lengths: Tensor, steps: Tensor, sigma: float
) -> Tensor:
    """-(n / N - t / T)² / (2 sigma²), (B, T, N)."""
    _, rows, columns = attention.shape
    device, dtype = attention.device, attention.dtype
    time = torch.arange(rows, device=device, dtype=dtype) / steps[:, None]
    place = torch.arange(columns, device=device, dtype=dtype) / symbol_lengths[:, None]
    exponent: Tensor = -(place[:, None, :] - time[:, :, None]).square() / (2 * sigma**2)
    return exponent
