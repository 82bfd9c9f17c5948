"""Hooks are told what happens and steer by answers, and none can end a run by failing."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest

from kamerton.core.errors import PipelineError, StoppedError
from kamerton.data.manifest import Dataset
from kamerton.tracking import names, read_records
from kamerton.tracking.hooks import (
    Action,
    Adjust,
    Alert,
    EvalFacts,
    Measure,
    Note,
    ScaleBatch,
    StepFacts,
    Stop,
)
from kamerton.training import session as session_module
from kamerton.training.checkpoint import read_checkpoint
from kamerton.training.hooks import Answer, Hooks, LoopFacts, steered, without_strangers
from kamerton.training.state import TrainState
from tests.tiny_corpus import tiny_params, write_tiny_dataset
from tests.unit.training.test_loop import (
    _fixed_code,  # noqa: F401
    go,
    only_run,
    poison,
    session,
)


class Listener:
    """Writes down what it is told; answers and fails as it is asked to."""

    name = "listener"

    def __init__(self, fail_at: str = "", answers: dict[int, list[Action]] | None = None) -> None:
        self.answers = answers or {}
        self.heard: list[tuple[str, int]] = []
        self.errors: list[Exception] = []
        self.facts: list[LoopFacts] = []
        self.evaluations: list[EvalFacts] = []
        self.fail_at = fail_at

    def _hear(self, what: str, step: int) -> None:
        self.heard.append((what, step))
        if what == self.fail_at:
            raise ValueError(f"told to fail at {what}")

    def on_step(self, facts: StepFacts) -> None:
        assert isinstance(facts, LoopFacts)
        self.facts.append(facts)
        self._hear("step", facts.step)

    def on_eval(self, facts: EvalFacts) -> list[Action]:
        assert facts.values
        self.evaluations.append(facts)
        self._hear("eval", facts.step)
        return self.answers.get(facts.step, [])

    def on_epoch(self, facts: StepFacts) -> None:
        self._hear("epoch", facts.epoch)

    def memory(self) -> dict[str, Any]:
        return {"steps": [step for what, step in self.heard if what == "step"]}

    def restore(self, memory: Any) -> None:
        self.heard = [("step", step) for step in memory.get("steps", [])]

    def on_exception(self, error: Exception) -> None:
        self.errors.append(error)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.open(write_tiny_dataset(tmp_path_factory.mktemp("corpus") / "dataset"))


@pytest.fixture
def attach(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Attach hooks to every run that follows."""

    real = session_module.train_model

    def attached(*hooks: Listener) -> None:
        def train_model(job: Any, state: Any, **how: Any) -> Any:
            return real(dataclasses.replace(job, hooks=hooks), state, **how)

        monkeypatch.setattr(session_module, "train_model", train_model)

    return attached


def test_they_hear_of_steps_evaluations_and_epochs(
    dataset: Dataset, tmp_path: Path, attach: Any
) -> None:
    listener = Listener()
    attach(listener)
    go(session(dataset, tmp_path, tiny_params()))
    assert [step for what, step in listener.heard if what == "step"] == list(range(1, 13))
    assert [step for what, step in listener.heard if what == "eval"] == [5, 10, 12]
    epochs = [epoch for what, epoch in listener.heard if what == "epoch"]
    assert epochs == list(range(1, len(epochs) + 1))
    assert len(epochs) >= 2
    rates = {facts.controls.learning_rate for facts in listener.facts}
    assert len(rates) > 5  # those of each step
    assert {facts.total for facts in listener.facts} == {12}
    with pytest.raises(dataclasses.FrozenInstanceError):
        listener.facts[0].state = listener.facts[1].state  # type: ignore[misc]


