"""How much the gate's loss counts: more while stops are missed, less when they are found.

The share of frames that the gate gets right says nothing: one that never opens is right about all
frames but the last. So the weight follows the F1 of stop frames.
"""

from __future__ import annotations

from dataclasses import replace

from kamerton.training.state import GateState
from kamerton.training.stops import Stops

INTERVAL_STEPS = 100  # the weight is looked at this often
POOR_F1, GOOD_F1 = 0.5, 0.8
GROWTH, DECAY = 1.1, 0.95
SMALLEST, LARGEST = 0.8, 2.0


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
