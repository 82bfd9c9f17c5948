"""A trial: what it records while it runs, when it is given up, and what is left of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from kamerton.config.search_space import Choice
from kamerton.smart_tuner.objective import Objective, ObjectiveError

if TYPE_CHECKING:
    import optuna

TrialState = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one evaluation of a trial recorded."""

    step: int  # optimiser steps done
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class TrialResult:
    """A finished trial."""

    number: int
    state: TrialState
    params: Mapping[str, Choice]  # the values it ran with, by dotted name
    objective: float | None = None  # J of its best evaluation; None when it failed
    step: int | None = None  # of that evaluation
    metrics: Mapping[str, float] = field(default_factory=dict)  # recorded there
    curve: Mapping[int, float] = field(default_factory=dict)  # step -> J
    reason: str = ""


class RunningTrial:
    """A trial under way: takes its evaluations in order and says when to give up on it.

    Trials that run beside the baseline have no scale yet; what they record is judged as soon as
    there is one. It may be used from a thread of its own.
    """

    def __init__(
        self,
        number: int,
        params: Mapping[str, Choice],
        overrides: Mapping[str, Choice],
        judge: "optuna.Trial",
        objective: Callable[[], Objective | None],
    ) -> None:
        self.number = number
        self.params = dict(params)
        self.overrides = dict(overrides)  # empty for the baseline
        self._judge_trial = judge
        self._objective = objective
        self._evaluations: list[Evaluation] = []
        self._judged = 0  # of the evaluations
        self.state: TrialState | None = None
        self.reason = ""

    def report(self, evaluation: Evaluation) -> bool:
        """Take an evaluation; True when the trial need not go on (see ``state`` and ``reason``)."""
        if self.state is not None:
            return True
        self._evaluations.append(evaluation)
        objective = self._objective()
        if objective is None:
            self._check_finite(evaluation)
            return self.state is not None
        while self._judged < len(self._evaluations) and self.state is None:
            self._score(self._evaluations[self._judged], objective)
            self._judged += 1
        return self.state is not None

    def _check_finite(self, evaluation: Evaluation) -> None:
        # The scale is frozen when the baseline ends; until then only nonsense stops a trial.
        try:
            Objective.freeze(evaluation.values)
        except ObjectiveError as error:
            self._end("failed", f"{error} at step {evaluation.step}")

    def _score(self, evaluation: Evaluation, objective: Objective) -> None:
        try:
            score = objective(evaluation.values)
        except ObjectiveError as error:
            self._end("failed", f"{error} at step {evaluation.step}")
            return
        if self._judge(evaluation.step, score):
            self._end("pruned", f"worse than others at step {evaluation.step}")

    def _judge(self, step: int, score: float) -> bool:
        self._judge_trial.report(score, step)
        return self._judge_trial.should_prune()

    def _end(self, state: TrialState, reason: str) -> None:
        self.state, self.reason = state, reason

    def fail(self, reason: str) -> None:
        """Say that the trial ended without a result."""
        if self.state is None:
            self._end("failed", reason)

    def rungs(self) -> dict[str, object]:
        """What the pruner noted about the trial, for its judgements of others."""
        frozen = self._judge_trial.study.get_trials(deepcopy=False)[self.number]
        return {key: value for key, value in frozen.system_attrs.items() if key != "fixed_params"}

    def conclude(self) -> tuple[TrialResult, Objective | None]:
        """The result and the objective it is measured by; the first good trial sets the scale."""
        if self.state is None and not self._evaluations:
            self.fail("it recorded no evaluation")
        objective = self._objective()
        if self.state is None:
            if objective is None:
                objective = Objective.freeze(self._evaluations[-1].values)
            # Of what was not judged yet, the answer is ignored: the trial was made already. But
            # the pruner learns the values.
            for evaluation in self._evaluations[self._judged :]:
                try:
                    self._judge(evaluation.step, objective(evaluation.values))
                except ObjectiveError as error:
                    self._end("failed", f"{error} at step {evaluation.step}")
                    break
        if self.state == "failed" or objective is None:
            return TrialResult(self.number, "failed", self.params, reason=self.reason), None
        scored = self._evaluations
        curve = {item.step: objective(item.values) for item in scored}
        best = min(scored, key=lambda item: (curve[item.step], item.step))
        result = TrialResult(
            self.number,
            self.state or "complete",
            self.params,
            objective=curve[best.step],
            step=best.step,
            metrics=dict(best.values),
            curve=curve,
            reason=self.reason,
        )
        return result, objective
