"""Each rule: what it stops or forbids, and what happens without it."""

import numpy as np
import pytest

from tests.stop_curves import PLAN, end, noise, params, run, settling, steps, without

aligned = np.full(PLAN, 0.9)


def test_patience_ends_a_run_that_finds_nothing_better():
    values = settling() + 0.3 * np.maximum(0, steps() - 30) / PLAN
    best = 30
    given = without("forecast", "divergence", adaptive_patience=False)
    cause, step = end(values, given)
    assert cause == "patience"
    assert step == pytest.approx(best + 0.3 * PLAN, abs=3)
    assert end(values, without("forecast", "divergence", "patience"))[0] == ""


def test_a_forecast_ends_a_run_that_has_settled_and_not_before_its_share():
    values = settling(scale=12.0) + noise(size=0.0005)
    given = params(patience_share=1.0)
    cause, step = end(values, given)
    assert cause == "forecast"
    assert 0.53 <= step / PLAN < 0.75
    later = params(patience_share=1.0, forecast={"min_share": 0.8})
    assert end(values, later)[1] >= 0.8 * PLAN
    assert end(values, without("forecast", patience_share=1.0))[0] == ""


def test_a_forecast_of_a_noisy_curve_waits_until_nothing_better_comes():
    values = settling(scale=12.0) + noise(size=0.006, seed=1)

    def stop(wait):
        last = run(values, params(patience_share=1.0, forecast={"noisy_wait": wait}))
        return last[-1].cause, last[-1].waited_steps / PLAN

    assert stop(0.0)[0] == stop(0.1)[0] == "forecast"
    assert stop(0.0)[1] < 0.1 <= stop(0.1)[1]
    loud = settling(scale=5.0) + noise(size=0.02, seed=1)
    early, late = (
        params(patience_share=1.0, forecast={"min_share": 0.4, "noisy_wait": wait})
        for wait in (0.0, 0.1)
    )
    assert end(loud, early)[1] < 0.5 * PLAN <= end(loud, late)[1]
    quiet = settling(scale=12.0) + noise(size=0.0005)
    given = {wait: params(patience_share=1.0, forecast={"noisy_wait": wait}) for wait in (0.0, 0.5)}
    assert end(quiet, given[0.0]) == end(quiet, given[0.5])


@pytest.mark.parametrize(
    "change",
    [
        lambda curve: curve - 0.4 * (steps() > 45),
        lambda curve: curve + 0.5 * np.exp(-np.maximum(0, steps() - 45) / 6) * (steps() > 45),
    ],
    ids=["step", "spike"],
)
def test_no_forecast_ends_a_run_whose_course_has_changed(change):
    given = params(patience_share=1.0)
    assert end(settling() + noise(), given)[0] == "forecast"
    cause, step = end(change(settling()) + noise(), given)
    assert cause == "" or step > 80


def test_a_divergence_ends_a_run_and_a_spike_does_not():
    rise = np.where(steps() > 30, 0.8 * (1 - np.exp(-(steps() - 30) / 3)), 0.0)
    cause, step = end(settling() + rise + noise())
    assert cause == "divergence"
    assert step < 30 + 0.2 * PLAN
    assert end(settling() + rise + noise(), without("divergence"))[0] != "divergence"
    spike = np.where(steps() > 30, 0.8 * np.exp(-(steps() - 30) / 6), 0.0)
    assert end(settling() + spike + noise())[0] != "divergence"


LOST = np.where(steps() > 40, 0.1, 0.9)
RISE = np.where(steps() > 40, 0.25, 0.0)


def test_a_collapse_of_attention_ends_a_run_when_the_loss_follows_and_nothing_heals():
    values = settling() + RISE + noise()
    cause, step = end(values, attention=LOST)
    assert cause == "collapse"
    assert 0.2 * PLAN <= step - 40 < 0.2 * PLAN + 5
    soon = params(collapse_wait=0.05)
    assert end(values, soon, attention=LOST)[1] < step - 10
    for given in (without("collapse"), params(attention_monitoring={"enabled": False})):
        cause, later = end(values, given, attention=LOST)
        assert cause != "collapse"
        assert later > step
    assert end(settling() + noise(), attention=LOST)[0] != "collapse"  # the loss stayed
    assert end(values, attention=np.full(PLAN, 0.1))[0] != "collapse"


