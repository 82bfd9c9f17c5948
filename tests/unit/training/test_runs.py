"""Which run a training goes on with, when the machine, the code or the parameters changed."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from kamerton.config.change_classes import class_of
from kamerton.config.yaml_source import read_yaml
from kamerton.core.errors import InputMissingError, ParamsError, StoppedError
from kamerton.core.files import write_json
from kamerton.core.stop import StopRequest
from kamerton.data.manifest import Dataset
from kamerton.tracking import RunDirectory, find_runs, list_runs, read_records
from kamerton.training.checkpoint import read_checkpoint
from kamerton.training.fingerprint import Origin
from kamerton.training.repro import reproduce
from kamerton.training.schedule import learning_rate
from kamerton.training.session import Session, fixed_threads
from tests.tiny_corpus import tiny_params, write_tiny_dataset


@pytest.fixture(autouse=True)
def _fixed_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kamerton.training.fingerprint.code_digest", lambda: "fixed")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.open(write_tiny_dataset(tmp_path_factory.mktemp("corpus") / "dataset"))


def prepared(
    dataset: Dataset, runs: Path, *, warm_start: Path | None = None, **train: Any
) -> Session:
    given = {
        "max_steps": 6, "eval_interval_steps": 3, "phases": {"count": 0},
        "monitoring": {"log_interval_steps": 1}, **train,
    }  # fmt: skip
    return Session.prepare(
        dataset, 50, tiny_params(**given), runs=runs, threads=1, trial=False, warm_start=warm_start
    )


def elsewhere(work: Session, **surroundings: Any) -> Session:
    """The same asked for on another machine."""
    return dataclasses.replace(work, origin=dataclasses.replace(work.origin, **surroundings))


def go(work: Session, *, stop_at: int | None = None, resume: bool = False) -> RunDirectory:
    stop = StopRequest()

    def progress(done: float, total: float, note: str = "") -> None:
        stop.requested = stop_at is not None and done >= stop_at - 1

    run = work.find_run(resume=resume, anew=False)
    with fixed_threads(work.params.train), run.hold():
        try:
            work.train(run, stop=stop, on_progress=progress)
        except StoppedError:
            assert stop_at is not None
    return run


def events(run: RunDirectory, name: str) -> list[Any]:
    return [record for record in read_records(run.metrics_file) if record.name == name]


def series(run: RunDirectory, name: str) -> dict[int, float]:
    return {
        record.step: record.values[name]
        for record in read_records(run.metrics_file)
        if record.kind == "metrics" and record.step is not None and name in record.values
    }


@pytest.mark.parametrize(
    ("change", "resume"),
    [
        ({"threads": 3}, False), ({"torch": "0.1"}, True), ({"code": "edited"}, False),
        ({"device": "cuda"}, True),
    ],
)  # fmt: skip
def test_a_run_goes_on_in_other_surroundings_and_says_so(
    dataset: Dataset, tmp_path: Path, change: dict[str, Any], resume: bool, caplog: Any
) -> None:
    work = prepared(dataset, tmp_path)
    begun = go(work, stop_at=3)
    caplog.clear()
    run = go(elsewhere(work, **change), stop_at=5, resume=resume)
    assert run == begun
    assert run.status().step == 5  # not from 0
    (event,) = events(run, "surroundings_changed")
    ((name, new),) = change.items()
    assert event.step == 3
    assert event.fields["changes"] == {name: [getattr(work.origin, name), new]}
    assert "goes on in other surroundings" in caplog.text
    assert "bit for bit" in caplog.text
    assert Origin.read(run.path) == dataclasses.replace(work.origin, **change)
    kept = json.loads((run.path / "origin-before-3.json").read_text())
    assert kept[name] == getattr(work.origin, name)


def test_in_equal_surroundings_nothing_is_said(
    dataset: Dataset, tmp_path: Path, caplog: Any
) -> None:
    run = go(prepared(dataset, tmp_path), stop_at=3)
    caplog.clear()
    assert go(prepared(dataset, tmp_path, threads=2)) == run  # 1, as the session was told
    assert not caplog.records
    assert not events(run, "surroundings_changed") + events(run, "hyperparameters_changed")
    assert not list(run.path.glob("*-before-*"))


def test_a_finished_run_counts_only_with_equal_code(dataset: Dataset, tmp_path: Path) -> None:
    work = prepared(dataset, tmp_path)
    done = go(work)
    assert work.find_run(resume=False, anew=False) == done
    assert elsewhere(work, threads=3).find_run(resume=False, anew=False) == done
    assert elsewhere(work, code="edited").find_run(resume=False, anew=False) != done


def test_a_run_of_the_format_before_is_continued(dataset: Dataset, tmp_path: Path) -> None:
    work = prepared(dataset, tmp_path)
    run = go(work, stop_at=3)
    run.replace_status(dataclasses.replace(run.status(), fingerprint="0" * 64))
    origin = json.loads((run.path / "origin.json").read_text())
    del origin["batching"]
    write_json(run.path / "origin.json", origin)
    assert go(prepared(dataset, tmp_path)) == run
    assert find_runs(tmp_path, work.fingerprint) == [run]


def test_a_new_run_beside_an_unfinished_one_is_warned_of(
    dataset: Dataset, tmp_path: Path, caplog: Any
) -> None:
    run = go(prepared(dataset, tmp_path), stop_at=3)
    caplog.set_level(logging.WARNING)
    for change, said in (
        ({"learning_rate": 5e-4}, "train.learning_rate (hot); --resume goes on with it"),
        ({"seed": 5}, "train.seed (cold); it goes on with its own values"),
    ):
        caplog.clear()
        other = prepared(dataset, tmp_path / "x", **change)
        other = dataclasses.replace(other, runs=tmp_path)
        made = other.find_run(resume=False, anew=False)
        assert made != run
        assert f"{run.path} is unfinished at step 3" in caplog.text
        assert said in caplog.text
        shutil.rmtree(made.path)
    caplog.clear()
    other.find_run(resume=False, anew=True)  # asked for
    assert not caplog.records


def test_a_run_that_made_no_step_is_nothing_to_go_back_to(
    dataset: Dataset, tmp_path: Path, caplog: Any
) -> None:
    prepared(dataset, tmp_path).find_run(resume=False, anew=False)  # refused before its first step
    caplog.set_level(logging.WARNING)
    prepared(dataset, tmp_path, seed=5).find_run(resume=False, anew=False)
    assert not caplog.records


def test_resume_goes_on_with_other_hot_parameters(
    dataset: Dataset, tmp_path: Path, caplog: Any
) -> None:
    before = prepared(dataset, tmp_path, learning_rate=1e-3, weight_decay=0.25)
    begun = go(before, stop_at=3)
    asked = {"learning_rate": 4e-3, "weight_decay": 0.01, "prenet_dropout": 0.25}
    work = prepared(dataset, tmp_path, **asked)
    run = go(work, stop_at=5, resume=True)
    assert run == begun

    # The very next line is of the new schedule, and the optimiser has what was asked.
    rates = series(run, "learning_rate")
    assert math.isclose(rates[3], learning_rate(2, 6, before.params.train))
    assert math.isclose(rates[4], learning_rate(3, 6, work.params.train))
    saved = read_checkpoint(run.checkpoints / "last.pt")
    assert [group["weight_decay"] for group in saved["optimizer"]["param_groups"]] == [0.01]
    assert saved["meaning"]["architecture"]["prenet_dropout"] == 0.25

    (event,) = events(run, "hyperparameters_changed")
    assert event.step == 3
    assert event.fields["changes"] == {
        "train.learning_rate": [1e-3, 4e-3], "train.weight_decay": [0.25, 0.01],
        "train.prenet_dropout": [0.5, 0.25],
    }  # fmt: skip
    assert "goes on with other values" in caplog.text
    assert read_yaml(run.path / "params.yaml").values["train"]["learning_rate"] == 4e-3
    assert read_yaml(run.path / "params-before-3.yaml").values["train"]["learning_rate"] == 1e-3

    # The same command goes on, without --resume and without another word.
    assert run.status().fingerprint == work.fingerprint
    caplog.clear()
    assert go(prepared(dataset, tmp_path, **asked)) == run
    assert run.status().state == "finished"
    assert len(events(run, "hyperparameters_changed")) == 1
    assert len(list_runs(tmp_path)) == 1
    assert not [record for record in caplog.records if "other values" in record.message]


def test_a_new_weight_decay_moves_the_weights(dataset: Dataset, tmp_path: Path) -> None:
    """What is applied is what acts: from one checkpoint, two decays give two models."""
    go(prepared(dataset, tmp_path / "a", weight_decay=0.5), stop_at=3)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    models = []
    for name, decay in (("a", 0.5), ("b", 0.0)):
        run = go(prepared(dataset, tmp_path / name, weight_decay=decay), stop_at=5, resume=True)
        models.append(read_checkpoint(run.checkpoints / "last.pt")["model"])
    weight = "encoder.embedding.weight"
    assert not models[0][weight].equal(models[1][weight])
    assert models[0][weight].norm() < models[1][weight].norm()


def test_a_killed_change_is_found_again(dataset: Dataset, tmp_path: Path) -> None:
    """Killed after params.yaml was replaced and before status.json was."""
    old = prepared(dataset, tmp_path)
    go(old, stop_at=3)
    run = go(prepared(dataset, tmp_path, weight_decay=0.1), stop_at=5, resume=True)
    run.replace_status(dataclasses.replace(run.status(), fingerprint=old.fingerprint))
    assert go(prepared(dataset, tmp_path, weight_decay=0.1)) == run


def test_only_the_steps_before_a_change_are_repeated(dataset: Dataset, tmp_path: Path) -> None:
    go(prepared(dataset, tmp_path), stop_at=3)
    run = go(prepared(dataset, tmp_path, weight_decay=0.1), resume=True)
    result = reproduce(run, steps=6)
    assert result.equal
    assert result.compared_steps == (1, 2, 3)


def test_what_was_noted_last_of_a_step_counts(dataset: Dataset, tmp_path: Path) -> None:
    """A run that changed at 4, and went on from 2 with yet another value, began with the first."""
    more = {"checkpoint_interval_steps": 2, "max_steps": 8}
    work = prepared(dataset, tmp_path, **more)
    go(work, stop_at=4)
    run = go(prepared(dataset, tmp_path, **more, weight_decay=0.1), stop_at=6, resume=True)
    (run.checkpoints / "step_00000006.pt").unlink(missing_ok=True)
    (run.checkpoints / "last.pt").unlink()
    (run.checkpoints / "step_00000004.pt").unlink()
    go(prepared(dataset, tmp_path, **more, weight_decay=0.2), resume=True)
    assert sorted(path.name for path in run.path.glob("*-before-*")) == ["params-before-2.yaml"]
    kept = read_yaml(run.path / "params-before-2.yaml").values
    assert kept["train"]["weight_decay"] == work.params.train.weight_decay


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("train.learning_rate", "hot"), ("train.decoder_dropout", "hot"),
        ("train.regularisation.spectral_dropout", "hot"), ("train.losses.style_weight", "hot"),
        ("train.recovery.max_recoveries", "hot"), ("train.phases.learning_rate_factors", "hot"),
        ("train.batch_size", "warm"), ("train.accumulation", "warm"), ("total_steps", "warm"),
        ("train.phases.curriculum", "warm"), ("train.precision", "warm"),
        ("train.model.prenet_dim", "cold"), ("audio.mel_fmax_hz", "cold"), ("train.seed", "cold"),
        ("text.lowercase", "cold"), ("content_sha256", "cold"), ("warm_start_sha256", "cold"),
        ("train.something_new", "cold"),
    ],
)  # fmt: skip
def test_classes(name: str, kind: str) -> None:
    assert class_of(name, 1, 2) == kind


def test_a_coarse_decoder_cannot_come_and_go() -> None:
    name = "train.losses.double_decoder_weight"
    assert class_of(name, 0.5, 0.2) == "hot"
    assert class_of(name, 0.0, 0.5) == class_of(name, 0.5, 0.0) == "cold"


def test_a_warm_start_goes_on_without_its_source(
    dataset: Dataset, tmp_path: Path, caplog: Any
) -> None:
    source = go(prepared(dataset, tmp_path / "source", max_steps=3)).path
    weights, runs = tmp_path / "weights.pt", tmp_path / "runs"
    weights.write_bytes((source / "checkpoints" / "best.pt").read_bytes())
    run = go(prepared(dataset, runs, warm_start=weights), stop_at=3)

    data = weights.read_bytes()
    weights.unlink()
    assert go(prepared(dataset, runs, warm_start=weights), stop_at=5, resume=True) == run
    assert run.status().step == 5
    with pytest.raises(InputMissingError):
        prepared(dataset, tmp_path / "elsewhere", warm_start=weights)
    another = prepared(dataset, runs, warm_start=weights, seed=7)
    with pytest.raises(InputMissingError):
        another.find_run(resume=False, anew=False)
    assert list_runs(runs) == [run]

    weights.write_bytes((source / "checkpoints" / "last.pt").read_bytes() + b"\0")
    caplog.clear()
    other = prepared(dataset, runs, warm_start=weights)
    with pytest.raises(ParamsError, match=r"--warm-start \(cold\)"):
        other.find_run(resume=True, anew=False)
    assert other.find_run(resume=False, anew=False) != run
    assert "another value of: --warm-start (cold)" in caplog.text

    weights.write_bytes(data)
    assert prepared(dataset, runs, warm_start=weights).find_run(resume=True, anew=False) == run


def test_a_removed_status_does_not_end_a_run(dataset: Dataset, tmp_path: Path, caplog: Any) -> None:
    work = prepared(dataset, tmp_path, checkpoint_interval_steps=1)
    run = work.find_run(resume=False, anew=False)

    def remove(done: float, total: float, note: str = "") -> None:
        if done == 2:
            (run.path / "status.json").unlink()

    work.train(run, stop=StopRequest(), on_progress=remove)
    status = run.status()
    assert (status.state, status.step, status.fingerprint) == ("finished", 6, work.fingerprint)
    assert sum("status.json" in record.getMessage() for record in caplog.records) == 1
