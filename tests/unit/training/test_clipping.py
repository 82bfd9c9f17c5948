"""Adaptive gradient clipping."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.training.clipping import HISTORY, remember, threshold, usual_norm
from kamerton.training.state import ClipState

NORMS = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=60)


def of(norms):
    state = ClipState()
    for norm in norms:
        state = remember(state, norm)
    return state


@given(NORMS, st.floats(1e-3, 1e3))
def test_it_is_the_95th_percentile_within_its_bounds(norms, maximum):
    expected = np.quantile(norms, 0.95, method="nearest")
    ranked = sorted(norms)
    at = 0.95 * (len(norms) - 1)
    neighbours = {ranked[int(np.floor(at))], ranked[int(np.ceil(at))]}  # where rounding ties
    found = threshold(of(norms), maximum)
    allowed = {float(np.clip(value, 0.1 * maximum, maximum)) for value in {*neighbours, expected}}
    assert found in allowed


def test_known_values():
    state = of([float(norm) for norm in range(101)])  # 0 to 100
    assert threshold(state, 1000.0) == 100.0  # a tenth of the maximum: the percentile is lower
    assert threshold(state, 200.0) == 95.0
    assert threshold(state, 50.0) == 50.0
    assert usual_norm(state) == 50.0


def test_before_the_first_step_it_is_what_was_asked_for():
    assert threshold(ClipState(), 1.5) == 1.5
    assert usual_norm(ClipState()) == 0.0


def test_it_forgets_what_is_older_than_a_thousand_steps():
    state = of([100.0] * 50 + [0.5] * HISTORY)
    assert len(state.norms) == HISTORY
    assert threshold(state, 1.0) == pytest.approx(0.5)
    assert state.norms == (0.5,) * HISTORY


@given(NORMS)
def test_the_usual_norm_is_the_median(norms):
    assert usual_norm(of(norms)) == pytest.approx(np.median(norms))
