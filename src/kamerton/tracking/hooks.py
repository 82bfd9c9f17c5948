"""The one way for anything to watch, and to steer, a training run from within its process.

The trainer tells its hooks what happened. A hook answers an evaluation with actions, which the
trainer carries out, logs and saves with its state; steps take no answer, so that a run with
several processes need not talk about every one of them. Everything a hook remembers is plain
values and part of each checkpoint: a run that was killed and goes on decides as one that was not.

Hooks live in the main process. One that fails is reported once and left out; the run goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Adjustable = Literal[
    "learning_rate", "clip_norm", "guided_attention_weight", "gate_weight", "dropout"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFacts:
    """One optimiser step that is over; a run's figures count from 1.

    Attributes:
        step: Steps made, this one included.
        total: The budget.
        epoch: That the next step belongs to.
        phase: Index of the phase.
        loss: The sum that was minimised; not finite where the step was skipped.
        grad_norm: Before clipping.
        module_norms: The same by part of the network; empty where they were not asked for.
        clip_norm: Where gradients are cut.
        learning_rate: Of the step.
        applied: Whether weights were changed.
        batch_size: Utterances of a batch of average length, as they are now.
    """

    step: int
    total: int
    epoch: int = 0
    phase: int = 0
    loss: float = 0.0
    grad_norm: float = 0.0
    module_norms: Mapping[str, float] = field(default_factory=dict)
    clip_norm: float = 0.0
    learning_rate: float = 0.0
    applied: bool = True
    batch_size: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalFacts:
    """One evaluation.

    Attributes:
        step: Steps made.
        total: The budget.
        epoch: That the next step belongs to.
        epochs: The budget in epochs.
        phase: Index of the phase.
        values: Figures under the names of ``tracking.names``.
        quality: What the best checkpoint has least of.
        best_step: Of the best evaluation, this one included.
        best_quality: Its figure.
        train_loss: Mean over the steps since the last evaluation; NaN where there were none.
        learning_rate: Of the last step.
        adjustments: What hooks made of values so far: factor by name.
        batch_size: Utterances of a batch of average length, as they are now.
        recoveries: Interventions of the recovery so far.
        recovery_step: When the last of them was made; 0 for none.
        recovery_cause: The trouble it was made about; "" for none.
        attention_reset_step: When one made attention anew; 0 for never.
    """

    step: int
    total: int
    epoch: int = 0
    epochs: float = 0.0
    phase: int = 0
    values: Mapping[str, float] = field(default_factory=dict)
    quality: float = 0.0
    best_step: int = 0
    best_quality: float = 0.0
    train_loss: float = float("nan")
    learning_rate: float = 0.0
    adjustments: Mapping[str, float] = field(default_factory=dict)
    batch_size: float = 0.0
    recoveries: int = 0
    recovery_step: int = 0
    recovery_cause: str = ""
    attention_reset_step: int = 0


@dataclass(frozen=True, slots=True)
class Stop:
    """End the run with its best model; ``cause`` is one word, ``reason`` a sentence."""

    cause: str
    reason: str


@dataclass(frozen=True, slots=True)
class Adjust:
    """From the next step on, ``factor`` times what the schedule gives; 1 takes it back."""

    parameter: Adjustable
    factor: float
    reason: str


@dataclass(frozen=True, slots=True)
class ScaleBatch:
    """From the next epoch on, batches of ``scale`` times ``train.batch_size``."""

    scale: float
    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """Write an event into the run's record."""

    event: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measure:
    """Write figures into the run's record, at the step of the evaluation."""

    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Alert:
    """Tell a person."""

    kind: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)


Action = Stop | Adjust | ScaleBatch | Note | Measure | Alert


class Hook(Protocol):
    """Something that watches a run; every method must be quick, for the training waits for it."""

    @property
    def name(self) -> str:
        """Under which its memory is kept: the same in every version."""

    def on_step(self, facts: StepFacts) -> None:
        """A step is over; not yet saved."""

    def on_eval(self, facts: EvalFacts) -> Sequence[Action]:
        """The model was evaluated, after ``on_step`` of that step.

        It comes alone where that step was made before the run was interrupted.
        """

    def on_epoch(self, facts: StepFacts) -> None:
        """The step was the last of its epoch."""

    def on_exception(self, error: Exception) -> None:
        """The run ends by an error, or by a stop on request (StoppedError)."""

    def memory(self) -> dict[str, Any]:
        """What it remembers, as plain JSON values; empty for nothing."""

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Undo ``memory``; an empty mapping is a hook that saw nothing."""
