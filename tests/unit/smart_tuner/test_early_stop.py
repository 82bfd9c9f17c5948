import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kamerton.config.schema import TrainParams
from kamerton.config.stopping_section import EarlyStoppingParams
from kamerton.config.train_section import RecoveryParams
from kamerton.smart_tuner.early_stop import (
    EarlyStopController,
    known_drops,
    observation_of,
    progress_text,
)
from kamerton.stopping import Decision, StopController, Vote, replay
from kamerton.tracking import names
from kamerton.tracking.hooks import Alert, EvalFacts, Measure, Note, Stop

TOTAL, INTERVAL = 4000, 20
VOTES = (
    Vote("cusum", "statistical_consensus", 0.5, 0.8, "the level rose"),
    Vote("forecast", "bayesian_prediction", -1.0, 0.25, "more to come"),
)
CALM = Decision(
    step=100, stop=False, cause="", reason="10 of 500 without anything better", votes=VOTES,
    evidence=-0.2, patience_steps=500.0, waited_steps=10.0, best_step=90, overfitting_score=0.35,
    overfitting="medium", status="converging", remaining_steps=300.0,
)  # fmt: skip


def curve(count=200, *, turn=80, seed=0):
    """Down to a floor and slowly up from ``turn`` on."""
    time = np.arange(1, count + 1)
    noise = np.random.default_rng(seed).normal(0, 0.004, count)
    return 0.3 + np.exp(-time / 15) + 0.01 * np.maximum(0, time - turn) + noise


def facts(index, value, **changes):
    step = INTERVAL * (index + 1)
    values = {names.ATTENTION_SCORE: min(0.9, index / 20), names.GATE_F1: 0.8}
    return replace(
        EvalFacts(step=step, total=TOTAL, quality=float(value), values=values, train_loss=0.2,
                  learning_rate=1e-3), **changes,
    )  # fmt: skip


def hook(**changes):
    return EarlyStopController.of(EarlyStoppingParams(), TOTAL, interval=INTERVAL, **changes)


def of_kind(kind, actions):
    return [action for action in actions if isinstance(action, kind)]


class Scripted:
    """A controller that says what it is told to, and remembers what it was shown."""

    def __init__(self, decide):
        self.decide, self.seen, self.told = decide, [], []

    def observe(self, observation):
        self.seen.append(observation.step)
        return replace(self.decide(observation), step=observation.step)

    def intervened(self, step, *, attention_anew=False):
        self.told.append((step, attention_anew))

    def state(self):
        return {"seen": list(self.seen)}

    def restore(self, state):
        self.seen = list(state.get("seen", []))


def run(hook, values, first=0, **changes):
    """All answers, up to the one with a stop."""
    answers = []
    for index, value in enumerate(values[first:], start=first):
        answers.append(list(hook.on_eval(facts(index, value, **changes))))
        if of_kind(Stop, answers[-1]):
            break
    return answers


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("attention", names.ATTENTION_SCORE),
        ("premature", names.PREMATURE_STOPPING),
        ("runaway", names.RUNAWAY_SHARE),
        ("gate_f1", names.GATE_F1),
        ("monotonicity", names.ATTENTION_MONOTONICITY),
    ],
)
def test_the_decision_is_given_every_figure_it_knows_of(field, name):
    seen = EvalFacts(step=7, total=9, values={name: 0.37}, quality=1.5, learning_rate=2e-4)
    assert getattr(observation_of(seen), field) == 0.37
    assert getattr(observation_of(replace(seen, values={name: math.nan})), field) is None
    assert getattr(observation_of(replace(seen, values={})), field) is None
    assert (observation_of(seen).step, observation_of(seen).value) == (7, 1.5)
    assert observation_of(seen).learning_rate == 2e-4
    assert observation_of(seen).train_loss is None
    assert observation_of(replace(seen, train_loss=0.4)).train_loss == 0.4


def test_it_stops_where_the_decision_alone_does():
    values = curve()
    answers = run(hook(), values)
    attention = [min(0.9, index / 20) for index in range(len(values))]
    steps = [INTERVAL * (index + 1) for index in range(len(values))]
    alone = replay(values.tolist(), TOTAL, attention, epochs=steps, train_losses=[0.2] * len(steps),
                   learning_rates=[1e-3] * len(steps))  # fmt: skip
    assert alone.stop_index is not None
    assert len(answers) - 1 == alone.stop_index
    (stop,) = of_kind(Stop, answers[-1])
    assert (stop.cause, stop.reason) == (alone.decisions[-1].cause, alone.decisions[-1].reason)
    told = [one for one in of_kind(Alert, answers[-1]) if one.kind == "stop"]
    assert told[0].fields["saved_steps"] == TOTAL - steps[alone.stop_index]
    assert not any(of_kind(Stop, answer) for answer in answers[:-1])


