import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kamerton.core.errors import InputCorruptError, ParamsError
from kamerton.smart_tuner.opt_engine import (
    Evaluation,
    OptimizationEngine,
)
from kamerton.smart_tuner.samplers import (
    resolve_pruner,
    resolve_sampler,
    startup_trials,
    warmup_steps,
)
from kamerton.smart_tuner.study import best_of
from kamerton.tracking.names import VAL_MEL_LOSS
from tests.unit.smart_tuner.study_runs import (
    SPACE,
    curve,
    make_params,
    run_study,
    run_trial,
)

pytest.importorskip("optuna")


@pytest.mark.parametrize(
    "tune",
    [
        {"sampler": "tpe"},
        {"sampler": "tpe", "pruner": "median", "trials": 10},
        {"sampler": "bohb"},
        {"sampler": "random", "pruner": "none"},
        {"sampler": "cma_es", "search_space": SPACE, "pruner": "none", "trials": 16},
        {"sampler": "auto", "trials": 5},
    ],
    ids=lambda tune: "-".join(str(value) for value in tune.values() if isinstance(value, str)),
)
def test_an_interrupted_study_ends_as_an_undisturbed_one(
    tmp_path: Path, tune: dict[str, Any]
) -> None:
    params = make_params(**tune)
    expected = run_study(tmp_path / "a.log", params)
    once = set(range(1, 12, 2))

    def interrupt(number: int) -> bool:
        if number in once:
            once.remove(number)
            return True
        return False

    assert run_study(tmp_path / "b.log", params, interrupt) == expected
    assert len(expected) == params.tune.trials
    assert len({json.dumps(dict(item.params)) for item in expected}) > len(expected) // 2
    assert [item.number for item in expected] == list(range(params.tune.trials))


