import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.smart_tuner.objective import Objective, ObjectiveError
from kamerton.tracking.names import ATTENTION_SCORE, GATE_F1, MCD_DB, VAL_MEL_LOSS

FULL = {VAL_MEL_LOSS: 2.0, ATTENTION_SCORE: 0.5, GATE_F1: 0.25, MCD_DB: 8.0}
SCORES = st.floats(0.0, 1.0)
LOSSES = st.floats(0.01, 10.0)


def test_golden_value() -> None:
    score = Objective.freeze(FULL)(
        {VAL_MEL_LOSS: 1.0, ATTENTION_SCORE: 0.9, GATE_F1: 0.8, MCD_DB: 6.0}
    )
    assert score == pytest.approx(0.4 * 0.5 + 0.25 * 0.1 + 0.2 * 0.2 + 0.15 * 0.75)


def test_weights_of_parts_that_are_not_measured_are_shared_by_the_rest() -> None:
    objective = Objective.freeze({VAL_MEL_LOSS: 2.0, ATTENTION_SCORE: 0.0})
    score = objective({VAL_MEL_LOSS: 1.0, ATTENTION_SCORE: 1.0, GATE_F1: 0.0})
    assert score == pytest.approx(0.4 * 0.5 / 0.65)


def test_a_loss_counts_at_most_twice_the_baseline() -> None:
    objective = Objective.freeze({VAL_MEL_LOSS: 1.0})
    assert objective({VAL_MEL_LOSS: 1e9}) == 2.0


@given(LOSSES, LOSSES, SCORES, SCORES, st.floats(0.001, 1.0))
def test_doing_better_in_one_part_is_never_worse(
    scale: float, loss: float, attention: float, gate: float, share: float
) -> None:
    objective = Objective.freeze({VAL_MEL_LOSS: scale, ATTENTION_SCORE: 0.1, GATE_F1: 0.1})
    values = {VAL_MEL_LOSS: loss, ATTENTION_SCORE: attention, GATE_F1: gate}
    better = [
        values | {VAL_MEL_LOSS: loss * share},
        values | {ATTENTION_SCORE: attention + (1 - attention) * share},
        values | {GATE_F1: gate + (1 - gate) * share},
    ]
    assert all(objective(item) <= objective(values) + 1e-12 for item in better)
    assert 0.0 <= objective(values) <= 2.0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({ATTENTION_SCORE: 0.5}, "never recorded"),
        ({VAL_MEL_LOSS: math.nan}, "not finite"),
        ({VAL_MEL_LOSS: 1.0, GATE_F1: math.inf}, "not finite"),
        ({VAL_MEL_LOSS: 0.0}, "cannot be a scale"),
    ],
)
def test_a_baseline_that_can_be_no_scale_is_refused(values: dict[str, float], words: str) -> None:
    with pytest.raises(ObjectiveError, match=words):
        Objective.freeze(values)


@pytest.mark.parametrize(
    ("values", "words"),
    [({}, "not recorded"), ({VAL_MEL_LOSS: math.inf}, "not finite")],
)
def test_a_trial_without_a_value_has_no_objective(values: dict[str, float], words: str) -> None:
    with pytest.raises(ObjectiveError, match=words):
        Objective.freeze({VAL_MEL_LOSS: 1.0})(values)
