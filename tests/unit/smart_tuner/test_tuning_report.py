import csv
import io

import pytest
import yaml

from kamerton.config.schema import Params
from kamerton.smart_tuner.opt_engine import TrialResult
from kamerton.smart_tuner.report_story import StudyStory
from kamerton.smart_tuner.tuning_report import (
    best_params_yaml,
    importances,
    render_page,
    trials_csv,
)
from kamerton.tracking.names import ATTENTION_SCORE, VAL_MEL_LOSS

NAMES = ["train.learning_rate", "audio.mel_fmax_hz"]


def complete(number: int, rate: float, objective: float) -> TrialResult:
    return TrialResult(
        number,
        "complete",
        {"train.learning_rate": rate, "audio.mel_fmax_hz": None},
        objective=objective,
        step=20,
        metrics={VAL_MEL_LOSS: 1.5, ATTENTION_SCORE: 0.25},
        curve={10: objective + 0.1, 20: objective},
    )


RESULTS = [
    complete(0, 1e-3, 1.0),
    complete(1, 1e-5, 0.75),
    TrialResult(2, "failed", {"train.learning_rate": 0.1, "audio.mel_fmax_hz": 8000.0},
                reason="the trainer ended with exit code 1"),
]  # fmt: skip
TUNE = Params.model_validate(
    {"tune": {"search_space": {
        "train.learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-2},
        "audio.mel_fmax_hz": {"type": "choice", "choices": [8000.0, None]},
    }}}
).tune  # fmt: skip


def test_best_params_are_overrides_with_their_story() -> None:
    text = best_params_yaml(RESULTS, RESULTS[1])
    assert yaml.safe_load(text) == {
        "train": {"learning_rate": 1e-5},
        "audio": {"mel_fmax_hz": None},
    }
    assert text.splitlines()[0] == (
        "# Written by `kamerton tune`: trial 1 of 3, objective 0.7500 (lower is better); "
        "the unchanged parameters reached 1.0000."
    )


def test_the_table_holds_every_trial() -> None:
    rows = list(csv.DictReader(io.StringIO(trials_csv(RESULTS, NAMES))))
    assert [row["state"] for row in rows] == ["complete", "complete", "failed"]
    assert float(rows[1]["train.learning_rate"]) == 1e-5
    assert rows[1]["audio.mel_fmax_hz"] == "null"
    assert rows[1]["val_mel_loss"] == "1.5"
    assert rows[2]["objective"] == rows[2]["val_mel_loss"] == ""
    assert rows[2]["reason"] == "the trainer ended with exit code 1"


def test_the_page_says_which_trial_won() -> None:
    shares = {"train.learning_rate": 0.9, "x": 0.1}
    page = render_page(StudyStory(RESULTS, RESULTS[1], TUNE, shares))
    assert "Trial 1 is best: objective 0.7500, 1.0000 with the unchanged parameters." in page
    assert "What mattered" in page
    assert "audio.mel_fmax_hz changes the mel spectrogram itself" in page
    assert page.count("<img") == 4


@pytest.mark.parametrize(
    ("results", "words"),
    [
        (RESULTS[:1], "No trial was better than the unchanged parameters"),
        ([RESULTS[2], RESULTS[1]], "the unchanged parameters did not complete"),
    ],
)
def test_the_page_is_honest_about_the_baseline(results: list[TrialResult], words: str) -> None:
    page = render_page(StudyStory(results, results[-1], TUNE))
    assert words in page
    assert "What mattered" not in page


def test_importances_find_the_dimension_that_matters_and_need_enough_trials() -> None:
    optuna = pytest.importorskip("optuna")
    uniform = optuna.distributions.FloatDistribution(0.0, 1.0)
    grid = [((i % 4) / 4, (i // 4) / 4) for i in range(16)]
    trials = [
        optuna.trial.create_trial(
            value=x + 0.01 * y, params={"x": x, "y": y}, distributions={"x": uniform, "y": uniform}
        )
        for x, y in grid
    ]
    shares = importances(trials, ["x", "y"])
    assert shares["x"] > 0.8
    assert sum(shares.values()) == pytest.approx(1.0)
    assert importances(trials[:7], ["x", "y"]) == {}
    assert importances(trials, ["x"]) == {}
