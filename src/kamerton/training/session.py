"""One training run from its inputs to its last checkpoint: found or begun, continued, ended."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kamerton.config.schema import Params, TrainParams
from kamerton.core.errors import InputMissingError, ParamsError, PipelineError, StoppedError
from kamerton.core.progress import Progress, silent
from kamerton.core.stop import StopRequest
from kamerton.data.manifest import Dataset
from kamerton.model.tacotron2.model import Tacotron2
from kamerton.tracking import CompositeTracker, RunDirectory, RunState, open_trackers, read_records
from kamerton.tracking.hooks import Hook
from kamerton.tracking.improvement_plan import improvement_plan, write_plan
from kamerton.tracking.protocol import EndState
from kamerton.training import effective
from kamerton.training.architecture import architecture_of
from kamerton.training.checkpoint import Checkpoints, Restored
from kamerton.training.data import TrainingData
from kamerton.training.debug_report import DebugReporter
from kamerton.training.differences import differences
from kamerton.training.distributed import World
from kamerton.training.fingerprint import Origin
from kamerton.training.hooks import OnAlert, logged_alert
from kamerton.training.job import Job
from kamerton.training.loop import train_model
from kamerton.training.meaning import Meaning, changes
from kamerton.training.runs import adopt, choose_run, told_surroundings, warm_start_hash
from kamerton.training.schedule import controls_at, total_steps
from kamerton.training.state import TrainState
from kamerton.training.status import note_status, noted_step
from kamerton.training.step import make_optimizer
from kamerton.training.warm_start import read_source, source_sha256, warm_start

CACHE_FOLDER = "cache"  # below the folder of runs, shared by all of them
# How long a full disk is given to take the last state: long enough to remove something, and, where
# a stop was asked for, less than the 30 s that Kubernetes waits before it kills.
LAST_SAVE_SECONDS = 60.0
STOPPED_SAVE_SECONDS = 15.0
# What processes that train together must have in common, besides what decides what is trained.
_EQUAL_SURROUNDINGS = ("code", "torch", "threads", "device")

_log = logging.getLogger("kamerton.train")


@contextlib.contextmanager
def fixed_threads(train: TrainParams, world: World | None = None) -> Iterator[int]:
    """Give torch ``train.threads`` processor threads (0: all cores); yields their number."""
    before = torch.get_num_threads()
    threads = (world or World()).threads(train.threads)
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
        origin: Everything else that decides the outcome.
        fingerprint: Of the two.
        trial: Whether this is a short run of a search.
        world: The processes that train together.
        warm_start: Where the first weights are taken from; None where the seed makes them.
    """

    params: Params
    dataset: Dataset
    data: TrainingData
    device: torch.device
    runs: Path
    total_steps: int
    origin: Origin
    fingerprint: str
    trial: bool
    world: World
    warm_start: Path | None = None

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
        world: World | None = None,
        warm_start: Path | None = None,
        budget: int | None = None,
        on_progress: Progress = silent,
    ) -> Session:
        """Read the dataset and fix the budget.

        Args:
            dataset: The dataset.
            recommended_epochs: The budget where the parameters set none.
            params: Parameters, with what the tuner found laid over them.
            runs: Folder of run directories.
            threads: Processor threads that torch uses.
            trial: Whether this is a short run of a search.
            world: The processes that train together; None: this one alone.
            warm_start: Checkpoint, run or voice to take the first weights from.
            budget: Steps, whatever the parameters say; for the repetition of a run.
            on_progress: Told of the spectrograms that are computed.

        Raises:
            ParamsError: the dataset was made with other text or audio parameters.
            InputMissingError: there is no dataset, or no weights to begin with.
            InputEmptyError, InputCorruptError: the dataset is not what it should be.
        """
        world = world or World()
        _require_equal_text(dataset, params)
        params = params.model_copy(update={"train": params.train.resolved()})
        device = world.device(params.train)
        sha256 = None if warm_start is None else _warm_start_sha256(warm_start, runs)
        with world.main_first():  # it computes what is missing in the cache, the others read it
            data = TrainingData(
                dataset, runs / CACHE_FOLDER, params, device=device, world=world,
                on_progress=on_progress,
            )  # fmt: skip
        steps = budget or total_steps(params.train, recommended_epochs, data.steps_per_epoch)
        origin = Origin.here(
            dataset=dataset.path, content_sha256=dataset.card["content_sha256"],
            total_steps=steps, threads=threads, device=device.type, processes=world.size,
            trial=trial, warm_start=warm_start, warm_start_sha256=sha256, batching=data.batching,
        )  # fmt: skip
        fingerprint = origin.fingerprint(params)
        equal = [fingerprint, *(getattr(origin, name) for name in _EQUAL_SURROUNDINGS)]
        world.require_equal("parameters, dataset and code", json.dumps(equal))
        return cls(params, dataset, data, device, runs, steps, origin, fingerprint, trial, world,
                   warm_start)  # fmt: skip

    def new_model(self) -> Tacotron2:
        """The network as it is before the first step: a function of the seed."""
        torch.manual_seed(self.params.train.seed)
        architecture = architecture_of(
            self.params, len(self.data.symbols), speakers=len(self.data.speakers)
        )
        model = Tacotron2(architecture)
        model.set_mel_statistics(*self.data.mel_statistics())
        return model.to(self.device)

    def meaning(self, model: Tacotron2) -> Meaning:
        """What the weights of ``model`` mean."""
        return Meaning(
            model.architecture.to_dict(), self.params.audio.model_dump(mode="json"),
            self.data.symbols.symbols, self.data.speakers,
        )  # fmt: skip

    def checkpoints(self, run: RunDirectory, meaning: Meaning | None = None) -> Checkpoints:
        """The checkpoints of a run; ``meaning`` is required of those that are loaded."""
        keep = self.params.train.keep_checkpoints
        return Checkpoints(run.checkpoints, keep=keep, meaning=meaning)

    def find_run(self, *, resume: bool, anew: bool) -> RunDirectory:
        """The newest run of this session, unfinished or finished, else a new one.

        Args:
            resume: Only an unfinished run will do, also one that can change to these parameters.
            anew: Only a new run will do.

        Raises:
            UsageError, ParamsError: there is nothing to resume, or only a run of other parameters.
        """
        path = None
        if self.world.main:
            run = choose_run(
                self.runs, self.fingerprint, self.params, self.origin,
                name=str(self.dataset.card["name"]), command=sys.argv, resume=resume, anew=anew,
            )  # fmt: skip
            path = str(run.path)
        return RunDirectory(Path(self.world.share(path)))

    def train(
        self, run: RunDirectory, *, stop: StopRequest, on_progress: Progress = silent,
        hooks: Sequence[Hook] = (), on_alert: OnAlert = logged_alert,
    ) -> tuple[TrainState, bool]:  # fmt: skip
        """Bring ``run`` to its end; the main process holds it.

        Args:
            run: Its directory.
            stop: Whether to end early.
            on_progress: Told of every step.
            hooks: What watches and steers it.
            on_alert: Told of what a person should know at once.

        Returns:
            Its last state, and whether it had been finished before.

        Raises:
            StoppedError: a stop was asked for; everything is saved.
            ParamsError: a checkpoint, or the weights to begin with, are of another network.
            PipelineError: training diverged, or the disk did not take its last state.
        """
        model = self.new_model()
        optimizer = make_optimizer(model, self.params.train)
        asked = effective.hyperparameters(optimizer)
        checkpoints = self.checkpoints(run, self.meaning(model))
        restored = checkpoints.restore(model, optimizer)
        finished = self.world.share(self._finished(run, checkpoints, restored))
        if finished is not None:
            return TrainState.from_dict(finished), True
        if restored is not None:  # which train.changes may have scaled
            controls = controls_at(restored.state, self.total_steps, self.params.train)
            asked = [{**group, "weight_decay": controls.weight_decay} for group in asked]
        replaced = effective.apply_hyperparameters(optimizer, asked)
        with self._record(run, checkpoints, restored) as tracker:
            state = self._reconciled(checkpoints, restored)
            self._adopt(run, tracker, state)
            tracker.log_event(
                "effective", step=state.step, replaced=replaced, **effective.facts(asked)
            )
            if restored is None and self.warm_start is not None:
                self._start_warm(model, tracker)
            self._status(run, "running", state.step, effective=effective.facts(asked))
            self._require_no_stop(stop, state)
            job = self._job(run, model, optimizer, checkpoints, tracker, restored, hooks, on_alert)
            state = train_model(job, state, stop=stop, on_progress=on_progress)
            checkpoints.settle(seconds=LAST_SAVE_SECONDS)
            _require_evaluation(state)
            self._status(run, "finished", state.step, best_step=state.best_step)
        return state, False

    def _finished(
        self, run: RunDirectory, checkpoints: Checkpoints, restored: Restored | None
    ) -> dict[str, Any] | None:
        """The last state of a run that needs no training; what the main process finds counts."""
        if not self.world.main or restored is None or not checkpoints.best.exists():
            return None
        return restored.state.to_dict() if run.status().state == "finished" else None

    def _adopt(self, run: RunDirectory, tracker: CompositeTracker, state: TrainState) -> None:
        """Record what the run goes on with where it is not what it had."""
        if not self.world.main:
            return
        found = differences(run, self.params, self.origin)
        if found.surroundings and state.step:
            _log.warning(
                "%s goes on in other surroundings: %s; from step %d its numbers are no longer "
                "equal, bit for bit, to those of an undisturbed run",
                run.path, told_surroundings(found), state.step,
            )  # fmt: skip
            tracker.log_event("surroundings_changed", step=state.step, changes=found.surroundings)
        if found.decisive:
            _log.warning("%s goes on with other values: %s", run.path, found.words(limit=10))
            changed = {name: list(values) for name, values in found.decisive.items()}
            tracker.log_event("hyperparameters_changed", step=state.step, changes=changed)
        adopt(run, self.params, self.origin, self.fingerprint, found=found, step=state.step)

    def _job(
        self, run: RunDirectory, model: Tacotron2, optimizer: torch.optim.Optimizer,
        checkpoints: Checkpoints, tracker: CompositeTracker, restored: Restored | None,
        hooks: Sequence[Hook], on_alert: OnAlert,
    ) -> Job:  # fmt: skip
        watching = list(hooks)
        if self.world.main and not self.trial:
            interval = self.params.train.monitoring.debug_interval_steps
            watching.append(DebugReporter(run, model, self.data, interval_steps=interval))
        return Job(
            model=model, optimizer=optimizer, data=self.data, train=self.params.train,
            total_steps=self.total_steps, run=run, checkpoints=checkpoints, tracker=tracker,
            illustrated=None if self.trial else self.params.audio,
            scaler=restored.scaler if restored else None, world=self.world, hooks=watching,
            on_alert=on_alert,
        )  # fmt: skip

    @contextlib.contextmanager
    def _record(
        self, run: RunDirectory, checkpoints: Checkpoints, restored: Restored | None
    ) -> Iterator[CompositeTracker]:
        """The run's trackers, and how it ended, whatever happens in between."""
        if not self.world.main:
            yield CompositeTracker([])
            return
        begun = run.metrics_file.exists()
        known = begun and any(record.kind == "params" for record in read_records(run.metrics_file))
        step = restored.state.step if restored else 0
        tracker = open_trackers(
            run, self.params.tracking, resume_step=step if begun else None,
            unevaluated=bool(restored and restored.state.awaits_evaluation),
            services=not self.trial,
        )  # fmt: skip
        checkpoints.on_event = tracker.log_event
        try:
            if not known:  # a run may be killed before it wrote them
                tracker.log_params(self.params.model_dump(mode="json"))
            yield tracker
        except StoppedError as stopped:
            with self._failing(run, tracker):
                checkpoints.settle(seconds=STOPPED_SAVE_SECONDS)
            self._status(run, "stopped", noted_step(run), reason=stopped.message)
            _close(run, tracker, "stopped")
            raise
        except Exception as error:
            self._fail(run, tracker, error)
            raise
        _close(run, tracker, "finished")

    @contextlib.contextmanager
    def _failing(self, run: RunDirectory, tracker: CompositeTracker) -> Iterator[None]:
        try:
            yield
        except PipelineError as error:
            self._fail(run, tracker, error)
            raise

    def _fail(self, run: RunDirectory, tracker: CompositeTracker, error: Exception) -> None:
        self._status(run, "failed", noted_step(run), reason=str(error))
        _close(run, tracker, "failed")

    def _status(
        self, run: RunDirectory, state: RunState, step: int, *, reason: str = "", **facts: Any
    ) -> None:
        if self.world.main:
            note_status(run, state, step=step, reason=reason, **facts)

    def _reconciled(self, checkpoints: Checkpoints, restored: Restored | None) -> TrainState:
        """The state to go on from, with the files on disk as it says; main process first."""
        state = restored.state if restored else TrainState()
        if self.world.main:
            state = checkpoints.reconcile(state)
        self.world.barrier()
        state = state if self.world.main else checkpoints.reconcile(state)
        self.world.require_equal("where the run stands", json.dumps(state.to_dict()))
        return state

    def _start_warm(self, model: Tacotron2, tracker: CompositeTracker) -> None:
        assert self.warm_start is not None  # asked before
        taken = warm_start(model, read_source(self.warm_start), self.meaning(model))
        tracker.log_event("warm_start", step=0, **taken.facts())
        for row in taken.new_rows:
            _log.warning("%s does not know %r: it begins untrained", taken.source, row)

    def _require_no_stop(self, stop: StopRequest, state: TrainState) -> None:
        """Grant a stop that was asked for before the first step."""
        if self.world.any(stop.requested):
            raise StoppedError(
                f"training stopped on request at step {state.step} of {self.total_steps}; "
                "nothing was done that is not saved."
            )


