"""Interventions in real runs: provoked, recorded, effective, and the same after any kill."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kamerton.config.schema import Params
from kamerton.core.errors import PipelineError
from kamerton.data.manifest import Dataset
from kamerton.tracking import names, read_records
from kamerton.training import assessment, interventions, loop
from kamerton.training.checkpoint import read_checkpoint
from kamerton.training.distributed import World
from kamerton.training.interventions import reset_attention
from kamerton.training.state import TrainState
from kamerton.training.step import make_optimizer
from tests.tiny_corpus import tiny_params, write_tiny_dataset
from tests.unit.training.test_loop import (
    KilledError,
    _fixed_code,  # noqa: F401
    assert_equal,
    go,
    only_run,
    outcome,
    poison,
    session,
)

EVENTS = ("recovery", "phase", "control", "learning_rate_high")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.open(write_tiny_dataset(tmp_path_factory.mktemp("corpus") / "dataset"))


def short(**train: Any) -> Params:
    """Twenty steps; evaluated and saved at every fourth."""
    recovery = {"cooldown_share": 0.0, **train.pop("recovery", {})}
    monitoring = {"free_running_sentences": 1, **train.pop("monitoring", {})}
    given = {"max_steps": 20, "eval_interval_steps": 4, "checkpoint_interval_steps": 4,
             "keep_checkpoints": 9, **train}  # fmt: skip
    return tiny_params(recovery=recovery, monitoring=monitoring, **given)


def happened(runs: Path, name: str = "recovery") -> list[tuple[int | None, dict[str, Any]]]:
    records = read_records(only_run(runs).metrics_file)
    return [(record.step, record.fields) for record in records if record.name == name]


def weights(runs: Path, name: str) -> dict[str, torch.Tensor]:
    return dict(read_checkpoint(only_run(runs).checkpoints / name)["model"])


def shout(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Make the gradients of some steps, counted from 1, look far too large."""
    real = loop.train_step

    def train_step(trainee: Any, batches: Any, controls: Any, *, step: int) -> Any:
        result = real(trainee, batches, controls, step=step)
        loud = step + 1 in steps
        return dataclasses.replace(result, grad_norm=1e3) if loud else result

    monkeypatch.setattr(loop, "train_step", train_step)


def see(monkeypatch: pytest.MonkeyPatch, attention: Callable[[int], float]) -> None:
    """Let evaluations find this diagonality, by step, and quality follow from it."""
    real_conclude, real_evaluate, made = loop._conclude, assessment.evaluate, [0]

    def conclude(job: Any, trainee: Any, state: TrainState, *rest: Any) -> Any:
        made[0] = state.step
        return real_conclude(job, trainee, state, *rest)

    def evaluate(*args: Any) -> Any:
        evaluation = real_evaluate(*args)
        found = attention(made[0])
        seen = {names.ATTENTION_SCORE: found, names.FORCED + names.ATTENTION_SCORE: found}
        values = {**evaluation.values, **seen}
        return dataclasses.replace(evaluation, values=values, quality=1.0 - found)

    monkeypatch.setattr(loop, "_conclude", conclude)
    monkeypatch.setattr(assessment, "evaluate", evaluate)


def bad_numbers(patch: pytest.MonkeyPatch) -> None:
    poison(patch, {9, 10, 11, 12, 13})


def explosion(patch: pytest.MonkeyPatch) -> None:
    shout(patch, {12, 13, 14})


def collapse(patch: pytest.MonkeyPatch) -> None:
    see(patch, lambda step: {4: 0.65, 8: 0.7}.get(step, 0.1))


def collapse_without_a_good_one(patch: pytest.MonkeyPatch) -> None:
    see(patch, lambda step: {4: 0.55, 8: 0.52}.get(step, 0.1))


def dying_at(step: int, *, saved: bool) -> Callable[..., None]:
    real = loop._save

    def save(job: Any, trainee: Any, state: TrainState, hooks: Any, **when: bool) -> None:
        dies = state.step == step and not state.awaits_evaluation
        if saved or not dies:
            real(job, trainee, state, hooks, **when)
        if dies:
            raise KilledError

    return save


