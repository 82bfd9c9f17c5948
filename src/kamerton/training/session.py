"""One training run from its inputs to its last checkpoint: found or begun, continued, ended."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kamerton.config.schema import Params, TrainParams
from kamerton.config.yaml_source import read_yaml
from kamerton.core.errors import ParamsError, PipelineError, StoppedError, UsageError
from kamerton.core.progress import Progress, silent
from kamerton.core.stop import StopRequest
from kamerton.data.manifest import Dataset
from kamerton.model.tacotron2.model import Tacotron2
from kamerton.tracking import RunDirectory, find_runs, list_runs, open_trackers
from kamerton.training.architecture import architecture_of
from kamerton.training.checkpoint import Checkpoints
from kamerton.training.data import TrainingData
from kamerton.training.fingerprint import run_fingerprint
from kamerton.training.loop import Job, train_model
from kamerton.training.schedule import total_steps
from kamerton.training.state import TrainState
from kamerton.training.step import make_optimizer

CACHE_FOLDER = "cache"  # below the folder of runs, shared by all of them
TRIAL_SUFFIX = "-trial"


@contextlib.contextmanager
def fixed_threads(train: TrainParams) -> Iterator[int]:
    """Give torch ``train.threads`` processor threads (0: all cores); yields their number."""
    before = torch.get_num_threads()
    threads = train.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    try:
        yield threads
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, slots=True)
class Session:
    """What is the same for every run of these parameters on this dataset.

    Attributes:
        params: Parameters, with what the tuner found laid over them.
        dataset: The dataset.
        data: Its batches.
        device: Where the model is.
        runs: Folder of run directories.
        total_steps: The budget.
        fingerprint: Of everything that decides the outcome.
        trial: Whether this is a short run of a search.
    """

    params: Params
    dataset: Dataset
    data: TrainingData
    device: torch.device
    runs: Path
    total_steps: int
    fingerprint: str
    trial: bool

    @classmethod
    def prepare(
        cls,
        dataset: Dataset,
        recommended_epochs: int,
        params: Params,
        *,
        runs: Path,
        threads: int,
        trial: bool,
        on_progress: Progress = silent,
    ) -> Session:
        """Read the dataset and fix the budget.

        Raises:
            ParamsError: the dataset was made with other text or audio parameters.
            InputEmptyError, InputCorruptError: the dataset is not what it should be.
        """
        _require_equal_text(dataset, params)
        params = params.model_copy(update={"train": params.train.resolved()})
        device = _device(params.train)
        data = TrainingData(
            dataset, runs / CACHE_FOLDER, params, device=device, on_progress=on_progress
        )
        steps = total_steps(params.train, recommended_epochs, data.plan.batches_per_epoch)
        fingerprint = run_fingerprint(
            params,
            total_steps=steps,
            content_sha256=dataset.card["content_sha256"],
            threads=threads,
            device=device.type,
            trial=trial,
        )
        return cls(params, dataset, data, device, runs, steps, fingerprint, trial)

    def new_model(self) -> Tacotron2:
        """The network as it is before the first step: a function of the seed."""
        torch.manual_seed(self.params.train.seed)
        model = Tacotron2(architecture_of(self.params, len(self.data.symbols)))
        model.set_mel_statistics(*self.data.mel_statistics())
        return model.to(self.device)

    def checkpoints(self, run: RunDirectory) -> Checkpoints:
        """The checkpoints of a run."""
        return Checkpoints(run.checkpoints, keep=self.params.train.keep_checkpoints)

    def find_run(self, *, resume: bool, anew: bool) -> RunDirectory:
        """The unfinished run of this session, else its finished one, else a new one.

        Args:
            resume: Only an unfinished run will do.
            anew: Only a new run will do.

        Raises:
            UsageError, ParamsError: there is nothing to resume, or only a run of other parameters.
        """
        known = [] if anew else find_runs(self.runs, self.fingerprint)
        unfinished = [run for run in known if run.status().state != "finished"]
        if unfinished:
            return unfinished[0]
        if resume:
            raise self._nothing_to_resume()
        if known:
            return known[0]
        return RunDirectory.create(
            self.runs,
            name=str(self.dataset.card["name"]) + (TRIAL_SUFFIX if self.trial else ""),
            fingerprint=self.fingerprint,
            params=self.params.model_dump(mode="json"),
            command=sys.argv,
        )

    def _nothing_to_resume(self) -> PipelineError:
        for run in list_runs(self.runs):
            status = run.status()
            if status.state == "finished" or status.name.endswith(TRIAL_SUFFIX):
                continue
            then = read_yaml(run.path / "params.yaml").values
            changed = list(differences(then, self.params.model_dump(mode="json")))
            what = ", ".join(changed[:5]) or "the dataset, the code or the number of threads"
            return ParamsError(
                f"the newest unfinished run, {run.path}, was begun with another value of: {what}.",
                hint="give it what it was started with, or leave --resume out to begin anew",
            )
        return UsageError(
            f"there is no unfinished run in {self.runs} to resume.", hint="leave --resume out"
        )

    def train(
        self, run: RunDirectory, *, stop: StopRequest, on_progress: Progress = silent
    ) -> tuple[TrainState, bool]:
        """Bring ``run`` to its end; the caller holds it.

        Returns:
            Its last state, and whether it had been finished before.

        Raises:
            StoppedError: a stop was asked for; everything is saved.
            PipelineError: training diverged.
        """
        model = self.new_model()
        optimizer = make_optimizer(model, self.params.train)
        checkpoints = self.checkpoints(run)
        saved = checkpoints.restore(model, optimizer)
        if saved and run.status().state == "finished" and checkpoints.best.exists():
            return saved, True
        state = saved or TrainState()
        begun = run.metrics_file.exists()
        tracker = open_trackers(
            run,
            self.params.tracking,
            resume_step=state.step if begun else None,
            services=not self.trial,
        )
        illustrated = None if self.trial else self.params.audio
        job = Job(model, optimizer, self.data, self.params.train, self.total_steps, run,
                  checkpoints, tracker, illustrated)  # fmt: skip
        try:
            if not begun:
                tracker.log_params(self.params.model_dump(mode="json"))
            run.write_status("running", step=state.step)
            state = train_model(job, state, stop=stop, on_progress=on_progress)
            _require_evaluation(state)
        except StoppedError as stopped:
            run.write_status("stopped", step=run.status().step, reason=stopped.message)
            tracker.close("stopped")
            raise
        except Exception as error:
            run.write_status("failed", step=run.status().step, reason=str(error))
            tracker.close("failed")
            raise
        run.write_status("finished", step=state.step, best_step=state.best_step)
        tracker.close("finished")
        return state, False


def _require_equal_text(dataset: Dataset, params: Params) -> None:
    """A voice normalises text as its training data was, or it reads symbols it never heard."""
    changed = list(differences(dataset.card["text"], params.text.model_dump(mode="json"), "text."))
    if changed:
        raise ParamsError(
            f"the dataset {dataset.path} was made with another value of: {', '.join(changed)}.",
            hint="run `kamerton dataset --force` with these parameters, or take its own",
        )


def _device(train: TrainParams) -> torch.device:
    if train.device == "cuda" and not torch.cuda.is_available():
        raise ParamsError(
            "train.device is cuda and no CUDA device answers.", hint="set train.device to auto"
        )
    wants_gpu = train.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if wants_gpu else "cpu")


def _require_evaluation(state: TrainState) -> None:
    if state.best_step == 0:
        raise PipelineError(
            f"None of the evaluations up to step {state.step} gave finite numbers.",
            hint="lower train.learning_rate",
        )


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> Iterator[str]:
    """Dotted names of the values in which two nested mappings differ."""
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key}"
