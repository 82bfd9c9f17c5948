"""EarlyStopController: the stop decision as a hook of a run, and the only one that ends it early.

At each evaluation it asks the controller of ``kamerton.stopping``, records what every voter said
and why, and every few evaluations says in words how the run does. A run that diverges, loses its
attention or its numbers may be mended: while recoveries are left it is given time for one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from kamerton.config.changes import factors_at
from kamerton.config.phase_ends import boundaries
from kamerton.config.schema import TrainParams
from kamerton.config.stopping_section import EarlyStoppingParams
from kamerton.config.train_section import PhaseParams, RecoveryParams
from kamerton.stopping import StopController
from kamerton.stopping.types import Controller, Decision, Observation
from kamerton.tracking import names
from kamerton.tracking.hooks import Action, Alert, EvalFacts, Measure, Note, StepFacts, Stop

DROP: Final = 0.5  # a fall of the learning rate to so much is one that curves answer with a fall
MENDABLE: Final = frozenset({"divergence", "collapse", "not_finite"})


@dataclass(frozen=True, slots=True)
class Recovered:
    """What recovery did before an evaluation.

    Attributes:
        count: Interventions.
        step: When the last was made; 0 for none.
        attention_reset_step: When one made attention anew; 0 for never.
    """

    count: int = 0
    step: int = 0
    attention_reset_step: int = 0


NOTHING: Final = Recovered()


class EarlyStopController:
    """Feeds evaluations to the stop decision and carries its answers to the trainer."""

    name = "early_stop"

    def __init__(
        self,
        controller: Controller,
        *,
        max_recoveries: int = 0,
        mending_steps: float = 0.0,
        steps_per_epoch: float = 0.0,
        report_evaluations: int = 10,
    ) -> None:
        """Watch a run with ``controller``.

        Args:
            controller: Makes the decision; fed in optimiser steps.
            max_recoveries: Interventions that the run's recovery may make; 0 for none.
            mending_steps: How long one is waited for, from when the run should have ended, and how
                long one has to show what it brings.
            steps_per_epoch: For texts; 0 where epochs mean nothing.
            report_evaluations: Evaluations between two reports in words; 0 for none.
        """
        self._controller = controller
        self._max_recoveries = max_recoveries
        self._mending_steps = mending_steps
        self._held: tuple[int, int] | None = None  # step and recoveries when it was first held
        self._known = Recovered()
        self._steps_per_epoch = steps_per_epoch
        self._report_evaluations = report_evaluations
        self._evaluations = 0
        self._stopped = False

    @classmethod
    def of(
        cls,
        params: EarlyStoppingParams,
        total_steps: int,
        *,
        interval: float,
        drops: Sequence[int] = (),
        recovery: RecoveryParams | None = None,
        steps_per_epoch: float = 0.0,
        report_evaluations: int = 10,
    ) -> EarlyStopController:
        """The one of a run of ``total_steps``.

        Args:
            params: ``train.early_stopping``.
            total_steps: The budget.
            interval: Steps between evaluations.
            drops: Steps at which the learning rate will fall; see `known_drops`.
            recovery: ``train.recovery``; None where there is none.
            steps_per_epoch: See the constructor.
            report_evaluations: See the constructor.
        """
        mends = recovery is not None and recovery.enabled
        return cls(
            StopController(params, total_steps, interval, drops),
            max_recoveries=recovery.max_recoveries if recovery and mends else 0,
            mending_steps=recovery.cooldown_share * total_steps if recovery and mends else 0.0,
            steps_per_epoch=steps_per_epoch,
            report_evaluations=report_evaluations,
        )

    def on_step(self, facts: StepFacts) -> None:
        """Nothing: it decides at evaluations."""

    def on_eval(self, facts: EvalFacts) -> Sequence[Action]:
        """What the voters say, and Stop where the run should end here."""
        recovered = Recovered(facts.recoveries, facts.recovery_step, facts.attention_reset_step)
        decision = self.decide(observation_of(facts), recovered)
        fields = decision_fields(decision) | {"planned_steps": facts.total}
        actions: list[Action] = [Note("decision", fields), Measure(decision_figures(decision))]
        if self._report_evaluations and self._evaluations % self._report_evaluations == 0:
            actions += self._report(decision, facts)
        if decision.stop and not self._stopped:
            self._stopped = True
            actions += _stop(decision, facts)
        return actions

    def decide(self, observation: Observation, recovered: Recovered = NOTHING) -> Decision:
        """The decision at an evaluation; not to stop where what is wrong may still be mended.

        Args:
            observation: The evaluation.
            recovered: What recovery did before it.
        """
        if recovered.step != self._known.step:
            anew = recovered.attention_reset_step != self._known.attention_reset_step
            self._controller.intervened(recovered.step, attention_anew=anew)
            self._known = recovered
        before = self._controller.state()
        decision = self._controller.observe(observation)
        self._evaluations += 1
        if not self._may_be_mended(decision, recovered):
            return decision
        # As if it had not seen this: what said stop here is asked again at the next evaluation.
        self._controller.restore(before)
        why = f"held for a recovery: {decision.reason}"
        return replace(decision, stop=False, guarded=True, reason=why)

    def _may_be_mended(self, decision: Decision, recovered: Recovered) -> bool:
        if not decision.stop or self._stopped or decision.cause not in MENDABLE:
            # One evaluation without trouble is no end of it: only a recovery begins a new time.
            return False
        step = int(decision.step)
        recoveries = recovered.count
        if recoveries and step - recovered.step < self._mending_steps:
            return True  # the last one, too, is given time to show what it brings
        if recoveries >= self._max_recoveries:
            return False
        if self._held is None or self._held[1] < recoveries:
            self._held = step, recoveries
        return step - self._held[0] < self._mending_steps

    def _report(self, decision: Decision, facts: EvalFacts) -> list[Action]:
        text = progress_text(
            decision, total_steps=facts.total, steps_per_epoch=self._steps_per_epoch
        )
        fields = {"status": decision.status, "overfitting": decision.overfitting}
        return [Note("report", {"text": text, **fields}), Alert("report", text, fields)]

    def on_epoch(self, facts: StepFacts) -> None:
        """Nothing."""

    def on_exception(self, error: Exception) -> None:
        """Nothing."""

    def memory(self) -> dict[str, Any]:
        """The controller's state and how many evaluations it saw."""
        return {
            "controller": self._controller.state(),
            "evaluations": self._evaluations,
            "stopped": self._stopped,
            "held": None if self._held is None else list(self._held),
            "recovered": asdict(self._known),
        }

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Go on as the hook that remembered that."""
        self._controller.restore(memory.get("controller", {}))
        self._evaluations = int(memory.get("evaluations", 0))
        self._stopped = bool(memory.get("stopped", False))
        held = memory.get("held")
        self._held = None if held is None else (int(held[0]), int(held[1]))
        self._known = Recovered(**memory.get("recovered", {}))


def _stop(decision: Decision, facts: EvalFacts) -> list[Action]:
    fields = {
        "cause": decision.cause,
        "step": decision.step,
        "best_step": decision.best_step,
        "saved_steps": facts.total - facts.step,
    }
    return [Stop(decision.cause, decision.reason), Alert("stop", decision.reason, fields)]


def observation_of(facts: EvalFacts) -> Observation:
    """What the decision is made from; figures that were not measured are None."""

    def given(name: str) -> float | None:
        value = facts.values.get(name)
        return None if value is None or math.isnan(value) else value

    return Observation(
        step=facts.step,
        value=facts.quality,
        attention=given(names.ATTENTION_SCORE),
        train_loss=None if math.isnan(facts.train_loss) else facts.train_loss,
        premature=given(names.PREMATURE_STOPPING),
        runaway=given(names.RUNAWAY_SHARE),
        gate_f1=given(names.GATE_F1),
        monotonicity=given(names.ATTENTION_MONOTONICITY),
        learning_rate=facts.learning_rate,
    )


def decision_fields(decision: Decision) -> dict[str, Any]:
    """A decision as plain values, every vote a row of its own; the step is the event's."""
    fields = asdict(decision)
    del fields["step"]
    return fields | {"votes": [asdict(vote) for vote in decision.votes]}