TROUBLES = {
    # What provokes it; the step at which something is done; what is done; where it goes back to.
    "non_finite": (bad_numbers, 13, "went back to a checkpoint", "step_00000008.pt"),
    "explosion": (explosion, 14, "went back to a checkpoint, halved", "best.pt"),
    "collapse": (collapse, 12, "went back to a checkpoint that could read", "step_00000008.pt"),
    "anew": (collapse_without_a_good_one, 12, "made the attention layer anew", None),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_it_is_recorded_effective_and_the_same_after_kills(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    provoke, at, action, source = TROUBLES[trouble]
    provoke(monkeypatch)
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    calm.mkdir()
    rough.mkdir()
    go(session(dataset, calm, short()))

    # Killed right before it, between the deed and its saving, and right after.
    with pytest.raises(KilledError):
        go(session(dataset, rough, short()), die_at=at - 1)
    for after in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(loop, "_save", dying_at(at, saved=after))
            with pytest.raises(KilledError):
                go(session(dataset, rough, short()))
    # It is on disk at once, with the weights it took.
    saved = read_checkpoint(only_run(rough).checkpoints / "last.pt")
    assert saved["state"]["step"] == at
    assert saved["state"]["recovery"]["count"] == 1
    if source:
        taken = read_checkpoint(only_run(rough).checkpoints / source)
        assert_equal(saved["model"], taken["model"])
        assert_equal(saved["optimizer"]["state"], taken["optimizer"]["state"])
        assert saved["state"]["clip"] == taken["state"]["clip"]
    go(session(dataset, rough, short()))
    assert_equal(outcome(rough), outcome(calm))

    events = [event for event in happened(calm) if event[0] == at]
    assert len(events) == 1
    fields = events[0][1]
    assert fields["cause"] == {"anew": "collapse"}.get(trouble, trouble)
    assert fields["action"].startswith(action)
    assert fields["values"]["recoveries"] == 1


def test_a_stop_at_any_step_does_not_change_what_is_gone_back_to(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad_numbers(monkeypatch)
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    calm.mkdir()
    rough.mkdir()
    go(session(dataset, calm, short()))
    for step in (10, 12):  # last.pt is written in the midst of the bad steps
        with pytest.raises(PipelineError, match=f"at step {step} of 20"):
            go(session(dataset, rough, short()), stop_at=step)
    go(session(dataset, rough, short()))
    assert_equal(outcome(rough), outcome(calm))


def series(runs: Path, name: str) -> dict[int, float]:
    return {
        record.step: record.values[name]
        for record in read_records(only_run(runs).metrics_file)
        if record.step is not None and name in record.values
    }


def learning_rates(runs: Path) -> dict[int, float]:
    return series(runs, "learning_rate")


def test_bad_steps_halve_the_learning_rate_before_they_go_back(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = short(monitoring={"log_interval_steps": 1}, phases={"count": 0})
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    calm.mkdir()
    rough.mkdir()
    go(session(dataset, calm, params))
    bad_numbers(monkeypatch)
    state = go(session(dataset, rough, params))
    usual, found = learning_rates(calm), learning_rates(rough)
    assert [found[step] / usual[step] for step in (10, 11, 12, 13, 20)] == pytest.approx(
        [1, 1, 0.5, 0.5, 0.5]
    )
    assert [(step, fields["action"]) for step, fields in happened(rough)] == [
        (11, "halved the learning rate"), (13, "went back to a checkpoint"),
    ]  # fmt: skip
    assert (state.recovery.count, state.skipped, state.step) == (1, 5, 20)
    owners = [fields["changes"] for step, fields in happened(rough, "control") if step == 11]
    assert owners[0]["learning_rate"]["owner"] == "recovery"
    assert owners[0]["learning_rate"]["factor"] == 0.5


def test_a_run_that_stays_bad_goes_back_as_often_as_it_may_and_ends(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, set(range(9, 100)))
    with pytest.raises(PipelineError, match="diverged"):
        go(session(dataset, tmp_path, short(max_steps=60, recovery={"max_recoveries": 2})))
    actions = [fields["action"] for _, fields in happened(tmp_path)]
    assert actions == ["halved the learning rate", "went back to a checkpoint"] * 2
    assert only_run(tmp_path).status().state == "failed"


def test_without_recovery_bad_steps_are_only_skipped(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad_numbers(monkeypatch)
    state = go(session(dataset, tmp_path, short(recovery={"enabled": False})))
    assert state.skipped == 5
    assert state.recovery.learning_rate_factor == 1.0
    assert happened(tmp_path) == []


def test_an_explosion_halves_learning_rate_and_threshold(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explosion(monkeypatch)
    alerts: list[tuple[str, str]] = []
    work = session(dataset, tmp_path, short(monitoring={"log_interval_steps": 1}))
    real = type(work)._job

    def with_alert(self: Any, *args: Any) -> Any:
        return dataclasses.replace(
            real(self, *args), on_alert=lambda kind, text, _fields: alerts.append((kind, text))
        )

    monkeypatch.setattr(type(work), "_job", with_alert)
    state = go(work)
    assert (state.recovery.learning_rate_factor, state.recovery.clip_factor) == (0.5, 0.5)
    clips = series(tmp_path, "clip_norm")
    assert (clips[14], clips[15]) == (1.0, 0.5)
    assert [kind for kind, _ in alerts] == ["explosion"]
    assert "explosion at step 14" in alerts[0][1]


def test_a_real_explosion_is_seen_and_undone(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop.train_step

    def train_step(trainee: Any, batches: Any, controls: Any, *, step: int) -> Any:
        if step == 13:
            with torch.no_grad():
                for parameter in trainee.model.postnet.parameters():
                    parameter.mul_(100.0)
        return real(trainee, batches, controls, step=step)

    monkeypatch.setattr(loop, "train_step", train_step)
    monitoring = {"log_interval_steps": 1}
    go(session(dataset, tmp_path, short(eval_interval_steps=20, monitoring=monitoring)))
    ((step, fields),) = happened(tmp_path)
    assert (step, fields["cause"]) == (16, "explosion")
    norms = series(tmp_path, "grad_norm")
    assert all(norms[step] > 10.0 for step in (14, 15, 16))
    assert all(norms[step] < 10.0 for step in (13, 17, 18, 19, 20))


def test_explosions_end_the_run_with_its_best_model_when_no_recovery_is_left(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shout(monkeypatch, {12, 13, 14, 23, 24, 25})
    params = short(max_steps=28, recovery={"max_recoveries": 1})
    state = go(session(dataset, tmp_path, params))
    assert (state.step, state.recovery.gave_up) == (25, "explosion")
    assert [fields["action"] for _, fields in happened(tmp_path)][-1].startswith("ended the run")
    assert only_run(tmp_path).status().state == "finished"
    assert go(session(dataset, tmp_path, params)).step == 25  # it is over, and stays so


def test_a_plateau_restarts_warm(dataset: Dataset, tmp_path: Path) -> None:
    params = short(
        learning_rate=1e-12, weight_decay=0.0, max_steps=30, eval_interval_steps=2,
        checkpoint_interval_steps=30, monitoring={"log_interval_steps": 1}, phases={"count": 0},
    )  # fmt: skip
    # At this learning rate nothing improves after the first evaluation.
    state = go(session(dataset, tmp_path, params))
    (step, fields), (taken_back, told) = happened(tmp_path)
    assert fields["cause"] == told["cause"] == "plateau"
    assert step == state.best_step + 8  # four evaluations; an eighth of 30 steps is less
    rates = learning_rates(tmp_path)
    assert rates[step + 1] > 1.5 * rates[step]
    # It brought nothing: the rate is what it was, and there is no second one.
    assert (taken_back, told["action"]) == (step + 4, "took the restart back")
    assert rates[taken_back] > 1.5 * rates[taken_back + 1]
    assert state.recovery.learning_rate_factor == 1.0
    assert (state.recovery.count, state.recovery.last_step) == (1, step)


@pytest.mark.parametrize("kind", ["location_sensitive", "dynamic_convolution", "forward"])
def test_only_the_attention_layer_is_made_anew(dataset: Dataset, tmp_path: Path, kind: str) -> None:
    model_params = {**short().train.model.model_dump(), "attention": kind}
    work = session(dataset, tmp_path, short(model=model_params))
    model = work.new_model()
    optimizer = make_optimizer(model, work.params.train)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    before = {name: value.clone() for name, value in model.named_parameters()}
    count = reset_attention(model, optimizer, seed=1, step=7)

    changed = {n for n, value in model.named_parameters() if not torch.equal(value, before[n])}
    forgotten = {n for n, value in model.named_parameters() if value not in optimizer.state}
    layer = {n for n, _ in model.decoder.recurrence.attention.named_parameters()}
    assert changed == forgotten == {f"decoder.recurrence.attention.{name}" for name in layer}
    assert count == len(layer) > 0
    if kind == "location_sensitive":
        parts = {name.split(".")[0] for name in layer}
        assert parts == {"query", "memory", "location", "project_location", "energy"}
    once = {name: value.clone() for name, value in model.named_parameters()}
    reset_attention(model, optimizer, seed=1, step=7)
    assert all(torch.equal(value, once[name]) for name, value in model.named_parameters())
    reset_attention(model, optimizer, seed=1, step=8)
    assert not all(torch.equal(value, once[name]) for name, value in model.named_parameters())


@pytest.mark.training
def test_processes_that_train_together_recover_alike(tmp_path: Path, repository: Path) -> None:
    write_tiny_dataset(tmp_path / "dataset")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.interventions_worker", str(tmp_path)],
            cwd=repository, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env={
                **os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank),
                "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                "GLOO_SOCKET_IFNAME": "lo", "TORCH_CPP_LOG_LEVEL": "ERROR",
            },
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [child.communicate(timeout=300)[1].decode() for child in children]
    finally:
        for child in children:
            child.kill()
    assert [child.returncode for child in children] == [0, 0], said
    ours, theirs = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert_equal(ours, theirs)
    assert ours["state"]["recovery"]["count"] == 1
    runs = tmp_path / "runs"
    assert [step for step, _ in happened(runs)] == [11, 13]
    assert_equal(dict(ours["model"]), weights(runs, "last.pt"))


def test_processes_make_sure_that_they_did_the_same(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explosion(monkeypatch)
    done: list[str] = []
    real = interventions.act
    monkeypatch.setattr(interventions, "act", lambda *args: done.append("act") or real(*args))
    monkeypatch.setattr(World, "barrier", lambda self: done.append("barrier"))
    monkeypatch.setattr(World, "require_equal", lambda self, *told: done.append(": ".join(told)))
    go(session(dataset, tmp_path, short()))
    at = done.index("act")
    before, told, after = done[at - 1], done[at + 1], done[at + 2]
    assert before == after == "barrier"
    assert told.startswith("what was done about trouble: ")
    assert "went back to a checkpoint" in told
    assert '"checkpoint": ' in told


# Phases, curriculum, clipping and the gate in a run.


def test_phases_change_the_run_and_are_recorded(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    see(monkeypatch, lambda step: 0.95)
    monitoring = {"log_interval_steps": 1}
    given: dict[str, Any] = {"max_steps": 28, "eval_interval_steps": 1, "warmup_steps": 0,
                             "checkpoint_interval_steps": 28, "monitoring": monitoring,
                             "recovery": {"enabled": False}}  # fmt: skip
    phased, plain = tmp_path / "phased", tmp_path / "plain"
    phased.mkdir()
    plain.mkdir()
    state = go(session(dataset, phased, short(**given)))
    go(session(dataset, plain, short(**{**given, "eval_interval_steps": 28}, phases={"count": 0})))
    assert happened(phased, "phase") == [
        (step, {"phase": index, "reason": reason})
        for index, step, reason in ((1, 3, "goal"), (2, 9, "goal"), (3, 24, "share"))
    ]  # the second after half of its share of 12 steps
    assert state.phase.index == 3
    ours, theirs = learning_rates(phased), learning_rates(plain)
    ratios = [ours[step] / theirs[step] for step in (3, 4, 10, 25, 28)]
    assert ratios == pytest.approx([1.0, 0.8, 0.5, 0.3, 0.3])
    phases = series(phased, "phase")
    assert [phases[step] for step in (3, 4, 10, 25)] == [0, 1, 2, 3]
    raw = series(phased, "train_guided_attention_loss")
    weighted = series(phased, "train_guided_attention_weighted")
    # Attention holds by itself after five evaluations.
    factors = [weighted[step] / raw[step] for step in (5, 6, 10, 25)]
    assert factors == pytest.approx([10.0, 3.0, 1.0, 0.5], rel=1e-4)
    assert happened(plain, "phase") == []
    controls = dict(happened(phased, "control"))
    assert set(controls) == {1, 3, 5, 9, 24}  # each change once, and all owners after step 1
    assert controls[3]["changes"]["learning_rate"]["owner"] == "phase"


def test_the_curriculum_takes_short_clips_first(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = short(max_steps=28, eval_interval_steps=28, checkpoint_interval_steps=28,
                   phases={"curriculum": True})  # fmt: skip
    taken: list[tuple[float, int]] = []
    real = loop.train_step
    work = session(dataset, tmp_path, params)

    def train_step(trainee: Any, batches: Any, controls: Any, *, step: int) -> Any:
        taken.append((max(int(b.frame_lengths.max()) for b in batches), step))
        return real(trainee, batches, controls, step=step)

    monkeypatch.setattr(loop, "train_step", train_step)
    state = go(work)
    longest = max(frames for frames, _ in taken)
    assert taken[0][0] < longest  # 4 of 10 clips, the shortest
    assert max(frames for frames, step in taken if step >= 8) == longest
    assert state.epoch_share == 1.0


def test_adaptive_clipping_and_the_adaptive_gate_reach_the_weights(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kamerton.training.adaptive_gate.INTERVAL_STEPS", 2)
    found = {}
    for name, change in (
        ("plain", {}), ("clip", {"adaptive_clip": True, "grad_clip_thresh": 8.0}),
        ("unclipped", {"grad_clip_thresh": 8.0}), ("gate", {"losses": {"adaptive_gate": True}}),
    ):  # fmt: skip
        runs = tmp_path / name
        runs.mkdir()
        state = go(session(dataset, runs, short(max_steps=8, **change)))
        found[name] = (weights(runs, "last.pt"), state)
    equal = {
        name: all(torch.equal(found["plain"][0][key], values[key]) for key in values)
        for name, (values, _) in found.items()
    }
    assert equal == {"plain": True, "clip": False, "unclipped": False, "gate": False}
    assert not all(
        torch.equal(value, found["unclipped"][0][key]) for key, value in found["clip"][0].items()
    )
    assert found["gate"][1].gate.weight != TrainState().gate.weight
