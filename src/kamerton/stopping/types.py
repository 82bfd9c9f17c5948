"""What the stop decision is made from and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Group = Literal["statistical_consensus", "bayesian_prediction", "attention_analysis"]
Risk = Literal["low", "medium", "high"]


@dataclass(frozen=True, slots=True)
class Observation:
    """One evaluation, as the controller sees it.

    Attributes:
        step: Optimiser step, or epoch, on the axis of the plan.
        value: What is minimised; not finite where the evaluation gave no number.
        attention: Free-running diagonality, None where the model has no attention.
        train_loss: Of the steps since the last evaluation; None where it is not known.
        premature: Share of sentences that ended too early; None where it is not known.
        runaway: Share of sentences that did not end; None where it is not known.
        gate_f1: Of the stop frame; None where it is not known.
        monotonicity: Share of attention's movement that goes forward; None where not known.
        learning_rate: At that step; None where it is not known.
    """

    step: float
    value: float
    attention: float | None = None
    train_loss: float | None = None
    premature: float | None = None
    runaway: float | None = None
    gate_f1: float | None = None
    monotonicity: float | None = None
    learning_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Vote:
    """What one voter says at one evaluation.

    Attributes:
        voter: Its name.
        group: Whose weight it has its part of; None for one that only informs.
        score: 1 stop, -1 go on, 0 no opinion.
        confidence: 0 to 1.
        reason: One sentence for a person.
    """

    voter: str
    group: Group | None
    score: float
    confidence: float
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What the controller says after one evaluation.

    Attributes:
        step: Of the evaluation.
        stop: Whether the run should end here.
        cause: patience, divergence, collapse, forecast, overfitting, not_finite; "" for none.
        reason: One sentence for a person.
        votes: Every voter's row.
        evidence: The weighted mean of the votes, in [-1, 1].
        patience_steps: How long nothing better is borne now.
        waited_steps: How long nothing better was found.
        best_step: The step of the best evaluation so far, which is the checkpoint to keep.
        guarded: Whether a guard forbids stopping (alignment, schedule, too early).
        overfitting: The risk.
        overfitting_score: The risk as a number, 0 to 1.
        status: not_converged, converging, converged, diverging, stalled.
        remaining_steps: Forecast of the steps until nothing better is to be expected; None where
            there is no forecast.
    """

    step: float
    stop: bool
    cause: str
    reason: str
    votes: tuple[Vote, ...]
    evidence: float
    patience_steps: float
    waited_steps: float
    best_step: float
    guarded: bool = False
    overfitting: Risk = "low"
    overfitting_score: float = 0.0
    status: str = "not_converged"
    remaining_steps: float | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """Where the controller would have stopped a finished curve.

    Attributes:
        stop_index: Index of the evaluation after which it stops; None where it never does.
        checkpoint_index: Index of the evaluation whose checkpoint is kept.
        decisions: One row per evaluation up to the stop.
    """

    stop_index: int | None
    checkpoint_index: int
    decisions: tuple[Decision, ...] = field(default=())


class Controller(Protocol):
    """The stop decision over one run: fed evaluations in order, saved with its checkpoint."""

    def observe(self, observation: Observation) -> Decision:
        """Take one evaluation; once it said stop it keeps saying so."""

    def intervened(self, step: float, *, attention_anew: bool = False) -> None:
        """Someone else changed the run after ``step``: what was counted until then says nothing."""

    def state(self) -> dict[str, Any]:
        """Everything it remembers, as plain JSON values."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Undo ``state``; an empty mapping is a fresh controller."""
