"""Phases by share and by metric, guided attention and the curriculum."""

import dataclasses
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.config.train_section import PhaseParams
from kamerton.training.phases import (
    GUIDED_UNTIL_EVALUATIONS,
    boundaries,
    curriculum_share,
    guided_factor,
    latest_end,
    learning_rate_factor,
    next_phase,
)
from kamerton.training.state import PhaseState

FOUR = PhaseParams(curriculum=True)
TOTAL = 700  # a seventh is 100 steps


def go_on(params=FOUR, total=TOTAL, every=10, attention=lambda step: 0.0):
    """The phase after every step of a run whose evaluations find ``attention(step)``."""
    state, states = PhaseState(), []
    for step in range(1, total + 1):
        state = next_phase(state, step, total, None, params)
        if step % every == 0:
            state = next_phase(state, step, total, attention(step), params)
        states.append(state)
    return states


def entered(states):
    """Where each phase begins, and why."""
    return {
        state.index: (state.since_step, state.reason)
        for state in sorted(states, key=lambda state: state.index)
    }


def test_boundaries_are_those_of_500_2000_3000_and_3500_epochs():
    assert [round(3500 * end) for end in boundaries(FOUR)] == [500, 2000, 3000, 3500]
    assert [round(3500 * end) for end in boundaries(PhaseParams(count=3))] == [500, 2000, 3500]
    assert boundaries(PhaseParams(count=0)) == (1.0,)


def test_a_goal_met_at_once_is_left_after_half_of_the_share_of_each():
    # Half of 100 steps, and half of 300 after that.
    assert entered(go_on(attention=lambda step: 0.95)) == {
        0: (0, "start"), 1: (50, "goal"), 2: (200, "goal"), 3: (600, "share"),
    }  # fmt: skip


@pytest.mark.parametrize("every", [1, 7, 20])
def test_how_often_a_run_is_evaluated_does_not_hurry_it(every):
    begins = entered(go_on(every=every, attention=lambda step: 0.95))
    assert begins[1][0] == max(50, 3 * every)
    assert begins[2][0] == begins[1][0] + 150


def test_a_goal_that_is_never_met_takes_half_as_long_again():
    # Phase 1 may take 1.5 of 100 steps; phase 2, from 100 by share, 1.5 of 300.
    assert entered(go_on()) == {0: (0, "start"), 1: (150, "latest"), 2: (550, "latest"),
                                3: (600, "share")}  # fmt: skip


def test_a_goal_met_by_the_last_evaluation_is_left_at_its_share():
    met_at = {100, 400, 600}
    states = go_on(attention=lambda step: 0.95 if step in met_at else 0.0)
    # Phase 4's begin is by share too: 600 is its boundary.
    assert entered(states) == {0: (0, "start"), 1: (100, "share"), 2: (400, "share"),
                               3: (600, "share")}  # fmt: skip


def test_evaluations_that_meet_a_goal_must_be_in_a_row():
    states = go_on(attention=lambda step: 0.0 if step % 30 == 0 else 0.6, total=90)
    assert {state.index for state in states[:12]} == {0}
    assert all(state.met <= 2 for state in states)


def test_three_phases_merge_the_last_two_and_none_is_one_phase():
    steady = dict(attention=lambda step: 1.0)
    assert set(entered(go_on(PhaseParams(count=3), **steady))) == {0, 1, 2}
    assert set(entered(go_on(PhaseParams(count=0), **steady))) == {0}


RUNS = st.integers(1, 400).flatmap(
    lambda total: st.tuples(
        st.just(total),
        st.lists(st.none() | st.floats(-0.3, 1.0), min_size=total, max_size=total),
        st.builds(
            PhaseParams,
            count=st.sampled_from([0, 3, 4]),
            evaluations=st.integers(1, 5),
            attention_goals=st.tuples(*[st.floats(0.0, 1.0)] * 2),
        ),
    )
)


@given(RUNS)
def test_it_only_goes_on_and_never_later_than_its_latest_end(run):
    total, found, params = run
    state, before = PhaseState(), PhaseState()
    for step, diagonality in enumerate(found, start=1):
        state = next_phase(state, step, total, diagonality, params)
        assert state.index >= before.index
        assert state.index <= len(boundaries(params)) - 1
        if state.index < len(boundaries(params)) - 1:
            assert step / total < latest_end(state.index, params)
        if state.index > before.index:
            assert state.since_step == step
            assert state.reason in {"goal", "share", "latest"}
            first_possible = boundaries(params)[before.index]
            if state.reason == "goal":
                ends = boundaries(params)
                own = ends[before.index] - (ends[before.index - 1] if before.index else 0.0)
                assert step - before.since_step >= 0.5 * own * total - 1e-6
            if state.reason == "share" and state.index == before.index + 1:
                assert step / total >= first_possible
        before = state
    # The same facts give the same phase: nothing hidden decides.
    again = PhaseState()
    for step, diagonality in enumerate(found, start=1):
        again = next_phase(again, step, total, diagonality, params)
    assert again == state


