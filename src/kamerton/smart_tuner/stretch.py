"""A piece of a run that one trainer makes: begun or copied, watched, ended, and checked.

A trainer is started with ``--resume`` on a copy of its parent's run (``fork``) and other hot
parameters. It is ended as soon as the state at the last step of its stretch is on disk. A stretch
that is there already is not made again, so whoever was killed may ask for all of them anew.
"""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from kamerton.config.changes import MADE_WITH, factors_at
from kamerton.config.train_section import ChangeParams
from kamerton.core.errors import (
    ParamsError,
    PipelineError,
    StoppedError,
)
from kamerton.core.files import write_text
from kamerton.smart_tuner.fork import checkpoint_at, fork
from kamerton.smart_tuner.generation_plan import GenerationPlan
from kamerton.smart_tuner.param_scheduler import ParamScheduler
from kamerton.smart_tuner.study import StudyFolder
from kamerton.smart_tuner.trainer_wrapper import (
    ENVIRONMENT_FAULTS,
    TrainerOutcome,
    TrainerWrapper,
    Watch,
    evaluation_of,
)
from kamerton.tracking.metrics_file import read_records
from kamerton.tracking.run_directory import RunDirectory, list_runs

_FOLDER: Final = "generations"
_EQUAL: Final = 1e-6  # relative; factors pass through a few products
_ATTEMPTS: Final = 2  # of a trainer that fails: a full memory is no fault of the candidate
_KEPT: Final = 8  # checkpoints; those that a recovery may go back to among them


class CandidateError(Exception):
    """A stretch was not made as it was asked; the message is a reason for people."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A piece of a run that one trainer makes.

    Attributes:
        label: Its folder.
        parent: The run to go on from; None begins one.
        from_step: Where it is cut.
        to_step: Where this piece ends; the budget: it ends by itself.
        changes: What it trains with.
        evaluate_every: Steps between evaluations; None leaves those of a trial.
    """

    label: str
    parent: RunDirectory | None
    from_step: int
    to_step: int
    changes: tuple[ChangeParams, ...]
    evaluate_every: int | None = None


