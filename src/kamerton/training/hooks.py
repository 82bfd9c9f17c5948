"""What the loop tells its hooks, and what becomes of their answers."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kamerton.tracking.hooks import (
    Action,
    Adjust,
    Alert,
    EvalFacts,
    Hook,
    Measure,
    Note,
    ScaleBatch,
    StepFacts,
    Stop,
)
from kamerton.tracking.protocol import Tracker
from kamerton.training.controls import Controls
from kamerton.training.state import TrainState
from kamerton.training.step import StepResult

_LOG = logging.getLogger("kamerton.training")

OnAlert = Callable[[str, str, Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopFacts(StepFacts):
    """One step with all that the trainer knows of it.

    Attributes:
        state: Where the run stands after the step.
        result: What the step gave.
        controls: What it was made with.
    """

    state: TrainState
    result: StepResult
    controls: Controls


class Hooks:
    """Calls all hooks of a run, and keeps their failures away from it."""

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self._hooks = list(hooks)

    def restore(self, memories: Mapping[str, Mapping[str, Any]]) -> None:
        """Give every hook what it remembered."""
        self._each("memory", lambda hook: hook.restore(memories.get(hook.name, {})))

    def memories(self) -> dict[str, dict[str, Any]]:
        """What all hooks remember, by name."""
        found: dict[str, dict[str, Any]] = {}

        def keep(hook: Hook) -> None:
            if memory := hook.memory():
                found[hook.name] = memory

        self._each("memory", keep)
        return found

    def step(self, facts: StepFacts) -> None:
        """Tell of a step."""
        self._each("step", lambda hook: hook.on_step(facts))

    def epoch(self, facts: StepFacts) -> None:
        """Tell of the end of an epoch."""
        self._each("epoch", lambda hook: hook.on_epoch(facts))

    def eval(self, facts: EvalFacts) -> list[Action]:
        """Tell of an evaluation; all answers in the order of the hooks."""
        answers: list[Action] = []
        self._each("evaluation", lambda hook: answers.extend(hook.on_eval(facts)))
        return answers

    @contextmanager
    def told_of_errors(self) -> Iterator[None]:
        """Tell of the error that ends what is done within."""
        try:
            yield
        except Exception as error:
            told = error  # the name is gone after this block
            self._each("error", lambda hook: hook.on_exception(told))
            raise

    def _each(self, what: str, call: Callable[[Hook], None]) -> None:
        for hook in tuple(self._hooks):
            try:
                call(hook)
            except Exception:  # whatever it is, the training does not end by it
                self._hooks.remove(hook)
                _LOG.exception("%s failed (%s) and is left out", hook.name, what)


def steered(state: TrainState, actions: Sequence[Action]) -> dict[str, Any]:
    """What actions make of how a run goes on: fields of its state, as plain values."""
    adjustments, scale, stopped = dict(state.adjustments), state.batch_scale, state.stopped
    for action in actions:
        match action:
            case Stop():
                stopped = stopped or action.cause
            case Adjust(factor=1.0):
                adjustments.pop(action.parameter, None)
            case Adjust():
                adjustments[action.parameter] = action.factor
            case ScaleBatch():
                scale = action.scale
            case _:
                pass
    return {"adjustments": adjustments, "batch_scale": scale, "stopped": stopped}


def record(
    actions: Sequence[Action], step: int, tracker: Tracker, on_alert: OnAlert
) -> dict[str, float]:
    """Write down what hooks asked for, and tell people; returns the figures to be logged."""
    values: dict[str, float] = {}
    for action in actions:
        match action:
            case Measure():
                values |= action.values
            case Note():
                tracker.log_event(action.event, step=step, **action.fields)
            case Alert():
                on_alert(action.kind, action.text, action.fields)
            case _:
                kind = {Stop: "stop", Adjust: "adjusted", ScaleBatch: "batch_scaled"}[type(action)]
                tracker.log_event(kind, step=step, **dataclasses.asdict(action))
    return values


def logged_alert(kind: str, text: str, fields: Mapping[str, Any]) -> None:
    """Say it in the log."""
    _LOG.warning("%s: %s %s", kind, text, dict(fields))