def test_every_evaluation_is_explained_and_measured():
    answers = run(hook(report_evaluations=0), curve()[:30])
    for index, answer in enumerate(answers):
        (note,) = of_kind(Note, answer)
        assert note.event == "decision"
        assert note.fields["planned_steps"] == TOTAL
        json.dumps(note.fields, allow_nan=False)
        assert {"evidence", "reason", "status", "best_step"} <= note.fields.keys()
        if index > 10:
            assert {row["voter"] for row in note.fields["votes"]} >= {"cusum", "forecast"}
            assert all(row["reason"] for row in note.fields["votes"])


def test_figures_are_those_of_the_decision():
    answers = EarlyStopController(Scripted(lambda _: CALM)).on_eval(facts(4, 1.0))
    (measure,) = of_kind(Measure, answers)
    assert measure.values == {
        names.STOP_EVIDENCE: -0.2,
        names.STOP_PATIENCE: 500.0,
        names.STOP_WAITED: 10.0,
        names.STOP_REMAINING: 300.0,
        names.OVERFITTING_RISK: 0.35,
        names.stop_score("cusum"): pytest.approx(0.4),
        names.stop_score("forecast"): -0.25,
    }


@settings(max_examples=8, deadline=None)
@given(cut=st.integers(0, 90), seed=st.integers(0, 3))
def test_a_run_that_was_interrupted_decides_as_one_that_was_not(cut, seed):
    values = curve(110, turn=40, seed=seed)
    whole = run(hook(), values)
    first = hook()
    begun = run(first, values[:cut])
    second = hook()
    second.restore(json.loads(json.dumps(first.memory(), allow_nan=False)))
    over = bool(begun) and bool(of_kind(Stop, begun[-1]))
    assert begun + ([] if over else run(second, values, first=cut)) == whole


def test_what_a_recovery_may_mend_is_held_until_none_comes():
    broken = replace(CALM, stop=True, cause="divergence", reason="up for good")
    controller = Scripted(lambda _: broken)
    watching = EarlyStopController(controller, max_recoveries=2, mending_steps=3 * INTERVAL)
    answers = run(watching, [1.0] * 10)
    assert len(answers) == 4  # held for three evaluations
    assert "held" in of_kind(Note, answers[0])[0].fields["reason"]
    assert controller.seen == [4 * INTERVAL]  # what was held was taken back

    # A recovery begins a new time; where none is left there is nothing to wait for.
    watching = EarlyStopController(controller, max_recoveries=2, mending_steps=3 * INTERVAL)
    assert len(run(watching, [1.0] * 2)) == 2
    assert len(run(watching, [1.0] * 10, first=2, recoveries=1)) == 4
    watching = EarlyStopController(controller, max_recoveries=2, mending_steps=3 * INTERVAL)
    assert len(run(watching, [1.0] * 10, recoveries=2, recovery_step=-TOTAL)) == 1


def test_the_decision_is_told_once_of_each_intervention():
    controller = Scripted(lambda _: CALM)
    watching = EarlyStopController(controller)
    run(watching, [1.0] * 3)
    run(watching, [1.0] * 3, recoveries=1, recovery_step=50)
    run(watching, [1.0] * 3, recoveries=2, recovery_step=90, attention_reset_step=90)
    assert controller.told == [(50, False), (90, True)]
    again = EarlyStopController(controller)
    again.restore(json.loads(json.dumps(watching.memory())))
    run(again, [1.0], recoveries=2, recovery_step=90, attention_reset_step=90)
    run(again, [1.0], recoveries=3, recovery_step=95, attention_reset_step=90)
    assert controller.told[2:] == [(95, False)]


def test_the_last_recovery_too_is_given_its_time():
    broken = replace(CALM, stop=True, cause="collapse", reason="attention is lost")
    for count in (1, 2, 3):
        watching = EarlyStopController(
            Scripted(lambda _: broken), max_recoveries=3, mending_steps=4 * INTERVAL
        )
        answers = run(watching, [1.0] * 30, first=9, recoveries=count, recovery_step=9 * INTERVAL)
        # The third has only its own time; before it, there is time for another one.
        assert len(answers) == (4 if count == 3 else 4 + 4)


