"""What the loop tells its hooks, and what becomes of their answers."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

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

BATCH_SCALE: Final = "batch_scale"  # beside names of values, in ``TrainState.steered_by``
STOPPED: Final = "stopped"

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


@dataclass(frozen=True, slots=True)
class Answer:
    """What a hook wants, and which."""

    hook: str
    action: Action


class Hooks:
    """Calls all hooks of a run, and keeps their failures away from it."""

    def __init__(self, hooks: Sequence[Hook], *, failed: Collection[str] = ()) -> None:
        """Take the hooks, but for those that failed before: a run goes on as it was."""
        self._hooks = [hook for hook in hooks if hook.name not in failed]
        self._failed = tuple(failed)
        left_out = sorted({hook.name for hook in hooks} & set(failed))
        if left_out:
            _LOG.warning("%s failed earlier in this run, and is left out", ", ".join(left_out))

    def restore(self, memories: Mapping[str, Mapping[str, Any]]) -> None:
        """Give every hook what it remembered."""
        self._each("memory", lambda hook: hook.restore(memories.get(hook.name, {})))

    def kept(self, state: TrainState) -> TrainState:
        """``state`` as it is saved: with what all hooks remember, and which of them failed."""
        memories = self._memories()  # where one may fail
        return dataclasses.replace(state, hooks=memories, hooks_failed=self._failed)

    def _memories(self) -> dict[str, dict[str, Any]]:
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

    def eval(self, facts: EvalFacts) -> list[Answer]:
        """Tell of an evaluation; all answers in the order of the hooks."""
        answers: list[Answer] = []

        def ask(hook: Hook) -> None:
            answers.extend([Answer(hook.name, action) for action in hook.on_eval(facts)])

        self._each("evaluation", ask)
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
                self._failed = (*self._failed, hook.name)
                _LOG.exception("%s failed (%s) and is left out", hook.name, what)


def steered(state: TrainState, answers: Sequence[Answer]) -> dict[str, Any]:
    """What answers make of how a run goes on: fields of its state, as plain values."""
    adjustments, scale, stopped = dict(state.adjustments), state.batch_scale, state.stopped
    owners = dict(state.steered_by)
    for answer in answers:
        match answer.action:
            case Stop(cause):
                owners.setdefault(STOPPED, answer.hook)
                stopped = stopped or cause
            case Adjust(parameter, factor):
                adjustments[parameter], owners[parameter] = factor, answer.hook
                if factor == 1.0:  # taken back: nobody's
                    del adjustments[parameter], owners[parameter]
            case ScaleBatch(scale):
                owners[BATCH_SCALE] = answer.hook
            case _:
                pass
    return {
        "adjustments": adjustments, "batch_scale": scale, "stopped": stopped, "steered_by": owners,
    }  # fmt: skip


def without_strangers(
    state: TrainState, attached: Collection[str]
) -> tuple[TrainState, dict[str, str]]:
    """``state`` without what hooks that are not attached made of it, and what that was.

    Returns:
        The state, and the name of the hook by that of what was undone; empty for nothing.
    """
    gone = {what: hook for what, hook in state.steered_by.items() if hook not in attached}
    if not gone:
        return state, {}
    state = dataclasses.replace(
        state,
        adjustments={k: value for k, value in state.adjustments.items() if k not in gone},
        batch_scale=1.0 if BATCH_SCALE in gone else state.batch_scale,
        stopped="" if STOPPED in gone else state.stopped,
        steered_by={what: hook for what, hook in state.steered_by.items() if what not in gone},
    )
    return state, gone


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
