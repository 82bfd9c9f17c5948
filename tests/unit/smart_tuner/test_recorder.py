import time
from pathlib import Path
from typing import Any

import pytest

from kamerton.config.schema import Params
from kamerton.core.files import read_json
from kamerton.smart_tuner.generation_tree import Candidate, Generation, GenerationTree
from kamerton.smart_tuner.opt_engine import TrialResult
from kamerton.smart_tuner.recorder import StudyRecorder
from kamerton.smart_tuner.study import StudyFolder
from kamerton.tracking import JsonlTracker, RunDirectory, read_records

pytest.importorskip("mlflow")

RESULTS = [
    TrialResult(0, "complete", {}, objective=1.0),
    TrialResult(1, "pruned", {}, objective=0.5),
    TrialResult(2, "failed", {}, reason="no number"),
    TrialResult(3, "complete", {}, objective=0.75),
]


def make_run(folder: StudyFolder, number: int) -> RunDirectory:
    run = RunDirectory.create(
        folder.trial_runs(number), name="trial", fingerprint="f" * 8, params={}
    )
    tracker = JsonlTracker(run.path)
    tracker.log_metrics({"val_mel_loss": 2.0 - number}, 10)
    tracker.close("finished")
    return run


def runs_of(client: Any, experiment: str) -> dict[str, Any]:
    found = client.get_experiment_by_name(experiment)
    return {item.info.run_name: item for item in client.search_runs([found.experiment_id])}


def die(recorder: StudyRecorder) -> None:
    """End a recorder's threads as a kill would, once MLflow has a run for each."""
    followers = [item for item in (recorder._study, *recorder._trials.values()) if item is not None]
    deadline = time.monotonic() + 60
    while not all(item.run_id for item in followers):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for item in followers:
        item._give_up.set()
        item.wake()
        item._thread.join(20)


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    made = StudyFolder(tmp_path / "studies" / "0123456789abcdef", tmp_path)
    made.path.mkdir(parents=True)
    return made


def make_params(uri: str | None, experiment: str) -> Params:
    return Params.model_validate({"tracking": {"mlflow_uri": uri, "experiment": experiment}})


def test_a_killed_tuner_leaves_no_trial_open(folder: StudyFolder, mlflow_database: str) -> None:
    from kamerton.tracking.mlflow_client import connect

    params = make_params(mlflow_database, "recorder")
    first = StudyRecorder(folder, params)
    for number in (0, 1):
        first.trial_started(number, make_run(folder, number))
    die(first)  # nothing is closed, and trial 0 has finished
    second = StudyRecorder(folder, params)
    second.trials_finished(RESULTS[:1])
    second.trial_started(1, RunDirectory.open(next(folder.trial_runs(1).glob("2*"))))
    second.trials_finished(RESULTS[:2])
    second.trial_started(2, make_run(folder, 2))
    second.trials_finished(RESULTS)
    second.close("finished")

    client = connect(mlflow_database)
    found = runs_of(client, "recorder")
    states = {name: item.info.status for name, item in found.items()}
    assert states == {
        "study-01234567": "FINISHED",
        "trial-000": "FINISHED",
        "trial-001": "KILLED",
        "trial-002": "FAILED",
    }
    assert found["trial-001"].data.metrics == {"val_mel_loss": 1.0}
    study = found["study-01234567"].info.run_id
    best = client.get_metric_history(study, "best_objective")
    assert [(point.step, point.value) for point in best] == [
        (0, 1.0),
        (1, 1.0),
        (2, 1.0),
        (3, 0.75),
    ]
    run_id = read_json(folder.path / "mlflow.json", produced_by="tune")["run_id"]
    assert study == run_id


def test_without_mlflow_the_study_is_recorded_in_its_folder(folder: StudyFolder) -> None:
    params = make_params(None, "unused")
    for count in (1, 3, 4):  # three tuners, each going on where the last was killed
        recorder = StudyRecorder(folder, params)
        recorder.trial_started(0, make_run(folder, 0))
        recorder.trials_finished(RESULTS[:count])
        recorder.close("finished")
    records = read_records(folder.path / "metrics.jsonl")
    assert [record.step for record in records if record.kind == "metrics"] == [0, 1, 2, 3]
    assert [record.kind for record in records].count("params") == 1
    assert not (folder.path / "mlflow.json").exists()


