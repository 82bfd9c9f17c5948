"""Which point of the space a trial tries: the baseline, then history, then the sampler.

A draw is a pure function of the trial's number and of what the study knows at that moment. It is
made in a scratch copy of the study, in which every trial is shown to the sampler so that it can
learn from it:

* A trial that failed is shown with the worst objective so far. Optuna leaves failed trials out, so
  its samplers come back to a learning rate that diverges again and again.
* The Gaussian process and CMA-ES learn from whole trials only. A trial that was ended early is
  shown to the former with what it would probably have reached: its best so far, times how much
  the complete trials still gained from there on (the median), and never better than their median.
* A trial that still runs is shown as such: TPE counts it among the bad ones, the Gaussian process
  among the points whose result is open, so that others keep away from it.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kamerton.config.schema import TuneParams
from kamerton.config.search_space import Choice
from kamerton.smart_tuner.samplers import SamplerName, make_sampler, startup_trials
from kamerton.smart_tuner.startup import spread_point, trial_seed
from kamerton.smart_tuner.trials import TrialResult

if TYPE_CHECKING:
    import optuna

Point = Mapping[str, Choice]


@dataclass(frozen=True, slots=True)
class KnownTrial:
    """A trial as the study knows it: its point, and its result once it has one."""

    number: int
    point: Point
    result: TrialResult | None = None  # None: it still runs
    attributes: Mapping[str, object] | None = None  # what sampler and pruner noted about it

    def frozen(
        self, space: "Mapping[str, optuna.distributions.BaseDistribution]"
    ) -> "optuna.trial.FrozenTrial":
        """The same as Optuna's trial; a running one has no value and no curve."""
        from optuna.trial import TrialState, create_trial

        states = {
            "complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL
        }  # fmt: skip
        result = self.result
        return create_trial(
            state=TrialState.RUNNING if result is None else states[result.state],
            value=None if result is None else result.objective,
            params=dict(self.point),
            distributions={name: space[name] for name in self.point},
            intermediate_values={} if result is None else dict(result.curve),
            system_attrs=dict(self.attributes or {}),
        )


def baseline_point(tune: TuneParams, values: Point) -> dict[str, Choice]:
    """The point of the space that is closest to the parameters the baseline runs with."""
    return {name: dim.nearest(values[name]) for name, dim in tune.search_space.items()}


def first_points(
    tune: TuneParams, values: Point, history: Sequence[Point]
) -> list[dict[str, Choice]]:
    """The points of the first trials: the baseline, then those of other studies, each once.

    What a configuration of another study does not say is as in the baseline; what lies outside the
    space is moved to its border.
    """
    points = [baseline_point(tune, values)]
    for config in history[: tune.history_trials]:
        point = baseline_point(tune, {**values, **config})
        if point not in points:
            points.append(point)
    return points


def draw(
    number: int, tune: TuneParams, sampler: SamplerName, known: Sequence[KnownTrial]
) -> tuple[dict[str, Choice], dict[str, object]]:
    """The sampler's point for this trial, and what the sampler wants to be reminded of.

    ``auto`` begins with points that are spread evenly, where other samplers draw at random.
    """
    import optuna

    startup = startup_trials(tune)
    if tune.sampler == "auto" and number < startup:
        return spread_point(number - 1, startup - 1, tune.search_space, tune.seed), {}

    space = {name: dim.distribution() for name, dim in tune.search_space.items()}
    scratch = optuna.create_study(
        storage=optuna.storages.InMemoryStorage(),
        direction="minimize",
        sampler=make_sampler(
            sampler,
            seed=trial_seed(tune.seed, number),
            startup=startup,
            space=tune.search_space,
        ),
    )
    for item in known if sampler == "cma_es" else shown_to(sampler, known):
        scratch.add_trial(item.frozen(space))
    trial = scratch.ask(space)
    frozen = scratch.get_trials(deepcopy=False)[trial.number]
    return dict(trial.params), dict(frozen.system_attrs)


def shown_to(sampler: SamplerName, known: Sequence[KnownTrial]) -> list[KnownTrial]:
    """The trials as the sampler gets to see them; see the module's words."""
    results = [trial.result for trial in known if trial.result is not None]
    complete = [item for item in results if item.state == "complete" and item.objective is not None]
    if not complete:
        return list(known)
    return [_shown(sampler, trial, complete) for trial in known]


def _shown(sampler: SamplerName, trial: KnownTrial, complete: list[TrialResult]) -> KnownTrial:
    result = trial.result
    if result is None or result.state == "complete":
        return trial
    objectives = [item.objective or 0.0 for item in complete]
    if result.state == "failed":
        objective = max(objectives)
    elif sampler == "gp" and result.curve:
        objective = max(_reached(result, complete), statistics.median(objectives))
    else:
        return trial
    shown = TrialResult(result.number, "complete", result.params, objective=objective)
    return KnownTrial(trial.number, trial.point, shown)


def _reached(result: TrialResult, complete: list[TrialResult]) -> float:
    """What a trial that was ended early would have reached, by what the complete ones did."""
    until, best = max(result.curve), min(result.curve.values())
    gains = []
    for item in complete:
        before = [value for step, value in item.curve.items() if step <= until]
        if before and min(before) > 0:
            gains.append((item.objective or 0.0) / min(before))
    return best * statistics.median(gains) if gains else best
