"""Deltas, their proposals, and the parameters of a restart."""

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kamerton.config.changes import CHANGEABLE, factors_at
from kamerton.config.schema import Params
from kamerton.config.train_section import ChangeParams
from kamerton.core.errors import ParamsError
from kamerton.smart_tuner.param_scheduler import (
    FACTORS,
    Outcome,
    ParamScheduler,
    changed_from,
    cooled_down,
    usable_names,
)

PARAMS = Params()


def params(**train: Any) -> Params:
    return Params.model_validate({"train": train})


def keys(deltas: list[dict[str, float]]) -> list[tuple[tuple[str, float], ...]]:
    return [tuple(sorted(delta.items())) for delta in deltas]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 20), st.integers(1, 30))
def test_proposals_are_different_small_and_repeatable(
    seed: int, generation: int, count: int
) -> None:
    found = ParamScheduler(PARAMS, seed=seed).propose(generation, count)
    assert len(found) == count
    assert len(set(keys(found))) == count
    for delta in found:
        assert 1 <= len(delta) <= 2
        assert set(delta) <= set(CHANGEABLE)
        assert set(delta.values()) <= set(FACTORS)
    assert ParamScheduler(PARAMS, seed=seed).propose(generation, count) == found


def test_other_seeds_and_generations_propose_others() -> None:
    first = ParamScheduler(PARAMS, seed=1)
    assert first.propose(1, 5) != first.propose(2, 5)
    assert first.propose(1, 5) != ParamScheduler(PARAMS, seed=2).propose(1, 5)


def test_one_and_two_parameters_are_changed_at_a_time() -> None:
    sizes = Counter(
        len(delta)
        for seed in range(100)
        for delta in ParamScheduler(PARAMS, seed=seed).propose(1, 3)
    )
    assert 0.15 < sizes[2] / sum(sizes.values()) < 0.45


def share_of(delta: dict[str, float], outcomes: list[Outcome], generation: int = 2) -> float:
    (item,) = delta.items()
    found = [
        ParamScheduler(PARAMS, seed=seed).propose(generation, 2, outcomes) for seed in range(300)
    ]
    return sum(any(item in one.items() for one in deltas) for deltas in found) / len(found)


def test_what_helped_is_tried_more_often_and_what_did_harm_less() -> None:
    delta = {"learning_rate": 0.5}
    indifferent = share_of(delta, [])
    helped = share_of(delta, [Outcome(1, delta, 4.0)] * 3)
    harmed = share_of(delta, [Outcome(1, delta, -4.0)] * 3)
    assert helped > 2 * indifferent
    assert harmed < 0.5 * indifferent
    assert helped > share_of(delta, [Outcome(1, delta, 0.5)] * 3)


def test_what_was_learned_fades_with_the_age_of_the_run() -> None:
    delta = {"dropout": 2.0}
    outcomes = [Outcome(1, delta, 4.0)] * 3
    assert share_of(delta, outcomes, 2) > share_of(delta, outcomes, 8) + 0.1


def test_a_pair_teaches_of_both_its_parameters() -> None:
    both = {"learning_rate": 2.0, "weight_decay": 0.5}
    outcomes = [Outcome(1, both, 4.0)] * 4
    for name, factor in both.items():
        assert share_of({name: factor}, outcomes) > 1.5 * share_of({name: factor}, [])


@pytest.mark.parametrize(
    ("train", "missing"),
    [
        ({"weight_decay": 0.0}, {"weight_decay"}),
        ({"guided_attention_weight": 0.0}, {"guided_attention_weight"}),
        ({"attention_dropout": 0.0, "decoder_dropout": 0.0}, {"dropout"}),
        ({"attention_dropout": 0.0}, set()),
        ({"regularisation": {"recurrent": "variational", "variational": "learned"}}, {"dropout"}),
        ({"regularisation": {"recurrent": "variational"}}, set()),
    ],
)  # fmt: skip
def test_what_has_no_effect_is_not_changed(train: dict[str, Any], missing: set[str]) -> None:
    there = params(**train)
    assert set(CHANGEABLE) - set(usable_names(there.train)) == missing
    scheduler = ParamScheduler(there, seed=1)
    assert set(scheduler.names) == set(usable_names(there.train))
    proposed = {name for delta in scheduler.propose(1, 12) for name in delta}
    assert not proposed & missing


def test_all_deltas_may_be_asked_for() -> None:
    only_rate = params(
        weight_decay=0.0, guided_attention_weight=0.0, attention_dropout=0.0, decoder_dropout=0.0
    )
    found = ParamScheduler(only_rate, seed=1).propose(1, 16)
    assert sorted(delta["learning_rate"] for delta in found) == sorted(FACTORS)


def test_changes_multiply_from_their_share_on() -> None:
    changes = changed_from(changed_from((), {"learning_rate": 0.5}, 0.4), {}, 0.5)
    changes = changed_from(changes, {"learning_rate": 0.8, "dropout": 2.0}, 0.6)
    assert factors_at(0.39, changes) == {}
    assert factors_at(0.4, changes) == {"learning_rate": 0.5}
    assert factors_at(0.6, changes) == {"learning_rate": 0.5 * 0.8, "dropout": 2.0}
    assert len(changes) == 2


@given(st.integers(100, 5000), st.integers(4, 400), st.sampled_from([(), (0.5,), (2.0, 0.8)]))
def test_a_cool_down_falls_to_a_tenth_of_what_was_there(
    start: int, length: int, rates: tuple[float, ...]
) -> None:
    total, before = start + length + 100, math.prod(rates)
    changes = tuple(ChangeParams(from_share=0.0, learning_rate=rate) for rate in rates)
    cooled = cooled_down(changes, start, start + length, total)
    seen = [
        factors_at(step / total, cooled).get("learning_rate", 1.0)
        for step in range(start - 1, start + length)
    ]
    assert seen[0] == pytest.approx(before)
    assert seen[1] < before
    assert seen[-1] == pytest.approx(0.1 * before)
    assert seen == sorted(seen, reverse=True)


def test_a_restart_lays_hot_values_over_the_parameters() -> None:
    changes = (ChangeParams(from_share=0.5, weight_decay=2.0),)
    found = ParamScheduler(PARAMS, seed=1).restart(
        {"train.changes": changes, "train.early_stopping.enabled": False}
    )
    assert found.train.changes == changes
    assert not found.train.early_stopping.enabled
    undone = {"train": {"changes": (), "early_stopping": {"enabled": True}}}
    assert found.with_overrides(undone) == PARAMS


def test_a_restart_refuses_what_may_not_change_in_a_run_and_names_its_class() -> None:
    scheduler = ParamScheduler(PARAMS, seed=1)
    with pytest.raises(ParamsError) as caught:
        scheduler.restart(
            {
                "train.batch_size": 8, "train.learning_rate": 1e-4, "audio.mel_fmax_hz": 7000.0,
                "train.model.prenet_dim": 64,
            }
        )  # fmt: skip
    words = str(caught.value)
    assert "train.batch_size (warm)" in words
    assert "audio.mel_fmax_hz (cold)" in words
    assert "train.model.prenet_dim (cold)" in words
    assert "learning_rate" not in words
    assert "tune.search_space" in caught.value.hint