def make_candidate(folder: StudyFolder, number: int) -> Candidate:
    runs = folder.path / "generations" / f"g1c{number}" / "runs"
    run = RunDirectory.create(runs, name="trial", fingerprint="f" * 8, params={})
    tracker = JsonlTracker(run.path)
    tracker.log_metrics({"val_mel_loss": 0.5}, 50)
    tracker.close("stopped")
    delta = {"learning_rate": 0.5} if number else {}
    return Candidate(
        number, delta, "complete", score=0.4, run=str(run.path.relative_to(folder.path))
    )


def test_every_candidate_is_a_run_below_the_study(
    folder: StudyFolder, mlflow_database: str
) -> None:
    from kamerton.tracking.mlflow_client import connect

    params = make_params(mlflow_database, "generations")
    control, changed = make_candidate(folder, 0), make_candidate(folder, 1)
    first = StudyRecorder(folder, params)
    for candidate in (control, changed):
        run = folder.path / candidate.run
        first.candidate_started(1, candidate, "a" * 64, run)
        first.candidate_finished(1, 60, candidate)
    first.close("stopped")
    # One that a killed tuner finished, and of which MLflow knows nothing yet.
    late = make_candidate(folder, 2)
    generation = Generation(2, 60, 80, "g1c1", "b" * 64, (late,))
    tree = GenerationTree("key", 0, 1.0, 100, (generation,))
    second = StudyRecorder(folder, params)
    second.candidates_known(tree)
    second.close("finished")

    client = connect(mlflow_database)
    found = runs_of(client, "generations")
    study = found.pop("study-01234567")
    assert set(found) == {"generation-1-0", "generation-1-1", "generation-2-2"}
    for run in found.values():
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == study.info.run_id
        assert run.data.tags["kamerton.kind"] == "generation"
    tags = found["generation-1-1"].data.tags
    assert tags["kamerton.generation"] == "1"
    assert tags["kamerton.parent_checkpoint_sha256"] == "a" * 64
    assert tags["kamerton.reason"] == "learning_rate × 0.5"
    assert found["generation-1-0"].data.tags["kamerton.reason"] == "control"
    score = client.get_metric_history(found["generation-1-1"].info.run_id, "generation_score")
    assert [(point.step, point.value) for point in score] == [(60, 0.4)]  # by global step


def test_decisions_are_in_the_study_s_record(folder: StudyFolder) -> None:
    recorder = StudyRecorder(folder, make_params(None, "unused"))
    recorder.generation_decided(
        Generation(1, 5, 9, "trunk", "a" * 64, sigma=0.1, accepted=2, reason="dropout × 2 beat it")
    )
    recorder.generations_finished(GenerationTree("key", 0, 1.0, 100, verdict="better"))
    recorder.close("finished")
    events = {item.name: item.fields for item in read_records(folder.path / "metrics.jsonl")}
    assert events["generation"]["reason"] == "dropout × 2 beat it"
    assert events["generation"]["accepted"] == 2
    assert events["generations_finished"]["verdict"] == "better"


def test_people_are_told_of_each_new_best_trial_once(folder: StudyFolder) -> None:
    told: list[str] = []
    params = Params.model_validate({"tracking": {"mlflow_uri": None}})
    results = [
        TrialResult(number, "complete", {"train.learning_rate": 1e-3}, objective=objective)
        for number, objective in enumerate((1.0, 0.9, 0.95, 0.8))
    ]
    for _ in range(2):  # the second is the tuner that goes on after a kill
        recorder = StudyRecorder(folder, params, tell=lambda kind, text, _: told.append(text))
        for count in range(1, 5):
            recorder.trials_finished(results[:count])
        recorder.close("finished")
    assert [text.split()[1] for text in told] == ["0", "1", "3"]


def test_trials_that_end_out_of_order_are_recorded_in_order(folder: StudyFolder) -> None:
    params = Params.model_validate({"tracking": {"mlflow_uri": None}})
    results = {
        number: TrialResult(number, "complete", {"train.learning_rate": 1e-3}, objective=1.0)
        for number in range(4)
    }
    recorder = StudyRecorder(folder, params)
    for finished in ((0, 2), (0, 2, 3), (0, 1, 2, 3)):
        recorder.trials_finished([results[number] for number in finished])
    recorder.close("finished")
    records = read_records(folder.path / "metrics.jsonl")
    assert [record.step for record in records if record.kind == "metrics"] == [0, 1, 2, 3]
