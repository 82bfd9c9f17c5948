"""A session: what is recorded of a run, and what it goes on from."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from kamerton.core.errors import InputMissingError, ParamsError, PipelineError, StoppedError
from kamerton.core.stop import StopRequest
from kamerton.data.manifest import Dataset
from kamerton.tracking import RunDirectory, read_records
from kamerton.training import effective
from kamerton.training import session as session_module
from kamerton.training.checkpoint import read_checkpoint
from kamerton.training.distributed import World
from kamerton.training.fingerprint import Origin
from kamerton.training.session import Session
from tests.tiny_corpus import tiny_params, write_tiny_dataset


@pytest.fixture(autouse=True)
def _fixed_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kamerton.training.fingerprint.code_digest", lambda: "fixed")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.open(write_tiny_dataset(tmp_path_factory.mktemp("corpus") / "dataset"))


def prepared(dataset: Dataset, runs: Path, **train: Any) -> Session:
    params = tiny_params(**{"max_steps": 6, "eval_interval_steps": 3, **train})
    return Session.prepare(dataset, 50, params, runs=runs, threads=1, trial=True)


def go(work: Session, stop_at: int | None = None) -> RunDirectory:
    stop = StopRequest()

    def progress(done: float, total: float, note: str = "") -> None:
        stop.requested = stop_at is not None and done >= stop_at - 1

    run = work.find_run(resume=False, anew=False)
    with run.hold():
        work.train(run, stop=stop, on_progress=progress)
    return run


def stopped(work: Session, stop_at: int) -> RunDirectory:
    with pytest.raises(StoppedError):
        go(work, stop_at)
    return work.find_run(resume=True, anew=False)


def events(run: RunDirectory, name: str) -> list[dict[str, Any]]:
    return [record.fields for record in read_records(run.metrics_file) if record.name == name]


def kinds(run: RunDirectory) -> list[str]:
    return [record.kind for record in read_records(run.metrics_file)]


def test_a_run_killed_before_its_first_record_still_gets_its_parameters(
    dataset: Dataset, tmp_path: Path
) -> None:
    work = prepared(dataset, tmp_path)
    run = work.find_run(resume=False, anew=False)
    run.metrics_file.touch()  # made, and killed before the first line
    go(work)
    assert kinds(run).count("params") == 1


def test_parameters_are_recorded_once_however_often_a_run_goes_on(
    dataset: Dataset, tmp_path: Path
) -> None:
    for stop_at in (2, 4):
        run = stopped(prepared(dataset, tmp_path), stop_at)
    assert run == go(prepared(dataset, tmp_path))
    assert kinds(run).count("params") == 1


def test_the_origin_is_recorded(dataset: Dataset, tmp_path: Path) -> None:
    work = prepared(dataset, tmp_path)
    origin = Origin.read(go(work).path)
    assert origin == work.origin
    assert origin.fingerprint(work.params) == work.fingerprint
    assert Path(origin.dataset) == dataset.path.absolute()
    with pytest.raises(InputMissingError):
        Origin.read(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"total_steps": 7}, {"content_sha256": "1" * 64}, {"processes": 2}, {"trial": False},
        {"warm_start_sha256": "1" * 64}, {"batching": "utterances"},
    ],
)  # fmt: skip
def test_everything_that_decides_what_is_trained_is_in_the_fingerprint(
    dataset: Dataset, tmp_path: Path, change: dict[str, Any]
) -> None:
    work = prepared(dataset, tmp_path)
    other = dataclasses.replace(work.origin, **change)
    assert other.fingerprint(work.params) != work.fingerprint


def test_places_and_surroundings_are_not_in_the_fingerprint(
    dataset: Dataset, tmp_path: Path
) -> None:
    work = prepared(dataset, tmp_path)
    moved = dataclasses.replace(
        work.origin, dataset="elsewhere", warm_start="elsewhere", cpu="?", code="other", torch="0",
        threads=2, device="cuda",
    )  # fmt: skip
    assert moved.fingerprint(work.params) == work.fingerprint


@pytest.mark.parametrize(
    ("change", "another"),
    [
        ({"threads": 2}, False), ({"device": "auto"}, False), ({"epochs": 60}, False),
        ({"batching": "frames"}, False), ({"batching": "utterances"}, True),  # auto, on a CPU
        ({"monitoring": {"log_interval_steps": 3, "figure_interval_steps": 2}}, False),
        ({"monitoring": {"free_running_sentences": 2}}, True), ({"seed": 3}, True),
        ({"weight_decay": 0.2}, True), ({"eval_interval_steps": 2}, True),
        ({"keep_checkpoints": 1}, True),  # a recovery goes back to them
    ],
)  # fmt: skip
def test_only_parameters_that_can_change_numbers_are_in_the_fingerprint(
    dataset: Dataset, tmp_path: Path, change: dict[str, Any], another: bool
) -> None:
    work, other = prepared(dataset, tmp_path), prepared(dataset, tmp_path, **change)
    assert (other.fingerprint != work.fingerprint) == another


# The classic fault: a checkpoint brings the old hyperparameters back.


def test_what_is_asked_for_counts_not_what_the_checkpoint_holds(
    dataset: Dataset, tmp_path: Path
) -> None:
    run = stopped(prepared(dataset, tmp_path, weight_decay=0.5, learning_rate=1e-3), 3)
    work = prepared(dataset, tmp_path, weight_decay=0.01, learning_rate=2e-3)
    seen: list[dict[str, Any]] = []

    def first_step(job: Any, state: Any, **_: Any) -> Any:
        seen.extend(effective.hyperparameters(job.optimizer))
        raise StoppedError("enough")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_module, "train_model", first_step)
        with pytest.raises(StoppedError):
            work.train(run, stop=StopRequest())  # as the tuner continues with other parameters
    assert [(group["lr"], group["weight_decay"]) for group in seen] == [(2e-3, 0.01)]
    told = events(run, "effective")[-1]
    assert (told["lr"], told["weight_decay"]) == (2e-3, 0.01)
    assert told["betas"] == [0.9, 0.999]
    assert told["replaced"] == ["weight_decay was 0.5, is 0.01"]
    assert run.status().facts["effective"]["weight_decay"] == 0.01


def test_without_the_applying_the_reading_back_refuses() -> None:
    weights = torch.nn.Parameter(torch.zeros(2))
    asked = effective.hyperparameters(torch.optim.AdamW([weights], lr=1e-3, weight_decay=0.1))
    old = torch.optim.AdamW([weights], lr=5e-4, weight_decay=0.1, betas=(0.5, 0.9))
    with pytest.raises(PipelineError, match=r"lr is 0\.0005, asked 0\.001; betas is"):
        effective.require_effective(old, asked)
    assert effective.apply_hyperparameters(old, asked) == ["betas was (0.5, 0.9), is (0.9, 0.999)"]
    effective.require_effective(old, asked)


def test_every_group_keeps_its_own_decay() -> None:
    first, second = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    groups = [{"params": [first], "weight_decay": 0.0}, {"params": [second], "weight_decay": 0.1}]
    asked = effective.hyperparameters(torch.optim.AdamW(groups, lr=1e-3))
    other = [{"params": [first], "weight_decay": 0.3}, {"params": [second], "weight_decay": 0.3}]
    optimizer = torch.optim.AdamW(other, lr=1e-3)
    effective.apply_hyperparameters(optimizer, asked)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.1]
    assert effective.facts(asked)["weight_decays"] == [0.0, 0.1]


# Bad input.


def test_a_checkpoint_of_another_network_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    run = stopped(prepared(dataset, tmp_path), 3)
    model = tiny_params().train.model.model_copy(update={"prenet_dim": 12})
    other = prepared(dataset, tmp_path / "other", model=model.model_dump())
    with pytest.raises(ParamsError, match=r"architecture\.prenet_dim \(8, asked 12\)") as caught:
        other.train(run, stop=StopRequest())
    assert caught.value.exit_code == 3
    assert run.status().state == "stopped"  # the refused attempt leaves the run as it is


def test_a_checkpoint_of_other_mels_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    run = stopped(prepared(dataset, tmp_path), 3)
    params = tiny_params(max_steps=6)
    audio = params.audio.model_copy(update={"mel_fmax_hz": 3800.0})
    params = params.model_copy(update={"audio": audio})
    other = Session.prepare(dataset, 50, params, runs=tmp_path / "other", threads=1, trial=True)
    with pytest.raises(ParamsError, match=r"audio\.mel_fmax_hz \(4000\.0, asked 3800\.0\)"):
        other.train(run, stop=StopRequest())


def test_a_checkpoint_says_what_its_weights_mean(dataset: Dataset, tmp_path: Path) -> None:
    run = go(prepared(dataset, tmp_path))
    meaning = read_checkpoint(run.checkpoints / "last.pt")["meaning"]
    assert meaning["symbols"] == list("abcdef")
    assert meaning["audio"]["hop_samples"] == 64
    assert meaning["architecture"]["prenet_dim"] == 8


def test_a_full_disk_at_the_end_is_an_error_and_the_run_goes_on_later(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = prepared(dataset, tmp_path, checkpoint_interval_steps=2)
    with monkeypatch.context() as patch:
        patch.setattr(session_module, "LAST_SAVE_SECONDS", 0.1)
        from kamerton.training import checkpoint

        real = checkpoint.write_bytes

        def full_from_step_four(path: Path, data: bytes) -> None:
            if any(path.parent.glob("step_00000002.pt")):
                raise OSError(28, "No space left on device")
            real(path, data)

        patch.setattr(checkpoint, "write_bytes", full_from_step_four)
        with pytest.raises(PipelineError, match=r"could not be saved in .*needs \d+ MiB"):
            go(work)
    run = work.find_run(resume=True, anew=False)
    assert run.status().state == "failed"
    assert len(events(run, "checkpoint_failed")) == 1
    assert read_checkpoint(run.checkpoints / "last.pt")["state"]["step"] == 2
    go(prepared(dataset, tmp_path, checkpoint_interval_steps=2))
    assert run.status().state == "finished"


def test_what_the_main_process_finds_finished_is_finished_for_all(
    dataset: Dataset, tmp_path: Path
) -> None:
    """Also where the disk does not show the checkpoints to another process yet."""
    work = prepared(dataset, tmp_path)
    run = go(work)
    ended = read_checkpoint(run.checkpoints / "last.pt")["state"]

    class Second(World):
        def share(self, value: Any = None) -> Any:
            assert value is None
            return ended

    shutil.rmtree(run.checkpoints)
    other = dataclasses.replace(work, world=Second(1, 2, 1, 2))
    state, reused = other.train(run, stop=StopRequest())
    assert reused
    assert state.to_dict() == ended