class Stretches:
    """Makes the stretches of one study's generations, one after the other."""

    def __init__(
        self, folder: StudyFolder, plan: GenerationPlan, scheduler: ParamScheduler, *,
        command: Sequence[str], stop: Callable[[], bool], on_step: Callable[[Stretch, int], None],
    ) -> None:  # fmt: skip
        """Work in a study's folder.

        Args:
            folder: Of the study.
            plan: Gives the checkpoints and the budget.
            scheduler: Writes the parameters of a restart.
            command: The trainer's command line, without parameters and runs folder.
            stop: Whether we were asked to stop.
            on_step: Told of the last step recorded.
        """
        self.path = folder.path / _FOLDER
        self._folder, self._plan, self._scheduler = folder, plan, scheduler
        self._command, self._stop, self._on_step = list(command), stop, on_step

    def make(
        self, stretch: Stretch, begun: Callable[[RunDirectory], None] = lambda _: None
    ) -> RunDirectory:
        """Make a stretch, or find it made; ``begun`` is told of the copy that it goes on with.

        Raises:
            CandidateError: it did not get there, or not with what was asked.
            StoppedError: we were asked to stop.
            PipelineError: the trainer cannot work here.
        """
        runs = self.path / stretch.label / "runs"
        run = _newest(runs)
        if run is None and stretch.parent is not None:
            run = fork(stretch.parent, runs, stretch.from_step)
        if run is not None:
            begun(run)
        if run is None or not self._is_made(run, stretch):
            command, outcome = self._prepare(stretch, runs), TrainerOutcome("failed")
            for _ in range(_ATTEMPTS):
                wrapper = TrainerWrapper(command, runs=runs, log=self._log_of(stretch))
                outcome = wrapper.run(self._watch(runs, stretch))
                if outcome.ending != "failed":
                    break
            self._require_made(stretch, outcome)
            run = _newest(runs)
        if run is None or not self._is_made(run, stretch):
            raise CandidateError(f"its trainer ended before step {stretch.to_step}")
        self._require_effective(run, stretch)
        return run

    def _prepare(self, stretch: Stretch, runs: Path) -> list[str]:
        """Write the parameters; returns the trainer's command line."""
        changed: dict[str, Any] = {
            "train.changes": stretch.changes,
            "train.checkpoint_interval_steps": self._plan.unit,
            "train.keep_checkpoints": _KEPT,
            "train.early_stopping.enabled": False,  # its length is the generation's
        }
        if stretch.evaluate_every is not None:
            changed["train.eval_interval_steps"] = stretch.evaluate_every
        resolved = self._scheduler.restart(changed).model_dump(mode="json")
        file = self.path / stretch.label / "params.yaml"
        write_text(file, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
        runs.mkdir(parents=True, exist_ok=True)
        self._folder.share_cache(runs)
        options = ["--params", str(file), "--runs", str(runs)]
        return [*self._command, *options, *(["--resume"] if stretch.parent else [])]

    def _watch(self, runs: Path, stretch: Stretch) -> Watch:
        def on_step(step: int) -> None:
            self._on_step(stretch, step)

        def enough() -> bool:
            return any(self._is_made(run, stretch) for run in list_runs(runs)[:1])

        return Watch(
            on_evaluation=lambda _: False, on_step=on_step, on_run=lambda _: None,
            stop=self._stop, enough=enough,
        )  # fmt: skip

    def _is_made(self, run: RunDirectory, stretch: Stretch) -> bool:
        """Whether the state that the stretch is to end with is there, with its evaluation."""
        if stretch.to_step == self._plan.total:
            return run.status().state == "finished"
        if stretch.evaluate_every is not None:
            return stretch.to_step in evaluated(run)
        return checkpoint_at(run, stretch.to_step).is_file()

    def _require_made(self, stretch: Stretch, outcome: TrainerOutcome) -> None:
        if outcome.ending == "stopped":
            raise StoppedError(
                f"the search stopped on request in its generations ({stretch.label}); "
                f"everything is kept in {self._folder.path}."
            )
        if outcome.ending != "failed":
            return
        refused = outcome.exit_code == ParamsError.exit_code
        if refused or outcome.exit_code in ENVIRONMENT_FAULTS:
            raise PipelineError(
                f"the trainer cannot go on (exit code {outcome.exit_code}):\n{outcome.message}",
                hint=f"its whole output is in {self._log_of(stretch)}; "
                "tune.generations.count=0 does without generations",
            )
        words = outcome.message.splitlines()[-1:] or [f"exit code {outcome.exit_code}"]
        raise CandidateError(f"its trainer failed: {words[0]}")

    def _require_effective(self, run: RunDirectory, stretch: Stretch) -> None:
        """Compare what was asked with what the trainer read back from its optimiser."""
        told = told_factors(run)
        if stretch.changes and not told:
            raise CandidateError("its trainer did not say what it trained with")
        for step, effective in told.items():
            asked = factors_at((step - 1) / self._plan.total, stretch.changes)
            wrong = [
                f"{name} × {found:g}, asked × {asked.get(name, 1.0):g}"
                for name, found in effective.items()
                if not math.isclose(found, asked.get(name, 1.0), rel_tol=_EQUAL)
            ]
            if wrong:
                raise CandidateError(f"step {step} was made with {'; '.join(wrong)}")

    def run_of(self, label: str) -> RunDirectory:
        """The run of a candidate or of the trunk.

        Raises:
            PipelineError: somebody removed it.
        """
        found = _newest(self.path / label / "runs")
        if found is None:
            raise PipelineError(
                f"{self.path / label} holds no run any more.",
                hint=f"remove {self.path} and {self.path}.json to make the generations again",
            )
        return found

    def _log_of(self, stretch: Stretch) -> Path:
        return self.path / stretch.label / "trainer.log"

    def drop_checkpoints(self, labels: set[str]) -> None:
        """Remove the checkpoints of runs that nobody goes on from; their record stays."""
        for label in labels:
            for run in list_runs(self.path / label / "runs"):
                shutil.rmtree(run.checkpoints, ignore_errors=True)


def _newest(runs: Path) -> RunDirectory | None:
    return next(iter(list_runs(runs)), None)


def evaluated(run: RunDirectory) -> dict[int, Mapping[str, float]]:
    """The evaluations of a run by step."""
    found = (evaluation_of(record) for record in read_records(run.metrics_file))
    return {item.step: item.values for item in found if item is not None}


def told_factors(run: RunDirectory) -> dict[int, dict[str, float]]:
    """What the trainer read back, by the step that it holds from."""
    return {
        record.step: {name: float(facts["factor"]) for name, facts in record.fields.items()}
        for record in read_records(run.metrics_file)
        if record.kind == "event" and record.name == MADE_WITH and record.step is not None
    }


def effective_factors(run: RunDirectory) -> dict[str, float]:
    """The last of it, without what was not changed."""
    told = list(told_factors(run).values())
    return {name: factor for name, factor in told[-1].items() if factor != 1.0} if told else {}
