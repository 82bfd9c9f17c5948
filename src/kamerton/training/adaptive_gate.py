"""How much the gate's loss counts: more while stops are missed, less when they are found.

The share of frames that the gate gets right says nothing: one that never opens is right about all
frames but the last. So the weight follows the F1 of stop frames.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from kamerton.model.losses.masks import real_positions
from kamerton.model.tacotron2.model import steps_of
from kamerton.training.state import GateState

INTERVAL_STEPS = 100  # the weight is looked at this often
POOR_F1, GOOD_F1 = 0.5, 0.8
GROWTH, DECAY = 1.1, 0.95
SMALLEST, LARGEST = 0.8, 2.0

Stops = tuple[int, int, int]
"""Hits, fired, actual: stop frames found, stops predicted, stops there were."""


def count_stops(logits: Tensor, lengths: Tensor, reduction: int, threshold: float) -> Stops:
    """Count the stops of a batch.

    An utterance fires where its gate first opens, up to the end of its last decoder step; a hit is
    at most one decoder step from its last frame.

    Args:
        logits: Of the gate, (B, F).
        lengths: Frames of each utterance, (B,).
        reduction: Frames per decoder step.
        threshold: Stop probability above which the gate is open.
    """
    own = real_positions(steps_of(lengths, reduction) * reduction, logits.shape[1])
    opened = (logits.sigmoid() > threshold) & own
    fired = opened.any(dim=1)
    error = opened.byte().argmax(dim=1) - (lengths - 1)
    hits = fired & (error.abs() <= reduction)
    return int(hits.sum()), int(fired.sum()), len(lengths)


def updated(state: GateState, stops: Stops, step: int) -> GateState:
    """The state after a step whose predictions had these stops.

    Args:
        state: Before it.
        stops: What ``count_stops`` said, summed over the step's batches and processes.
        step: Steps made, this one included.
    """
    hits, fired, actual = state.hits + stops[0], state.fired + stops[1], state.actual + stops[2]
    if step % INTERVAL_STEPS or fired + actual == 0:
        return replace(state, hits=hits, fired=fired, actual=actual)
    f1 = 2 * hits / (fired + actual)
    weight = state.weight
    if f1 < POOR_F1:
        weight = min(weight * GROWTH, LARGEST)
    elif f1 > GOOD_F1:
        weight = max(weight * DECAY, SMALLEST)
    return GateState(weight)
