"""Train Tacotron 2 on a dataset and export the best voice."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kamerton.config.loading import validate
from kamerton.config.schema import Params, merge
from kamerton.config.search_space import nest
from kamerton.config.yaml_source import read_yaml
from kamerton.core.errors import InputMissingError, StoppedError, ToolMissingError
from kamerton.core.files import require_apart, require_new
from kamerton.core.progress import Progress, silent
from kamerton.core.ranks import Ranks
from kamerton.data.epoch_rule import read_recommended_epochs
from kamerton.data.manifest import Dataset
from kamerton.smart_tuner.channels.opening import require_alerts
from kamerton.tracking import names

if TYPE_CHECKING:
    from kamerton.core.stop import StopRequest
    from kamerton.tracking import RunDirectory
    from kamerton.training.session import Session
    from kamerton.training.state import TrainState

_LOG = logging.getLogger("kamerton.train")

_STOPPED_EARLY = "training stopped on request before its first step; nothing was begun."
# Not the usual advice: here --force would begin hours of work again.
_REPLACE_HINT = "move it away: the run goes on, or is exported again; --force trains anew"


@dataclass(frozen=True, slots=True)
class TrainReport:
    """How the training went.

    Attributes:
        run: The run directory.
        steps: Steps made.
        total_steps: The budget.
        best_step: The step whose weights are exported.
        skipped_steps: Steps that were not applied because they were not finite.
        reused: Whether the run had been finished before.
        values: Evaluation of the exported weights, under the names of ``tracking.names``.
        gave_up: What no recovery was left for, so that the run ended with its best model; or "".
        stopped: Why the stop decision ended it before its budget; or "".
    """

    run: Path
    steps: int
    total_steps: int
    best_step: int
    skipped_steps: int
    reused: bool
    values: Mapping[str, float]
    gave_up: str = ""
    stopped: str = ""

    @property
    def partial(self) -> bool:
        """Training leaves no input out."""
        return False

    def metrics(self) -> dict[str, float]:
        """Flat figures."""
        return {
            "steps": float(self.steps),
            "best_step": float(self.best_step),
            "skipped_steps": float(self.skipped_steps),
            "gave_up": float(bool(self.gave_up)),
            "stopped_early": float(bool(self.stopped)),
            **self.values,
        }

    def summary(self) -> list[tuple[str, str]]:
        """A few lines for a person."""
        why = f"given up after {self.gave_up}" if self.gave_up else f"stopped: {self.stopped}"
        early = "" if self.steps == self.total_steps else f" of {self.total_steps}, {why}"
        values = self.values
        return [
            ("run", f"{self.run}{' (was finished; exported again)' if self.reused else ''}"),
            ("steps", f"{self.steps}{early}; best at {self.best_step}"),
            ("validation mel loss", f"{values[names.VAL_MEL_LOSS]:.3f}"),
            (
                "attention, free-running",
                f"diagonality {values[names.ATTENTION_SCORE]:.2f}, "
                f"coverage {values[names.ATTENTION_COVERAGE]:.2f}, "
                f"focus {values[names.ATTENTION_FOCUS]:.2f}",
            ),
            ("stop frame F1", f"{values[names.GATE_F1]:.2f}"),
        ]


def train(
    dataset: Path,
    analysis: Path,
    best_params: Path,
    model: Path,
    report: Path,
    params: Params,
    *,
    runs: Path = Path("runs"),
    resume: bool = False,
    trial: bool = False,
    warm_start: Path | None = None,
    force: bool = False,
    on_progress: Progress = silent,
) -> TrainReport:
    """Train the acoustic model and export its best checkpoint to ``model``.

    An unfinished run of equal parameters and data is continued from its last checkpoint, and one
    that was finished by the same code is exported again, unless ``force`` asks for a new run.

    Args:
        dataset: Folder written by the dataset stage.
        analysis: Its analysis; gives the number of epochs where ``train.epochs`` is null.
        best_params: What the tuner found; laid over ``params``.
        model: Folder to export to.
        report: HTML page to write.
        params: Parameters.
        runs: Folder of resumable work: run directories and the cache of mel spectrograms.
        resume: Fail if there is no unfinished run to continue, rather than begin a new one; and
            let the newest go on with other values of what may change in the middle of a run.
        trial: A short run of a search: ``best_params`` is not read, nothing is exported, and the
            best evaluation is printed as ``name=value`` lines.
        warm_start: A checkpoint, run directory or exported voice whose weights a new run begins
            with; it is part of what the run is, so resuming takes it too.
        force: Replace outputs that exist and, without ``resume``, begin a new run.
        on_progress: Told of every step.

    Raises:
        StoppedError: SIGINT or SIGTERM; the state is saved and the same call continues.
        InputMissingError, InputEmptyError, InputCorruptError: an input is not what it should be.
        ParamsError: the tuner's parameters are not valid, or a run to resume, or the weights to
            begin with, had others.
        PipelineError: training diverged, or the disk did not take its last state.
    """
    if not trial:
        for output in (model, report):
            require_new(output, force=force, hint=_REPLACE_HINT)
            require_apart(output, dataset, analysis, best_params)
        params = with_best_params(params, best_params)
        if Ranks.of_environment().main:
            require_alerts(params.tracking.alerts)
    opened = Dataset.open(dataset)
    epochs = read_recommended_epochs(analysis)
    _require_torch()

    from kamerton.core.stop import StopRequest
    from kamerton.smart_tuner.history import HISTORY_FILE
    from kamerton.smart_tuner.registry import register_best
    from kamerton.smart_tuner.run_record import record_run
    from kamerton.training.distributed import joined_world
    from kamerton.training.publish import publish
    from kamerton.training.session import Session, fixed_threads

    with (
        joined_world(params.train) as world,  # before anything is begun a signal may end it at once
        StopRequest() as stop,
        fixed_threads(params.train, world) as threads,
    ):
        session = Session.prepare(
            opened, epochs, params, runs=runs, threads=threads, trial=trial, world=world,
            warm_start=warm_start, on_progress=stop.granted_in(on_progress, _STOPPED_EARLY),
        )  # fmt: skip
        run = session.find_run(resume=resume, anew=force and not resume)
        with run.hold() if world.main else contextlib.nullcontext():
            try:
                state, reused = _steered(session, run, analysis, stop, on_progress)
            except StoppedError as stopped:
                if not force or resume:
                    raise
                hint = "run the same command with --resume; --force alone begins a new run"
                raise StoppedError(stopped.message, hint=hint) from stopped
            values = state.best_values
            if trial and world.main:
                _print_values(values)
            elif world.main:
                values = publish(
                    session, run, state, model=model, report=report, force=force
                ).values
                record_run(
                    run, runs / HISTORY_FILE, analysis=analysis, card=opened.card,
                    total_steps=session.total_steps, steps_per_epoch=session.data.steps_per_epoch,
                    ended=_ending(state, session.total_steps),
                )  # fmt: skip
                register_best(
                    run, model, values, runs=runs, card=opened.card, params=session.params
                )
    gave_up = state.recovery.gave_up
    if gave_up:
        _LOG.warning(
            "the run ended at step %d of %d: no recovery was left after %s; its best model is used",
            state.step, session.total_steps, gave_up,
        )  # fmt: skip
    return TrainReport(
        run.path, state.step, session.total_steps, state.best_step, state.skipped, reused, values,
        gave_up, state.stopped.replace("_", " "),
    )  # fmt: skip


def _steered(
    session: Session, run: RunDirectory, analysis: Path, stop: StopRequest, on_progress: Progress
) -> tuple[TrainState, bool]:
    """Train with everything that watches and steers a run attached; see ``Session.train``."""
    from kamerton.stages.steering import steering

    with steering(session, run, analysis) as steered:
        finished = run.status().state == "finished"
        if not finished:
            steered.begins(run, session.total_steps)
        state, reused = session.train(
            run, stop=stop, on_progress=on_progress, hooks=steered.hooks,
            on_alert=steered.alerts.on_alert,
        )  # fmt: skip
        if not reused:
            steered.ends(state.step, session.total_steps, state.best_values)
    return state, reused


def _ending(state: TrainState, total_steps: int) -> str:
    """Why a finished run ended, as the history keeps it."""
    if state.recovery.gave_up:
        return "gave_up"
    return state.stopped or ("budget" if state.step >= total_steps else "stopped")


def with_best_params(params: Params, path: Path) -> Params:
    """``params`` with what the tuner found laid over them; what was set by hand stays.

    Raises:
        InputMissingError: the tuner has not run.
        ParamsError: a key or value in the file is wrong; its line is named.
    """
    if not path.is_file():
        raise InputMissingError(path, produced_by="tune")
    source = read_yaml(path)
    own = params.model_dump(mode="json")
    tuned = merge(own, source.values)
    by_hand = {name: _at(own, name) for name in params.given}
    for name in sorted(by_hand):
        if _at(tuned, name) != by_hand[name]:
            _LOG.warning("%s: the value given by hand is used, not the tuner's", name)
    return validate(merge(tuned, nest(by_hand)), [source])


def _at(values: Mapping[str, Any], dotted: str) -> Any:
    found: Any = values
    for key in dotted.split("."):
        found = found[key]
    return found


def _require_torch() -> None:
    if Ranks.of_environment().size > 1:  # read by torch as it is imported
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        import torch  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise ToolMissingError("torch", extra="train") from error


def _print_values(values: Mapping[str, float]) -> None:
    """Print what a search collects; names and values as Katib's text collector reads them."""
    for name, value in values.items():
        if math.isfinite(value):
            print(f"{name}={value:.6f}")
