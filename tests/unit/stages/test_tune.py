import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kamerton.config.schema import Params
from kamerton.core.errors import (
    InputCorruptError,
    InputMissingError,
    ParamsError,
    PipelineError,
    UsageError,
)
from kamerton.core.files import write_json, write_jsonl
from kamerton.smart_tuner import study
from kamerton.stages.tune import TuneReport, tune
from kamerton.tracking import read_records

pytest.importorskip("optuna")

DRIVER = Path(__file__).with_name("tune_with_fake_trainer.py")
FAKE_TRAINER = Path(__file__).parents[1] / "smart_tuner" / "fake_trainer.py"
OUTPUTS = ("best_params.yaml", "trials.csv", "tuning.html")
SPACE = {
    "train.learning_rate": {"type": "loguniform", "low": 1e-5, "high": 5e-3},
    "train.decoder_dropout": {"type": "uniform", "low": 0.0, "high": 0.5},
}


def make_params(**tune_params: Any) -> Params:
    fields = {
        "trials": 4, "trial_steps": 40, "search_space": SPACE, "generations": {"count": 0},
        **tune_params,
    }  # fmt: skip
    return Params.model_validate({"tune": fields, "tracking": {"mlflow_uri": None}})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project")


def make_project(folder: Path) -> Path:
    card = {
        "clips": 0, "content_sha256": "c" * 64, "hours": 0.2, "language": "en", "name": "voice",
        "sample_rate_hz": 22050, "speaker": "s", "splits": {}, "symbols": [], "text": {},
    }  # fmt: skip
    write_json(folder / "dataset" / "dataset.json", card)
    write_jsonl(folder / "dataset" / "manifest.jsonl", [])
    write_json(folder / "analysis.json", {"recommended_epochs": 500})
    return folder


def run(folder: Path, params: Params, **more: Any) -> TuneReport:
    return tune(
        folder / "dataset", folder / "analysis.json", folder / "best_params.yaml",
        folder / "trials.csv", folder / "tuning.html", params, runs=folder / "runs", **more,
    )  # fmt: skip


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        study, "trainer_command", lambda _dataset, _analysis: [sys.executable, str(FAKE_TRAINER)]
    )
    # Pictures take most of a second each time, and other tests look at them.
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: None)


def start(folder: Path, params: Params) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(DRIVER), str(folder), params.model_dump_json()],
        stderr=subprocess.PIPE,
        text=True,
    )


def outputs(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("fake")
def test_a_study_writes_what_training_and_people_need(project: Path) -> None:
    told: list[tuple[float, float, str]] = []
    report = run(project, make_params(), on_progress=lambda *words: told.append(words))

    best = yaml.safe_load((project / "best_params.yaml").read_text())
    assert best == {
        "train": {
            "learning_rate": report.best.params["train.learning_rate"],
            "decoder_dropout": report.best.params["train.decoder_dropout"],
        }
    }
    assert make_params().with_overrides(best).train.learning_rate == best["train"]["learning_rate"]
    assert [row["number"] for row in rows(project)] == ["0", "1", "2", "3"]
    scores = [float(row["objective"]) for row in rows(project) if row["state"] == "complete"]
    assert report.metrics()["best_objective"] == min(scores)
    assert report.metrics()["trials_complete"] == len(scores)
    page = (project / "tuning.html").read_text()
    assert page.count("<img") == 4  # the course, the trials' curves, attention, the values
    assert "<td>baseline</td>" in page
    assert tuple(name for name, _ in report.summary()[:3]) == (
        "trials",
        "best trial",
        "unchanged parameters",
    )
    assert not report.partial
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-1][1] == 4 * 40


