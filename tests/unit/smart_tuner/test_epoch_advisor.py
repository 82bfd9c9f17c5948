"""The corrected recommendation, against the formula worked out by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.config.schema import AnalyzeParams
from kamerton.data.epoch_rule import Complexity, recommend
from kamerton.smart_tuner.epoch_advisor import EpochAdvisor
from kamerton.smart_tuner.history import History
from tests.unit.smart_tuner.outcomes import descriptors, run_outcome

PARAMS = AnalyzeParams(history=None)
RULE = recommend(2.0, 0.6, Complexity(), PARAMS)  # 2000 epochs, fair


def advise(runs, params=PARAMS, rule=RULE, dataset="here"):
    return EpochAdvisor(runs, params).advise(rule, descriptors(), dataset)


@pytest.mark.parametrize(("hours", "score", "epochs"), [(8.0, 0.95, 1200), (0.4, 0.8, 3600)])
def test_without_history_the_examples_of_the_specification_hold(hours, score, epochs):
    rule = recommend(hours, score, Complexity(), PARAMS)
    found = EpochAdvisor.of(PARAMS).advise(rule, descriptors(hours=hours), "x")
    assert found.recommended_epochs == rule.recommended_epochs == epochs
    assert found.confidence == rule.confidence
    assert found.reasons[:-1] == rule.reasons
    assert "switched off" in found.reasons[-1]


def test_one_run_moves_it_by_a_quarter_of_its_ratio_in_logarithms():
    found = advise([run_outcome(near_best_epochs=1000)])
    ratio = 1.25 * 1000 / 2000
    assert found.correction.factor == pytest.approx(ratio ** (1 / 4))
    assert found.recommended_epochs == round(2000 * ratio**0.25 / 50) * 50 == 1800
    assert found.rule.recommended_epochs == 2000


def test_three_datasets_count_half_of_their_geometric_mean():
    runs = [run_outcome(f"r{n}", near_best_epochs=n) for n in (800, 1200, 1600)]
    found = advise(runs).correction
    mean = math.prod(1.25 * n / 2000 for n in (800, 1200, 1600)) ** (1 / 3)
    assert found.observed == pytest.approx(mean)
    assert (found.weight, found.used_runs, found.known_runs) == (0.5, 3, 3)
    assert found.factor == pytest.approx(mean**0.5)


def test_a_run_that_reaches_its_best_at_four_fifths_of_the_plan_changes_nothing():
    assert advise([run_outcome(near_best_epochs=1600)]).recommended_epochs == 2000
    assert advise([run_outcome(near_best_epochs=2000)]).recommended_epochs > 2000


def test_plans_do_not_shrink_for_ever_when_a_run_uses_what_it_is_given():
    """Near the best at nine tenths of any plan, as under a schedule that ends with the plan."""
    runs, epochs = [], 2000
    for number in range(20):
        outcome = run_outcome(
            f"{number:02}", dataset_sha256="here", planned_epochs=float(epochs),
            near_best_epochs=round(0.9 * epochs),
        )  # fmt: skip
        runs.append(outcome)
        epochs = advise(runs).recommended_epochs
    assert 2000 <= epochs <= 4000


def test_only_the_five_nearest_count():
    far = [
        run_outcome(f"far {n}", near_best_epochs=100, descriptors=descriptors(hours=100.0))
        for n in range(9)
    ]
    near = [run_outcome(f"near {n}", near_best_epochs=1600) for n in range(5)]
    found = advise(far + near).correction
    assert found.factor == pytest.approx(1.0)
    assert {lesson.source[:4] for lesson in found.lessons} == {"near"}
    assert found.known_runs == 14


def test_another_dataset_counts_once_and_this_one_by_the_run():
    other = [run_outcome(f"o{n}", dataset_sha256="other", near_best_epochs=800) for n in range(8)]
    own = [run_outcome(f"m{n}", dataset_sha256="here", near_best_epochs=800) for n in range(2)]
    found = advise(other + own).correction
    assert len(found.lessons) == 3
    assert found.weight == 0.5
    assert found.used_runs == 10
    assert [lesson.same_dataset for lesson in found.lessons].count(True) == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"planned_epochs": 30.0},
        {"ended": "gave_up"},
        {"ended": "divergence"},
        {"warm_started": True},
        {"near_best_step": 0},
        {"rule_epochs": 0},
    ],
)
def test_runs_that_cannot_tell_are_left_out(changed):
    found = advise([run_outcome(**changed)])
    assert found.recommended_epochs == 2000
    assert found.correction.used_runs == 0
    assert "of 1 finished runs none" in found.reasons[-1]


@pytest.mark.parametrize("ended", ["budget", "patience", "forecast", "overfitting"])
def test_runs_that_ended_early_for_want_of_progress_count(ended):
    assert advise([run_outcome(ended=ended)]).correction.used_runs == 1


def test_the_correction_is_bounded():
    few = [run_outcome(f"r{n}", dataset_sha256="here", near_best_epochs=1) for n in range(5)]
    assert advise(few).recommended_epochs == 1000
    many = [
        run_outcome(f"r{n}", dataset_sha256="here", near_best_epochs=10**6, planned_epochs=1e6)
        for n in range(5)
    ]
    assert advise(many).recommended_epochs == 4000
    limited = advise(many, AnalyzeParams(history=None, max_epochs=2500))
    assert limited.recommended_epochs == 2500
    assert "4000 epochs lie outside the limits: 2500" in limited.reasons


@given(st.lists(st.integers(1, 20000), max_size=9), st.integers(500, 2500), st.integers(0, 4000))
def test_it_stays_inside_its_limits(near, least, more):
    params = AnalyzeParams(history=None, min_epochs=least, max_epochs=least + more)
    rule = recommend(2.0, 0.6, Complexity(), params)
    runs = [run_outcome(f"r{n}", near_best_epochs=epochs) for n, epochs in enumerate(near)]
    found = advise(runs, params, rule)
    assert least <= found.recommended_epochs <= least + more
    assert 0.1 <= found.confidence <= 0.99


def test_agreeing_runs_raise_the_confidence_and_differing_ones_do_not():
    agree = advise([run_outcome(f"r{n}", near_best_epochs=1000) for n in range(3)])
    assert agree.confidence == pytest.approx(RULE.confidence + 0.06)
    differ = advise([run_outcome(f"r{n}", near_best_epochs=n) for n in (200, 2000)])
    assert differ.confidence == RULE.confidence


def test_the_file_of_the_parameters_is_asked(tmp_path):
    path = tmp_path / "history.db"
    params = AnalyzeParams(history=str(path))
    assert EpochAdvisor.of(params).advise(RULE, descriptors(), "x").correction.state == "absent"
    History(path).add_run(run_outcome())
    found = EpochAdvisor.of(params).advise(RULE, descriptors(), "x")
    assert (found.correction.state, found.correction.used_runs) == ("read", 1)
    assert found.correction.as_dict()["lessons"][0]["source"] == "r1"


def test_a_history_that_cannot_be_read_leaves_the_rule(tmp_path, caplog):
    (tmp_path / "history.db").mkdir()
    found = EpochAdvisor.of(AnalyzeParams(history=str(tmp_path / "history.db")))
    advice = found.advise(RULE, descriptors(), "x")
    assert advice.recommended_epochs == 2000
    assert advice.correction.state == "unreadable"
    assert "the rule's alone" in caplog.text
