"""The budget and the learning rate."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.config.schema import TrainParams
from kamerton.training.schedule import learning_rate, total_steps


def test_the_budget_is_the_recommendation_unless_told_otherwise() -> None:
    assert total_steps(TrainParams(), 500, 12) == 6000
    assert total_steps(TrainParams(epochs=7), 500, 12) == 84
    assert total_steps(TrainParams(max_steps=100), 500, 12) == 100
    assert total_steps(TrainParams(epochs=7, max_steps=100), 500, 12) == 84


@given(st.integers(1, 5000), st.integers(0, 2000), st.floats(0, 1))
def test_it_rises_then_falls_between_floor_and_peak(total: int, warmup: int, floor: float) -> None:
    train = TrainParams(learning_rate=0.01, warmup_steps=warmup, min_learning_rate_share=floor)
    rates = [learning_rate(step, total, train) for step in range(total)]
    peak = rates.index(max(rates))
    assert all(0 < rate <= 0.01 * (1 + 1e-9) for rate in rates if floor > 0)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert peak <= max(1, math.ceil(0.05 * total))


def test_known_values() -> None:
    train = TrainParams(learning_rate=0.002, warmup_steps=50, min_learning_rate_share=0.1)
    assert learning_rate(0, 2000, train) == pytest.approx(0.002 / 50)
    assert learning_rate(49, 2000, train) == pytest.approx(0.002)
    assert learning_rate(50, 2000, train) == pytest.approx(0.002)
    assert learning_rate(1025, 2000, train) == pytest.approx(0.002 * 0.55)  # half of the way
    assert learning_rate(2000, 2000, train) == pytest.approx(0.0002)
