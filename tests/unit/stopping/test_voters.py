"""What each voter says, and that its saying reaches the evidence."""

import numpy as np
import pytest

from kamerton.config.stopping_section import (
    AttentionMonitoringParams,
    EarlyStoppingParams,
    OverfittingParams,
)
from kamerton.stopping.types import Vote
from kamerton.stopping.view import View
from kamerton.stopping.voters.attention import AttentionHealth
from kamerton.stopping.voters.cusum import Cusum
from kamerton.stopping.voters.forecast import Forecast
from kamerton.stopping.voters.gate import GateHealth
from kamerton.stopping.voters.mann_kendall import MannKendall
from kamerton.stopping.voters.overfitting import OverfittingRisk
from tests.stop_curves import PLAN, noise, params, run, settling, steps


def view(**changes):
    recent = changes.pop("recent", np.ones(24))
    facts = {
        "step": 70.0,
        "planned": 100.0,
        "blocks": 100.0,
        "evaluations": 70,
        "start": 2.0,
        "best": 1.0,
        "span": 1.0,
        "noise": 0.01,
        "recent": np.asarray(recent, dtype=float),
        "steps": np.arange(1.0, 49.0),
        "values": 1.0 + np.exp(-np.arange(48.0) / 4),
    }
    facts.update(changes)
    return View(**facts)


def attention(values, step=70.0, **changes):
    values = np.asarray(values, dtype=float)
    best = changes.pop("best_so_far", float(values.max()))
    facts = view(step=step, attention=values, attention_best=best, **changes)
    return AttentionHealth(AttentionMonitoringParams()).vote(facts)


def test_attention_says_go_on_until_it_reads_and_stop_when_it_is_lost():
    assert attention([0.1] * 8, step=30.0).score == -1.0
    assert attention([0.1] * 8, step=70.0).score == 0.0  # the guard's share is over
    assert attention(np.linspace(0.55, 0.75, 12)).score == -0.5
    assert attention([0.9] * 12).score == pytest.approx(0.2)
    assert attention([0.2] * 8, best_so_far=0.9).score == 1.0
    assert attention([0.2] * 8, best_so_far=0.55).score != 1.0  # it never was there


def test_attention_that_goes_back_is_less_healthy():
    assert attention([0.9] * 12, monotonicity=0.8).score == 0.0
    assert "0.45" in attention([0.9] * 12, monotonicity=0.5).reason


def test_attention_abstains_where_there_is_none_or_it_is_not_wanted():
    voter = AttentionHealth(AttentionMonitoringParams())
    assert voter.vote(view()).confidence == 0.0
    off = AttentionHealth(AttentionMonitoringParams(enabled=False))
    blind = view(attention=np.full(8, 0.1), attention_best=0.1, step=30.0)
    assert off.vote(blind).confidence == 0.0


@pytest.mark.parametrize(
    ("premature", "score"),
    [
        (np.linspace(0.6, 0.2, 12), -0.5),
        (np.linspace(0.1, 0.6, 12), 0.5),
        (np.full(12, 0.05), 0.2),
        (np.full(12, 0.5), -0.2),
    ],
    ids=["better", "worse", "learned", "not learned"],
)
def test_the_gate_is_heard_by_how_sentences_end(premature, score):
    voter = GateHealth(0.3)
    assert voter.vote(view(premature=premature)).score == score
    assert voter.vote(view(runaway=premature)).score == score
    assert voter.vote(view(gate_f1=1.0 - premature)).score == score
    both = view(premature=premature, runaway=np.zeros(12))
    assert voter.vote(both).score == score
    assert voter.vote(view()).confidence == 0.0


def test_a_gate_with_a_poor_stop_frame_is_not_learned():
    ends = np.full(12, 0.05)
    assert GateHealth(0.3).vote(view(premature=ends, gate_f1=np.full(12, 0.5))).score == -0.2


@pytest.mark.parametrize(("slope", "score"), [(0.05, 1.0), (-0.05, -1.0), (0.0, 0.25)])
def test_mann_kendall_votes_by_the_trend(slope, score):
    values = 1.0 + slope * np.arange(24)
    assert MannKendall(0.05, 24).vote(view(recent=values)).score == pytest.approx(score)
    assert MannKendall(0.05, 24).vote(view(recent=values[:5])).confidence == 0.0


