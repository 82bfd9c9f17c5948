"""Watchers are told what happens, and none can end a run."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest

from kamerton.core.errors import PipelineError, StoppedError
from kamerton.data.manifest import Dataset
from kamerton.training import session as session_module
from kamerton.training.evaluation import Evaluation
from kamerton.training.hooks import StepFacts, Watchers
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
    """Writes down what it is told; fails where it is asked to."""

    def __init__(self, fail_at: str = "") -> None:
        self.heard: list[tuple[str, int]] = []
        self.errors: list[Exception] = []
        self.facts: list[StepFacts] = []
        self.fail_at = fail_at

    def _hear(self, what: str, step: int) -> None:
        self.heard.append((what, step))
        if what == self.fail_at:
            raise ValueError(f"told to fail at {what}")

    def on_step(self, facts: StepFacts) -> None:
        self.facts.append(facts)
        self._hear("step", facts.state.step)

    def on_eval(self, state: TrainState, evaluation: Evaluation) -> None:
        assert state.evaluated_step == state.step
        assert evaluation.values
        self._hear("eval", state.step)

    def on_epoch(self, facts: StepFacts) -> None:
        self._hear("epoch", facts.state.epoch)

    def on_exception(self, error: Exception) -> None:
        self.errors.append(error)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.open(write_tiny_dataset(tmp_path_factory.mktemp("corpus") / "dataset"))


@pytest.fixture
def attach(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Attach watchers to every run that follows."""

    def attached(*watchers: Listener) -> None:
        real = session_module.train_model

        def train_model(job: Any, state: Any, **how: Any) -> Any:
            return real(dataclasses.replace(job, watchers=watchers), state, **how)

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

    with pytest.raises(PipelineError, match="the first"), Watchers([Broken()]).told_of_errors():
        raise PipelineError("the first", hint="none")