@pytest.mark.usefixtures("fake")
def test_the_baseline_is_what_the_parameters_say(project: Path) -> None:
    params = make_params(trials=2).with_overrides({"train": {"learning_rate": 0.0017}})
    report = run(project, params)
    assert report.baseline is not None
    assert report.baseline.params["train.learning_rate"] == 0.0017
    folder = next((project / "runs" / "studies").iterdir()) / "trials"
    first, second = (
        yaml.safe_load((folder / number / "params.yaml").read_text()) for number in ("000", "001")
    )
    assert first["train"]["learning_rate"] == 0.0017
    assert first["train"]["max_steps"] == second["train"]["max_steps"] == 40
    assert second["train"]["learning_rate"] == report.results[1].params["train.learning_rate"]


@pytest.mark.usefixtures("fake")
def test_a_finished_study_of_equal_input_is_not_run_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(project, make_params(trials=2))
    before = outputs(project)
    monkeypatch.setattr(study, "trainer_command", lambda *_: ["/nowhere/trainer"])
    with pytest.raises(UsageError, match="exists already"):
        run(project, make_params(trials=2))
    again = run(project, make_params(trials=2), force=True)
    assert (first.reused, again.reused) == (False, True)
    assert outputs(project) == before
    assert again.results == first.results


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("change", ["seed", "dataset", "train", "epochs"])
def test_other_input_makes_another_study(project: Path, change: str) -> None:
    run(project, make_params(trials=1))
    params = make_params(trials=1)
    if change == "seed":
        params = make_params(trials=1, seed=5)
    elif change == "train":
        params = params.with_overrides({"train": {"batch_size": 7}})
    elif change == "epochs":
        write_json(project / "analysis.json", {"recommended_epochs": 700})
    else:
        card = json.loads((project / "dataset" / "dataset.json").read_text())
        write_json(project / "dataset" / "dataset.json", {**card, "content_sha256": "d" * 64})
    assert not run(project, params, force=True).reused
    assert len(list((project / "runs" / "studies").iterdir())) == 2


def test_kill_minus_nine_at_any_time_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STEP_SECONDS", "0.01")
    params = make_params(trials=4)
    killed, undisturbed = make_project(tmp_path / "killed"), make_project(tmp_path / "whole")
    other = start(undisturbed, params)
    journal: list[int] = []

    def finished_trials() -> int:
        found = list((killed / "runs" / "studies").glob("*/journal.log"))
        return found[0].read_text().count('"op_code":6') if found else 0  # a trial's new state

    # Killed while the first trial trains, just after a trial ended, and within a later trial.
    for wanted, pause in ((0, 0.0), (1, 0.0), (2, 0.15)):
        process = start(killed, params)
        wait_for(
            lambda wanted=wanted: (
                finished_trials() >= wanted
                and any(
                    (killed / "runs" / "studies").glob(f"*/trials/*{wanted}/runs/*/metrics.jsonl")
                )
            )
        )
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        journal.append(finished_trials())
    process = start(killed, params)
    assert process.wait(60) == 0, process.communicate()
    assert other.wait(60) == 0, other.communicate()
    for item in (process, other):
        item.communicate()
    assert journal[0] < 4
    assert journal == sorted(journal)  # nothing finished was lost
    assert outputs(killed) == outputs(undisturbed)


def test_parallel_trials_survive_kill_minus_nine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STEP_SECONDS", "0.02")
    project = make_project(tmp_path / "project")
    params = make_params(trials=5, workers=3, pruner="none", generations={"count": 0})
    studies = project / "runs" / "studies"

    def values() -> dict[str, str]:
        return {
            file.parent.name: file.read_text() for file in studies.glob("*/trials/*/params.yaml")
        }

    def finished() -> int:
        return sum(text.read_text().count('"op_code":6') for text in studies.glob("*/journal.log"))

    process = start(project, params)
    wait_for(lambda: finished() >= 1 and len(values()) >= 4)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before, ended = values(), finished()
    assert len(list(studies.glob("*/trials/*/runs/*/metrics.jsonl"))) >= 3  # at a time
    process = start(project, params)
    assert process.wait(60) == 0, process.communicate()
    process.communicate()
    after = values()
    assert {name: after[name] for name in before} == before  # what was under way went on
    assert finished() == 5 > ended  # nothing finished was run again
    assert [row["number"] for row in rows(project)] == ["0", "1", "2", "3", "4"]


