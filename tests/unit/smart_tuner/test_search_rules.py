"""What the samplers are shown, where a search begins, and when its patience ends."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kamerton.config.search_space import Dimension
from kamerton.smart_tuner.drawing import KnownTrial, shown_to
from kamerton.smart_tuner.opt_engine import OptimizationEngine
from kamerton.smart_tuner.patience import effective_patience, trials_without_gain
from kamerton.smart_tuner.samplers import startup_trials
from kamerton.smart_tuner.startup import spread_point, trial_seed
from kamerton.smart_tuner.trials import TrialResult
from tests.unit.smart_tuner.study_runs import MIXED, SPACE, make_params, run_study

pytest.importorskip("optuna")


def complete(number: int, objective: float, curve: dict[int, float] | None = None) -> TrialResult:
    return TrialResult(number, "complete", {}, objective=objective, curve=curve or {})


def patience_naively(results: list[TrialResult], min_delta: float) -> int:
    """Trials after the last gain, by looking back from each for the gains before it."""
    values = [item.objective or 0.0 for item in results if item.state == "complete"]
    gains: list[int] = []
    for index, value in enumerate(values):
        if not gains or value < values[gains[-1]] - min_delta:
            gains.append(index)
    return len(values) - 1 - gains[-1] if gains else 0


states = st.sampled_from(["complete", "complete", "pruned", "failed"])


@given(
    trials=st.lists(st.tuples(states, st.floats(0.0, 2.0)), max_size=60),
    min_delta=st.floats(0.0, 0.5),
)
def test_patience_counts_complete_trials_since_the_last_gain(
    trials: list[tuple[Any, float]], min_delta: float
) -> None:
    results = [
        TrialResult(number, state, {}, objective=None if state == "failed" else value)
        for number, (state, value) in enumerate(trials)
    ]
    since = trials_without_gain(results, min_delta)
    assert since == patience_naively(results, min_delta)
    assert trials_without_gain(results[::-1], min_delta) == since  # whoever ended first


@settings(max_examples=60)
@given(
    trials=st.integers(1, 300),
    startup=st.none() | st.integers(1, 120),
    patience=st.integers(1, 200),
    sampler=st.sampled_from(["tpe", "auto", "bohb"]),
)
def test_patience_cannot_end_a_search_inside_its_startup(
    trials: int, startup: int | None, patience: int, sampler: str
) -> None:
    tune = make_params(
        SPACE, trials=trials, startup_trials=startup, patience_trials=patience, sampler=sampler
    ).tune
    allowed = effective_patience(tune)
    assert allowed is not None
    assert allowed >= max(20, startup_trials(tune) + 15, patience)
    # The worst case: the first trial is the best, so every later one is without a gain.
    worst = [complete(number, 1.0 + number) for number in range(startup_trials(tune) + 1)]
    assert trials_without_gain(worst, tune.min_delta) < allowed


def test_a_smaller_patience_is_raised_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert effective_patience(make_params(patience_trials=5, startup_trials=10).tune) == 25
    assert "25 is used" in caplog.text
    caplog.clear()
    assert effective_patience(make_params(patience_trials=40).tune) == 40
    assert effective_patience(make_params().tune) is None
    assert caplog.text == ""


def test_a_search_without_gains_ends_when_its_patience_does(tmp_path: Path) -> None:
    tune = {"trials": 60, "sampler": "random", "pruner": "none", "startup_trials": 3}
    params = make_params(SPACE, patience_trials=20, min_delta=5.0, **tune)
    results = run_study(tmp_path / "j.log", params)
    assert len(results) == 21  # the first is a gain, twenty are not


def known(result: TrialResult) -> KnownTrial:
    return KnownTrial(result.number, {}, result)


def test_failed_trials_are_shown_as_the_worst() -> None:
    trials = [known(complete(0, 0.5)), known(complete(1, 0.9)), known(TrialResult(2, "failed", {}))]
    for sampler in ("tpe", "gp"):
        shown = shown_to(sampler, trials)[2].result  # type: ignore[arg-type]
        assert shown is not None
        assert (shown.state, shown.objective) == ("complete", 0.9)
    nothing = [known(TrialResult(0, "failed", {}))]
    assert shown_to("gp", nothing) == nothing


def test_the_process_is_shown_what_a_pruned_trial_would_have_reached() -> None:
    halves = [complete(n, v, {1: 2 * v, 2: v}) for n, v in enumerate((0.2, 0.3, 0.4))]
    pruned = [
        TrialResult(3, "pruned", {}, objective=1.2, curve={1: 1.2}),
        TrialResult(4, "pruned", {}, objective=0.1, curve={1: 0.1}),  # never better than the median
    ]
    trials = [known(item) for item in (*halves, *pruned)]
    shown = [item.result.objective for item in shown_to("gp", trials)[3:] if item.result]
    assert shown == pytest.approx([0.6, 0.3])
    assert shown_to("tpe", trials)[3:] == trials[3:]  # it learns from them as they are


@given(count=st.integers(1, 20), seed=st.integers(0, 2**32))
def test_startup_points_are_a_latin_hypercube(count: int, seed: int) -> None:
    space = {name: Dimension.model_validate(fields) for name, fields in MIXED.items()}
    points = [spread_point(index, count, space, seed) for index in range(count)]
    rates = [math.log10(float(point["train.learning_rate"] or 1)) for point in points]
    assert sorted(math.floor((rate + 5) / 3 * count) for rate in rates) == list(range(count))
    shares = [float(point["train.decoder_dropout"] or 0) / 0.5 for point in points]
    assert sorted(math.floor(share * count) for share in shares) == list(range(count))
    batches = Counter(point["train.batch_size"] for point in points)
    assert set(batches) <= {8, 16, 32}
    assert max(batches.values()) - min(batches[size] for size in (8, 16, 32)) <= 2
    assert all(point["train.gate_pos_weight"] in range(1, 10) for point in points)


def test_auto_begins_with_spread_points_and_others_draw(tmp_path: Path) -> None:
    found = {}
    for sampler in ("auto", "tpe"):
        params = make_params(sampler=sampler, trials=15, startup_trials=7)
        engine = OptimizationEngine(tmp_path / sampler, params, name="s")
        found[sampler] = [trial.params for _ in range(7) if (trial := engine.next_trial())][1:]
    space = params.tune.search_space
    spread = [spread_point(index, 6, space, params.tune.seed) for index in range(6)]
    assert found["auto"] == spread
    assert not any(point in spread for point in found["tpe"])


def test_neighbouring_seeds_share_no_draws() -> None:
    draws = {trial_seed(seed, number) for seed in range(20) for number in range(20)}
    assert len(draws) == 400
