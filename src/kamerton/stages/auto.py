"""Several stages in one go: analyze, tune and train, as the specification's modes name them.

It conducts, and does nothing that the stages do not: each keeps its own resumable work, so what
was interrupted goes on, and what is finished is not done again, when the same mode is run anew.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from kamerton.core.errors import PipelineError, StoppedError, UsageError
from kamerton.core.files import (
    output_directory,
    read_json,
    remove_path,
    require_apart,
    temporary_folder,
    write_bytes,
    write_text,
)
from kamerton.data.manifest import Dataset

if TYPE_CHECKING:
    from kamerton.config.schema import Params
    from kamerton.stages import StageReport

Mode = Literal["auto", "train", "optimize"]
STAGES_OF: Mapping[Mode, tuple[str, ...]] = {
    "auto": ("analyze", "tune", "train"),
    "train": ("analyze", "train"),
    "optimize": ("analyze", "tune"),
}

_UNTUNED = "# no search was made: the parameters as they are\n{}\n"
_log = logging.getLogger("kamerton.auto")


@dataclass(frozen=True, slots=True)
class AutoPaths:
    """Where everything is: the ports of the three stages, and the folder of resumable work."""

    dataset: Path
    analysis: Path
    analysis_report: Path
    best_params: Path
    trials: Path
    tuning_report: Path
    model: Path
    training_report: Path
    runs: Path


@dataclass(frozen=True, slots=True)
class ByHand:
    """Values that beat what is recommended or found; None: not given."""

    trials: int | None = None
    epochs: int | None = None
    batch_size: int | None = None

    def names(self) -> dict[str, int]:
        """Dotted names of the parameters that were given, and their values."""
        named = {
            "tune.trials": self.trials,
            "train.epochs": self.epochs,
            "train.batch_size": self.batch_size,
        }
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Override:
    """A value that was given by hand, and what it took the place of."""

    name: str
    value: int
    instead_of: str

    @property
    def text(self) -> str:
        """One line for a person."""
        return f"{self.name} is {self.value} by hand, instead of {self.instead_of}"


@dataclass(frozen=True, slots=True)
class StageDone:
    """One stage that ended well; ``kept`` where its outputs were up to date."""

    name: str
    seconds: float
    kept: bool
    metrics: Mapping[str, float]
    summary: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class AutoReport:
    """What was done, and what was set by hand."""

    mode: Mode
    stages: tuple[StageDone, ...]
    overrides: tuple[Override, ...]

    @property
    def partial(self) -> bool:
        """Never: none of the stages leaves an input out."""
        return False

    def metrics(self) -> dict[str, float]:
        """Flat figures, each under the name of its stage."""
        return {
            f"{done.name}/{name}": value
            for done in self.stages
            for name, value in done.metrics.items()
        }

    def summary(self) -> list[tuple[str, str]]:
        """Lines for a person: every stage and what came out, then what was set by hand."""
        lines: list[tuple[str, str]] = [("mode", self.mode)]
        for done in self.stages:
            took = "up to date, kept" if done.kept else f"done in {done.seconds:.0f} s"
            lines += [(done.name, took), *((f"  {name}", text) for name, text in done.summary)]
        return lines + [("by hand", override.text) for override in self.overrides]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return {
            "mode": self.mode,
            "stages": [
                {"name": d.name, "seconds": round(d.seconds, 1), "kept": d.kept}
                for d in self.stages
            ],
            "overrides": [asdict(override) for override in self.overrides],
            "metrics": self.metrics(),
        }


class RunStage(Protocol):
    """Runs one stage, as its own command would: with its lock and its progress."""

    def __call__(
        self,
        name: str,
        paths: Mapping[str, Path],
        params: Params,
        *,
        force: bool,
        options: Mapping[str, Any],
    ) -> StageReport:
        """Run the stage ``name`` and return its report."""


def auto(
    mode: Mode,
    paths: AutoPaths,
    params: Params,
    *,
    run_stage: RunStage,
    by_hand: ByHand = ByHand(),
    force: bool = False,
    say: Callable[[str], None] = _log.info,
) -> AutoReport:
    """Run the stages of ``mode``.

    An analysis of this dataset by these parameters is kept: a plan must not change while it is
    carried out, as more history would have it. A study and a training run go on where they were.
    Outputs of earlier runs are replaced, the voice when the new one is whole; each run stays in
    the folder of runs.

    Args:
        mode: ``auto``: analyze, tune, train; ``train``: without the search; ``optimize``: without
            the training.
        paths: Where everything is.
        params: Parameters.
        run_stage: Runs one stage.
        by_hand: Values that beat what is recommended or found.
        force: Measure the dataset again and begin a new training run. A finished study of equal
            data, parameters and code is not made again.
        say: Told what happens between the stages.

    Raises:
        UsageError: a value was given that the mode has no use for.
        StoppedError: a stage was stopped on request; the same call goes on.
        PipelineError: as the stages raise.
    """
    resolved = checked(mode, paths, params, by_hand)
    conductor = _Conductor(mode, paths, resolved, run_stage, force, say)
    try:
        overrides = conductor.run(params, by_hand)
    except StoppedError as stopped:
        hint = f"`kamerton auto --mode {mode}` with the same options, without --force, goes on"
        raise StoppedError(stopped.message, hint=hint) from stopped
    return AutoReport(mode, tuple(conductor.done), tuple(overrides))


def checked(mode: Mode, paths: AutoPaths, params: Params, by_hand: ByHand = ByHand()) -> Params:
    """The parameters that the stages run with, after all checks that need no data.

    Raises:
        UsageError: a value was given that the mode has no use for, or a place is another's.
        ParamsError: the search space or the generations do not fit, or an alert lacks something.
    """
    from kamerton.smart_tuner.channels.opening import require_alerts
    from kamerton.smart_tuner.generation_plan import GenerationPlan
    from kamerton.smart_tuner.opt_engine import require_search_space
    from kamerton.smart_tuner.samplers import resolve_sampler

    _require_use(mode, by_hand)
    require_apart(paths.model, paths.dataset, paths.analysis, paths.best_params)
    resolved = _with_history(with_values(params, by_hand), paths.runs)
    if "tune" in STAGES_OF[mode]:
        require_search_space(resolved)
        resolve_sampler(resolved.tune)
        GenerationPlan.of(resolved.tune.generations, resolved.tune.trial_steps)
    require_alerts(resolved.tracking.alerts)
    return resolved


def _with_history(params: Params, runs: Path) -> Params:
    """``analyze.history`` as where the runs are, unless another was asked for."""
    default = type(params.analyze).model_fields["history"].default
    if params.analyze.history != default or "analyze.history" in params.given:
        return params
    changed = {"analyze": {"history": str(runs / Path(default).name)}}
    return params.with_overrides(changed).marked_as_given(params.given)


def with_values(params: Params, by_hand: ByHand) -> Params:
    """``params`` with the given values, which the tuner neither searches nor replaces."""
    names = by_hand.names()
    if not names:
        return params
    changed: dict[str, Any] = {}
    for name, value in names.items():
        section, _, key = name.partition(".")
        changed.setdefault(section, {})[key] = value
    space = {n: d for n, d in params.tune.search_space.items() if n not in names}
    if len(space) < len(params.tune.search_space):
        changed.setdefault("tune", {})["search_space"] = {
            name: dimension.model_dump(exclude_none=True) for name, dimension in space.items()
        }
    return params.with_overrides(changed).marked_as_given(params.given | set(names))


@dataclass(slots=True)
class _Conductor:
    mode: Mode
    paths: AutoPaths
    params: Params
    run_stage: RunStage
    force: bool
    say: Callable[[str], None]
    done: list[StageDone] = field(default_factory=list)

    def run(self, own: Params, by_hand: ByHand) -> list[Override]:
        """Run the stages; ``own`` are the parameters without what was given by hand."""
        overrides: list[Override] = []
        for number, name in enumerate(STAGES_OF[self.mode], start=1):
            self.say(f"{number} of {len(STAGES_OF[self.mode])}: {name}")
            getattr(self, f"_{name}")(overrides)
            if name == "analyze":
                overrides = self._overrides(own, by_hand)
        return overrides

    def _overrides(self, own: Params, by_hand: ByHand) -> list[Override]:
        recommended = read_json(self.paths.analysis, produced_by="analyze")["recommended_epochs"]
        instead = {
            "tune.trials": f"{own.tune.trials} (tune.trials)",
            "train.epochs": f"the {recommended} recommended",
            "train.batch_size": f"{own.train.batch_size} (train.batch_size)",
        }
        if own.train.epochs is not None:
            instead["train.epochs"] += f" and {own.train.epochs} (train.epochs)"
        found = [Override(name, value, instead[name]) for name, value in by_hand.names().items()]
        for override in found:
            _log.warning("override: %s", override.text)
        return found

    def _analyze(self, _overrides: list[Override]) -> None:
        ports = {
            "dataset": self.paths.dataset,
            "analysis": self.paths.analysis,
            "report": self.paths.analysis_report,
        }
        kept = None if self.force else self._current_analysis()
        if kept is None:
            self._stage("analyze", ports, force=True)
            return
        told = (("recommended epochs", str(kept["recommended_epochs"])),)
        figures = {"recommended_epochs": float(kept["recommended_epochs"])}
        self.done.append(StageDone("analyze", 0.0, True, figures, told))
        self.say(f"{self.paths.analysis} is of this dataset and these parameters: kept")

    def _current_analysis(self) -> dict[str, Any] | None:
        """The analysis that is there, if the stage would make it of the same."""
        if not (self.paths.analysis.is_file() and self.paths.analysis_report.is_file()):
            return None
        card = Dataset.open(self.paths.dataset).card
        try:
            found = read_json(self.paths.analysis, produced_by="analyze")
        except PipelineError:
            return None
        same = (
            found.get("dataset_sha256") == card["content_sha256"]
            and found.get("params") == self.params.analyze.model_dump(mode="json")
            and isinstance(found.get("recommended_epochs"), int)
        )
        return found if same else None

    def _tune(self, _overrides: list[Override]) -> None:
        ports = {
            "dataset": self.paths.dataset,
            "analysis": self.paths.analysis,
            "best_params": self.paths.best_params,
            "trials": self.paths.trials,
            "report": self.paths.tuning_report,
        }
        self._stage("tune", ports, force=True, runs=self.paths.runs)

    def _train(self, overrides: list[Override]) -> None:
        """Train into a place of its own, so that the voice that is there stays until then."""
        self.paths.model.parent.mkdir(parents=True, exist_ok=True)
        # Of this process: another may do the same.
        scratch = temporary_folder(self.paths.model.with_name(f"{self.paths.model.name}.auto"))
        try:
            self._train_into(scratch, overrides)
        finally:
            remove_path(scratch)

    def _train_into(self, scratch: Path, overrides: list[Override]) -> None:
        voice, page = scratch / "voice", scratch / "training.html"
        ports = {
            "dataset": self.paths.dataset,
            "analysis": self.paths.analysis,
            "best_params": self._best_params(scratch),
            "model": voice,
            "report": page,
        }
        options = {"runs": self.paths.runs, "resume": False, "trial": False, "warm_start": None}
        report = self._stage("train", ports, force=self.force, **options)
        with output_directory(self.paths.model, force=True) as folder:
            for item in voice.iterdir():
                item.rename(folder / item.name)
        write_bytes(self.paths.training_report, page.read_bytes())
        _note_overrides(getattr(report, "run", None), overrides)

    def _best_params(self, scratch: Path) -> Path:
        """What the search found; in the mode without one, what an earlier one did, or nothing."""
        if self.mode == "auto":
            return self.paths.best_params
        if self.paths.best_params.is_file():
            self.say(f"{self.paths.best_params} is used; remove it to train without")
            return self.paths.best_params
        untuned = scratch / "untuned.yaml"
        write_text(untuned, _UNTUNED)
        return untuned

    def _stage(
        self, name: str, ports: Mapping[str, Path], *, force: bool, **options: Any
    ) -> StageReport:
        begun = time.monotonic()
        report = self.run_stage(name, ports, self.params, force=force, options=options)
        seconds = time.monotonic() - begun
        self.done.append(StageDone(name, seconds, False, report.metrics(), tuple(report.summary())))
        return report


def _require_use(mode: Mode, by_hand: ByHand) -> None:
    """Refuse values that would change nothing."""
    useless = {"train": ("tune.trials",), "optimize": ("train.epochs",), "auto": ()}[mode]
    for name in useless:
        if name in by_hand.names():
            option = "--" + name.partition(".")[2].replace("_", "-")
            raise UsageError(
                f"{option} has no use with --mode {mode}.", hint="leave it out, or use --mode auto"
            )


def _note_overrides(run: Path | None, overrides: list[Override]) -> None:
    """Write what was set by hand into the run's status, where `kamerton runs show` shows it."""
    if run is None or not overrides:
        return
    from kamerton.tracking import RunDirectory

    directory = RunDirectory(run)
    status = directory.status()
    told = {override.name: override.text for override in overrides}
    directory.write_status(status.state, step=status.step, reason=status.reason, overrides=told)