@given(seed=st.integers(0, 2**31), kills=st.lists(st.integers(0, 5), max_size=4))
@settings(max_examples=10)
def test_any_sequence_of_kills_gives_the_same_study(
    tmp_path_factory: pytest.TempPathFactory, seed: int, kills: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("study")
    params = make_params(seed=seed, trials=6)
    left = list(kills)

    def interrupt(number: int) -> bool:
        if number in left:
            left.remove(number)
            return True
        return False

    assert run_study(folder / "a.log", params, interrupt) == run_study(folder / "b.log", params)


def test_another_seed_makes_another_study(tmp_path: Path) -> None:
    one, other = (
        run_study(tmp_path / f"{seed}.log", make_params(seed=seed, trials=4)) for seed in (1, 2)
    )
    assert one[0].params == other[0].params  # the baseline
    assert all(a.params != b.params for a, b in zip(one[1:], other[1:], strict=True))


def test_the_first_trial_runs_the_unchanged_parameters(tmp_path: Path) -> None:
    params = make_params()
    trial = OptimizationEngine(tmp_path / "j.log", params, name="s").next_trial()
    assert trial is not None
    assert trial.overrides == {}
    assert trial.params["train.learning_rate"] == params.train.learning_rate
    assert trial.params["train.batch_size"] == 32
    run_trial(trial)
    assert trial.state is None  # it is never ended early


def test_a_baseline_outside_the_space_runs_as_it_is(tmp_path: Path) -> None:
    params = make_params(trials=4).with_overrides(
        {"train": {"batch_size": 20, "learning_rate": 0.05}}
    )
    results = run_study(tmp_path / "j.log", params)
    assert results[0].params["train.batch_size"] == 20
    assert results[0].params["train.learning_rate"] == 0.05
    assert all(item.params["train.batch_size"] in (8, 16, 32) for item in results[1:])
    assert [item.state for item in results if item.state == "failed"] == []


def test_every_suggestion_lies_in_the_space_and_makes_valid_parameters(tmp_path: Path) -> None:
    params = make_params(sampler="random", pruner="none", trials=30)
    for result in run_study(tmp_path / "j.log", params)[1:]:
        values = result.params
        assert 1e-5 <= float(values["train.learning_rate"] or 0) <= 1e-2
        assert 0.0 <= float(values["train.decoder_dropout"] or 0) <= 0.5
        assert values["train.batch_size"] in (8, 16, 32)
        assert values["audio.mel_fmax_hz"] in (7600.0, None)
        assert values["train.gate_pos_weight"] in range(1, 10)


def test_the_search_finds_what_is_better(tmp_path: Path) -> None:
    params = make_params(SPACE, trials=25).with_overrides({"train": {"learning_rate": 2e-5}})
    results = run_study(tmp_path / "j.log", params)
    best = best_of(results)
    assert best is not None
    assert 2e-4 < float(best.params["train.learning_rate"] or 0) < 5e-3
    assert best.objective is not None
    assert results[0].objective is not None
    assert best.objective < results[0].objective


@pytest.mark.parametrize("pruner", ["successive_halving", "hyperband", "median"])
def test_pruners_end_trials_early_but_not_before_the_warm_up(tmp_path: Path, pruner: str) -> None:
    results = run_study(tmp_path / "j.log", make_params(SPACE, pruner=pruner, trials=20))
    pruned = [item for item in results if item.state == "pruned"]
    assert pruned
    for item in pruned:
        assert item.step is not None
        assert max(item.curve) >= warmup_steps(100)
        assert item.reason == f"worse than others at step {max(item.curve)}"
        assert item.objective == min(item.curve.values())
    assert results[0].state == "complete"


def test_without_a_pruner_every_trial_is_whole(tmp_path: Path) -> None:
    results = run_study(tmp_path / "j.log", make_params(SPACE, pruner="none", trials=8))
    assert {item.state for item in results} == {"complete"}
    assert all(max(item.curve) == 100 for item in results)


def test_a_failed_trial_is_kept_with_its_reason_and_the_study_goes_on(tmp_path: Path) -> None:
    journal, params = tmp_path / "j.log", make_params(SPACE, trials=4, pruner="none")
    engine = OptimizationEngine(journal, params, name="study")
    baseline = engine.next_trial()
    assert baseline is not None
    baseline.report(Evaluation(20, {VAL_MEL_LOSS: math.nan}))
    assert baseline.state == "failed"
    engine.finish(baseline)
    silent = engine.next_trial()
    assert silent is not None
    engine.finish(silent)
    good = engine.next_trial()
    assert good is not None
    run_trial(good)
    engine.finish(good)
    worse = engine.next_trial()
    assert worse is not None
    assert worse.report(Evaluation(20, {VAL_MEL_LOSS: 1.0}))  # a part is missing
    worse.fail("later words change nothing")
    engine.finish(worse)

    found = OptimizationEngine(journal, params, name="study").finished()
    assert [item.state for item in found] == ["failed", "failed", "complete", "failed"]
    assert found[0].reason == "val_mel_loss was not finite at step 20"
    assert found[1].reason == "it recorded no evaluation"
    assert found[3].reason == "attention_alignment_score was not recorded at step 20"
    assert found[0].objective is None
    assert best_of(found) == found[2]
    objective = engine.objective()
    assert objective is not None  # frozen by the first good trial
    assert (
        objective.baseline[VAL_MEL_LOSS] == curve(dict(found[2].params), 100).values[VAL_MEL_LOSS]
    )


def test_a_trial_that_stopped_by_itself_is_complete_by_its_best_evaluation(tmp_path: Path) -> None:
    params = make_params(SPACE, trials=2)
    engine = OptimizationEngine(tmp_path / "j.log", params, name="s")
    for losses in ((1.0, 0.8), (0.9, 0.4, 0.6)):  # the second trainer's controller ended it
        trial = engine.next_trial()
        assert trial is not None
        for index, loss in enumerate(losses, start=1):
            trial.report(Evaluation(10 * index, {VAL_MEL_LOSS: loss}))  # before any rung
        result = engine.finish(trial)
    assert (result.state, result.step, result.objective) == ("complete", 20, pytest.approx(0.5))
    assert best_of(engine.finished()) == result
    assert engine.is_complete()


def test_a_finished_study_has_no_next_trial(tmp_path: Path) -> None:
    params = make_params(trials=2)
    run_study(tmp_path / "j.log", params)
    assert OptimizationEngine(tmp_path / "j.log", params, name="study").next_trial() is None


def test_a_line_cut_off_by_a_full_disk_costs_one_trial_at_most(tmp_path: Path) -> None:
    params = make_params(trials=5)
    expected = run_study(tmp_path / "a.log", params)
    run_study(tmp_path / "b.log", make_params(trials=3))
    whole = (tmp_path / "b.log").read_bytes()
    (tmp_path / "b.log").write_bytes(whole[:-7])
    found = OptimizationEngine(tmp_path / "b.log", params, name="study").finished()
    assert len(found) == 2
    assert run_study(tmp_path / "b.log", params) == expected


def test_a_file_that_is_no_journal_is_named(tmp_path: Path) -> None:
    journal = tmp_path / "j.log"
    journal.write_text("hello\nworld\n")
    with pytest.raises(InputCorruptError, match=r"j\.log"):
        OptimizationEngine(journal, make_params(), name="s")


def test_a_wrong_space_is_refused_with_all_its_faults(tmp_path: Path) -> None:
    space = {
        "train.lerning_rate": {"type": "uniform", "low": 0.1, "high": 0.2},
        "train.max_steps": {"type": "int", "low": 1, "high": 2},
    }
    with pytest.raises(ParamsError, match=r"train\.learning_rate") as caught:
        OptimizationEngine(tmp_path / "j.log", make_params(space), name="s")
    assert "tune.trial_steps" in caught.value.message
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(("trials", "expected"), [(1, 3), (9, 3), (10, 4), (30, 10), (100, 15)])
def test_startup_is_a_third_of_the_trials(trials: int, expected: int) -> None:
    assert startup_trials(make_params(trials=trials).tune) == expected


def test_startup_can_be_given() -> None:
    assert startup_trials(make_params(startup_trials=7).tune) == 7


@pytest.mark.parametrize(
    ("tune", "expected"),
    [
        ({"sampler": "auto", "pruner": "none", "trials": 20}, "gp"),
        ({"sampler": "auto", "trials": 150}, "gp"),
        ({"sampler": "auto", "trials": 200, "search_space": SPACE}, "cma_es"),
        ({"sampler": "auto", "trials": 200}, "tpe"),
        ({"sampler": "bohb"}, "tpe"),
        ({"sampler": "random"}, "random"),
    ],
)
def test_what_the_samplers_names_mean(tune: dict[str, Any], expected: str) -> None:
    assert resolve_sampler(make_params(**tune).tune) == expected


def test_bohb_prunes_with_hyperband_and_warns_when_it_cannot_learn(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert resolve_pruner(make_params(sampler="bohb", trials=4).tune) == "hyperband"
    assert "hardly acts" in caplog.text
    assert resolve_pruner(make_params(sampler="tpe", pruner="median").tune) == "median"


@pytest.mark.parametrize(
    ("tune", "expected"),
    [
        ({}, "none"),
        ({"trials": 30}, "none"),
        ({"trials": 31}, "successive_halving"),
        ({"trials": 30, "sampler": "random"}, "none"),
        ({"trials": 31, "sampler": "random"}, "successive_halving"),
        ({"trials": 31, "sampler": "gp"}, "none"),
        ({"trials": 30, "pruner": "successive_halving"}, "successive_halving"),
        ({"sampler": "auto"}, "none"),
        ({"sampler": "auto", "trials": 151}, "successive_halving"),
        ({"sampler": "auto", "pruner": "median"}, "median"),
    ],
)
def test_trials_are_whole_in_short_studies_and_with_the_gp_unless_a_pruner_is_named(
    tune: dict[str, Any], expected: str
) -> None:
    assert resolve_pruner(make_params(**tune).tune) == expected


def test_auto_learns_after_five_trials() -> None:
    assert startup_trials(make_params(sampler="auto", trials=30).tune) == 5
    assert startup_trials(make_params(sampler="auto", trials=9).tune) == 3
    assert startup_trials(make_params(sampler="auto", trials=300).tune) == 15


def test_cma_es_refuses_choices() -> None:
    with pytest.raises(ParamsError, match=r"train\.batch_size"):
        resolve_sampler(make_params(sampler="cma_es").tune)
