"""A finished run as the history keeps it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.smart_tuner.history import History
from kamerton.smart_tuner.run_record import near_best_step, quality_curve, record_run
from kamerton.tracking import JsonlTracker, RunDirectory, names

ANALYSIS = {
    "hours": 2.0, "quality": {"score": 0.8}, "complexity": {"multiplier": 1.2},
    "rule_epochs": 2000, "recommended_epochs": 1500,
}  # fmt: skip
CARD = {"speakers": ["a"], "language": "en", "sample_rate_hz": 22050, "content_sha256": "d"}


@pytest.fixture
def run(tmp_path):
    made = RunDirectory.create(
        tmp_path / "runs", name="voice", fingerprint="f" * 16,
        params={"train": {"batch_size": 8, "preset": "plain", "seed": 1}},
    )  # fmt: skip
    (made.path / "origin.json").write_text('{"warm_start_sha256": null}')
    tracker = JsonlTracker(made.path)
    for step, mel, attention in ((10, 3.0, 0.0), (20, 1.0, 0.5), (30, 0.51, 0.99), (40, 0.5, 1.0)):
        tracker.log_metrics({"train_loss": 9.0}, step)
        tracker.log_metrics({names.VAL_MEL_LOSS: mel, names.ATTENTION_SCORE: attention}, step)
    tracker.log_metrics({names.VAL_MEL_LOSS: float("nan"), names.ATTENTION_SCORE: 1.0}, 50)
    tracker.close("finished")
    made.write_status("finished", step=50)
    (tmp_path / "analysis.json").write_text(json.dumps(ANALYSIS))
    return made


def test_a_finished_run_is_recorded_whole(run, tmp_path):
    history = tmp_path / "runs" / "history.db"
    for _ in range(2):  # a run that is exported again is recorded again
        assert record_run(
            run, history, analysis=tmp_path / "analysis.json", card=CARD, total_steps=60,
            steps_per_epoch=5, ended="patience",
        )  # fmt: skip
    (found,) = History(history).runs()
    assert found.run_id == run.path.name
    assert found.curve == ((10, 4.0), (20, 1.5), (30, pytest.approx(0.52)), (40, 0.5))
    assert (found.best_step, found.near_best_step, found.quality) == (40, 30, 0.5)
    assert found.near_best_epochs == 6.0
    assert (found.planned_epochs, found.planned_steps, found.steps) == (12.0, 60, 50)
    assert (found.rule_epochs, found.recommended_epochs, found.ended) == (2000, 1500, "patience")
    assert found.descriptors.added_complexity == pytest.approx(0.2)
    assert found.dataset_sha256 == "d"
    assert found.params == {"batch_size": 8, "preset": "plain"}
    assert not found.warm_started
    (run.path / "origin.json").write_text('{"warm_start_sha256": "abc"}')
    assert record_run(
        run, history, analysis=tmp_path / "analysis.json", card=CARD, total_steps=60,
        steps_per_epoch=5,
    )  # fmt: skip
    assert History(history).runs()[0].warm_started


def test_trouble_is_told_and_ends_nothing(run, tmp_path, caplog):
    history = tmp_path / "history.db"
    (tmp_path / "analysis.json").write_text('{"recommended_epochs": 5}')
    arguments = {"card": CARD, "total_steps": 60, "steps_per_epoch": 5}
    assert not record_run(run, history, analysis=tmp_path / "analysis.json", **arguments)
    assert "does not describe its dataset" in caplog.text
    (tmp_path / "analysis.json").write_text(json.dumps(ANALYSIS))
    run.metrics_file.unlink()
    assert not record_run(run, history, analysis=tmp_path / "analysis.json", **arguments)
    assert "no evaluation" in caplog.text
    assert not history.exists()


def test_a_step_without_both_figures_is_no_evaluation(tmp_path):
    tracker = JsonlTracker(tmp_path)
    tracker.log_metrics({names.VAL_MEL_LOSS: 1.0}, 1)
    tracker.close("finished")
    assert quality_curve(tmp_path / "metrics.jsonl") == []


CURVES = st.lists(st.floats(-100, 100), min_size=1, max_size=40)


@given(CURVES, st.floats(0.0, 1.0))
def test_near_best_is_the_first_within_the_share_of_the_range(values, share):
    curve = list(enumerate(values, 1))
    found = near_best_step(curve, share)
    limit = min(values) + share * (values[0] - min(values))
    assert curve[found - 1][1] <= limit
    assert all(value > limit for step, value in curve if step < found)


@given(CURVES, st.floats(0.5, 4.0), st.integers(-50, 50))
def test_nought_share_is_the_best_whatever_the_unit(values, scale, offset):
    curve = [(n, scale * round(v) + offset) for n, v in enumerate(values, 1)]
    plain = [(n, float(round(v))) for n, v in enumerate(values, 1)]
    assert near_best_step(curve, 0.0) == near_best_step(plain, 0.0)
