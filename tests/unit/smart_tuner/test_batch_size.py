"""The batch size follows training: when it grows, when it shrinks, and how far."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kamerton.config.tuner_sections import BatchSizeParams
from kamerton.smart_tuner.batch_size import (
    GRADIENT_RATIO,
    RECENT_STEPS,
    SIZE,
    STEADINESS,
    BatchSizeAdapter,
    grown,
    shrunk,
    steadiness,
)
from kamerton.tracking.hooks import Action, EvalFacts, Measure, ScaleBatch, StepFacts

PARAMS = BatchSizeParams(enabled=True)
BEGUN = 16


class Run:
    """A run whose batches change at the end of an epoch, as the trainer's do."""

    def __init__(self, params: BatchSizeParams = PARAMS, begun: int = BEGUN, **given: Any) -> None:
        self.hook = BatchSizeAdapter(params, begun, **given)
        self.begun, self.scale, self.asked, self.step = begun, 1.0, 1.0, 0

    def steps(
        self, count: int, *, loss: float = 1.0, norm: float = 1.0, applied: bool = True
    ) -> Run:
        for _ in range(count):
            self.step += 1
            self.hook.on_step(
                StepFacts(
                    step=self.step, total=10**6, loss=loss, grad_norm=norm, applied=applied,
                    batch_size=self.scale * self.begun,
                )
            )  # fmt: skip
        return self

    def evaluate(self) -> list[Action]:
        facts = EvalFacts(step=self.step, total=10**6, batch_size=self.scale * self.begun)
        actions = list(self.hook.on_eval(facts))
        for action in actions:
            if isinstance(action, ScaleBatch):
                self.asked = action.scale
        return actions

    def new_epoch(self) -> Run:
        self.scale = self.asked
        return self


def scales(actions: Sequence[Action]) -> list[float]:
    return [action.scale for action in actions if isinstance(action, ScaleBatch)]


def test_steadiness_is_one_less_the_relative_deviation() -> None:
    losses = list(np.random.default_rng(2).uniform(0.5, 1.5, 50))
    expected = 1 - np.std(losses) / np.mean(losses)
    assert steadiness(losses) == pytest.approx(expected, rel=1e-12)
    assert steadiness([2.0] * 50) == 1.0
    assert steadiness([0.0] * 50) == 0.0
    assert steadiness([-1.0, -3.0]) == 0.0


def test_steady_losses_let_batches_grow_by_a_quarter() -> None:
    actions = Run().steps(RECENT_STEPS).evaluate()
    assert scales(actions) == [1.25]
    (measure,) = [action for action in actions if isinstance(action, Measure)]
    assert measure.values == {STEADINESS: 1.0, GRADIENT_RATIO: 1.0, SIZE: 16.0}


@pytest.mark.parametrize(("spread", "grows"), [(0.045, True), (0.055, False)])
def test_the_threshold_of_growth_is_that_of_the_parameters(spread: float, grows: bool) -> None:
    """Half of the losses above, half below the mean by ``spread``: steadiness is 1 - spread."""
    run = Run()
    for index in range(RECENT_STEPS):
        run.steps(1, loss=1 + (spread if index % 2 else -spread))
    assert scales(run.evaluate()) == ([1.25] if grows else [])


@pytest.mark.parametrize(("norm", "shrinks"), [(2.1, True), (1.9, False)])
def test_grown_gradients_let_batches_shrink_though_losses_are_steady(
    norm: float, shrinks: bool
) -> None:
    run = Run(BatchSizeParams(increase_threshold=1.0)).steps(300, loss=1.0, norm=1.0)
    run.steps(1, loss=1.1).steps(RECENT_STEPS - 1, norm=norm).steps(1, loss=0.9, norm=norm)
    assert scales(run.evaluate()) == ([13 / 16] if shrinks else [])
    steady = Run().steps(300).steps(RECENT_STEPS, norm=norm)
    assert (scales(steady.evaluate())[0] < 1.0) == shrinks


def test_one_loud_step_is_no_reason_to_shrink() -> None:
    run = Run().steps(300).steps(1, norm=1000.0)
    assert scales(run.evaluate()) == [1.25]


def test_too_few_steps_are_no_reason_for_anything() -> None:
    assert Run().steps(RECENT_STEPS - 1).evaluate() == []


def test_steps_that_were_not_applied_or_not_finite_do_not_count() -> None:
    run = Run().steps(RECENT_STEPS - 1).steps(10, applied=False).steps(10, loss=math.nan)
    assert run.steps(10, norm=math.inf).evaluate() == []
    assert scales(run.steps(1).evaluate()) == [1.25]


