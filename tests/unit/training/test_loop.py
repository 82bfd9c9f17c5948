"""The loop: exact resume, skipped steps, stopping."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from kamerton.config.schema import Params
from kamerton.core import files
from kamerton.core.errors import PipelineError, StoppedError
from kamerton.core.stop import StopRequest
from kamerton.data.manifest import Dataset
from kamerton.tracking import JsonlTracker, RunDirectory, names, read_records
from kamerton.training import assessment, loop
from kamerton.training import checkpoint as checkpoint_module
from kamerton.training.checkpoint import read_checkpoint
from kamerton.training.session import Session, fixed_threads
from kamerton.training.state import TrainState
from tests.tiny_corpus import tiny_params, write_tiny_dataset


@pytest.fixture(autouse=True)
def _fixed_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources that are edited while the tests run must not make other runs of them."""
    monkeypatch.setattr("kamerton.training.fingerprint.code_digest", lambda: "fixed")


HOST = files._owner().rpartition("-")[0]


# Events that are the same in every run of equal parameters.
DETERMINED = {"best", "phase", "control", "recovery", "non_finite_step", "learning_rate_high"}


class KilledError(BaseException):
    """As sudden as SIGKILL: no handler of ours catches it."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.open(write_tiny_dataset(tmp_path_factory.mktemp("corpus") / "dataset"))


def session(dataset: Dataset, runs: Path, params: Params, *, trial: bool = True) -> Session:
    return Session.prepare(dataset, 50, params, runs=runs, threads=1, trial=trial)


def go(work: Session, *, die_at: int | None = None, stop_at: int | None = None) -> TrainState:
    """Find or begin the run and train; ``die_at`` kills as that step is reported."""
    stop = StopRequest()

    def progress(done: float, total: float, note: str = "") -> None:
        if done == die_at:
            raise KilledError
        stop.requested = stop.requested or (stop_at is not None and done >= stop_at - 1)

    run = work.find_run(resume=False, anew=False)
    with fixed_threads(work.params.train), run.hold():
        return work.train(run, stop=stop, on_progress=progress)[0]


def only_run(runs: Path) -> RunDirectory:
    folders = [path for path in runs.iterdir() if (path / "status.json").exists()]
    assert len(folders) == 1
    return RunDirectory.open(folders[0])


def outcome(runs: Path) -> dict[str, Any]:
    """Everything a run leaves behind that must not depend on how often it was killed."""
    run = only_run(runs)
    files = {name: read_checkpoint(run.checkpoints / name) for name in ("last.pt", "best.pt")}
    records = [
        (record.kind, record.step, record.name, without_speed(record.values), record.fields)
        for record in read_records(run.metrics_file)
        if record.kind == "metrics" or record.name in DETERMINED
    ]
    return {"files": files, "records": records}


def without_speed(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if not name.startswith(names.SYSTEM)}


def assert_equal(ours: Any, theirs: Any, where: str = "") -> None:
    assert type(ours) is type(theirs), where
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_equal(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_equal(*pair, f"{where}/{index}")
    else:
        both_nan = isinstance(ours, float) and math.isnan(ours) and math.isnan(theirs)
        assert both_nan or ours == theirs, where


@pytest.fixture(scope="module")
def undisturbed(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    runs = tmp_path_factory.mktemp("undisturbed")
    go(session(dataset, runs, tiny_params()))
    return outcome(runs)


@pytest.mark.parametrize("deaths", [[1], [4], [5], [12], [2, 6, 7, 10]])
def test_a_killed_run_ends_as_an_undisturbed_one(
    dataset: Dataset, tmp_path: Path, undisturbed: dict[str, Any], deaths: list[int]
) -> None:
    for death in deaths:
        with pytest.raises(KilledError):
            go(session(dataset, tmp_path, tiny_params()), die_at=death)
    go(session(dataset, tmp_path, tiny_params()))
    assert_equal(outcome(tmp_path), undisturbed)


@pytest.mark.parametrize("write", [1, 2, 3, 4, 5])
def test_death_while_a_checkpoint_is_written_loses_nothing(
    dataset: Dataset, tmp_path: Path, undisturbed: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch, write: int,
) -> None:  # fmt: skip
    real, written = checkpoint_module.write_bytes, []

    def half(path: Path, data: bytes) -> None:
        written.append(path)
        if len(written) == write:
            # What a killed writer leaves: half of the data under a temporary name.
            path.parent.mkdir(parents=True, exist_ok=True)
            name = f".{path.name}.partial-{HOST}-999999999"
            path.with_name(name).write_bytes(data[: len(data) // 2])
            raise KilledError
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "write_bytes", half)
        with pytest.raises(KilledError):
            go(session(dataset, tmp_path, tiny_params()))
    go(session(dataset, tmp_path, tiny_params()))
    assert_equal(outcome(tmp_path), undisturbed)
    assert not list(only_run(tmp_path).checkpoints.glob(".*partial*"))


@pytest.mark.parametrize("stop_at", [2, 4, 5])
def test_a_stop_finishes_the_step_saves_and_goes_on_exactly(
    dataset: Dataset, tmp_path: Path, undisturbed: dict[str, Any], stop_at: int
) -> None:
    with pytest.raises(StoppedError, match=f"at step {stop_at} of 12"):
        go(session(dataset, tmp_path, tiny_params()), stop_at=stop_at)
    status = only_run(tmp_path).status()
    assert (status.state, status.step) == ("stopped", stop_at)
    assert (
        read_checkpoint(only_run(tmp_path).checkpoints / "last.pt")["state"]["step"] == status.step
    )
    go(session(dataset, tmp_path, tiny_params()))
    assert only_run(tmp_path).status().state == "finished"
    assert_equal(outcome(tmp_path), undisturbed)


class Loop:
    """Kills a run at moments within its loop, each once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, moments: list[tuple[str, int]]) -> None:
        self.moments, self.evaluated, self.trained = list(moments), [], []
        real_evaluate, real_after = loop.assess, loop._after
        real_changes, real_save = loop._log_changes, loop._save

        def evaluate(job: Any, trainee: Any, state: TrainState, watchers: Any) -> TrainState:
            self.evaluated.append(state.step)
            self.die("before", state.step)
            state = real_evaluate(job, trainee, state, watchers)
            self.die("after", state.step)
            return state

        def after(*args: Any) -> TrainState:
            state = real_after(*args)
            self.trained.append(state.step)
            return state

        def changes(job: Any, before: TrainState, state: TrainState) -> None:
            real_changes(job, before, state)
            if state.evaluated_step == state.step:
                self.die("recorded", state.step)

        def save(job: Any, trainee: Any, state: TrainState, hooks: Any, **when: bool) -> None:
            real_save(job, trainee, state, hooks, **when)
            if when["scheduled"]:
                self.die("saved", state.step)

        for name, wrapped in (("assess", evaluate), ("_after", after),
                              ("_log_changes", changes), ("_save", save)):  # fmt: skip
            monkeypatch.setattr(loop, name, wrapped)

    def die(self, moment: str, step: int) -> None:
        if (moment, step) in self.moments:
            self.moments.remove((moment, step))
            raise KilledError


