"""A study on disk: its trials' parameters, their trainers' folders, and its own record."""

import os
import shutil
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from kamerton.config.schema import Params
from kamerton.config.search_space import Choice, nest
from kamerton.core.files import write_text
from kamerton.smart_tuner.opt_engine import RunningTrial, TrialResult
from kamerton.tracking.run_directory import list_runs

_CACHE: Final = "cache"  # the trainer's features, below its runs folder
_EVALUATIONS: Final = 4  # at least, in every trial: what pruning and the curves live on


def trainer_command(dataset: Path, analysis: Path) -> list[str]:
    """The command line of a trial's trainer, without its parameters and runs folder."""
    paths = ["--dataset", str(dataset), "--analysis", str(analysis)]
    return [sys.executable, "-m", "kamerton", "train", "--trial", "--quiet", *paths]


def trial_params(params: Params, overrides: Mapping[str, Choice]) -> Params:
    """The parameters of one trial: the study's budget and the trial's own values on top."""
    steps = params.tune.trial_steps
    interval = max(1, min(params.train.eval_interval_steps, steps // _EVALUATIONS))
    budget = {
        "train.max_steps": steps,
        "train.eval_interval_steps": interval,
        "train.checkpoint_interval_steps": interval,
        "train.keep_checkpoints": 1,
        "tune.storage": None,  # no trainer needs it
    }
    return params.with_overrides(nest({**budget, **overrides}))


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """``runs/studies/<fingerprint>/``: journal.log, owner, metrics.jsonl and trials/<number>/."""

    path: Path
    runs: Path

    @property
    def journal(self) -> Path:
        """The finished trials."""
        return self.path / "journal.log"

    def owner(self) -> str:
        """This folder's name among the tuners that share a study; made once."""
        file = self.path / "owner"
        if not file.exists():
            write_text(file, f"{uuid.uuid4().hex}\n")
        return file.read_text().strip()

    def trial(self, number: int) -> Path:
        """Folder of one trial."""
        return self.path / "trials" / f"{number:03d}"

    def trial_runs(self, number: int) -> Path:
        """The runs folder of one trial's trainer."""
        return self.trial(number) / "runs"

    def log(self, number: int) -> Path:
        """What a trial's trainer printed."""
        return self.trial(number) / "trainer.log"

    def prepare(self, trial: RunningTrial, params: Params) -> list[str]:
        """Write the trial's parameters; returns the options that pass them to the trainer."""
        folder, runs = self.trial(trial.number), self.trial_runs(trial.number)
        resolved = trial_params(params, trial.overrides).model_dump(mode="json")
        file = folder / "params.yaml"
        write_text(file, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
        runs.mkdir(parents=True, exist_ok=True)
        self.share_cache(runs)
        return ["--params", str(file), "--runs", str(runs)]

    def share_cache(self, runs: Path) -> None:
        """Let all trainers use one cache of features: they depend on the data, not on the trial."""
        shared = self.runs / _CACHE
        shared.mkdir(parents=True, exist_ok=True)
        link = runs / _CACHE
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(os.path.relpath(shared, runs), target_is_directory=True)

    def clear(self) -> None:
        """Forget all trials."""
        shutil.rmtree(self.path / "trials", ignore_errors=True)
        for name in (self.journal.name, "metrics.jsonl", "mlflow.json"):
            (self.path / name).unlink(missing_ok=True)

    def tidy(self, results: Sequence[TrialResult]) -> None:
        """Remove the checkpoints of finished trials; their record stays."""
        for result in results:
            for run in list_runs(self.trial_runs(result.number)):
                shutil.rmtree(run.checkpoints, ignore_errors=True)


def best_of(results: Sequence[TrialResult]) -> TrialResult | None:
    """The complete trial of lowest objective, the earliest among equals."""
    complete = [result for result in results if result.state == "complete"]
    return min(complete, key=lambda item: (item.objective or 0.0, item.number), default=None)


def baseline_of(results: Sequence[TrialResult]) -> TrialResult | None:
    """The trial of the unchanged parameters, if it is complete."""
    first = next((item for item in results if item.number == 0), None)
    return first if first is not None and first.state == "complete" else None


def as_overrides(result: TrialResult) -> dict[str, Any]:
    """A trial's values as nested parameters."""
    return nest(result.params)
