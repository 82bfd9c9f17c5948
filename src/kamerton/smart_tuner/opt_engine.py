"""OptimizationEngine: which trial comes next, and what became of those before.

The journal holds finished trials only. A trial's parameters are a pure function of its number and
of the finished trials: they are drawn, and pruning is decided, in a scratch copy of the study with
a seed of the trial's own. So whatever instant a tuner is killed at, the next one draws the same
trial again, and the study ends as if nothing had happened.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from kamerton.config.schema import Params
from kamerton.config.search_space import Choice, lookup, search_space_faults
from kamerton.core.errors import ParamsError
from kamerton.smart_tuner.journal import open_study
from kamerton.smart_tuner.objective import Objective, ObjectiveError
from kamerton.smart_tuner.samplers import (
    make_pruner,
    make_sampler,
    resolve_pruner,
    resolve_sampler,
    startup_trials,
)

if TYPE_CHECKING:
    import optuna

TrialState = Literal["complete", "pruned", "failed"]

_DETAILS: Final = "kamerton"  # the user attribute of an Optuna trial that holds ours


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
    """A trial under way: takes its evaluations in order and says when to give up on it."""

    def __init__(
        self,
        number: int,
        params: Mapping[str, Choice],
        overrides: Mapping[str, Choice],
        scratch: "optuna.Trial",
        objective: Objective | None,
    ) -> None:
        self.number = number
        self.params = dict(params)
        self.overrides = dict(overrides)  # empty for the baseline
        self._scratch = scratch
        self._objective = objective
        self._evaluations: list[Evaluation] = []
        self.state: TrialState | None = None
        self.reason = ""

    def report(self, evaluation: Evaluation) -> bool:
        """Take an evaluation; True when the trial need not go on (see ``state`` and ``reason``)."""
        if self.state is not None:
            return True
        self._evaluations.append(evaluation)
        if self._objective is None:
            self._check_finite(evaluation)
            return self.state is not None
        try:
            score = self._objective(evaluation.values)
        except ObjectiveError as error:
            return self._end("failed", f"{error} at step {evaluation.step}")
        if self._judge(evaluation.step, score):
            return self._end("pruned", f"worse than others at step {evaluation.step}")
        return False

    def _check_finite(self, evaluation: Evaluation) -> None:
        # The baseline freezes its scale when it ends; until then only nonsense stops it.
        try:
            Objective.freeze(evaluation.values)
        except ObjectiveError as error:
            self._end("failed", f"{error} at step {evaluation.step}")

    def _judge(self, step: int, score: float) -> bool:
        self._scratch.report(score, step)
        return self._scratch.should_prune()

    def _end(self, state: TrialState, reason: str) -> bool:
        self.state, self.reason = state, reason
        return True

    def fail(self, reason: str) -> None:
        """Say that the trial ended without a result."""
        if self.state is None:
            self._end("failed", reason)

    def frozen(self) -> "optuna.trial.FrozenTrial":
        """The trial as the scratch study has it."""
        return self._scratch.study.get_trials(deepcopy=False)[self.number]

    def conclude(self) -> tuple[TrialResult, Objective | None]:
        """The result and the objective it is measured by; the first good trial sets the scale."""
        if self.state is None and not self._evaluations:
            self.fail("it recorded no evaluation")
        objective = self._objective
        if objective is None and self.state is None:
            objective = Objective.freeze(self._evaluations[-1].values)
            for evaluation in self._evaluations:
                # The answer is ignored, but the pruner learns the baseline's values.
                self._judge(evaluation.step, objective(evaluation.values))
        if self.state == "failed" or objective is None:
            return TrialResult(self.number, "failed", self.params, reason=self.reason), None
        curve = {item.step: objective(item.values) for item in self._evaluations}
        best = min(self._evaluations, key=lambda item: (curve[item.step], item.step))
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


class OptimizationEngine:
    """The search of one study: deterministic, resumable at any instant."""

    def __init__(self, journal: Path, params: Params, *, name: str) -> None:
        """Open the study in ``journal``.

        Args:
            journal: the file of finished trials.
            params: the parameters that the baseline runs with; ``tune`` holds the search.
            name: the study's name, part of what pruning depends on.

        Raises:
            ParamsError: the search space does not fit the parameters.
        """
        faults = search_space_faults(params)
        if faults:
            lines = [f"tune.search_space.{key}: {fault}" for key, fault in faults.items()]
            raise ParamsError(
                "the search space is wrong:\n  " + "\n  ".join(lines),
                hint="`kamerton params docs` lists every parameter",
            )
        self._params, self._tune = params, params.tune
        self.sampler, self.pruner = resolve_sampler(params.tune), resolve_pruner(params.tune)
        self._name = name
        self._study = open_study(journal, name)

    def finished(self) -> list[TrialResult]:
        """All finished trials in the order of their numbers."""
        return [_read(trial) for trial in self._study.get_trials(deepcopy=False)]

    def frozen_trials(self) -> "list[optuna.trial.FrozenTrial]":
        """The finished trials as Optuna has them, for its own analyses."""
        return self._study.get_trials(deepcopy=False)

    def objective(self) -> Objective | None:
        """The study's objective, once a trial has set its scale."""
        for trial in self._study.get_trials(deepcopy=False):
            baseline = trial.user_attrs[_DETAILS]["baseline"]
            if baseline:
                return Objective(baseline)
        return None

    def next_trial(self) -> RunningTrial | None:
        """The trial to run now; None when the study is complete."""
        done = self._study.get_trials(deepcopy=False)
        number = len(done)
        if number >= self._tune.trials:
            return None
        scratch = self._scratch(number)
        space = self._tune.search_space
        if number == 0:
            # Optuna must know the baseline by a point of the space; it runs with its own values.
            values = {name: lookup(self._params, name) for name in space}
            scratch.enqueue_trial({name: dim.nearest(values[name]) for name, dim in space.items()})
        trial = scratch.ask({name: dim.distribution() for name, dim in space.items()})
        if number == 0:
            return RunningTrial(0, values, {}, trial, None)
        return RunningTrial(number, trial.params, trial.params, trial, self.objective())

    def _scratch(self, number: int) -> "optuna.Study":
        """A copy of the study in memory, with a sampler seeded for this trial."""
        import optuna

        tune = self._tune
        scratch = optuna.create_study(
            study_name=self._name,
            storage=optuna.storages.InMemoryStorage(),
            direction="minimize",
            sampler=make_sampler(
                self.sampler,
                seed=tune.seed + number,
                startup=startup_trials(tune),
                space=tune.search_space,
            ),
            pruner=make_pruner(self.pruner, trial_steps=tune.trial_steps),
        )
        scratch.add_trials(self._study.get_trials())
        return scratch

    def finish(self, trial: RunningTrial) -> TrialResult:
        """Enter a trial that ended in the journal, with one write."""
        import optuna

        result, objective = trial.conclude()
        first = self.objective() is None and objective is not None
        scratch = trial.frozen()
        details = {
            "params": dict(result.params),
            "step": result.step,
            "metrics": dict(result.metrics),
            "reason": result.reason,
            "baseline": dict(objective.baseline) if first and objective else None,
        }
        states = optuna.trial.TrialState
        state = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}
        self._study.add_trial(
            optuna.trial.create_trial(
                state=state[result.state],
                value=result.objective,
                params=scratch.params,
                distributions=scratch.distributions,
                intermediate_values=scratch.intermediate_values,
                system_attrs=scratch.system_attrs,
                user_attrs={_DETAILS: details},
            )
        )
        return result


def _read(trial: "optuna.trial.FrozenTrial") -> TrialResult:
    details = trial.user_attrs[_DETAILS]
    states: dict[str, TrialState] = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    return TrialResult(
        number=trial.number,
        state=states[trial.state.name],
        params=details["params"],
        objective=trial.value if trial.state.name != "FAIL" else None,
        step=details["step"],
        metrics=details["metrics"],
        curve=dict(sorted(trial.intermediate_values.items())),
        reason=details["reason"],
    )