def decision_figures(decision: Decision) -> dict[str, float]:
    """What of a decision is a curve."""
    figures = {
        names.STOP_EVIDENCE: decision.evidence,
        names.STOP_PATIENCE: decision.patience_steps,
        names.STOP_WAITED: decision.waited_steps,
        names.OVERFITTING_RISK: decision.overfitting_score,
    }
    if decision.remaining_steps is not None:
        figures[names.STOP_REMAINING] = decision.remaining_steps
    return figures | {
        names.stop_score(vote.voter): vote.score * vote.confidence for vote in decision.votes
    }


def progress_text(decision: Decision, *, total_steps: int, steps_per_epoch: float = 0.0) -> str:
    """How the run does, in words: status, risk of overfitting, go on or not, what is left.

    Steps left are the forecast's, at most those of the plan; saved is what of the plan they leave.

    Args:
        decision: Of an evaluation.
        total_steps: The plan.
        steps_per_epoch: To say it in epochs too; 0 for steps alone.
    """

    def amount(steps: float) -> str:
        steps = max(0, round(steps))
        if not steps_per_epoch:
            return f"{steps} steps"
        return f"{steps / steps_per_epoch:.0f} epochs ({steps} steps)"

    planned = max(0, total_steps - decision.step)
    said = [
        f"status: {decision.status.replace('_', ' ')}",
        f"overfitting risk: {decision.overfitting}",
    ]
    if decision.stop:
        said += [f"stop: {decision.reason}", f"saved: {amount(planned)}"]
    else:
        left = planned if decision.remaining_steps is None else decision.remaining_steps
        left = min(planned, left)
        said += ["go on: yes", f"left: about {amount(left)}"]
        if planned > left:
            said.append(f"to be saved: about {amount(planned - left)}")
    said.append(f"best so far: step {decision.best_step}")
    return "; ".join(said)


def known_drops(train: TrainParams, total_steps: int) -> tuple[int, ...]:
    """Steps at which the learning rate will fall by much more than the decay that all runs have.

    Phases and ``train.changes`` let it. A phase with a goal ends when that is met, which no one can
    foretell, so its fall is none of them.

    Args:
        train: Resolved parameters.
        total_steps: The budget.
    """
    shares = sorted({change.from_share for change in train.changes})
    rates = [factors_at(share, train.changes).get("learning_rate", 1.0) for share in shares]
    by_changes = _falls(shares, [1.0, *rates])
    found = {*_falls_by_phases(train.phases), *by_changes}
    return tuple(sorted({round(share * total_steps) for share in found}))


def _falls_by_phases(params: PhaseParams) -> list[float]:
    if not params.count:
        return []
    with_goal = len(params.attention_goals)
    ends = boundaries(params)
    factors = params.learning_rate_factors[: len(ends)]
    return _falls(ends[with_goal:-1], factors[with_goal:])


def _falls(shares: Sequence[float], factors: Sequence[float]) -> list[float]:
    """Where a factor falls to ``DROP`` or less; ``factors`` has one more, that before the first."""
    steps = zip(shares, factors[:-1], factors[1:], strict=True)
    return [share for share, before, after in steps if after <= DROP * before]
