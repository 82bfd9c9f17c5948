"""Where the gate takes an utterance to end, and how often that is right."""

from __future__ import annotations

import torch
from torch import Tensor

from kamerton.model.losses.masks import real_positions
from kamerton.model.tacotron2.model import steps_of

Stops = tuple[int, int, int]
"""Hits, fired, actual: stop frames found, stops predicted, stops there were."""


def predicted_stops(
    gate_logits: Tensor, lengths: Tensor, reduction: int, threshold: float
) -> Tensor:
    """The first frame that each utterance takes for its last, (B,), or -1.

    Looked for up to the end of the utterance's last decoder step: what comes after it is the
    padding of the batch.

    Args:
        gate_logits: (B, F).
        lengths: Frames of each utterance, (B,).
        reduction: Frames per decoder step.
        threshold: Stop probability above which the gate is open.
    """
    looked_at = real_positions(steps_of(lengths, reduction) * reduction, gate_logits.shape[1])
    opened = (gate_logits.sigmoid() > threshold) & looked_at
    first = opened.to(torch.uint8).argmax(dim=1)
    return torch.where(opened.any(dim=1), first, torch.full_like(first, -1))


def found_stops(stops: Tensor, lengths: Tensor, reduction: int) -> Tensor:
    """Which of the predicted stops, (B,), are at most one decoder step from the last frame."""
    return (stops >= 0) & ((stops - (lengths - 1)).abs() <= reduction)


def count_stops(logits: Tensor, lengths: Tensor, reduction: int, threshold: float) -> Stops:
    """Count the stops of a batch; the arguments are those of ``predicted_stops``."""
    stops = predicted_stops(logits, lengths, reduction, threshold)
    hits = found_stops(stops, lengths, reduction)
    return int(hits.sum()), int((stops >= 0).sum()), len(lengths)