def _close(run: RunDirectory, tracker: CompositeTracker, state: EndState) -> None:
    """End the record, and say beside it what was done about trouble."""
    tracker.close(state)
    try:
        write_plan(run.path, improvement_plan(read_records(run.metrics_file)))
    except OSError as error:  # a full disk: the record itself has it all
        _log.warning("the improvement plan of %s could not be written: %s", run.path, error)


def _warm_start_sha256(source: Path, runs: Path) -> str:
    """The hash of the weights to begin with, which a run that goes on can do without."""
    try:
        return source_sha256(source)
    except InputMissingError:
        noted = warm_start_hash(runs, source)
        if noted is None:
            raise
        return noted


def _require_equal_text(dataset: Dataset, params: Params) -> None:
    """A voice normalises text as its training data was, or it reads symbols it never heard."""
    asked = params.text.model_dump(mode="json")
    changed = [name for name, _, _ in changes(dataset.card["text"], asked, "text.")]
    if changed:
        raise ParamsError(
            f"the dataset {dataset.path} was made with another value of: {', '.join(changed)}.",
            hint="run `kamerton dataset --force` with these parameters, or take its own",
        )


def _require_evaluation(state: TrainState) -> None:
    if state.best_step == 0:
        raise PipelineError(
            f"None of the evaluations up to step {state.step} gave finite numbers.",
            hint="lower train.learning_rate",
        )
