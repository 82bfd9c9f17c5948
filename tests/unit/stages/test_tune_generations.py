"""The tune stage with its warm loop: what training gets of it."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kamerton.config.schema import Params
from kamerton.core.errors import ParamsError
from kamerton.core.files import write_json, write_jsonl
from kamerton.smart_tuner import study
from kamerton.smart_tuner.param_scheduler import ParamScheduler
from kamerton.stages.tune import TuneReport, tune

pytest.importorskip("optuna")

FAKE = Path(__file__).parents[1] / "smart_tuner" / "fake_warm_trainer.py"
SPACE = {"train.gate_pos_weight": {"type": "uniform", "low": 1.0, "high": 9.0}}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    card = {
        "clips": 0, "content_sha256": "c" * 64, "hours": 0.2, "language": "en", "name": "voice",
        "sample_rate_hz": 22050, "speaker": "s", "splits": {}, "symbols": [], "text": {},
    }  # fmt: skip
    write_json(tmp_path / "dataset" / "dataset.json", card)
    write_jsonl(tmp_path / "dataset" / "manifest.jsonl", [])
    write_json(tmp_path / "analysis.json", {"recommended_epochs": 500})
    monkeypatch.setattr(
        study, "trainer_command", lambda _dataset, _analysis: [sys.executable, str(FAKE)]
    )
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: None)  # it is slow
    monkeypatch.setattr(ParamScheduler, "propose", lambda *_: [{"learning_rate": 2.0}])
    return tmp_path


def run(folder: Path, **generations: Any) -> TuneReport:
    asked = {"count": 1, "candidates": 2, "length_share": 0.3, **generations}
    fields = {
        "trials": 1, "trial_steps": 80, "search_space": SPACE, "history": False,
        "generations": asked,
    }  # fmt: skip
    params = Params.model_validate({"tune": fields, "tracking": {"mlflow_uri": None}})
    return tune(
        folder / "dataset", folder / "analysis.json", folder / "best_params.yaml",
        folder / "trials.csv", folder / "tuning.html", params, runs=folder / "runs", force=True,
    )  # fmt: skip


def test_accepted_changes_reach_the_best_parameters(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = run(project)
    assert report.generations is not None
    assert report.generations.kept
    best = yaml.safe_load((project / "best_params.yaml").read_text())
    assert best["train"]["changes"] == [{"from_share": 0.6, "learning_rate": 2.0}]
    trained = Params().with_overrides(best).train
    assert trained.changes == report.generations.best_changes
    assert ("generations", report.generations.verdict) in report.summary()
    page = (project / "tuning.html").read_text()
    assert "<h2>Generations" in page
    assert "<td>g1c1</td><td>learning rate × 2</td>" in page

    # All of it is kept: no trainer is started again.
    monkeypatch.setattr(study, "trainer_command", lambda *_: ["/nowhere/trainer"])
    again = run(project)
    assert (again.reused, again.generations) == (True, report.generations)
    assert yaml.safe_load((project / "best_params.yaml").read_text()) == best
    # Without generations the same trials give the same values and nothing else.
    without = run(project, count=0)
    assert without.reused
    assert without.generations is None
    assert without.best == report.best
    assert "changes" not in yaml.safe_load((project / "best_params.yaml").read_text())["train"]


def test_generations_that_do_not_fit_are_refused_before_the_first_trial(project: Path) -> None:
    with pytest.raises(ParamsError, match="do not fit"):
        run(project, count=4)
    assert not list(project.glob("runs/studies/*/trials"))
