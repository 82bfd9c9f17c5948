"""OptimizationEngine: which trials come next, and what became of those before.

The study holds a trial from the moment it is asked for: its number and its point at once, its
result when it has one. So whatever instant a tuner is killed at, the next one finds what was under
way and continues it with the same values, and what was finished is never run again. Points are a
pure function of a trial's number and of the trials known when it was asked for (drawing.py), so
with one worker a study that was killed ends as one that was not.

Several tuners may share a study. A trial belongs to the tuner that asked for it, which beats a
drum while it runs it; where the drum is silent for long, another tuner writes the trial off.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kamerton.config.schema import Params
from kamerton.config.search_space import Choice, lookup, search_space_faults
from kamerton.core.errors import ParamsError
from kamerton.smart_tuner.drawing import KnownTrial, Point, draw, first_points
from kamerton.smart_tuner.objective import Objective
from kamerton.smart_tuner.patience import effective_patience, trials_without_gain
from kamerton.smart_tuner.samplers import make_pruner, resolve_pruner, resolve_sampler
from kamerton.smart_tuner.storage import open_local_study, open_shared_study
from kamerton.smart_tuner.storage_outage import StorageAwayError
from kamerton.smart_tuner.trials import Evaluation, RunningTrial, TrialResult, TrialState
from kamerton.tracking.trouble import Pause

if TYPE_CHECKING:
    import optuna

__all__ = ["Evaluation", "OptimizationEngine", "RunningTrial", "TrialResult", "TrialState"]

_log = logging.getLogger(__name__)

_ASKED: Final = "kamerton.asked"  # user attributes of an Optuna trial
_RESULT: Final = "kamerton"
_BEAT: Final = "kamerton.beat"
_FIRST: Final = "kamerton.first"  # and of the study
_SILENT_SECONDS: Final = 600.0


def require_search_space(params: Params) -> None:
    """Pass if the search space fits the parameters.

    Raises:
        ParamsError: it does not; all its faults are named.
    """
    faults = search_space_faults(params)
    if faults:
        lines = [f"tune.search_space.{key}: {fault}" for key, fault in faults.items()]
        raise ParamsError(
            "the search space is wrong:\n  " + "\n  ".join(lines),
            hint="`kamerton params docs` lists every parameter",
        )


class OptimizationEngine:
    """The search of one study: resumable at any instant. For one thread."""

    def __init__(
        self,
        journal: Path,
        params: Params,
        *,
        name: str,
        history: Sequence[Point] = (),
        owner: str = "",
    ) -> None:
        """Open the study.

        Args:
            journal: the file it is kept in, unless ``tune.storage`` names a server.
            params: the parameters that the baseline runs with; ``tune`` holds the search.
            name: the study's name, part of what pruning depends on.
            history: configurations to begin with; only a study that begins now takes them.
            owner: whose trials are ours to continue, of the tuners that share a study.

        Raises:
            ParamsError: the search space does not fit the parameters.
        """
        require_search_space(params)
        self._params, self._tune = params, params.tune
        self.sampler, self.pruner = resolve_sampler(params.tune), resolve_pruner(params.tune)
        self._patience = effective_patience(params.tune)
        self._name, self._owner = name, owner
        self._shared = params.tune.storage is not None
        if params.tune.storage is not None:
            self._study, self._outages = open_shared_study(params.tune.storage, name)
        else:
            self._study = open_local_study(journal, name)
        self._values = {key: lookup(params, key) for key in params.tune.search_space}
        self._pause = Pause(time.monotonic, first_seconds=10.0)
        self._active: dict[int, optuna.Trial] = {}
        self._heard: dict[int, tuple[object, float]] = {}  # of others: last beat, when it was new
        if _FIRST not in self._study.user_attrs:
            points = first_points(params.tune, self._values, history)
            self._study.set_user_attr(_FIRST, points)
        self._first: list[dict[str, Choice]] = self._study.user_attrs[_FIRST]
        self._scale = self.objective()

    def finished(self) -> list[TrialResult]:
        """All finished trials in the order of their numbers."""
        return [item.result for item in self._known() if item.result is not None]

    def frozen_trials(self) -> "list[optuna.trial.FrozenTrial]":
        """The finished trials as Optuna has them, for its own analyses."""
        space = {name: dim.distribution() for name, dim in self._tune.search_space.items()}
        return [item.frozen(space) for item in self._known() if item.result is not None]

    def objective(self) -> Objective | None:
        """The study's objective, once a trial has set its scale."""
        for trial in self._trials():
            baseline = trial.user_attrs.get(_RESULT, {}).get("baseline")
            if trial.state.is_finished() and baseline:
                return Objective(baseline)
        return None

    def history_trials(self) -> int:
        """How many of the first trials, after the baseline, come from other studies."""
        return len(self._first) - 1

    def patience_left(self) -> int | None:
        """Complete trials without a gain that are still allowed; None: there is no limit."""
        if self._patience is None:
            return None
        since = trials_without_gain(self.finished(), self._tune.min_delta)
        return max(0, self._patience - since)

    def is_complete(self) -> bool:
        """Whether all trials are finished that the study should have."""
        trials = self._trials()
        if any(not trial.state.is_finished() for trial in trials):
            return False
        return len(trials) >= self._tune.trials or self.patience_left() == 0

    def next_trial(self) -> RunningTrial | None:
        """A trial to run now; None when there is none to begin (others may be under way)."""
        from optuna.exceptions import UpdateFinishedTrialError

        self._scale = self.objective()
        for frozen in self._trials():
            if self._is_ours(frozen) and frozen.number not in self._active:
                return self._resume(frozen)
        if len(self._trials()) >= self._tune.trials or self.patience_left() == 0:
            return None
        handle = self._study.ask()  # takes the number, for all tuners
        if handle.number >= self._tune.trials:
            self._study.tell(handle, state=_states()["failed"])  # another tuner was faster
            return None
        try:
            return self._begin(handle)
        except UpdateFinishedTrialError:  # so slow that another tuner wrote it off
            return None

    def _resume(self, frozen: "optuna.trial.FrozenTrial") -> RunningTrial:
        import optuna

        handle = optuna.Trial(self._study, frozen._trial_id)
        asked = frozen.user_attrs.get(_ASKED)
        return self._begin(handle) if asked is None else self._running(handle, asked)

    def _begin(self, handle: "optuna.Trial") -> RunningTrial:
        """Give a trial that has its number its point."""
        number = handle.number
        attributes: dict[str, object] = {}
        if number < len(self._first):
            point = self._first[number]
        else:
            unknown = {number, *self._never_run()}
            known = [item for item in self._known() if item.number not in unknown]
            point, attributes = draw(number, self._tune, self.sampler, known)
        asked = {"point": point, "owner": self._owner, "attributes": attributes}
        handle.set_user_attr(_ASKED, asked)
        return self._running(handle, asked)

    def _running(self, handle: "optuna.Trial", asked: Mapping[str, Any]) -> RunningTrial:
        number, point = handle.number, asked["point"]
        self._active[number] = handle
        baseline = number == 0
        return RunningTrial(
            number,
            self._values if baseline else point,  # the baseline runs with its own values
            {} if baseline else point,
            self._judge(number, point),
            lambda: self._scale,
        )

    def _judge(self, number: int, point: Point) -> "optuna.Trial":
        """The trial in a scratch copy of the study that its pruner judges it in."""
        import optuna

        space = {name: dim.distribution() for name, dim in self._tune.search_space.items()}
        scratch = optuna.create_study(
            study_name=self._name,
            storage=optuna.storages.InMemoryStorage(),
            direction="minimize",
            pruner=make_pruner(self.pruner, trial_steps=self._tune.trial_steps),
        )
        others = {item.number: item for item in self._known()}
        blank = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING)
        for earlier in range(number):  # numbers must be kept: brackets depend on them
            known = others.get(earlier)
            scratch.add_trial(blank if known is None else known.frozen(space))
        scratch.enqueue_trial(dict(point))
        trial = scratch.ask(space)
        for later in sorted(others):
            if later > number:
                scratch.add_trial(others[later].frozen(space))
        return trial

    def can_finish(self, trial: RunningTrial) -> bool:
        """Whether the trial's scale is known: it may run beside the baseline that sets it.

        The first good trial sets it, so a trial that ended must wait for those of lower numbers.
        """
        self._scale = self.objective()
        if self._scale is not None or trial.state == "failed":
            return True
        return all(
            other.state.is_finished() for other in self._trials() if other.number < trial.number
        )

    def finish(self, trial: RunningTrial) -> TrialResult:
        """Enter a trial that ended; its last write makes it finished."""
        handle = self._active[trial.number]
        first = self._scale is None
        result, objective = trial.conclude()
        details = {
            "state": result.state,
            "objective": result.objective,
            "params": dict(result.params),
            "step": result.step,
            "metrics": dict(result.metrics),
            "curve": [[step, value] for step, value in result.curve.items()],
            "reason": result.reason,
            "baseline": dict(objective.baseline) if first and objective else None,
            "rungs": trial.rungs(),
        }
        self._enter(handle, details)
        del self._active[trial.number]
        self._scale = self.objective()
        return result

    def _enter(self, handle: "optuna.Trial", details: Mapping[str, Any]) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        state = _states()[details["state"]]
        value = details["objective"] if details["state"] == "complete" else None
        try:
            handle.set_user_attr(_RESULT, dict(details))
            self._study.tell(handle, value, state)
        except (UpdateFinishedTrialError, ValueError):
            number = handle.number
            if not self._study.get_trials(deepcopy=False)[number].state.is_finished():
                raise
            _log.warning(
                "trial %d was written off by another tuner while this one was silent; its result "
                "does not count",
                number,
            )

    def beat(self) -> None:
        """Say that our trials are under way, and write off those of tuners that went silent.

        To be called about every ten seconds; without effect on a study that nobody shares.
        """
        if not self._shared or not self._pause.over:
            return
        try:
            with self._outages.hurried():  # the trials go on meanwhile
                self._beat()
            self._pause.reset()
        except StorageAwayError:  # told; whoever needs an answer waits for it
            self._pause.failed()

    def _beat(self) -> None:
        self._scale = self.objective()
        now = time.monotonic()
        for handle in self._active.values():
            handle.set_user_attr(_BEAT, now)
        for frozen in self._trials():
            if frozen.state.is_finished() or frozen.number in self._active:
                continue
            beat = frozen.user_attrs.get(_BEAT)
            last, since = self._heard.setdefault(frozen.number, (beat, now))
            if beat != last:
                self._heard[frozen.number] = (beat, now)  # by our clock: theirs may be wrong
            elif now - since > _SILENT_SECONDS and not self._is_ours(frozen):
                self._write_off(frozen)

    def _write_off(self, frozen: "optuna.trial.FrozenTrial") -> None:
        import optuna

        handle = optuna.Trial(self._study, frozen._trial_id)
        asked = frozen.user_attrs.get(_ASKED)
        if asked is None:  # its tuner was killed before it had a point; the count must be right
            point = self._first[frozen.number if frozen.number < len(self._first) else 0]
            asked = {"point": point, "owner": "", "attributes": {}, "never_run": True}
            handle.set_user_attr(_ASKED, asked)
        details = {
            "state": "failed", "objective": None, "params": asked["point"], "step": None,
            "metrics": {}, "curve": [], "baseline": None, "rungs": {},
            "reason": f"its tuner was silent for {_SILENT_SECONDS:.0f} s",
        }  # fmt: skip
        self._enter(handle, details)

    def _is_ours(self, frozen: "optuna.trial.FrozenTrial") -> bool:
        """Whether it is under way and this tuner's to run; on one machine, everything is."""
        if frozen.state.is_finished():
            return False
        asked = frozen.user_attrs.get(_ASKED)
        if asked is None:
            return not self._shared
        return not self._shared or asked["owner"] == self._owner

    def _trials(self) -> "list[optuna.trial.FrozenTrial]":
        """The trials that count; a race between tuners may leave one number too many."""
        return self._study.get_trials(deepcopy=False)[: self._tune.trials]

    def _never_run(self) -> set[int]:
        """Trials that nobody ran at the point that they are recorded with."""
        asked = {trial.number: trial.user_attrs.get(_ASKED, {}) for trial in self._trials()}
        return {number for number, item in asked.items() if item.get("never_run")}

    def _known(self) -> list[KnownTrial]:
        """The trials that have a point, in the order of their numbers."""
        known = []
        for trial in self._trials():
            asked = trial.user_attrs.get(_ASKED)
            if asked is None:
                continue
            result, attributes = None, asked["attributes"]
            if trial.state.is_finished():
                details = trial.user_attrs[_RESULT]
                result, attributes = _read(trial.number, details), attributes | details["rungs"]
            known.append(KnownTrial(trial.number, asked["point"], result, attributes))
        return known


def _states() -> "dict[TrialState, optuna.trial.TrialState]":
    from optuna.trial import TrialState as States

    return {"complete": States.COMPLETE, "pruned": States.PRUNED, "failed": States.FAIL}


def _read(number: int, details: Mapping[str, Any]) -> TrialResult:
    return TrialResult(
        number=number,
        state=details["state"],
        params=details["params"],
        objective=details["objective"],
        step=details["step"],
        metrics=details["metrics"],
        curve={int(step): value for step, value in details["curve"]},
        reason=details["reason"],
    )