@pytest.mark.parametrize("cause", ["patience", "forecast", "overfitting"])
def test_what_no_recovery_mends_is_not_held(cause):
    done = replace(CALM, stop=True, cause=cause)
    watching = EarlyStopController(Scripted(lambda _: done), max_recoveries=3, mending_steps=1e9)
    assert of_kind(Stop, watching.on_eval(facts(0, 1.0)))


def test_holding_survives_an_interruption():
    broken = replace(CALM, stop=True, cause="collapse")
    first = EarlyStopController(
        Scripted(lambda _: broken), max_recoveries=1, mending_steps=3 * INTERVAL
    )
    run(first, [1.0] * 2)
    second = EarlyStopController(
        Scripted(lambda _: broken), max_recoveries=1, mending_steps=3 * INTERVAL
    )
    second.restore(json.loads(json.dumps(first.memory())))
    assert len(run(second, [1.0] * 10, first=2)) == 2


def test_recovery_gives_the_time_that_is_waited():
    params = EarlyStoppingParams(min_evaluations=2)
    values = [1.0, 0.9, 0.8, *[math.nan] * 30]

    def stops_at(recovery):
        watching = EarlyStopController.of(params, TOTAL, interval=INTERVAL, recovery=recovery)
        return len(run(watching, values)) - 1

    assert stops_at(None) == stops_at(RecoveryParams(enabled=False)) == 3
    assert stops_at(RecoveryParams(cooldown_share=5 * INTERVAL / TOTAL)) == 8
    assert stops_at(RecoveryParams(max_recoveries=0)) == 3


def test_it_stops_once():
    done = replace(CALM, stop=True, cause="patience")
    watching = EarlyStopController(Scripted(lambda _: done))
    assert of_kind(Stop, watching.on_eval(facts(0, 1.0)))
    assert not of_kind(Stop, watching.on_eval(facts(1, 1.0)))


def test_reports_come_at_their_interval_and_say_what_is_asked():
    watching = EarlyStopController(Scripted(lambda _: CALM), report_evaluations=4)
    told = [
        index
        for index, answer in enumerate(run(watching, [1.0] * 12))
        if any(one.kind == "report" for one in of_kind(Alert, answer))
        and any(one.event == "report" for one in of_kind(Note, answer))
    ]
    assert told == [3, 7, 11]


def test_progress_in_words():
    text = progress_text(CALM, total_steps=1100, steps_per_epoch=10)
    assert text == (
        "status: converging; overfitting risk: medium; go on: yes; left: about 30 epochs "
        "(300 steps); to be saved: about 70 epochs (700 steps); best so far: step 90"
    )
    unknown = replace(CALM, remaining_steps=None)
    assert "left: about 1000 steps;" in progress_text(unknown, total_steps=1100)
    beyond = replace(CALM, remaining_steps=1e6)
    assert "left: about 1000 steps;" in progress_text(beyond, total_steps=1100)
    stopped = replace(CALM, stop=True, cause="patience", reason="nothing better")
    text = progress_text(stopped, total_steps=2600, steps_per_epoch=10)
    assert "stop: nothing better; saved: 250 epochs (2500 steps)" in text
    assert "go on" not in text


def test_a_drop_of_the_rate_is_a_fall_to_half_or_less():
    def drops(*changes):
        given = [{"from_share": share, "learning_rate": rate} for share, rate in changes]
        return known_drops(TrainParams(changes=given), 1000)

    assert drops((0.25, 0.5), (0.5, 0.8)) == (250,)
    assert drops((0.25, 0.51)) == ()
    assert drops((0.25, 0.8), (0.5, 0.625), (0.75, 0.5)) == (750,)
    assert drops() == ()


def test_a_drop_ahead_keeps_a_run_from_being_stopped():
    values = curve(200, turn=1000)
    free = run(hook(), values, learning_rate=0.0)
    kept = run(hook(drops=(INTERVAL * 160,)), values, learning_rate=0.0)
    assert len(free) < len(kept)


def test_the_controller_is_the_one_of_the_parameters():
    values = curve(200, turn=60)
    off = EarlyStoppingParams(enabled=False)
    assert isinstance(hook()._controller, StopController)
    stops = [
        len(run(EarlyStopController.of(params, TOTAL, interval=INTERVAL), values))
        for params in (EarlyStoppingParams(), off)
    ]
    assert stops[0] < stops[1] == 200
