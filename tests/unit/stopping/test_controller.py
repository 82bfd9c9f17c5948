"""The controller as a whole: state, invariance, patience, status, replay."""

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kamerton.config.stopping_section import EnsembleWeights
from kamerton.stopping import Observation, StopController, replay
from kamerton.stopping.patience import evidence, patience, stage_of
from kamerton.stopping.types import Vote
from tests.stop_curves import PLAN, noise, params, run, settling, steps

observations = st.lists(
    st.tuples(
        st.integers(0, 1024).map(lambda units: units / 256) | st.just(float("nan")),
        st.none() | st.floats(0, 1),
        st.none() | st.floats(0.1, 2),
        st.none() | st.floats(0, 1),
    ),
    min_size=1,
    max_size=40,
)


def facts(rows):
    return [
        Observation(step, value, attention=a, train_loss=t, premature=p, learning_rate=t)
        for step, (value, a, t, p) in enumerate(rows, start=1)
    ]


@settings(max_examples=40, deadline=None)
@given(rows=observations, cut=st.integers(0, 40), off=st.booleans())
def test_a_restored_controller_decides_as_one_that_was_never_interrupted(rows, cut, off):
    given_params = params(rules={"not_finite": not off, "patience": not off})
    drops = (12.0,)
    one = StopController(given_params, 40, schedule_drops=drops)
    expected = [one.observe(fact) for fact in facts(rows)]
    first = StopController(given_params, 40, schedule_drops=drops)
    found = [first.observe(fact) for fact in facts(rows)[:cut]]
    text = json.dumps(first.state(), allow_nan=False)
    second = StopController(given_params, 40, schedule_drops=drops)
    second.restore(json.loads(text))
    found += [second.observe(fact) for fact in facts(rows)[cut:]]
    assert found == expected
    assert second.state() == one.state()


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(["settle", "rise", "step", "hump"]),
    power=st.integers(-6, 6),
    shift=st.integers(-20, 20),
)
def test_decisions_do_not_depend_on_the_unit_or_the_zero_of_the_loss(seed, kind, power, shift):
    count = 60
    change = {
        "settle": 0.0 * steps(count),
        "rise": 0.02 * np.maximum(0, steps(count) - 20),
        "step": -0.3 * (steps(count) > 30),
        "hump": 0.4 * np.exp(-0.5 * ((steps(count) - 30) / 4) ** 2),
    }[kind]
    values = np.round((settling(count) + change + noise(count, 0.01, seed)) * 1024) / 1024
    first = replay(values, count)
    other = replay(values * 2.0**power + shift, count)
    assert (first.stop_index, first.checkpoint_index) == (other.stop_index, other.checkpoint_index)
    assert [d.cause for d in first.decisions] == [d.cause for d in other.decisions]
    assert [d.status for d in first.decisions] == [d.status for d in other.decisions]


def test_a_stop_is_kept_and_old_steps_change_nothing():
    controller = StopController(params(), 20)
    first = controller.observe(Observation(1, 1.0))
    assert controller.observe(Observation(1, 0.5)) is first
    stop = controller.observe(Observation(2, float("nan")))
    assert stop.stop
    before = controller.state()
    assert controller.observe(Observation(3, 0.1)) is stop
    assert controller.state() == before


def test_an_empty_state_is_a_fresh_controller():
    used, fresh = StopController(params(), 20), StopController(params(), 20)
    assert used.state() == {}
    used.observe(Observation(1, 1.0))
    used.restore({})
    assert used.observe(Observation(1, 2.0)) == fresh.observe(Observation(1, 2.0))


@pytest.mark.parametrize(("planned", "interval"), [(0, 1), (-5, 1), (10, 0)])
def test_a_plan_of_no_length_is_refused(planned, interval):
    with pytest.raises(ValueError, match="above 0"):
        StopController(params(), planned, interval)


def vote(group, score, confidence=1.0):
    return Vote("voter", group, score, confidence, "because")


def test_weights_go_to_the_voters_that_are_present():
    weights = EnsembleWeights()
    everyone = [
        vote("statistical_consensus", 1.0),
        vote("statistical_consensus", -1.0),
        vote("bayesian_prediction", 1.0),
        vote("attention_analysis", -1.0),
    ]
    assert evidence(everyone, weights) == pytest.approx(0.4 - 0.3)
    absent = [*everyone[:3], vote("attention_analysis", -1.0, 0.0)]
    assert evidence(absent, weights) == pytest.approx(0.4 / 0.7)
    assert evidence([vote("bayesian_prediction", 1.0, 0.5)], weights) == pytest.approx(0.5)
    assert evidence([vote(None, 1.0)], weights) == 0.0
    assert evidence([], weights) == 0.0
    silent = EnsembleWeights(statistical_consensus=0, bayesian_prediction=0, attention_analysis=0)
    assert evidence(everyone, silent) == 0.0