@pytest.mark.parametrize("where", ["step", "eval", "epoch"])
def test_one_that_fails_is_reported_once_and_left_out(
    dataset: Dataset, tmp_path: Path, attach: Any, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    broken, whole = Listener(fail_at=where), Listener()
    attach(broken, whole)
    with caplog.at_level(logging.ERROR):
        state = go(session(dataset, tmp_path, tiny_params()))
    assert state.step == 12
    assert [what for what, _ in broken.heard].count(where) == 1
    assert sum(what == "step" for what, _ in whole.heard) == 12
    reports = [record for record in caplog.records if "left out" in record.getMessage()]
    assert len(reports) == 1
    assert only_run(tmp_path).status().state == "finished"


def test_they_hear_of_what_ends_a_run(
    dataset: Dataset, tmp_path: Path, attach: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener()
    attach(listener)
    with pytest.raises(StoppedError) as stopped:
        go(session(dataset, tmp_path, tiny_params()), stop_at=3)
    assert listener.errors == [stopped.value]
    poison(monkeypatch, set(range(1, 100)))
    with pytest.raises(PipelineError) as diverged:
        go(session(dataset, tmp_path, tiny_params(recovery={"enabled": False}, max_steps=30)))
    assert listener.errors[-1] is diverged.value


def test_a_failure_while_an_error_is_told_does_not_hide_the_error() -> None:
    class Broken(Listener):
        def on_exception(self, error: Exception) -> None:
            raise KeyError("another")

    with pytest.raises(PipelineError, match="the first"), Hooks([Broken()]).told_of_errors():
        raise PipelineError("the first", hint="none")


def events(runs: Path, name: str) -> list[Any]:
    return [r for r in read_records(only_run(runs).metrics_file) if r.name == name]


def test_a_hook_ends_the_run_with_its_best_model(
    dataset: Dataset, tmp_path: Path, attach: Any
) -> None:
    attach(Listener(answers={5: [Stop("patience", "nothing better for long")]}))
    state = go(session(dataset, tmp_path, tiny_params()))
    assert (state.step, state.stopped) == (5, "patience")
    assert only_run(tmp_path).status().state == "finished"
    assert events(tmp_path, "stop")[0].fields["reason"] == "nothing better for long"
    again = go(session(dataset, tmp_path, tiny_params()))
    assert again.step == 5  # what was ended stays so


@pytest.mark.parametrize(
    ("parameter", "of"),
    [("learning_rate", "learning_rate"), ("clip_norm", "clip_norm"), ("dropout", "dropout"),
     ("guided_attention_weight", "guided_attention_weight"), ("gate_weight", "gate_weight")],
)  # fmt: skip
def test_an_adjustment_scales_its_value_alone_until_it_is_taken_back(
    dataset: Dataset, tmp_path: Path, attach: Any, parameter: Any, of: str
) -> None:
    plain, adjusted = Listener(), Listener(
        answers={5: [Adjust(parameter, 0.5, "too much")], 10: [Adjust(parameter, 1.0, "as it was")]}
    )  # fmt: skip
    given = tiny_params(attention_dropout=0.3, decoder_dropout=0.3)
    for hook, runs in ((plain, tmp_path / "plain"), (adjusted, tmp_path / "adjusted")):
        runs.mkdir()
        attach(hook)
        go(session(dataset, runs, given))
    for before, after in zip(plain.facts, adjusted.facts, strict=True):
        between = 5 < before.step <= 10
        factor = 0.5 if between else 1.0
        assert getattr(after.controls, of) == pytest.approx(factor * getattr(before.controls, of))
        assert after.controls.owners[of] == ("quality" if between else before.controls.owners[of])
    losses = [[facts.loss for facts in hook.facts[:7]] for hook in (plain, adjusted)]
    assert losses[0][:5] == losses[1][:5]
    assert losses[0][5:] != losses[1][5:]  # it is what the step is made with, not only its record


def test_a_larger_batch_begins_with_the_next_epoch(
    dataset: Dataset, tmp_path: Path, attach: Any
) -> None:
    hook = Listener(answers={5: [ScaleBatch(2.0, "steady")]})
    attach(hook)
    go(session(dataset, tmp_path, tiny_params(phases={"count": 0})))
    sizes = {facts.epoch: facts.batch_size for facts in hook.facts}
    assert hook.facts[4].state.epoch_scale == 1.0
    last = hook.facts[-1]
    assert last.batch_size == 2 * hook.facts[0].batch_size
    assert len(set(sizes.values())) == 2
    assert hook.facts[4].controls.factors["learning_rate"] == 1.0
    assert last.controls.factors["learning_rate"] == pytest.approx(2**0.5)


def test_notes_figures_and_alerts_arrive(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attach: Any
) -> None:
    told: list[tuple[str, str]] = []
    hook = Listener(
        answers={5: [Note("decision", {"why": "so"}), Measure({"stop/evidence": 0.25}),
                     Alert("milestone", "half of the way", {"share": 0.5})]}
    )  # fmt: skip
    attach(hook)
    real = session_module.train_model
    monkeypatch.setattr(
        session_module, "train_model",
        lambda job, state, **how: real(
            dataclasses.replace(job, on_alert=lambda kind, text, _: told.append((kind, text))),
            state, **how,
        ),
    )  # fmt: skip
    go(session(dataset, tmp_path, tiny_params()))
    assert told == [("milestone", "half of the way")]
    assert events(tmp_path, "decision")[0].fields == {"why": "so"}
    evaluated = next(r for r in read_records(only_run(tmp_path).metrics_file)
                     if r.step == 5 and names.VAL_LOSS in r.values)  # fmt: skip
    assert evaluated.values["stop/evidence"] == 0.25


def test_what_a_hook_remembers_is_part_of_the_checkpoint(
    dataset: Dataset, tmp_path: Path, attach: Any
) -> None:
    attach(Listener())
    with pytest.raises(StoppedError):
        go(session(dataset, tmp_path, tiny_params()), stop_at=7)
    saved = read_checkpoint(only_run(tmp_path).checkpoints / "last.pt")["state"]
    assert saved["hooks"]["listener"]["steps"] == list(range(1, saved["step"] + 1))
    later = Listener()
    attach(later)
    go(session(dataset, tmp_path, tiny_params()))
    assert [step for what, step in later.heard if what == "step"] == list(range(1, 13))


def test_one_that_failed_is_left_out_when_the_run_goes_on(
    dataset: Dataset, tmp_path: Path, attach: Any, caplog: pytest.LogCaptureFixture
) -> None:
    broken, whole = Listener(fail_at="eval"), Listener()
    broken.name = "broken"
    attach(broken, whole)
    with pytest.raises(StoppedError):
        go(session(dataset, tmp_path, tiny_params()), stop_at=8)
    saved = read_checkpoint(only_run(tmp_path).checkpoints / "last.pt")["state"]
    assert saved["hooks_failed"] == ("broken",)
    mended, later = Listener(), Listener()
    mended.name = "broken"
    attach(mended, later)
    state = go(session(dataset, tmp_path, tiny_params()))
    assert mended.heard == []  # as it would not be told in a run that was not interrupted
    assert later.evaluations[-1].step == 12
    assert "failed earlier" in caplog.text
    assert TrainState.from_dict(state.to_dict()) == state


def test_what_a_hook_did_that_is_no_longer_attached_is_undone(
    dataset: Dataset, tmp_path: Path, attach: Any
) -> None:
    steering, staying, scaling = Listener(), Listener(), Listener()
    steering.name, staying.name, scaling.name = "steering", "staying", "scaling"
    steering.answers = {5: [Adjust("learning_rate", 0.5, "too much")]}
    staying.answers = {5: [Adjust("clip_norm", 0.5, "too much")]}
    scaling.answers = {5: [ScaleBatch(2.0, "steady")]}
    attach(steering, staying, scaling)
    with pytest.raises(StoppedError):
        go(session(dataset, tmp_path, tiny_params()), stop_at=7)
    left = Listener()
    left.name = "staying"
    attach(left)
    state = go(session(dataset, tmp_path, tiny_params()))
    assert (state.adjustments, state.batch_scale) == ({"clip_norm": 0.5}, 1.0)
    assert state.steered_by == {"clip_norm": "staying"}
    (told,) = events(tmp_path, "adjustments_dropped")
    assert told.fields == {"dropped": {"learning_rate": "steering", "batch_scale": "scaling"}}
    assert left.facts[0].controls.owners["learning_rate"] != "quality"
    assert left.facts[0].controls.owners["clip_norm"] == "quality"


def test_a_stop_by_a_hook_that_is_no_longer_attached_is_none() -> None:
    stop = Answer("early_stop", Stop("patience", "nothing better"))
    later = Answer("another", Stop("whim", "as well"))
    state = dataclasses.replace(TrainState(), **steered(TrainState(), [stop, later]))
    assert without_strangers(state, ["early_stop"]) == (state, {})
    gone, dropped = without_strangers(state, ["another"])
    assert (gone.stopped, dropped) == ("", {"stopped": "early_stop"})


def test_what_is_taken_back_belongs_to_nobody() -> None:
    made = [Answer("one", Adjust("dropout", 0.5, "")), Answer("one", Adjust("dropout", 1.0, ""))]
    assert steered(TrainState(), made)["steered_by"] == {}
    assert steered(TrainState(), made[1:])["adjustments"] == {}  # it was never changed


def test_evaluations_know_the_mean_loss_since_the_last(
    dataset: Dataset, tmp_path: Path, attach: Any
) -> None:
    hook = Listener()
    attach(hook)
    go(session(dataset, tmp_path, tiny_params()))
    losses = [facts.loss for facts in hook.facts]
    means = [sum(part) / len(part) for part in (losses[:5], losses[5:10], losses[10:])]
    assert [facts.train_loss for facts in hook.evaluations] == pytest.approx(means)