def test_cusum_votes_for_a_change_of_level_and_abstains_otherwise():
    for sign in (1.0, -1.0):
        voter = Cusum(0.5, 5.0)
        assert voter.vote(view()).confidence == 0.0
        for _ in range(6):
            voter.update(2.0 * sign)
        assert voter.vote(view()).score == sign


def test_the_forecast_votes_to_stop_a_settled_curve_and_not_a_falling_one():
    assert Forecast(0.01).vote(view()).score > 0.9
    falling = view(values=2.0 - np.arange(48.0) / 48)
    assert Forecast(0.01).vote(falling).score == -1.0
    stepped = view(values=2.0 - 0.9 * (np.arange(48.0) > 30))
    assert Forecast(0.01).vote(stepped).confidence < 0.5
    assert Forecast(0.01).vote(view(values=np.ones(3), steps=np.arange(1.0, 4.0))).confidence == 0


RISING = 1.0 + np.concatenate([np.zeros(12), np.linspace(0.01, 0.3, 12)])


@pytest.mark.parametrize(
    ("facts", "score", "risk"),
    [
        ({}, 0.0, "low"),
        ({"recent": np.full(24, 1.2)}, 0.4, "medium"),
        ({"recent": RISING, "train": np.linspace(1, 0.5, 24)}, 0.7, "high"),
        ({"attention": np.full(8, 0.75), "attention_best": 0.9}, 0.2, "low"),
        ({"attention": np.full(8, 0.65), "attention_best": 0.72}, 0.2, "low"),
        ({"premature": np.full(8, 0.4)}, 0.1, "low"),
        ({"recent": np.full(24, 1.2), "premature": np.full(8, 0.4)}, 0.5, "medium"),
    ],
)
def test_the_risk_is_the_sum_of_its_signs(facts, score, risk):
    voter = OverfittingRisk(OverfittingParams())
    found = voter.assess(view(**facts))
    assert found.score == pytest.approx(score)
    assert found.risk == risk
    assert risk in voter.vote(view(**facts)).reason


SCENES = {
    "cusum": (settling() + np.where(steps() > 50, 0.15, 0.0), {}),
    "mann_kendall": (settling(scale=40.0), {}),
    "forecast": (settling(scale=6.0), {}),
    "attention_health": (settling(), {"attention": np.full(PLAN, 0.9)}),
    "gate_health": (settling(), {"premature": np.full(PLAN, 0.05)}),
}


@pytest.mark.parametrize("voter", SCENES)
def test_each_voter_reaches_the_evidence_and_a_silent_one_does_not(voter):
    values, series = SCENES[voter]
    rules = dict.fromkeys(("patience", "forecast", "divergence"), False)
    heard = run(values + noise(), params(rules=rules), **series)
    silent = run(values + noise(), params(rules=rules, silent_voters=[voter]), **series)
    rows = [{vote.voter: vote for vote in decision.votes} for decision in heard]
    assert any(row[voter].confidence > 0 for row in rows if row)
    assert any(a.evidence != b.evidence for a, b in zip(heard, silent, strict=True))
    muted = [vote for decision in silent for vote in decision.votes if vote.voter == voter]
    assert muted
    assert all(vote.confidence == 0.0 and vote.reason for vote in muted)


@pytest.mark.parametrize(
    ("group", "voters"),
    [
        ("statistical_consensus", ["cusum", "mann_kendall"]),
        ("bayesian_prediction", ["forecast"]),
        ("attention_analysis", ["attention_health", "gate_health"]),
    ],
)
def test_a_group_without_weight_is_as_if_its_voters_were_silent(group, voters):
    series = {"attention": np.full(PLAN, 0.9), "premature": np.full(PLAN, 0.05)}
    rules = dict.fromkeys(("patience", "forecast"), False)
    values = settling() + noise()
    weightless = run(values, params(rules=rules, ensemble_weights={group: 0.0}), **series)
    silent = run(values, params(rules=rules, silent_voters=voters), **series)
    assert [d.evidence for d in weightless] == pytest.approx([d.evidence for d in silent])


def test_decisions_hold_a_row_with_a_reason_of_every_voter():
    last = run(settling() + noise())[-1]
    assert [vote.voter for vote in last.votes] == [*SCENES, "overfitting"]
    assert all(vote.reason for vote in last.votes)
    assert all(-1 <= vote.score <= 1 and 0 <= vote.confidence <= 1 for vote in last.votes)
    assert isinstance(last.votes[0], Vote)
    assert EarlyStoppingParams().ensemble_weights.bayesian_prediction == 0.4
