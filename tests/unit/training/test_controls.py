"""Who decides what a step is made with."""

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.config.schema import TrainParams
from kamerton.training.controls import changes
from kamerton.training.schedule import controls_at, learning_rate, safe_learning_rate
from kamerton.training.state import ClipState, GateState, PhaseState, RecoveryState, TrainState

TOTAL = 1000


def params(**given: Any) -> TrainParams:
    return TrainParams.model_validate(
        {"warmup_steps": 0, "learning_rate": 1e-3, **given}
    ).resolved()


PLAIN = params()


def at(step: int = 500, train: TrainParams = PLAIN, **parts: Any) -> Any:
    return controls_at(TrainState(step=step, **parts), TOTAL, train)


def test_without_phase_and_recovery_parameters_and_schedule_decide() -> None:
    train = params(phases={"count": 0})
    controls = at(train=train)
    assert controls.learning_rate == learning_rate(500, TOTAL, train)
    assert controls.clip_norm == train.grad_clip_thresh
    assert controls.guided_attention_weight == train.guided_attention_weight
    assert controls.gate_weight == 1.0
    assert controls.owners == {
        "learning_rate": "schedule", "clip_norm": "params", "guided_attention_weight": "params",
        "gate_weight": "params", "variational_kl_weight": "params", "weight_decay": "params",
        "dropout": "params",
    }  # fmt: skip


@pytest.mark.parametrize(("index", "factor"), [(0, 1.0), (1, 0.8), (2, 0.5), (3, 0.3)])
def test_a_phase_multiplies_the_schedule(index: int, factor: float) -> None:
    controls = at(phase=PhaseState(index=index))
    assert controls.learning_rate == pytest.approx(factor * learning_rate(500, TOTAL, PLAIN))
    assert controls.owners["learning_rate"] == ("phase" if index else "schedule")
    assert controls.factors["learning_rate"] == factor


def test_guided_attention_follows_the_phase_once_attention_holds() -> None:
    assert at(phase=PhaseState(index=2)).guided_attention_weight == 10.0
    assert at(phase=PhaseState(index=2, aligned=5)).guided_attention_weight == pytest.approx(1.0)


def test_recovery_comes_before_phase_and_schedule() -> None:
    slowed = RecoveryState(learning_rate_factor=0.5, clip_factor=0.25)
    controls = at(phase=PhaseState(index=1), recovery=slowed)
    assert controls.learning_rate == pytest.approx(0.4 * learning_rate(500, TOTAL, PLAIN))
    assert controls.clip_norm == 0.25
    assert controls.owners["learning_rate"] == controls.owners["clip_norm"] == "recovery"


def test_recovery_does_not_go_below_the_floor() -> None:
    train = params(recovery={"min_learning_rate": 1e-5})
    slowed = RecoveryState(learning_rate_factor=2.0**-20)
    assert at(train=train, recovery=slowed).learning_rate == pytest.approx(1e-5)
    # Where the schedule itself is below the floor, recovery does not raise it.
    low = params(learning_rate=1e-6, recovery={"min_learning_rate": 1e-5})
    assert at(train=low, recovery=slowed).learning_rate == pytest.approx(
        learning_rate(500, TOTAL, low)
    )


@given(
    st.floats(1e-6, 0.1), st.integers(1, 256), st.floats(1.0, 2.0), st.integers(0, TOTAL - 1),
    st.integers(0, 3),
)  # fmt: skip
def test_a_warm_restart_raises_up_to_the_cap_and_never_lowers(
    rate: float, batch: int, factor: float, step: int, phase: int
) -> None:
    train = params(learning_rate=rate, batch_size=batch)
    before = at(step, train, phase=PhaseState(index=phase)).learning_rate
    raised = at(
        step, train, phase=PhaseState(index=phase),
        recovery=RecoveryState(learning_rate_factor=factor),
    ).learning_rate  # fmt: skip
    assert before * (1 - 1e-12) <= raised <= before * factor * (1 + 1e-12)
    assert raised <= max(before, 3e-3 * math.sqrt(batch / 64)) * (1 + 1e-12)


