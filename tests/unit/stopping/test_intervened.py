"""A run that someone else changes: what was counted until then says nothing of what comes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from kamerton.config.stopping_section import (
    EarlyStoppingParams,
    OverfittingParams,
)
from kamerton.stopping import Decision, Observation, StopController
from kamerton.stopping.series import RecentBlocks
from kamerton.stopping.view import View
from kamerton.stopping.voters.overfitting import OverfittingRisk

PLANNED = 400


def flat(step: int) -> Observation:
    return Observation(step, 0.5 + math.exp(-step / 10) + 1e-4 * math.sin(step), attention=0.9)


def feed(controller: StopController, first: int, last: int, seen=flat) -> list[Decision]:
    found = []
    for step in range(first, last + 1):
        found.append(controller.observe(seen(step)))
        if found[-1].stop:
            break
    return found


def new(**params: object) -> StopController:
    return StopController(EarlyStoppingParams.model_validate(params), PLANNED)


def test_patience_begins_anew() -> None:
    left, changed = new(), new()
    for controller in (left, changed):
        feed(controller, 1, 100)
    changed.intervened(100)
    before = left.observe(flat(101)).waited_steps
    assert before > 1
    told = changed.observe(flat(101))
    assert told.waited_steps == 1
    assert told.best_step == left.observe(flat(101)).best_step  # the best stays what it is
    ends = [feed(one, 102, PLANNED)[-1] for one in (left, changed)]
    assert ends[0].stop
    assert ends[1].step > ends[0].step


def test_what_rules_counted_and_the_sums_begin_anew() -> None:
    controller = new()
    feed(controller, 1, 60)
    for step in range(61, PLANNED):
        controller.observe(Observation(step, 1.2 + step / 1000, attention=0.9))
        if controller._streaks["divergence"]:
            break
    assert controller._cusum.rising > 0.0
    assert controller._streaks["divergence"] == 1
    controller.intervened(step)
    assert controller._cusum.rising == controller._cusum.falling == 0.0
    assert not any(controller._streaks.values())


def lost(step: int) -> Observation:
    """Attention is lost after step 60, and the loss follows."""
    seen = flat(step)
    return seen if step <= 60 else Observation(step, seen.value + 0.5, attention=0.1)


@pytest.mark.parametrize("anew", [True, False])
def test_attention_that_was_made_anew_is_not_lost(anew: bool) -> None:
    controller = new()
    feed(controller, 1, 90, lost)
    controller.intervened(90, attention_anew=anew)
    decisions = feed(controller, 91, 200, lost)
    votes = {vote.voter: vote for vote in decisions[10].votes}
    assert ("not aligned" in votes["attention_health"].reason) == anew
    assert ("collapse" in {one.cause for one in decisions}) != anew


@pytest.mark.parametrize("anew", [True, False])
def test_an_intervention_survives_an_interruption(anew: bool) -> None:
    whole, first, second = new(), new(), new()
    for one in (whole, first):
        feed(one, 1, 90, lost)
        one.intervened(90, attention_anew=anew)
        feed(one, 91, 93, lost)
    second.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
    assert feed(second, 94, 140, lost) == feed(whole, 94, 140, lost)


def test_what_was_saved_before_interventions_were_known_is_taken() -> None:
    controller = new()
    feed(controller, 1, 50)
    state = json.loads(json.dumps(controller.state()))
    del state["memory"]["intervened_step"]
    for blocks in state["memory"]["recent"].values():
        del blocks["size"]
    other = new()
    other.restore(state)
    assert feed(other, 51, 120) == feed(controller, 51, 120)


def test_blocks_of_another_size_are_forgotten() -> None:
    saved = RecentBlocks(2, 8)
    for value in (1.0, 2.0, 3.0, 4.0, 5.0):
        saved.add(value)
    same, other = RecentBlocks(2, 8), RecentBlocks(3, 8)
    for blocks in (same, other):
        blocks.restore(saved.state())
    np.testing.assert_array_equal(same.known(), [1.5, 3.5])
    assert other.known().size == 0
    assert [other.add(value) for value in (6.0, 7.0, 8.0)] == [False, False, True]
    np.testing.assert_array_equal(other.known(), [7.0])


@pytest.mark.parametrize(
    ("silent", "told"),
    [({}, True), ({"overfitting": {"min_diagonality": 0.0}}, False),
     ({"attention_monitoring": {"enabled": False}}, False)],
)  # fmt: skip
def test_attention_is_no_sign_of_overfitting_where_it_is_not_to_be_one(silent, told) -> None:
    controller = new(**silent)
    feed(controller, 1, 60)
    (*_, last) = feed(controller, 61, 75, lambda step: Observation(step, 0.6, attention=0.45))
    (row,) = [vote for vote in last.votes if vote.voter == "overfitting"]
    assert ("attention below its best" in row.reason) == told


def test_a_threshold_of_none_silences_a_fall_from_the_best_too() -> None:
    view = View(
        step=1, planned=2, blocks=96, evaluations=20, start=2.0, best=1.0, span=1.0, noise=0.1,
        recent=np.ones(12), steps=np.arange(1.0, 13.0), values=np.ones(12),
        attention=np.array([0.6, 0.55]), attention_best=0.9,
    )  # fmt: skip
    assert OverfittingRisk(OverfittingParams()).assess(view).signs
    assert not OverfittingRisk(OverfittingParams(min_diagonality=0.0)).assess(view).signs
    assert not OverfittingRisk(OverfittingParams(), attention=False).assess(view).signs