@given(st.integers(0, 3), st.sampled_from([3, 4]))
def test_a_late_phase_takes_at_most_half_of_its_share_more(index, count):
    params = PhaseParams(count=count)
    ends = boundaries(params)
    if index < len(ends):
        begin = ends[index - 1] if index else 0.0
        share = ends[index] - begin
        assert ends[index] <= latest_end(index, params) <= begin + 1.5 * share + 1e-12


def test_what_phases_make_of_the_learning_rate():
    states = go_on(attention=lambda step: 0.95)
    assert [learning_rate_factor(states[at], FOUR) for at in (0, 55, 250, 650)] == [
        1,
        0.8,
        0.5,
        0.3,
    ]
    assert learning_rate_factor(states[-1], PhaseParams(count=0)) == 1.0


def test_guided_attention_is_not_weakened_before_attention_holds_by_itself():
    # Phase 2 by share at 150 steps; attention is 0.7 from step 200 on, five evaluations till 240.
    states = go_on(attention=lambda step: 0.7 if step >= 200 else 0.69)
    factors = [guided_factor(state, FOUR) for state in states]
    assert factors[149] == 1.0  # though the phase is the second by now
    assert states[149].index == 1
    assert factors[238] == 1.0
    assert factors[239] == 0.3
    assert factors[-1] == 0.05


def test_guided_attention_is_doubled_from_a_phase_without_its_goal_until_attention_holds():
    # Phase 1 ends at step 150 of 700 without it; attention holds from step 400 on.
    states = go_on(attention=lambda step: 0.1 if step < 400 else 0.9)
    factors = [guided_factor(state, FOUR) for state in states]
    late = next(step for step, state in enumerate(states) if state.reason == "latest")
    assert factors[late - 1] == 1.0
    # Five good evaluations, the last at step 440.
    assert set(factors[late:439]) == {2.0}
    assert 2.0 not in factors[439:]
    assert factors[-1] == 0.05


def test_the_emergency_lasts_as_long_as_attention_does_not_hold_whatever_ends_a_phase():
    states = go_on()
    assert (states[-1].index, states[-1].reason) == (3, "share")
    assert guided_factor(states[-1], FOUR) == 2.0


def test_the_emergency_does_not_flap_where_attention_is_nearly_there():
    late = PhaseState(index=1, since_step=150, reason="latest", late=True)
    found = [0.69, 0.71, 0.72, 0.68, 0.7, 0.69, *[0.75] * 5, 0.3]
    factors = []
    for step, diagonality in enumerate(found, start=151):
        late = next_phase(late, step, TOTAL, diagonality, FOUR)
        factors.append(guided_factor(late, FOUR))
    assert factors == [2.0] * 10 + [0.3] * 2


def test_four_good_evaluations_and_a_bad_one_do_not_count_but_five_do_for_good():
    state = PhaseState()
    for found in [0.9] * 4 + [0.1]:
        state = next_phase(state, 1, 10_000, found, PhaseParams(evaluations=100))
    assert state.aligned == 0
    for found in [0.9] * 5 + [0.1] * 3:
        state = next_phase(state, 1, 10_000, found, PhaseParams(evaluations=100))
    assert state.aligned == GUIDED_UNTIL_EVALUATIONS
    assert guided_factor(dataclasses.replace(state, index=2), FOUR) == 0.1
    assert guided_factor(dataclasses.replace(state, index=2), PhaseParams(count=0)) == 1.0


def test_the_curriculum_begins_with_short_clips_and_has_all_by_the_end_of_phase_1():
    first = PhaseState()
    assert curriculum_share(first, 0, TOTAL, FOUR) == pytest.approx(0.4)
    assert curriculum_share(first, 50, TOTAL, FOUR) == pytest.approx(0.7)
    assert curriculum_share(first, 100, TOTAL, FOUR) == 1.0
    assert curriculum_share(first, 140, TOTAL, FOUR) == 1.0  # phase 1 lasts longer: still all
    assert curriculum_share(PhaseState(index=1), 10, TOTAL, FOUR) == 1.0
    off = PhaseParams(curriculum=False)
    assert curriculum_share(first, 0, TOTAL, off) == 1.0


def test_every_count_of_phases_has_boundaries():
    counts = get_args(PhaseParams.model_fields["count"].annotation)
    assert {len(boundaries(PhaseParams(count=count))) for count in counts} == {1, 3, 4}
