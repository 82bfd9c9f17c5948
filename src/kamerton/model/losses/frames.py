"""How wrong predicted mel frames and stops are; padding never counts.

Shapes use: B batch, F frames, C mel channels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from kamerton.model.losses.masks import real_positions, zero_unless
from kamerton.model.tacotron2.model import steps_of

MelKind = Literal["l1_l2", "mse"]


def mel_loss(predicted: Tensor, target: Tensor, lengths: Tensor, kind: MelKind = "l1_l2") -> Tensor:
    """Mean squared, or absolute plus squared, error over real frames, (B, F, C) each."""
    error = _real_error(predicted, target, lengths)
    values = lengths.sum() * target.shape[2]
    squared = error.square().sum()
    return (squared if kind == "mse" else error.abs().sum() + squared) / values


def gate_targets(lengths: Tensor, size: int) -> Tensor:
    """1.0 from the last real frame on, (B, size)."""
    return 1.0 - real_positions(lengths - 1, size).float()


def gate_loss(logits: Tensor, lengths: Tensor, reduction: int, positive_weight: float) -> Tensor:
    """Cross-entropy of the gate, (B, F).

    Counts up to the end of the last decoder step of each utterance: the frames between its last
    real frame and the end of that step are the model's own, not padding of the batch.
    """
    counted = real_positions(steps_of(lengths, reduction) * reduction, logits.shape[1])
    losses = functional.binary_cross_entropy_with_logits(
        zero_unless(counted, logits),
        gate_targets(lengths, logits.shape[1]).to(logits.dtype),
        pos_weight=logits.new_tensor(positive_weight),
        reduction="none",
    )
    return zero_unless(counted, losses).sum() / counted.sum()


def spectral_loss(predicted: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
    """Errors by band, absolute errors, and errors of the change from frame to frame.

    MSE with errors times 1.5 in the middle half of the channels, where formants are, and times 0.8
    in the quarter above; plus 0.3 of the absolute error; plus 0.2 of the MSE of differences between
    neighbouring frames (differential spectral loss, Shechtman and Sorin 2019, arXiv:1909.10302).
    Means over the real frames, or pairs of frames, of the batch; (B, F, C) each.
    """
    error = _real_error(predicted, target, lengths)
    channels = target.shape[2]
    values = lengths.sum() * channels
    bands = (error * _band_weights(channels, error)).square().sum() / values
    pairs = real_positions(lengths - 1, max(target.shape[1] - 1, 0))[:, :, None]
    change = zero_unless(pairs, error[:, 1:] - error[:, :-1])
    moving = change.square().sum() / (pairs.sum() * channels).clamp(min=1)
    return bands + 0.3 * error.abs().sum() / values + 0.2 * moving


def perceptual_loss(
    predicted: Tensor,
    target: Tensor,
    lengths: Tensor,
    loudness: Tensor,
    deviation: Tensor | None = None,
) -> Tensor:
    """Squared plus half the absolute error of levels, weighted by how loud a band is heard.

    Frames are normalised channel by channel, and a unit is more decibels in one channel than in
    another. Hearing judges levels, so errors are first restored to log amplitude (decibels but
    for a factor) by the channels' deviations; the quadratic mean of those is the unit, so that
    the loss has the scale of the mel loss whatever the corpus.

    Args:
        predicted: (B, F, C).
        target: (B, F, C).
        lengths: (B,).
        loudness: Weights of the channels, (C,); only their ratios matter.
        deviation: What a unit of each channel is in log amplitude, (C,); None: all alike.
    """
    error = _real_error(predicted, target, lengths)
    if deviation is not None:
        error = error * (deviation / deviation.square().mean().sqrt())
    weighted = (error.square() + 0.5 * error.abs()) * (loudness / loudness.mean())
    return weighted.sum() / (lengths.sum() * target.shape[2])


def style_loss(predicted: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
    """Difference of what does not depend on time: levels, liveliness, and how bands go together.

    Of every utterance's real frames X (F, C): MSE between the means of the channels, plus MSE
    between their variances, plus half the MSE between the Gram matrices XᵀX / (C F) (Gatys et al.
    2016, "Image Style Transfer Using Convolutional Neural Networks", eq. 3 and 4). Mean over
    utterances.
    """
    ours = _style(predicted, lengths)
    theirs = _style(target, lengths)
    mean, variance, gram = (
        (a - b).square().mean() for a, b in zip(ours, theirs, strict=True)
    )  # every utterance has as many elements, so this is the mean of the utterances' means
    return mean + variance + 0.5 * gram


def _style(frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Means (B, C), variances (B, C) and Gram matrices (B, C, C) over time."""
    real = real_positions(lengths, frames.shape[1])[:, :, None]
    frames = zero_unless(real, frames)
    mean = frames.sum(dim=1) / lengths[:, None]
    centred = zero_unless(real, frames - mean[:, None])
    variance = centred.square().sum(dim=1) / lengths[:, None]
    gram = frames.transpose(1, 2) @ frames
    return mean, variance, gram / (frames.shape[2] * lengths[:, None, None])


def _real_error(predicted: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
    real = real_positions(lengths, target.shape[1])[:, :, None]
    return zero_unless(real, predicted - target)


def _band_weights(channels: int, like: Tensor) -> Tensor:
    """1 in the lowest quarter of the channels, 1.5 in the next two, 0.8 in the highest, (C,)."""
    share = torch.arange(channels, device=like.device, dtype=like.dtype) / channels
    low, high = like.new_tensor(1.0), like.new_tensor(0.8)
    return torch.where(share < 0.25, low, torch.where(share < 0.75, like.new_tensor(1.5), high))