def test_parallel_trials_stop_on_request_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STEP_SECONDS", "0.05")
    project = make_project(tmp_path / "project")
    process = start(project, make_params(trials=4, workers=2))
    studies = project / "runs" / "studies"
    wait_for(lambda: len(list(studies.glob("*/trials/*/runs/*/position"))) == 2)
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=30)
    assert process.returncode == 75, words
    states = [
        json.loads(f.read_text())["state"] for f in studies.glob("*/trials/*/runs/2*/status.json")
    ]
    assert states == ["stopped", "stopped"]


@pytest.mark.usefixtures("fake")
def test_the_next_study_begins_where_this_one_ended(project: Path) -> None:
    analysis = {
        "recommended_epochs": 500, "hours": 0.2, "quality": {"score": 0.8},
        "complexity": {"multiplier": 1.0},
    }  # fmt: skip
    write_json(project / "analysis.json", analysis)
    card = json.loads((project / "dataset" / "dataset.json").read_text()) | {"speakers": ["s"]}
    write_json(project / "dataset" / "dataset.json", card)

    def params(seed: int, **more: Any) -> Params:
        made = make_params(trials=2, seed=seed, generations={"count": 0}, **more)
        return made.with_overrides({"train": {"learning_rate": 1.1e-5}})  # not the best

    first = run(project, params(1))
    best = dict(first.best.params)
    assert first.best.number == 1
    write_json(project / "dataset" / "dataset.json", card | {"content_sha256": "d" * 64})
    # As if it had been killed before it could leave anything.
    (project / "runs" / "history.db").unlink()
    write_json(project / "dataset" / "dataset.json", card)
    assert run(project, params(1), force=True).reused
    write_json(project / "dataset" / "dataset.json", card | {"content_sha256": "d" * 64})
    second = run(project, params(2), force=True)
    assert dict(second.results[1].params) == best
    assert "<td>from history</td>" in (project / "tuning.html").read_text()
    cold = run(project, params(2, history=False), force=True)
    assert "<td>from history</td>" not in (project / "tuning.html").read_text()
    assert dict(cold.results[1].params) != best


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_on_request_ends_with_75_and_is_continued(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STEP_SECONDS", "0.02")
    project = make_project(tmp_path / "project")
    params = make_params(trials=2)
    process = start(project, params)
    wait_for(lambda: any((project / "runs" / "studies").glob("*/trials/*0/runs/*/position")))
    process.send_signal(number)
    _, words = process.communicate(timeout=30)
    assert process.returncode == 75, words
    assert "stopped on request in trial 1 of 2" in words
    assert not (project / "best_params.yaml").exists()
    run_folder = next((project / "runs" / "studies").glob("*/trials/000/runs/2*"))
    assert json.loads((run_folder / "status.json").read_text())["state"] == "stopped"

    monkeypatch.setenv("FAKE_STEP_SECONDS", "0")
    process = start(project, params)
    assert process.wait(60) == 0
    process.communicate()
    assert len(rows(project)) == 2
    resumed = read_records(run_folder / "metrics.jsonl")
    assert any(record.name == "resumed" for record in resumed)


@pytest.mark.usefixtures("fake")
def test_a_trial_that_is_no_number_fails_alone(project: Path) -> None:
    space = {**SPACE, "train.learning_rate": {"type": "uniform", "low": 0.0079, "high": 0.01}}
    params = make_params(search_space=space, trials=4).with_overrides(
        {"train": {"learning_rate": 0.0079}}
    )
    report = run(project, params)
    failed = [row for row in rows(project) if row["state"] == "failed"]
    assert failed
    assert {row["reason"] for row in failed} == {"val_mel_loss was not finite at step 10"}
    assert report.best.number == 0
    assert all(row["objective"] == "" for row in failed)


@pytest.mark.usefixtures("fake")
def test_when_all_trials_fail_the_log_is_named_and_the_next_call_tries_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_EXIT", "1")
    with pytest.raises(
        PipelineError, match=r"all 2 trials failed; the last: .*exit code 1"
    ) as error:
        run(project, make_params(trials=2))
    assert "nothing works here" in error.value.message
    assert "trials/001/trainer.log" in error.value.hint
    assert not (project / "best_params.yaml").exists()
    monkeypatch.delenv("FAKE_EXIT")
    assert run(project, make_params(trials=2)).best.objective is not None


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("code", [2, 3, 4, 5])
def test_a_trainer_that_can_never_run_ends_the_study_at_once(
    project: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setenv("FAKE_EXIT", str(code))
    with pytest.raises(PipelineError, match="nothing works here") as error:
        run(project, make_params(trials=1))
    assert "trainer.log" in error.value.hint
    monkeypatch.delenv("FAKE_EXIT")
    assert len(run(project, make_params(trials=1)).results) == 1


@pytest.mark.usefixtures("fake")
def test_missing_inputs_are_named(project: Path) -> None:
    write_json(project / "analysis.json", {"recommended_epochs": 0})
    with pytest.raises(InputCorruptError, match="recommended_epochs is 0"):
        run(project, make_params())
    (project / "analysis.json").unlink()
    with pytest.raises(InputMissingError, match="analysis"):
        run(project, make_params())
    with pytest.raises(InputMissingError, match="dataset"):
        run(project / "elsewhere", make_params())


@pytest.mark.usefixtures("fake")
def test_a_wrong_space_is_refused_before_anything_runs(project: Path) -> None:
    space = {"train.batch_sice": {"type": "int", "low": 1, "high": 8}}
    with pytest.raises(ParamsError, match=r"did you mean 'train\.batch_size'"):
        run(project, make_params(search_space=space))


@pytest.mark.usefixtures("fake")
def test_a_study_is_recorded_in_mlflow_with_a_run_per_trial(
    project: Path, mlflow_database: str
) -> None:
    pytest.importorskip("mlflow")
    from kamerton.tracking.mlflow_client import connect

    tracking = {"mlflow_uri": mlflow_database, "experiment": "tune"}
    params = make_params(trials=2, pruner="none").with_overrides({"tracking": tracking})
    report = run(project, params)
    client = connect(mlflow_database)
    experiment = client.get_experiment_by_name("tune")
    assert experiment is not None
    found = {item.info.run_name: item for item in client.search_runs([experiment.experiment_id])}
    parent = next(item for name, item in found.items() if name.startswith("study-"))
    children = [found[f"trial-{number:03d}"] for number in range(2)]
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id}
    assert {item.info.status for item in found.values()} == {"FINISHED"}
    history = client.get_metric_history(parent.info.run_id, "objective")
    assert {point.step: point.value for point in history} == {
        result.number: result.objective for result in report.results
    }
    losses = client.get_metric_history(children[1].info.run_id, "val_mel_loss")
    assert [point.step for point in losses] == [10, 20, 30, 40]


def test_the_real_trainer_keeps_the_contract(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    sys.path.insert(0, str(Path(__file__).parents[2]))
    try:
        from tiny_corpus import tiny_params, write_tiny_dataset
    finally:
        sys.path.pop(0)
    write_tiny_dataset(tmp_path / "dataset")
    write_json(tmp_path / "analysis.json", {"recommended_epochs": 1000})
    space = {"train.learning_rate": {"type": "loguniform", "low": 1e-4, "high": 1e-2}}
    params = tiny_params().with_overrides(
        {
            "tune": {
                "trials": 2,
                "trial_steps": 10,
                "search_space": space,
                "pruner": "none",
                "generations": {"count": 0},
            }
        }
    )
    report = run(tmp_path, params)
    assert [result.state for result in report.results] == ["complete", "complete"]
    for result in report.results:
        assert list(result.curve) == [2, 4, 6, 8, 10]
        assert result.metrics["val_mel_loss"] > 0
    assert report.results[0].metrics != report.results[1].metrics
    assert not list((tmp_path / "runs" / "studies").glob("*/trials/*/runs/*/checkpoints"))