def healing(lasts, height):
    """A run that loses attention for a while and then goes on to a better optimum."""
    ill = (steps() > 40) & (steps() <= 40 + lasts)
    better = 0.2 * (1 - np.exp(-np.maximum(0, steps() - 40 - lasts) / 25))
    return settling() + height * ill - better + noise(), np.where(ill, 0.1, 0.9)


@pytest.mark.parametrize("height", [0.25, 0.7, 2.0])
def test_a_collapse_that_recovers_is_not_stopped(height):
    values, attention = healing(17, height)
    decisions = run(values, attention=attention)
    assert decisions[-1].step == PLAN or decisions[-1].best_step > 75
    assert run(values, params(collapse_wait=0.05), attention=attention)[-1].step < 57
    blind = run(values, without("collapse"), attention=attention)
    assert height < 1.0 or blind[-1].cause == "divergence"


def test_patience_begins_anew_when_lost_attention_reads_again():
    ill = (steps() > 40) & (steps() <= 57)
    values, attention = settling() + 0.25 * ill + 0.01 * (steps() > 40), np.where(ill, 0.1, 0.9)
    waited = [decision.waited_steps for decision in run(values, attention=attention)]
    assert waited[56] > 15
    assert waited[57] <= 1


def test_attention_that_only_flickers_has_not_come_back():
    flicker = np.where((steps() > 40) & (np.arange(PLAN) % 4 == 0), 0.55, LOST)
    values = settling() + RISE + noise()
    cause, step = end(values, attention=flicker)
    assert cause == "collapse"
    assert step <= end(values, attention=LOST)[1] + 4


def test_no_forecast_or_patience_ends_a_run_whose_attention_may_come_back():
    flat = settling() + noise(size=0.0005)
    given = params(patience_share=0.15, collapse_wait=0.4)
    assert end(flat, given, attention=aligned)[1] < 60
    lost = np.where(steps() > 45, 0.1, 0.9)
    cause, step = end(flat, given, attention=lost)
    assert step >= 45 + 0.4 * PLAN
    short = {"adaptive_patience": False, "patience_share": 0.15, "collapse_wait": 0.4}
    soon = settling(scale=4.0) + noise(size=0.0005)
    lost = np.where(steps() > 30, 0.1, 0.9)
    assert end(soon, without("forecast", **short), attention=aligned)[1] < 60
    assert end(soon, without("forecast", **short), attention=lost)[1] >= 30 + 0.4 * PLAN
    assert cause in ("patience", "forecast")


def test_what_is_no_number_ends_a_run_at_once():
    values = settling()
    for bad in (np.nan, np.inf, -np.inf):
        values[4] = bad
        assert end(values) == ("not_finite", 5)
    assert end(values, without("not_finite", "forecast", "patience"))[0] == ""


def overfitting_run(attention):
    rise = np.where(steps() > 30, 0.008 * (steps() - 30), 0.0)
    return {
        "values": settling(scale=6.0) + rise + noise(),
        "train_loss": settling(scale=30.0),
        "attention": attention,
        "premature": np.full(PLAN, 0.05),
    }


def test_overfitting_ends_a_run_unless_free_running_speech_still_gets_better():
    given = without("forecast", "divergence", "falling", patience_share=0.6)
    cause, step = end(given=given, **overfitting_run(aligned))
    assert cause == "overfitting"
    better = np.clip(0.6 + 0.004 * steps(), 0, 1)
    _, later = end(given=given, **overfitting_run(better))
    assert later > step
    off = without("forecast", "divergence", "falling", "overfitting", patience_share=0.6)
    assert end(given=off, **overfitting_run(aligned))[1] > step
    off = params(patience_share=0.6, overfitting={"enabled": False})
    assert end(given=off, **overfitting_run(aligned))[0] != "overfitting"


def test_overfitting_needs_to_hear_free_running_speech():
    facts = overfitting_run(aligned)
    values, train = facts["values"], facts["train_loss"]
    given = without("forecast", "divergence", "falling", patience_share=0.6)
    assert end(values, given, train_loss=train)[0] != "overfitting"


