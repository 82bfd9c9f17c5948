"""What of a run is told, once each, and without any work in the training's own thread."""

from __future__ import annotations

import json
import math
import pathlib
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kamerton.config.tuner_sections import AlertParams
from kamerton.core.errors import PipelineError, StoppedError
from kamerton.smart_tuner.alert_hook import AlertHook
from kamerton.smart_tuner.alert_manager import AlertManager, AlertPolicy
from kamerton.smart_tuner.channels.delivery import Part
from kamerton.smart_tuner.channels.message import Message
from kamerton.tracking import names
from kamerton.tracking.hooks import EvalFacts, Hook, Measure, StepFacts

TOTAL = 40


class Collector:
    """A channel that keeps messages."""

    name, limited, spacing_seconds = "collector", True, 0.0

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def secrets(self) -> Sequence[str]:
        return []

    def parts(self, message: Message) -> Sequence[Part]:
        return [Part("", lambda: self.messages.append(message))]


class Told:
    """A hook, and what it told."""

    def __init__(self, run: Path, **changes: Any) -> None:
        self.channel = Collector()
        policy = AlertPolicy(per_minute=10_000, dedupe_seconds=0.0, queue_size=1000)
        self.manager = AlertManager([self.channel], policy)
        given = {"report_interval_steps": 10_000, "sample_interval_steps": 10_000, **changes}
        self.hook = AlertHook(self.manager, run, **given)

    def messages(self) -> list[Message]:
        assert self.manager.flush(3.0)
        return self.channel.messages

    def kinds(self) -> list[tuple[str, int | None]]:
        return [(message.kind, message.step) for message in self.messages()]


@pytest.fixture
def told(tmp_path: Path) -> Any:
    made: list[Told] = []

    def make(**changes: Any) -> Told:
        made.append(Told(tmp_path, **changes))
        return made[-1]

    yield make
    for each in made:
        each.manager.close()


def step(number: int, **changes: Any) -> StepFacts:
    return StepFacts(step=number, total=TOTAL, **{"loss": 0.5, **changes})


def evaluated(number: int, diagonality: float = 0.1, **changes: Any) -> EvalFacts:
    values = {names.ATTENTION_SCORE: diagonality, names.VAL_MEL_LOSS: 0.75}
    return EvalFacts(step=number, total=TOTAL, values=values, **changes)


def test_it_is_a_hook(told: Any) -> None:
    hook: Hook = told().hook
    assert hook.name == "alerts"


def test_quarters_of_the_plan_are_told_once(told: Any) -> None:
    watched = told()
    for number in range(1, TOTAL + 1):
        watched.hook.on_step(step(number))
    assert watched.kinds() == [("milestone", 10), ("milestone", 20), ("milestone", 30)]
    assert [message.text.split(" of ")[0] for message in watched.messages()] == [
        "a quarter", "half", "three quarters",
    ]  # fmt: skip


