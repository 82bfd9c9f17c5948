"""The one way for anything to watch a training run from within its process.

Progress, debug reports and, later, the tuner's controllers are watchers. They are given facts and
change nothing; a watcher that fails is reported once and left out, and the run goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from kamerton.core.progress import Progress
from kamerton.training.controls import Controls
from kamerton.training.evaluation import Evaluation
from kamerton.training.progress_note import FrameRate, progress_note
from kamerton.training.state import TrainState
from kamerton.training.step import StepResult

_LOG = logging.getLogger("kamerton.training")

Alert = Callable[[str, str, Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class StepFacts:
    """One step that is over.

    Attributes:
        total: The budget in steps.
        state: Where the run stands after the step.
        result: What the step gave.
        controls: What it was made with.
    """

    total: int
    state: TrainState
    result: StepResult
    controls: Controls


class Watcher(Protocol):
    """Something that watches a run; every method must be quick, for the training waits for it."""

    def on_step(self, facts: StepFacts) -> None:
        """A step is over, and saved where its turn was."""

    def on_eval(self, state: TrainState, evaluation: Evaluation) -> None:
        """The model was evaluated; the state holds the outcome.

        It comes before ``on_step`` of the step that was evaluated, and alone where that step was
        made before the run was interrupted.
        """

    def on_epoch(self, facts: StepFacts) -> None:
        """The step was the last of its epoch; the state stands at the next."""

    def on_exception(self, error: Exception) -> None:
        """The run ends by an error, or by a stop on request (StoppedError)."""


class Watchers:
    """Calls all watchers, and keeps their failures away from the run."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = list(watchers)

    def step(self, facts: StepFacts) -> None:
        """Tell of a step."""
        self._each("step", lambda watcher: watcher.on_step(facts))

    def eval(self, state: TrainState, evaluation: Evaluation) -> None:
        """Tell of an evaluation."""
        self._each("evaluation", lambda watcher: watcher.on_eval(state, evaluation))

    def epoch(self, facts: StepFacts) -> None:
        """Tell of the end of an epoch."""
        self._each("epoch", lambda watcher: watcher.on_epoch(facts))

    @contextmanager
    def told_of_errors(self) -> Iterator[None]:
        """Tell of the error that ends what is done within."""
        try:
            yield
        except Exception as error:
            self._each("error", partial(_tell_error, error))
            raise

    def _each(self, what: str, call: Callable[[Watcher], None]) -> None:
        for watcher in tuple(self._watchers):
            try:
                call(watcher)
            except Exception:  # whatever it is, the training does not end by it
                self._watchers.remove(watcher)
                _LOG.exception("%s failed (%s) and is left out", type(watcher).__name__, what)


def _tell_error(error: Exception, watcher: Watcher) -> None:
    watcher.on_exception(error)


class ShownProgress:
    """A progress bar, or plain lines, as a watcher."""

    def __init__(self, report: Progress, *, phases: int) -> None:
        self._report, self._phases, self._rate = report, phases, FrameRate()

    def on_step(self, facts: StepFacts) -> None:
        """Report the step with phase, loss, attention and speed."""
        state, result = facts.state, facts.result
        note = progress_note(
            phase=state.phase.index, phases=self._phases, loss=float(result.losses.total),
            attention=state.diagonality, frames_per_second=self._rate.took(result.frames),
        )  # fmt: skip
        self._report(state.step, facts.total, note)

    def on_eval(self, state: TrainState, evaluation: Evaluation) -> None:
        """Show nothing: the step's line has the outcome."""

    def on_epoch(self, facts: StepFacts) -> None:
        """Show nothing: progress counts steps."""

    def on_exception(self, error: Exception) -> None:
        """Show nothing: the command reports its error."""


def logged_alert(kind: str, text: str, fields: Mapping[str, Any]) -> None:
    """Say it in the log."""
    _LOG.warning("%s: %s %s", kind, text, dict(fields))