@pytest.mark.parametrize("train", [None, 0.2 + 0.01 * steps()], ids=["unknown", "rises too"])
def test_a_loss_that_rises_with_attention_half_lost_is_no_overfitting(train):
    facts = overfitting_run(np.where(steps() > 35, 0.65, 0.9))
    given = without("forecast", "divergence", "falling", patience_share=0.6)
    assert end(given=given, **facts)[0] == "overfitting"
    facts["train_loss"] = [None] * PLAN if train is None else train
    assert end(given=given, **facts)[0] != "overfitting"


def test_a_voice_that_has_not_aligned_is_given_its_time():
    flat = 1.0 + noise() + 0.5 * (steps() < 3)
    blind = np.full(PLAN, 0.1)
    given = params(patience_share=0.2, stages=[{"name": "all", "share": 1, "multiplier": 1}])
    without_guard = given.model_copy(
        update={"rules": given.rules.model_copy(update={"guard": False})}
    )
    cause, step = end(flat, given, attention=blind)
    assert cause == "patience"
    assert step >= 0.6 * PLAN
    assert end(flat, without_guard, attention=blind)[1] < 0.5 * PLAN


def test_patience_begins_anew_when_attention_aligns():
    values = 1.0 - 0.4 * (steps() >= 70) + 0.5 * (steps() < 3) + noise()
    found = np.where(steps() >= 57, 0.9, 0.1)  # alignment comes before the loss falls
    decisions = run(values, attention=found)
    assert decisions[-1].step == PLAN
    assert decisions[57].waited_steps <= 2


def test_no_patience_runs_out_before_a_known_drop_of_the_learning_rate():
    values = settling(scale=4.0) - 0.3 * (steps() >= 75) + noise(size=0.001)
    values[30:74] += 0.01
    cause, step = end(values, without("forecast"))
    assert cause == "patience"
    assert step < 75
    assert end(values, drops=(75,))[1] > 80
    ignored = without("schedule", "forecast")
    assert end(values, ignored, drops=(75,)) == (cause, step)


def test_a_forecast_waits_for_the_end_of_an_annealed_learning_rate():
    values = settling(scale=12.0) + noise()
    rate = np.cos(np.pi / 2 * steps() / (PLAN + 1))
    given = params(patience_share=1.0)
    assert end(values, given, learning_rate=rate)[0] == ""
    assert end(values, given, learning_rate=np.ones(PLAN))[0] == "forecast"
    for other in (
        without("schedule", patience_share=1.0),
        params(patience_share=1.0, forecast={"while_annealing": True}),
    ):
        assert end(values, other, learning_rate=rate)[0] == "forecast"


def test_a_loss_that_comes_down_again_is_waited_for():
    hump = 0.25 * np.exp(-0.5 * ((steps() - 40) / 8) ** 2)
    values = settling(scale=4.0) + hump - 0.002 * np.maximum(0, steps() - 40) + noise(size=0.002)
    given = {"adaptive_patience": False, "patience_share": 0.32}
    allowed = without("forecast", "divergence", "promise", **given)
    refused = without("forecast", "divergence", "promise", "falling", **given)
    assert end(values, allowed)[1] > end(values, refused)[1] + 10


def test_an_improvement_that_is_to_be_expected_is_waited_for():
    values = settling(scale=60.0) + noise(size=0.05, seed=3)
    given = {"adaptive_patience": False, "patience_share": 0.08}
    waited = end(values, without("falling", "forecast", **given))[1]
    assert waited > end(values, without("falling", "forecast", "promise", **given))[1]


def test_nothing_but_what_is_no_number_ends_a_run_of_few_evaluations():
    values = np.array([1.0, 0.1, 2, 3, 4, 5, 6, 7, 8, 9.0])
    assert end(values, planned=10)[1] >= 8
    assert end(values, params(min_evaluations=10), planned=10)[1] == 10


def test_a_controller_that_is_off_says_all_and_stops_nothing():
    values = settling() + np.where(steps() > 30, 3.0, 0.0)
    values[90] = np.nan
    decisions = run(values, params(enabled=False))
    assert not any(decision.stop for decision in decisions)
    assert decisions[50].votes