def test_the_learning_rate_rises_anew_over_2_percent_of_the_budget() -> None:
    begun = RecoveryState(learning_rate_factor=1.0, warmup_step=400)
    rates = [
        at(step, recovery=begun).learning_rate / learning_rate(step, TOTAL, PLAIN)
        for step in range(400, 425)
    ]
    assert rates[:20] == pytest.approx([(i + 1) / 20 for i in range(20)])
    assert rates[20:] == pytest.approx([1.0] * 5)
    assert at(410, recovery=begun).owners["learning_rate"] == "recovery"
    assert at(450, recovery=begun).owners["learning_rate"] == "schedule"


def test_adaptive_clipping_owns_the_threshold_where_it_is_on() -> None:
    norms = ClipState((0.2,) * 50)
    assert at(clip=norms).clip_norm == 1.0
    adaptive = at(train=params(adaptive_clip=True), clip=norms)
    assert adaptive.clip_norm == pytest.approx(0.2)
    assert adaptive.owners["clip_norm"] == "adaptive"
    both = at(train=params(adaptive_clip=True), clip=norms,
              recovery=RecoveryState(clip_factor=0.5))  # fmt: skip
    assert both.clip_norm == pytest.approx(0.1)


def test_the_gate_weighs_what_its_state_says_where_that_is_on() -> None:
    assert at(gate=GateState(weight=1.7)).gate_weight == 1.0
    controls = at(train=params(losses={"adaptive_gate": True}), gate=GateState(weight=1.7))
    assert controls.gate_weight == 1.7
    assert controls.owners["gate_weight"] == "adaptive"


def test_the_cost_of_learned_noise_warms_up_over_a_tenth_of_the_budget() -> None:
    learned = {"recurrent": "variational", "variational": "learned", "variational_kl_weight": 0.5}
    train = params(regularisation=learned)
    weights = [at(step, train).variational_kl_weight for step in (0, 49, 99, 500)]
    assert weights == pytest.approx([0.005, 0.25, 0.5, 0.5])
    assert at(10, train).owners["variational_kl_weight"] == "schedule"


def test_the_safe_learning_rate_grows_with_the_root_of_the_utterances_of_a_step() -> None:
    assert safe_learning_rate(params(batch_size=64)) == pytest.approx(3e-3)
    assert safe_learning_rate(params(batch_size=16)) == pytest.approx(1.5e-3)
    assert safe_learning_rate(params(batch_size=16, accumulation=4)) == pytest.approx(3e-3)
    assert safe_learning_rate(params(batch_size=16), 4) == pytest.approx(3e-3)


def test_a_restart_goes_as_high_as_the_utterances_of_all_processes_allow() -> None:
    train = params(batch_size=4, learning_rate=7e-4, phases={"count": 0})
    state = TrainState(step=0, recovery=RecoveryState(learning_rate_factor=2.0))
    rates = [controls_at(state, TOTAL, train, processes=n).learning_rate for n in (1, 64)]
    assert rates == pytest.approx([7.5e-4, 1.4e-3], rel=1e-3)


def test_changes_are_told_once_and_only_of_owners_and_their_factors() -> None:
    first = at(500)
    assert set(changes(None, first)) == set(first.owners)
    assert changes(first, at(501)) == {}  # the schedule goes on: no news
    entered = at(501, phase=PhaseState(index=1, aligned=5))
    told = changes(first, entered)
    assert set(told) == {"learning_rate", "guided_attention_weight"}
    assert told["learning_rate"] == {
        "owner": "phase", "factor": 0.8, "value": entered.learning_rate,
    }  # fmt: skip
    halved = at(501, phase=PhaseState(index=1, aligned=5),
                recovery=RecoveryState(learning_rate_factor=0.5))  # fmt: skip
    assert changes(entered, halved)["learning_rate"]["owner"] == "recovery"
    quarter = dataclasses.replace(halved, factors={**halved.factors, "learning_rate": 0.25})
    assert set(changes(halved, quarter)) == {"learning_rate"}