@pytest.mark.parametrize("killed_at", [1, 9, 10, 11, 14, 15, 16, 19, 20, 21, 30, 39])
def test_a_run_that_goes_on_repeats_nothing(told: Any, killed_at: int) -> None:
    first, second = told(), told()
    for number in range(1, killed_at + 1):
        first.hook.on_step(step(number, phase=number // 15))
        if number % 5 == 0:
            first.hook.on_eval(evaluated(number, 0.04 * number, phase=number // 15))
    memory = json.loads(json.dumps(first.hook.memory()))
    second.hook.restore(memory)
    for number in range(killed_at + 1, TOTAL + 1):
        second.hook.on_step(step(number, phase=number // 15))
        if number % 5 == 0:
            second.hook.on_eval(evaluated(number, 0.04 * number, phase=number // 15))
    assert first.kinds() + second.kinds() == [
        ("milestone", 10), ("phase", 15), ("milestone", 20), ("milestone", 20), ("phase", 30),
        ("milestone", 30),
    ]  # fmt: skip


def test_no_memory_is_a_hook_that_saw_nothing(told: Any) -> None:
    watched = told()
    watched.hook.on_step(step(10))
    watched.hook.restore({})
    assert watched.hook.memory() == told().hook.memory()


def test_alignment_is_told_at_the_first_evaluation_that_has_it(told: Any) -> None:
    watched = told()
    for number, diagonality in ((5, 0.79), (10, math.nan), (15, 0.8), (20, 0.5), (25, 0.9)):
        watched.hook.on_eval(evaluated(number, diagonality))
    (message,) = watched.messages()
    assert (message.kind, message.step) == ("milestone", 15)
    assert "aligned" in message.text
    assert message.fields["diagonality"] == 0.8


def test_phases_have_their_names(told: Any) -> None:
    watched = told(phase_names=("alignment", "learning"))
    for number, phase in ((1, 0), (2, 0), (3, 1), (4, 1), (5, 2)):
        watched.hook.on_step(step(number, phase=phase))
    watched.hook.on_eval(evaluated(5, phase=3))
    assert [message.text for message in watched.messages()] == [
        "phase 2 begins: learning", "phase 3 begins", "phase 4 begins",
    ]  # fmt: skip


def test_a_best_is_told_with_its_figures(told: Any) -> None:
    watched = told()
    watched.hook.on_eval(evaluated(5, best_step=5, best_quality=0.25))
    watched.hook.on_eval(evaluated(6, best_step=5, best_quality=0.25))
    assert watched.kinds() == [("best", 5)]
    assert watched.messages()[0].fields["quality"] == 0.25


def test_reports_and_samples_come_at_their_steps_with_files(told: Any, tmp_path: Path) -> None:
    watched = told(report_interval_steps=4, sample_interval_steps=6)
    (tmp_path / "figures").mkdir()
    (tmp_path / "samples").mkdir()
    (tmp_path / "figures" / "attention-00000004.png").write_bytes(b"png")
    (tmp_path / "figures" / "mel-00000009.png").write_bytes(b"not asked for")
    (tmp_path / "samples" / "free-running-00000004.wav").write_bytes(b"wav")
    watched.hook.on_eval(evaluated(2, 0.3, best_step=1, best_quality=0.6))
    for number in range(1, 9):
        watched.hook.on_step(step(number, grad_norm=2.5, learning_rate=1e-3))
    assert watched.kinds() == [("report", 4), ("sample", 6), ("report", 8)]
    report, sample, _ = watched.messages()
    assert report.fields["loss"] == 0.5
    assert report.fields["gradient norm"] == 2.5
    assert report.fields["diagonality"] == 0.3
    assert report.fields["best step"] == 1
    assert [newest.read().data for newest in report.files] == [b"png"]
    assert [newest.read().data for newest in sample.files] == [b"wav"]


def test_a_loss_that_is_not_finite_is_told_and_a_scaler_that_finds_its_scale_is_not(
    told: Any,
) -> None:
    watched = told()
    watched.hook.on_step(step(1, loss=math.nan, applied=False))
    watched.hook.on_step(step(2, grad_norm=math.inf, applied=False))
    assert watched.kinds() == [("nan", 1)]


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (StoppedError("at step 3."), "stop", "stopped on request"),
        (PipelineError("It broke.", hint="mend it"), "failed", "It broke. Fix: mend it"),
        (ValueError("x"), "failed", "ValueError: x"),
    ],
)
def test_the_end_by_an_error_is_told(told: Any, error: Exception, kind: str, text: str) -> None:
    watched = told()
    watched.hook.on_step(step(3))
    watched.hook.on_exception(error)
    watched.hook.on_exception(error)  # as the stage that called the trainer does
    (message,) = watched.messages()
    assert (message.kind, message.step, message.total) == (kind, 3, TOTAL)
    assert text in message.text


def test_what_others_want_told_is_told_where_the_run_stands(told: Any) -> None:
    watched = told()
    watched.hook.on_step(step(7))
    watched.hook.on_alert("collapse", "attention collapsed", {"diagonality": 0.2})
    watched.hook.started(0, TOTAL)
    watched.hook.started(12, TOTAL)
    watched.hook.restarted(12, TOTAL, "other values", {"train.learning_rate": 1e-4})
    watched.hook.done(TOTAL, TOTAL)
    watched.hook.done(30, TOTAL)
    assert watched.kinds() == [
        ("collapse", 7), ("started", 0), ("started", 12), ("restarted", 12), ("done", TOTAL),
        ("done", 30),
    ]  # fmt: skip
    words = [message.text for message in watched.messages()]
    assert words[1:3] == ["training begins", "training goes on"]
    assert words[-2:] == ["training is finished",
                          "training is finished before the end of its plan"]  # fmt: skip


def test_counts_are_handed_over_where_they_changed(told: Any) -> None:
    watched = told()
    watched.hook.started(0, TOTAL)
    watched.messages()
    (measure,) = watched.hook.on_eval(evaluated(5))
    assert isinstance(measure, Measure)
    assert measure.values["system/alerts/sent"] == 1.0
    assert set(measure.values) == {
        f"system/alerts/{name}" for name in ("sent", "failed", "dropped", "repeated")
    }
    assert watched.hook.on_eval(evaluated(6)) == []


def test_parameters_give_the_intervals(tmp_path: Path) -> None:
    params = AlertParams(report_interval_steps=3, sample_interval_steps=4)
    channel = Collector()
    with AlertManager([channel], AlertPolicy.of(params)) as manager:
        hook = AlertHook.of(manager, tmp_path, params)
        for number in range(1, 9):
            hook.on_step(StepFacts(step=number, total=1000))
        assert manager.flush(3.0)
    assert [(message.kind, message.step) for message in channel.messages] == [
        ("report", 3), ("sample", 4), ("report", 6), ("sample", 8),
    ]  # fmt: skip


def test_without_channels_it_measures_nothing(tmp_path: Path) -> None:
    hook = AlertHook(AlertManager([]), tmp_path, report_interval_steps=1, sample_interval_steps=1)
    hook.on_step(step(1))
    assert hook.on_eval(evaluated(1)) == []


def test_a_step_touches_neither_disk_nor_network(
    told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = told(report_interval_steps=1, sample_interval_steps=1)
    watched.manager.flush(3.0)
    main = threading.get_ident()

    def forbidden(*_: Any, **__: Any) -> Any:
        assert threading.get_ident() != main
        return iter(())

    monkeypatch.setattr(pathlib.Path, "glob", forbidden)
    monkeypatch.setattr(socket, "socket", forbidden)
    monkeypatch.setattr("builtins.open", forbidden)
    watched.hook.on_step(step(1))
    monkeypatch.undo()
    assert len(watched.messages()) == 2


def test_a_step_takes_microseconds_while_everything_hangs(tmp_path: Path) -> None:
    class Hanging(Collector):
        def parts(self, message: Message) -> Sequence[Part]:
            return [Part("", lambda: time.sleep(0.5))]

    policy = AlertPolicy(flush_seconds=0.05)
    with AlertManager([Hanging()], policy) as manager:
        hook = AlertHook(manager, tmp_path, report_interval_steps=1, sample_interval_steps=1)
        times = []
        for number in range(1, 2001):
            began = time.perf_counter()
            hook.on_step(StepFacts(step=number, total=10_000, loss=math.nan))
            times.append(time.perf_counter() - began)
        assert manager.counts().dropped > 3000
    assert sorted(times)[len(times) // 2] < 1e-3  # the benchmark measures the 99th percentile