def test_it_waits_until_a_change_has_come_and_was_lived_with() -> None:
    run = Run().steps(RECENT_STEPS)
    assert scales(run.evaluate()) == [1.25]
    assert run.steps(500).evaluate() == []  # the epoch is not over
    run.new_epoch()
    assert run.steps(RECENT_STEPS - 1).evaluate() == []
    assert scales(run.steps(1).evaluate()) == [25 / 16]


def test_an_epoch_that_ends_at_an_evaluation_brings_no_steps_of_the_new_size() -> None:
    run = Run().steps(60)
    assert scales(run.evaluate()) == [1.25]
    run.steps(60).new_epoch()  # the evaluation is told of the size that comes
    assert run.evaluate() == []
    assert run.steps(RECENT_STEPS - 1).evaluate() == []
    assert scales(run.steps(1).evaluate()) == [25 / 16]


def test_short_memory_prevents_growth_and_nothing_else() -> None:
    asked: list[float] = []

    def full(growth: float) -> bool:
        asked.append(growth)
        return False

    assert scales(Run(has_room=full).steps(RECENT_STEPS).evaluate()) == []
    assert asked == [1.25]
    shrinking = Run(has_room=full).steps(300).steps(RECENT_STEPS, norm=3.0)
    assert scales(shrinking.evaluate()) == [13 / 16]
    assert asked == [1.25]


@given(st.integers(1, 200), st.integers(1, 64), st.integers(0, 64))
def test_sizes_are_whole_and_stay_or_come_within_bounds(size: int, low: int, more: int) -> None:
    params = BatchSizeParams(min_batch_size=low, max_batch_size=low + more)
    larger, smaller = grown(size, params), shrunk(size, params)
    assert smaller <= size <= larger
    assert larger <= max(size, low + more)
    assert smaller >= min(size, low)
    if larger > size:
        assert larger == min(max(size + 1, round(1.25 * size)), low + more)
    if smaller < size:
        assert smaller == max(min(size - 1, round(0.8 * size)), low)


def test_it_grows_and_shrinks_to_the_bounds_and_no_further() -> None:
    run, sizes = Run(begun=24), []
    for _ in range(8):
        run.new_epoch().steps(RECENT_STEPS).evaluate()
        sizes.append(round(run.asked * 24))
    assert sizes == [30, 38, 48, 48, 48, 48, 48, 48]
    loud = Run(begun=8).steps(400)
    for count in range(10):
        loud.new_epoch().steps(RECENT_STEPS, norm=3.0 ** (count + 1)).evaluate()
    assert round(loud.asked * 8) == 4


@given(
    st.lists(st.tuples(st.floats(0.9, 1.1), st.floats(0.1, 10.0)), min_size=120, max_size=200),
    st.integers(0, 200), st.integers(20, 70),
)  # fmt: skip
def test_a_run_that_was_killed_answers_as_one_that_was_not(
    made: list[tuple[float, float]], cut: int, interval: int
) -> None:
    def follow(killed_at: int | None) -> list[list[Action]]:
        run, answers = Run(), []
        for index, (loss, norm) in enumerate(made):
            if index == killed_at:
                memory = json.loads(json.dumps(run.hook.memory(), allow_nan=False))
                run.hook = BatchSizeAdapter(PARAMS, BEGUN)
                run.hook.restore(memory)
            run.steps(1, loss=loss, norm=norm)
            if index % 64 == 63:
                run.new_epoch()
            if index % interval == interval - 1:
                answers.append(run.evaluate())
        return answers

    assert follow(cut) == follow(None)


def test_a_run_that_goes_on_with_another_batch_size_keeps_the_multiple() -> None:
    run = Run(begun=16).steps(RECENT_STEPS)
    run.evaluate()
    other = Run(begun=32)
    other.hook.restore(run.hook.memory())
    other.scale = other.asked = 1.25
    assert scales(other.steps(RECENT_STEPS).evaluate()) == [48 / 32]


def test_a_hook_without_a_past_takes_the_batches_as_they_are() -> None:
    run = Run()
    run.scale = run.asked = 1.5
    run.hook.restore({})
    assert scales(run.steps(RECENT_STEPS).evaluate()) == [30 / 16]


def test_bounds_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="min_batch_size"):
        BatchSizeParams(min_batch_size=9, max_batch_size=8)