def test_patience_follows_stage_state_evidence_and_surprise():
    shares = {"warmup": (0.1, 1.5), "main": (0.5, 1.0), "fine_tune": (0.4, 0.7)}
    stages = [{"name": n, "share": s, "multiplier": m} for n, (s, m) in shares.items()]
    given_params = params(stages=stages, patience_share=0.35)

    def steps_at(share, proof=0.0, **changes):
        return patience(given_params, 100, share, proof, **{"aligned": True, **changes})

    assert steps_at(0.05) == pytest.approx(35 * 1.5)
    assert steps_at(0.3) == pytest.approx(35)
    assert steps_at(0.9) == steps_at(1.5) == pytest.approx(35 * 0.7)
    assert steps_at(0.9, aligned=False) == pytest.approx(35 * 1.5)
    assert steps_at(0.9, 1.0) == pytest.approx(35 * 0.7 * 0.7)
    assert steps_at(0.9, -1.0) == pytest.approx(35 * 0.7 * 1.3)
    assert steps_at(0.3, 1.0) == steps_at(0.3)  # too early to shorten it
    assert steps_at(0.9, misfit=0.5) == pytest.approx(35 * 0.7 * 1.5)
    plain = given_params.model_copy(update={"adaptive_patience": False})
    assert patience(plain, 100, 0.9, 1.0, aligned=False, misfit=1.0) == pytest.approx(35)
    assert stage_of(given_params.stages, 0.1).name == "main"


def test_few_evaluations_are_not_a_long_wait_however_many_steps_they_span():
    def allowed(count, **changes):
        controller = StopController(params(**changes), 1000.0, interval=1000.0 / count)
        return controller.observe(Observation(900.0, 1.0)).patience_steps

    assert allowed(200) == pytest.approx(0.3 * 1000)
    assert allowed(60) == pytest.approx(24 * 1000 / 60)
    assert allowed(10) == pytest.approx(600)
    assert allowed(10, patience_evaluations=1) == pytest.approx(0.3 * 1000)
    assert allowed(10, adaptive_patience=False) == pytest.approx(300)


@pytest.mark.parametrize(
    ("values", "attention", "status"),
    [
        (settling(scale=60.0), None, "converging"),
        (settling(scale=60.0), 0.4, "not_converged"),
        (settling(scale=60.0), 0.9, "converging"),
        (settling(scale=3.0), None, "converged"),
        (settling(scale=3.0), 0.9, "converged"),
        (settling(scale=3.0), 0.55, "stalled"),
        (settling(scale=3.0) + 0.01 * steps(), None, "diverging"),
        (np.ones(2), None, "not_converged"),
    ],
)
def test_the_status_is_a_word_for_the_trend_and_for_attention(values, attention, status):
    count = min(40, len(values))
    series = {} if attention is None else {"attention": np.full(count, attention)}
    assert run(values[:count] + noise(count, 1e-4), **series)[-1].status == status


def test_remaining_steps_shrink_as_a_run_settles():
    rows = run(settling(scale=15.0) + noise(size=1e-4), params(rules={"forecast": False}))
    assert rows[3].remaining_steps is None
    known = [row.remaining_steps for row in rows if row.remaining_steps is not None]
    assert known[2] > 15
    assert known[-1] < 5


def test_replay_keeps_the_lowest_finite_value_up_to_the_stop():
    values = settling() + noise()
    found = replay(values, PLAN)
    assert found.stop_index == len(found.decisions) - 1
    assert found.checkpoint_index == int(np.argmin(values[: found.stop_index + 1]))
    assert found.decisions[-1].best_step == found.checkpoint_index + 1
    assert replay(values, PLAN) == found


@pytest.mark.parametrize(
    ("values", "stop", "kept"),
    [
        ([], None, 0),
        ([1.0], None, 0),
        ([2.0, 1.0], None, 1),
        ([float("nan")], 0, 0),
        ([3.0, 2.0, float("inf"), 1.0], 2, 1),
        ([-5.0, -7.0, -6.0], None, 1),
    ],
)
def test_replay_of_next_to_nothing(values, stop, kept):
    found = replay(values, 100)
    assert (found.stop_index, found.checkpoint_index) == (stop, kept)


def test_a_constant_curve_ends_by_patience():
    found = replay([1.0] * 100, 100)
    assert found.decisions[-1].cause == "patience"
    assert found.checkpoint_index == 0


def test_replay_in_another_unit_of_time_is_the_same():
    values = settling() + noise()
    found = replay(values, PLAN)
    scaled = replay(values, 1000.0 * PLAN, epochs=1000.0 * steps())
    assert scaled.stop_index == found.stop_index
    assert replay(values, 7.0 * PLAN, interval=7.0).stop_index == found.stop_index


def test_replay_refuses_series_of_another_length():
    for name in ("attention", "epochs", "train_losses", "learning_rates"):
        with pytest.raises(ValueError, match=name):
            replay([1.0, 2.0], 10, **{name: [1.0]})


def test_a_decision_of_a_long_run_is_as_quick_as_of_a_short_one():
    values = 1.0 / np.sqrt(steps(2000)) + noise(2000)
    begun = time.process_time()
    found = replay(values, 4000, params=params(rules={"patience": False}))
    seconds = (time.process_time() - begun) / len(found.decisions)
    assert len(found.decisions) == 2000
    assert seconds < 0.002
    controller = StopController(params(), 4000)
    for step, value in enumerate(values, start=1):
        controller.observe(Observation(step, float(value)))
    assert len(json.dumps(controller.state())) < 20_000