def scheduled(**train: Any) -> Params:
    """Saved and evaluated at the same steps, with phases that evaluations change."""
    return tiny_params(max_steps=16, eval_interval_steps=4, checkpoint_interval_steps=4,
                       keep_checkpoints=2, **train)  # fmt: skip


@pytest.mark.parametrize("moment", ["before", "after", "recorded", "saved"])
def test_death_around_an_evaluation_loses_no_step_and_repeats_one_evaluation_at_most(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    calm.mkdir()
    rough.mkdir()
    go(session(dataset, calm, scheduled()))
    steps = [4, 8, 16]
    seen = Loop(monkeypatch, [(moment, step) for step in steps])
    for _ in steps:
        with pytest.raises(KilledError):
            go(session(dataset, rough, scheduled()))
    go(session(dataset, rough, scheduled()))
    assert not seen.moments
    assert seen.trained == list(range(1, 17))  # each step once, whatever was killed
    repeated = [] if moment == "saved" else steps
    assert sorted(seen.evaluated) == sorted([4, 8, 12, 16, *repeated])
    assert_equal(outcome(rough), outcome(calm))
    kept = [sorted(path.name for path in only_run(runs).checkpoints.iterdir())
            for runs in (calm, rough)]  # fmt: skip
    assert kept[0] == kept[1]
    # The file itself, not only what readers make of it, has each line once.
    texts = [only_run(runs).metrics_file.read_text().splitlines() for runs in (calm, rough)]
    counts = [sum('"val_loss"' in line or '"name":"best"' in line for line in text)
              for text in texts]  # fmt: skip
    assert counts[0] == counts[1]


def test_an_evaluation_made_again_finds_the_checkpoints_that_were_there(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[int, list[str]]] = []
    real_evaluate, real_link, deaths = loop.assess, checkpoint_module.link_file, [1]

    def evaluate(job: Any, trainee: Any, state: TrainState, watchers: Any) -> TrainState:
        found.append((state.step, [path.name for _, path in job.checkpoints.steps()]))
        return real_evaluate(job, trainee, state, watchers)

    def link(source: Path, target: Path) -> None:
        if source.name == "step_00000012.pt" and deaths:  # it is there, and last.pt is not it
            deaths.pop()
            raise KilledError
        real_link(source, target)

    monkeypatch.setattr(loop, "assess", evaluate)
    monkeypatch.setattr(checkpoint_module, "link_file", link)
    with pytest.raises(KilledError):
        go(session(dataset, tmp_path, scheduled()))
    go(session(dataset, tmp_path, scheduled()))
    kept = (12, ["step_00000004.pt", "step_00000008.pt"])
    assert found[2:4] == [kept, kept]
    assert [step for step, _ in found] == [4, 8, 12, 12, 16]


def test_a_stop_at_an_evaluation_is_obeyed_before_it(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Loop(monkeypatch, [])
    with pytest.raises(StoppedError, match="at step 8 of 16"):
        go(session(dataset, tmp_path, scheduled()), stop_at=8)
    assert seen.evaluated == [4]
    saved = read_checkpoint(only_run(tmp_path).checkpoints / "last.pt")["state"]
    assert (saved["step"], saved["awaits_evaluation"]) == (8, True)
    assert not (only_run(tmp_path).checkpoints / "step_00000008.pt").exists()
    go(session(dataset, tmp_path, scheduled()))
    assert seen.evaluated == [4, 8, 12, 16]


def test_the_record_is_on_disk_before_a_state_is(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def noted(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **named: Any) -> Any:
            done.append(name)
            return real(*args, **named)

        monkeypatch.setattr(owner, name, call)

    for name in ("log_metrics", "log_event", "flush"):
        noted(JsonlTracker, name)
    noted(checkpoint_module.Checkpoints, "save")
    go(session(dataset, tmp_path, tiny_params()))
    saves = [index for index, name in enumerate(done) if name == "save"]
    assert len(saves) >= 3
    assert {done[index - 1] for index in saves} == {"flush"}


def test_a_picture_that_fails_is_told_once_and_changes_nothing(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    undisturbed: dict[str, Any], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def broken(*args: Any, **named: Any) -> None:
        raise MemoryError("no room for a picture")

    monkeypatch.setattr(assessment, "illustrate_when_due", broken)
    state = go(session(dataset, tmp_path, tiny_params(), trial=False))
    assert state.step == 12
    assert_equal(outcome(tmp_path)["files"]["last.pt"]["model"],
                 undisturbed["files"]["last.pt"]["model"])  # fmt: skip
    told = [r for r in read_records(only_run(tmp_path).metrics_file)
            if r.name == "tracking_trouble"]  # fmt: skip
    assert [record.fields["reason"] for record in told] == ["no room for a picture"]
    assert sum("no room for a picture" in record.getMessage() for record in caplog.records) == 1


def test_evaluating_and_saving_at_other_steps_does_not_change_the_weights(
    dataset: Dataset, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    go(session(dataset, tmp_path, tiny_params(eval_interval_steps=2, checkpoint_interval_steps=7)))
    assert_equal(outcome(tmp_path)["files"]["last.pt"]["model"],
                 undisturbed["files"]["last.pt"]["model"])  # fmt: skip


def test_another_seed_is_another_run(
    dataset: Dataset, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    go(session(dataset, tmp_path, tiny_params(seed=2)))
    ours = outcome(tmp_path)["files"]["last.pt"]["model"]
    theirs = undisturbed["files"]["last.pt"]["model"]
    assert not all(torch.equal(ours[name], theirs[name]) for name in ours)


def poison(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Make the losses of some steps not finite."""
    real = loop.train_step

    def train_step(trainee: Any, batches: Any, controls: Any, *, step: int) -> Any:
        if step + 1 in steps:
            batches[0].frames[0, 0, 0] = float("inf")
        return real(trainee, batches, controls, step=step)

    monkeypatch.setattr(loop, "train_step", train_step)


def test_a_step_that_is_not_finite_is_skipped_and_counted(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, {3, 4, 9})
    state = go(session(dataset, tmp_path, tiny_params()))
    assert (state.step, state.skipped, state.skipped_in_a_row) == (12, 3, 0)
    weights = read_checkpoint(only_run(tmp_path).checkpoints / "last.pt")["model"]
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    events = [
        r for r in read_records(only_run(tmp_path).metrics_file) if r.name == "non_finite_step"
    ]
    assert [event.step for event in events] == [3, 4, 9]


def test_too_many_of_them_end_the_run_with_advice(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, set(range(1, 100)))
    with pytest.raises(PipelineError, match="diverged") as caught:
        go(session(dataset, tmp_path, tiny_params(max_steps=40)))
    assert "learning_rate" in caught.value.hint
    assert only_run(tmp_path).status().state == "failed"


def test_the_log_has_every_loss_raw_and_weighted(dataset: Dataset, tmp_path: Path) -> None:
    go(session(dataset, tmp_path, tiny_params(guided_attention_weight=4.0, phases={"count": 0})))
    records = read_records(only_run(tmp_path).metrics_file)
    values = next(r.values for r in records if r.kind == "metrics" and r.step == 10)
    weighted = values["train_guided_attention_weighted"]
    assert weighted == pytest.approx(4.0 * values["train_guided_attention_loss"])
    parts = [values[f"train_{part}_weighted"] for part in ("mel_before", "mel_after", "gate")]
    assert values["train_loss"] == pytest.approx(sum(parts) + weighted)
    assert {"grad_norm", "clip_norm", "learning_rate", "phase"} <= values.keys()
    assert values[names.FRAMES_PER_SECOND] > 0
    assert 0 <= values[names.DATA_WAIT_SHARE] <= 1
    assert 0 <= values[names.PADDING_SHARE] < 1
    assert values[names.MEMORY_MB] > 10
    validation = next(r.values for r in records if "val_loss" in r.values)
    assert {"attention_alignment_score", "attention_focus", "gate_f1"} <= validation.keys()


def test_a_learning_rate_that_may_be_too_high_is_told_once_and_used(
    dataset: Dataset, tmp_path: Path
) -> None:
    high, low = tmp_path / "high", tmp_path / "low"
    for runs, rate in ((high, 4e-3), (low, 2e-3)):  # three times 3e-3 sqrt(4 / 64) is 2.25e-3
        runs.mkdir()
        go(session(dataset, runs, tiny_params(max_steps=3, learning_rate=rate, warmup_steps=0)))
    told = [r for r in read_records(only_run(high).metrics_file) if r.name == "learning_rate_high"]
    assert [record.fields for record in told] == [{"asked": 4e-3, "safe": 7.5e-4}]
    first = next(
        r for r in read_records(only_run(high).metrics_file) if "learning_rate" in r.values
    )
    assert first.values["learning_rate"] == 4e-3
    records = read_records(only_run(low).metrics_file)
    assert all(record.name != "learning_rate_high" for record in records)


@pytest.fixture(scope="module")
def three_steps(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    runs = tmp_path_factory.mktemp("three")
    go(session(dataset, runs, tiny_params(max_steps=3)))
    return dict(outcome(runs)["files"]["last.pt"]["model"])


@pytest.mark.parametrize("change", [
    {"learning_rate": 2e-3}, {"guided_attention_weight": 0.0}, {"guided_attention_sigma": 0.1},
    {"gate_pos_weight": 1.0}, {"grad_clip_thresh": 0.01}, {"weight_decay": 0.1},
    {"prenet_dropout": 0.1}, {"encoder_dropout": 0.0},
    {"postnet_dropout": 0.0},
    {"attention_dropout": 0.5}, {"decoder_dropout": 0.5}, {"warmup_steps": 0},
    {"min_learning_rate_share": 1.0}, {"batch_size": 3}, {"precision": "bf16"},
])  # fmt: skip
def test_every_parameter_reaches_the_weights(
    dataset: Dataset, tmp_path: Path, three_steps: dict[str, Any], change: dict[str, Any]
) -> None:
    go(session(dataset, tmp_path, tiny_params(max_steps=3, **change)))
    weights = outcome(tmp_path)["files"]["last.pt"]["model"]
    assert any(not torch.equal(weights[name], three_steps[name]) for name in weights)


def test_status_tells_the_best_step(dataset: Dataset, tmp_path: Path) -> None:
    state = go(session(dataset, tmp_path, tiny_params()))
    status = json.loads((only_run(tmp_path).path / "status.json").read_text())
    assert status["state"] == "finished"
    assert status["facts"]["best_step"] == state.best_step > 0
