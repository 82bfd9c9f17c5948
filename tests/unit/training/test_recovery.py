"""What is decided about trouble, and what interventions do to a network."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kamerton.config.schema import TrainParams
from kamerton.training import interventions
from kamerton.training.checkpoint import Checkpoints
from kamerton.training.clipping import usual_norm
from kamerton.training.interventions import Patient, _saved, act, forget_bad_moments
from kamerton.training.recovery import (
    Decision,
    count_diverged,
    count_loud,
    decide,
    with_mel_loss,
)
from kamerton.training.state import ClipState, RecoveryState, TrainState
from kamerton.training.step import StepResult

TOTAL = 1000
TRAIN = TrainParams(eval_interval_steps=10).resolved()


def params(**recovery: Any) -> TrainParams:
    given = {"eval_interval_steps": 10, "recovery": recovery, "early_stopping": {"enabled": False}}
    return TrainParams.model_validate(given).resolved()


def judge(
    state: TrainState, train: TrainParams = TRAIN, *, evaluated: bool = True
) -> Decision | None:
    return decide(state, TOTAL, train, evaluated=evaluated)


def past(**values: Any) -> RecoveryState:
    return RecoveryState(**values)


CALM = TrainState(
    step=500, best_step=490, evaluated_step=500, diagonality=0.9,
    recovery=past(best_diagonality=0.9), clip=ClipState((1.0,) * 100),
)  # fmt: skip
COLLAPSED = dataclasses.replace(CALM, diagonality=0.2)
LOUD = dataclasses.replace(CALM, recovery=past(loud_steps=3), clip=ClipState((1.0,) * 99 + (50.0,)))
STALE = dataclasses.replace(CALM, best_step=370)


def deed(decision: Decision | None) -> tuple[str, str] | None:
    return None if decision is None else (decision.cause, decision.deed)


def test_a_calm_run_is_left_alone() -> None:
    assert judge(CALM) is None


# Non-finite steps.


@pytest.mark.parametrize(
    ("in_a_row", "what"),
    [(1, None), (2, None), (3, ("non_finite", "slow_down")), (4, None),
     (5, ("non_finite", "go_back")), (6, None)],
)  # fmt: skip
def test_three_bad_steps_slow_down_and_five_go_back(
    in_a_row: int, what: tuple[str, str] | None
) -> None:
    decision = judge(dataclasses.replace(CALM, skipped_in_a_row=in_a_row))
    assert deed(decision) == what
    if decision is not None and decision.deed == "go_back":
        assert decision.before == CALM.step - 5  # a checkpoint from before the bad steps


def test_slowing_down_and_going_back_are_one_intervention() -> None:
    acted = past(count=3, last_step=498)  # the last that was allowed, at the third bad step
    state = dataclasses.replace(CALM, skipped_in_a_row=5, recovery=acted)
    decision = judge(state)
    assert decision is not None
    assert decision.deed == "go_back"
    assert not decision.counts
    elsewhere = dataclasses.replace(state, recovery=past(count=3, last_step=490))
    assert judge(elsewhere) is None  # none is left, and this stretch is another


def test_bad_steps_need_no_pause() -> None:
    state = dataclasses.replace(CALM, skipped_in_a_row=3, recovery=past(count=1, last_step=495))
    assert deed(judge(state)) == ("non_finite", "slow_down")


# Explosion.


def result(norm: float, *, applied: bool = True) -> StepResult:
    return StepResult(losses=None, grad_norm=norm, applied=applied)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("norm", "usual", "loud"),
    [(10.1, 1.0, 1), (9.9, 1.0, 0), (49.0, 10.0, 0), (51.0, 10.0, 1)],
)
def test_a_gradient_is_loud_above_ten_and_above_five_times_the_usual(
    norm: float, usual: float, loud: int
) -> None:
    state = TrainState(clip=ClipState((usual,) * 20))
    assert usual_norm(state.clip) == usual
    assert count_loud(state, result(norm), TRAIN) == loud


def test_loud_steps_count_in_a_row_and_bad_ones_neither_count_nor_end_the_row() -> None:
    state = dataclasses.replace(CALM, recovery=past(loud_steps=2))
    assert count_loud(state, result(100.0), TRAIN) == 3
    assert count_loud(state, result(float("inf"), applied=False), TRAIN) == 2
    assert count_loud(state, result(1.0), TRAIN) == 0


def test_nothing_is_loud_before_something_is_usual() -> None:
    assert count_loud(TrainState(clip=ClipState((1.0,) * 9)), result(1e6), TRAIN) == 0
    assert count_loud(TrainState(clip=ClipState((1.0,) * 10)), result(1e6), TRAIN) == 1


def test_three_loud_steps_are_an_explosion_at_any_step() -> None:
    decision = judge(LOUD, evaluated=False)
    assert deed(decision) == ("explosion", "go_back_slower")
    assert decision is not None
    assert decision.before == 497
    assert decision.values == {"grad_norm": 50.0, "usual_norm": 1.0}
    assert judge(dataclasses.replace(LOUD, recovery=past(loud_steps=2))) is None


# Collapse.


@pytest.mark.parametrize(
    ("best", "now", "collapsed"),
    [(0.51, 0.29, True), (0.49, 0.1, False), (0.9, 0.31, False), (0.9, -0.2, True)],
)
def test_attention_collapses_when_it_was_there_and_is_gone(
    best: float, now: float, collapsed: bool
) -> None:
    state = dataclasses.replace(CALM, diagonality=now, recovery=past(best_diagonality=best))
    expected = ("collapse", "go_back_aligned") if collapsed else None
    assert deed(judge(state)) == expected
    assert judge(state, evaluated=False) is None  # only an evaluation can tell
    # Attention that holds when the true frames are given has not collapsed: the gate fails.
    assert judge(dataclasses.replace(state, forced_diagonality=0.6)) is None


# Plateau.


def test_a_plateau_is_an_eighth_of_the_budget_without_a_better_evaluation() -> None:
    assert deed(judge(STALE)) == ("plateau", "warm_restart")
    assert judge(dataclasses.replace(STALE, best_step=380)) is None
    assert judge(STALE, evaluated=False) is None
    assert judge(dataclasses.replace(STALE, best_step=0)) is None


def test_four_evaluations_must_have_found_nothing_better() -> None:
    seldom = TrainParams(eval_interval_steps=50).resolved()
    state = dataclasses.replace(STALE, best_step=350)  # 150 steps, three evaluations
    assert judge(state, seldom) is None
    assert deed(judge(dataclasses.replace(state, best_step=300), seldom)) is not None


def test_no_restart_when_a_fifth_of_the_budget_is_left() -> None:
    late = dataclasses.replace(STALE, step=800, best_step=600)
    assert judge(late) is None
    assert judge(dataclasses.replace(late, step=790)) is not None


def test_a_restart_has_the_same_time_to_show_that_it_helps() -> None:
    acted = dataclasses.replace(STALE, recovery=past(count=1, last_step=400))
    assert judge(acted) is None
    assert judge(dataclasses.replace(acted, step=530)) is not None


def test_there_is_one_restart_in_a_run_and_never_the_last_intervention() -> None:
    again = dataclasses.replace(STALE, recovery=past(count=1, last_step=100, restart_step=100))
    assert judge(again) is None
    two = dataclasses.replace(STALE, recovery=past(count=2, last_step=100))
    assert judge(two) is None  # the third is for an explosion
    assert deed(judge(two, params(max_recoveries=4))) == ("plateau", "warm_restart")
    assert judge(STALE, params(max_recoveries=1)) is None


def test_a_restart_that_found_nothing_better_is_taken_back_and_one_that_did_is_not() -> None:
    acted = past(count=1, last_step=500, restart_step=500, restart_gain=2.0)
    state = dataclasses.replace(STALE, step=630, recovery=acted)
    decision = judge(state)
    assert deed(decision) == ("plateau", "take_back")
    assert decision is not None
    assert not decision.counts
    assert judge(dataclasses.replace(state, step=620)) is None  # it has as long as a plateau lasts
    assert judge(dataclasses.replace(state, best_step=510)) is None
    taken_back = dataclasses.replace(acted, restart_gain=1.0)
    assert judge(dataclasses.replace(state, recovery=taken_back)) is None


@pytest.mark.parametrize("halved", [1.0, 0.5])
def test_taking_back_undoes_the_restart_and_nothing_else(halved: float) -> None:
    patient: Any = None  # neither network nor checkpoints are touched
    restarted = act(Decision("plateau", "warm_restart"), patient, STALE).state
    assert restarted.recovery.learning_rate_factor == 2.0
    assert (restarted.recovery.count, restarted.recovery.last_step) == (1, 500)
    factor = restarted.recovery.learning_rate_factor * halved  # by an explosion meanwhile
    later = dataclasses.replace(
        restarted, step=700,
        recovery=dataclasses.replace(restarted.recovery, learning_rate_factor=factor),
    )  # fmt: skip
    outcome = act(Decision("plateau", "take_back", counts=False), patient, later)
    assert outcome.action == "took the restart back"
    assert outcome.state.recovery.learning_rate_factor == halved
    assert (outcome.state.recovery.count, outcome.state.recovery.last_step) == (1, 500)


def patient_for(share: float | None) -> TrainParams:
    stopping = {"enabled": share is not None, "patience_share": share or 1.0}
    given = {"eval_interval_steps": 10, "early_stopping": stopping}
    return TrainParams.model_validate(given).resolved()


def test_a_plateau_is_acted_on_at_half_of_the_patience() -> None:
    train = patient_for(0.2)
    assert judge(dataclasses.replace(STALE, best_step=410), train) is None
    stale = dataclasses.replace(STALE, best_step=400)  # 100 of 1000 steps, less than an eighth
    assert deed(judge(stale, train)) == ("plateau", "warm_restart")
    assert judge(stale, patient_for(None)) is None


def test_copies_beside_the_checkpoints_are_not_gone_back_to(tmp_path: Path) -> None:
    for name in ("step_4_copy.pt", "step_old.pt"):
        (tmp_path / name).write_text("no checkpoint")
    checkpoints = Checkpoints(tmp_path, keep=3)
    state = dataclasses.replace(CALM, best_step=0)
    assert list(_saved(checkpoints, state, 500, best_first=False)) == []


# Rules for all of them.


@pytest.mark.parametrize("state", [LOUD, COLLAPSED, STALE])
def test_there_is_a_pause_between_two_interventions(state: TrainState) -> None:
    def after(steps: int) -> TrainState:
        values = dataclasses.replace(state.recovery, count=1, last_step=state.step - steps)
        return dataclasses.replace(state, recovery=values)

    assert judge(after(49)) is None
    long_ago = judge(after(130))
    assert long_ago is not None
    assert long_ago.counts


@pytest.mark.parametrize(("state", "ends"), [(LOUD, True), (COLLAPSED, True), (STALE, False)])
def test_when_none_is_left_explosion_and_collapse_end_the_run(
    state: TrainState, ends: bool
) -> None:
    used = dataclasses.replace(
        state, recovery=dataclasses.replace(state.recovery, count=3, last_step=100)
    )
    decision = judge(used)
    assert (decision is not None and decision.deed == "stop") == ends
    if decision is not None:
        assert not decision.counts
    assert judge(used, params(max_recoveries=5)) is not None


@pytest.mark.parametrize(
    "state", [LOUD, COLLAPSED, STALE, dataclasses.replace(CALM, skipped_in_a_row=3)]
)
def test_nothing_is_done_where_recovery_is_off_or_the_run_is_over(state: TrainState) -> None:
    assert judge(state, params(enabled=False)) is None
    assert judge(dataclasses.replace(state, step=TOTAL)) is None
    assert judge(dataclasses.replace(state, stopped="patience")) is None
    given_up = dataclasses.replace(state.recovery, gave_up="explosion")
    assert judge(dataclasses.replace(state, recovery=given_up)) is None


@pytest.mark.parametrize(
    ("state", "change"),
    [
        (LOUD, {"explosion_norm": 1e9}),
        (COLLAPSED, {"collapse_below": 0.1}),
        (COLLAPSED, {"collapse_after": 0.95}),
        (STALE, {"plateau_share": 0.5}),
    ],
)
def test_every_threshold_is_a_parameter(state: TrainState, change: dict[str, float]) -> None:
    assert judge(state) is not None
    if "explosion_norm" in change:
        quiet = count_loud(CALM, result(50.0), params(**change))
        assert quiet == 0 < count_loud(CALM, result(50.0), TRAIN)
        assert count_loud(CALM, result(50.0), params(explosion_factor=60.0)) == 0
    else:
        assert judge(state, params(**change)) is None


def test_moments_that_are_not_finite_are_forgotten_and_only_those() -> None:
    good, bad = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = torch.optim.AdamW([good, bad], fused=True)
    for parameter in (good, bad):
        parameter.grad = torch.ones(3)
    optimizer.step()
    optimizer.state[bad]["exp_avg_sq"][1] = float("inf")
    assert forget_bad_moments(optimizer) == 1
    assert good in optimizer.state
    assert bad not in optimizer.state
    optimizer.step()  # and it goes on
    assert torch.isfinite(bad).all()


def lived(*mel_losses: float, train: TrainParams = TRAIN) -> RecoveryState:
    """What is known after evaluations with these mel losses."""
    known = past(best_diagonality=0.9)
    for mel_loss in mel_losses:
        known = with_mel_loss(known, mel_loss, train)
    return known


def test_two_evaluations_far_above_the_best_are_a_divergence() -> None:
    known = lived(4.0, 1.0)
    bound = 1.0 + 0.3 * 3.0
    assert count_diverged(known, bound, TRAIN) == 0
    assert count_diverged(known, bound + 1e-6, TRAIN) == 1
    assert count_diverged(known, math.nan, TRAIN) == count_diverged(known, math.inf, TRAIN) == 1
    assert count_diverged(known, 2.5, params(divergence_share=0.9)) == 0
    once, twice, again = (
        dataclasses.replace(CALM, best_step=400, recovery=lived(4.0, 1.0, *after))
        for after in ([3.0], [3.0, math.nan], [3.0, 1.5, 3.0])
    )
    assert [one.recovery.diverged for one in (once, twice, again)] == [1, 2, 1]
    assert judge(once) is judge(again) is None
    found = judge(dataclasses.replace(once, recovery=lived(4.0, 1.0, 3.0, 2.5)))
    assert deed(found) == deed(judge(twice)) == ("divergence", "go_back_slower")
    assert found is not None
    assert found.before == 400
    assert found.values == {"best_mel_loss": 1.0, "mel_loss": 2.5}
    assert judge(twice, evaluated=False) is None


def test_where_little_was_gained_half_of_the_best_is_far() -> None:
    known = lived(0.625, 0.5)
    assert count_diverged(known, 0.75, TRAIN) == 0
    assert count_diverged(known, 0.75 + 1e-6, TRAIN) == 1
    assert count_diverged(lived(4.0), 6.0, TRAIN) == 0
    assert count_diverged(lived(4.0), 6.1, TRAIN) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_first_evaluation_is_the_first_that_gave_a_number(bad: float) -> None:
    assert lived(bad).diverged == lived(bad, bad).diverged == 0  # there is no best yet
    assert lived(bad, 4.0, 1.0).first_mel_loss == lived(4.0, 1.0).first_mel_loss == 4.0
    assert lived(bad, 4.0, 1.0, 3.0).diverged == 1
    assert lived(4.0, bad, 1.0).best_mel_loss == 1.0


def test_a_divergence_after_the_last_recovery_is_left_to_the_stop_decision() -> None:
    known = dataclasses.replace(lived(4.0, 1.0, 3.0, 3.0), count=3)
    assert judge(dataclasses.replace(CALM, best_step=490, recovery=known)) is None


@pytest.mark.parametrize("noise", [0.01, 0.02, 0.04])
def test_the_noise_of_a_run_that_begins_with_good_weights_is_no_divergence(noise: float) -> None:
    for seed in range(10):
        draws = np.random.default_rng(seed).normal(0.0, noise, 80)
        known = past()
        for index, draw in enumerate(draws):
            known = with_mel_loss(known, 0.55 + 0.1 * math.exp(-index / 24) + float(draw), TRAIN)
            assert known.diverged < 2


def test_a_gate_that_is_lost_alone_is_no_trouble_of_recovery() -> None:
    """The figure of merit rises by almost 1, for what does not end is not read; the mel loss does
    not, nor does teacher-forced attention fall."""
    state = dataclasses.replace(
        CALM, best_step=490, best_quality=0.6, quality=1.5, diagonality=0.0,
        forced_diagonality=0.95, recovery=lived(3.0, 0.5, 0.5, 0.5),
    )  # fmt: skip
    assert judge(state) is None


def test_attention_that_is_lost_again_is_led_there_at_half_the_learning_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saved = {"model": {}, "state": {"step": 40}}
    monkeypatch.setattr(interventions, "_saved", lambda *_args, **_how: iter([saved]))
    monkeypatch.setattr(interventions, "_diagonality", lambda _saved: 0.9)
    monkeypatch.setattr(interventions, "_reload", lambda _saved, _patient, state: state)
    patient: Any = Patient(None, None, None, TRAIN)  # type: ignore[arg-type]
    lost = Decision("collapse", "go_back_aligned", before=50)
    first = act(lost, patient, COLLAPSED)
    assert first.state.recovery.learning_rate_factor == 1.0
    second = act(lost, patient, first.state)
    third = act(lost, patient, second.state)
    factors = [out.state.recovery.learning_rate_factor for out in (second, third)]
    assert factors == [0.5, 0.25]
    assert "halved" not in first.action
    assert "halved" in second.action
