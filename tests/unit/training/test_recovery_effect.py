"""What a recovery brought is measured, and what did harm is undone."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.config.schema import TrainParams
from kamerton.training.recovery_effect import MARGIN, begun, judge
from kamerton.training.state import RecoveryState, TrainState

TOTAL = 1000
TRAIN = TrainParams.model_validate({"eval_interval_steps": 10}).resolved()
BEFORE = TrainState(step=300, evaluated_step=300, quality=2.0, loss_sum=40.0, loss_steps=10)
HALVED = dataclasses.replace(
    BEFORE, recovery=RecoveryState(count=1, last_step=300, learning_rate_factor=0.5,
                                   clip_factor=0.5))  # fmt: skip
UNDER_TRIAL = begun(BEFORE, HALVED, "explosion", "halved", counts=True, train_loss=4.0)


def later(quality: float, step: int = 360, state: TrainState = UNDER_TRIAL) -> TrainState:
    return dataclasses.replace(state, step=step, evaluated_step=step, quality=quality)


@pytest.mark.parametrize(
    ("quality", "loss", "verdict"),
    [
        (1.5, 4.0, "helped"), (2.0, 3.0, "helped"), (2.0, 4.0, "no_effect"),
        (2.5, 4.0, "harmed"), (2.0, 9.0, "harmed"), (math.inf, 4.0, "harmed"),
        (2.0, math.nan, "no_effect"),
    ],
)  # fmt: skip
def test_verdicts(quality: float, loss: float, verdict: str) -> None:
    effect = judge(later(quality), TOTAL, TRAIN, train_loss=loss)
    assert effect is not None
    assert effect.verdict == verdict
    past = effect.state.recovery
    assert past.trial is None
    factor = 1.0 if verdict == "harmed" else 0.5
    assert (past.learning_rate_factor, past.clip_factor) == (factor, factor)
    assert effect.reverted == (verdict == "harmed")
    assert effect.fields["loss_before"] == 4.0


def test_it_waits_as_long_as_until_the_next_intervention_could_come() -> None:
    assert judge(later(1.0, 349), TOTAL, TRAIN, train_loss=1.0) is None
    assert judge(later(1.0, 350), TOTAL, TRAIN, train_loss=1.0) is not None
    assert judge(dataclasses.replace(HALVED, step=900), TOTAL, TRAIN, train_loss=1.0) is None


@pytest.mark.parametrize(
    ("more", "loss", "verdict"),
    [(0, 4.0, "helped"), (0, 3.0, "helped"), (1, 4.0, "no_effect"), (1, 3.0, "no_effect"),
     (0, 5.0, "harmed"), (1, 5.0, "harmed")],
)  # fmt: skip
def test_steps_that_were_not_finite_are_helped_when_there_are_no_more(
    more: int, loss: float, verdict: str
) -> None:
    """Such steps are in no mean loss, so the loss alone cannot say that it was mended."""

    def with_bad(state: TrainState, count: int) -> TrainState:
        past = dataclasses.replace(state.recovery, bad_steps=count)
        return dataclasses.replace(state, recovery=past)

    state = begun(with_bad(BEFORE, 3), with_bad(HALVED, 3), "non_finite", "halved", counts=True,
                  train_loss=4.0)  # fmt: skip
    second = begun(with_bad(state, 5), with_bad(state, 5), "non_finite", "went back", counts=False,
                   train_loss=4.0)  # fmt: skip
    for made, count in ((state, 3), (second, 5)):
        effect = judge(with_bad(later(2.0, state=made), count + more), TOTAL, TRAIN,
                       train_loss=loss)  # fmt: skip
        assert effect is not None
        assert effect.verdict == verdict


def test_before_the_first_evaluation_only_the_loss_counts() -> None:
    young = dataclasses.replace(BEFORE, evaluated_step=0, quality=math.inf)
    state = begun(young, HALVED, "explosion", "halved", counts=True, train_loss=4.0)
    assert judge(later(9.0, state=state), TOTAL, TRAIN, train_loss=4.0).verdict == "no_effect"  # type: ignore[union-attr]


def test_the_second_act_is_judged_by_how_things_stood_before_the_first() -> None:
    second = dataclasses.replace(later(5.0, 302), loss_sum=99.0, loss_steps=1)
    trial = begun(
        second, second, "non_finite", "went back", counts=False, train_loss=99.0
    ).recovery.trial
    assert trial is not None
    assert (trial.quality, trial.loss, trial.learning_rate_factor) == (2.0, 4.0, 1.0)
    assert (trial.step, trial.action) == (302, "halved; went back")


def test_the_trial_survives_a_checkpoint() -> None:
    assert TrainState.from_dict(UNDER_TRIAL.to_dict()) == UNDER_TRIAL


@given(st.floats(0.1, 10.0), st.floats(0.1, 10.0), st.floats(0.01, 100.0))
def test_the_verdict_has_no_unit(quality: float, loss: float, unit: float) -> None:
    def scaled(state: TrainState) -> TrainState:
        return dataclasses.replace(state, quality=state.quality * unit,
                                   loss_sum=state.loss_sum * unit)  # fmt: skip

    state = begun(scaled(BEFORE), scaled(HALVED), "explosion", "halved", counts=True,
                  train_loss=4.0 * unit)  # fmt: skip
    ours = judge(later(quality * unit, state=state), TOTAL, TRAIN, train_loss=loss * unit)
    theirs = judge(later(quality), TOTAL, TRAIN, train_loss=loss)
    assert ours is not None
    assert theirs is not None
    near = min(abs(quality / 2.0 - 1), abs(loss / 4.0 - 1))
    if abs(near - MARGIN) > 1e-6 and abs(abs(loss / 4.0 - 1) - MARGIN) > 1e-6:
        assert ours.verdict == theirs.verdict
