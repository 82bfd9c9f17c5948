"""The weight of the gate's loss follows the F1 of stop frames."""

import json
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kamerton.training.adaptive_gate import INTERVAL_STEPS, updated
from kamerton.training.state import GateState
from kamerton.training.stops import count_stops

PERFECT, BLIND = (10, 10, 10), (0, 0, 10)


def after(stops: tuple[int, int, int], *, looks: int, weight: float = 1.3) -> float:
    state = GateState(weight)
    for step in range(1, looks * INTERVAL_STEPS + 1):
        state = updated(state, stops, step)
    return state.weight


def test_the_weight_starts_at_the_documented_value() -> None:
    assert GateState().weight == 1.3


@pytest.mark.parametrize(
    ("stops", "looks", "weight"),
    [
        (BLIND, 1, 1.3 * 1.1),
        (BLIND, 2, 1.3 * 1.1**2),
        (BLIND, 30, 2.0),
        (PERFECT, 1, 1.3 * 0.95),
        (PERFECT, 2, 1.3 * 0.95**2),
        (PERFECT, 30, 0.8),
        ((6, 8, 10), 5, 1.3),  # F1 is 2/3
        ((5, 10, 10), 5, 1.3),  # exactly .5, and below exactly .8: nothing changes
        ((8, 10, 10), 5, 1.3),
        ((5, 11, 10), 1, 1.3 * 1.1),
        ((9, 11, 10), 1, 1.3 * 0.95),
    ],
)
def test_missed_stops_raise_it_and_found_ones_lower_it(
    stops: tuple[int, int, int], looks: int, weight: float
) -> None:
    assert after(stops, looks=looks) == pytest.approx(weight)


def test_a_gate_that_never_opens_is_not_praised_for_being_right_about_all_other_frames() -> None:
    logits = torch.full((4, 100), -20.0)
    stops = count_stops(logits, torch.full((4,), 100), 1, 0.5)
    assert stops == (0, 0, 4)
    assert after(stops, looks=1) > 1.3


def test_it_changes_every_hundred_steps_by_all_that_was_counted_since() -> None:
    state = GateState()
    for step in range(1, INTERVAL_STEPS):
        state = updated(state, (1, 2, 3), step)
        assert state == GateState(1.3, step, 2 * step, 3 * step)
    # 99 + 1000 hits of 1198 + 1297 stops: F1 is .88, though it was .4 before this step.
    state = updated(state, (1000, 1000, 1000), INTERVAL_STEPS)
    assert state == GateState(pytest.approx(1.3 * 0.95))


def test_without_any_stop_nothing_is_known() -> None:
    assert updated(GateState(1.7), (0, 0, 0), INTERVAL_STEPS) == GateState(1.7)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), max_size=60),
    st.integers(0, 60),
)
def test_the_weight_stays_in_bounds_and_a_state_is_all_there_is_to_know(
    counts: list[tuple[int, int, int]], pause: int
) -> None:
    def run(state: GateState, first: int, last: int) -> GateState:
        for index in range(first, min(last, len(counts))):
            hits, fired, actual = counts[index]
            stops = min(hits, fired, actual), fired, actual
            state = updated(state, stops, (index + 1) * 25)
            assert 0.8 <= state.weight <= 2.0
        return state

    whole = run(GateState(), 0, 60)
    saved = json.loads(json.dumps(asdict(run(GateState(), 0, pause))))
    assert run(GateState(**saved), pause, 60) == whole


def logits_opening(size: int, *frames: int | None) -> torch.Tensor:
    """One utterance each; the gate opens at that frame and stays open."""
    logits = torch.full((len(frames), size), -3.0)
    for row, frame in enumerate(frames):
        if frame is not None:
            logits[row, frame:] = 3.0
    return logits


@pytest.mark.parametrize("reduction", [1, 2, 5])
def test_a_hit_is_at_most_one_decoder_step_off(reduction: int) -> None:
    last = 11
    for opened in range(6, 20):
        stops = count_stops(logits_opening(20, opened), torch.tensor([last + 1]), reduction, 0.5)
        own = -(-(last + 1) // reduction) * reduction
        fired = opened < own
        assert stops == (int(fired and abs(opened - last) <= reduction), int(fired), 1)


def test_an_utterance_is_counted_the_same_alone_and_in_a_batch() -> None:
    opened = (3, None, 9, 0)
    lengths = torch.tensor([4, 10, 7, 12])
    # After its own last step, padding opens the gate; that is nobody's stop.
    logits = logits_opening(14, *opened)
    logits[1, 12:] = 5.0
    whole = count_stops(logits, lengths, 2, 0.5)
    alone = [
        count_stops(logits[row : row + 1, : -(-int(size) // 2) * 2], lengths[row : row + 1], 2, 0.5)
        for row, size in enumerate(lengths)
    ]
    assert whole == tuple(map(sum, zip(*alone, strict=True))) == (1, 2, 4)


def test_the_threshold_and_numbers_that_are_none() -> None:
    lengths = torch.tensor([3])
    logits = torch.tensor([[-3.0, -3.0, 0.5]])  # a probability of .62
    assert count_stops(logits, lengths, 1, 0.6) == (1, 1, 1)
    assert count_stops(logits, lengths, 1, 0.7) == (0, 0, 1)
    assert count_stops(torch.full((1, 3), torch.nan), lengths, 1, 0.5) == (0, 0, 1)
