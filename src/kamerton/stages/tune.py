"""The tune stage: short training runs in, the parameters that learned best out."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kamerton.config.tuner_sections import AlertParams
from kamerton.core.errors import PipelineError, StoppedError
from kamerton.core.files import file_lock, require_apart, require_new, sha256_json, write_text
from kamerton.core.progress import Progress, silent
from kamerton.core.stop import StopRequest
from kamerton.core.workers import usable_cores
from kamerton.smart_tuner.channels.opening import require_alerts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kamerton.config.schema import Params
    from kamerton.smart_tuner.generation_tree import GenerationTree
    from kamerton.smart_tuner.opt_engine import OptimizationEngine, TrialResult
    from kamerton.smart_tuner.recorder import Tell
    from kamerton.smart_tuner.study import StudyFolder
    from kamerton.smart_tuner.study_history import Lessons
    from kamerton.tracking.protocol import EndState

# Part of the fingerprint: a new way of searching must not continue an old study.
_STUDY_FORMAT = 2
_FINGERPRINT_CHARS = 16


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What the study found; ``results`` are all trials, ``best`` is the one to train with."""

    results: tuple[TrialResult, ...]
    best: TrialResult
    baseline: TrialResult | None
    reused: bool  # the study had been finished before
    generations: GenerationTree | None = None  # the warm loop; None where none was asked for

    @property
    def partial(self) -> bool:
        """Never: a failed trial is a finding about its parameters."""
        return False

    def metrics(self) -> dict[str, float]:
        """Flat numbers."""
        found = {f"trials_{state}": float(self._count(state)) for state in _STATES}
        found |= {
            "best_trial": float(self.best.number),
            "best_objective": self.best.objective or 0.0,
        }
        if self.baseline is not None and self.baseline.objective is not None:
            found["baseline_objective"] = self.baseline.objective
        return {**found, **{f"best_{name}": value for name, value in self.best.metrics.items()}}

    def summary(self) -> list[tuple[str, str]]:
        """Lines for the terminal."""
        from kamerton.config.search_space import yaml_text

        counts = ", ".join(f"{self._count(state)} {word}" for state, word in _STATES.items())
        base = "did not complete"
        if self.baseline is not None:
            base = f"{self.baseline.objective:.4f}"
        lines = [
            ("trials", counts + (" (finished before)" if self.reused else "")),
            ("best trial", f"{self.best.number}, objective {self.best.objective:.4f}"),
            ("unchanged parameters", base),
        ]
        lines += [(name, yaml_text(value)) for name, value in self.best.params.items()]
        if self.generations is not None:
            lines.append(("generations", self.generations.verdict))
        return lines

    def _count(self, state: str) -> int:
        return sum(result.state == state for result in self.results)


_STATES = {"complete": "complete", "pruned": "ended early", "failed": "failed"}


def tune(
    dataset: Path,
    analysis: Path,
    best_params: Path,
    trials: Path,
    report: Path,
    params: Params,
    *,
    runs: Path = Path("runs"),
    force: bool = False,
    on_progress: Progress = silent,
) -> TuneReport:
    """Search for hyperparameters with short training runs.

    The first trial runs the unchanged parameters. A study that was stopped or killed goes on
    where it was, and a finished one of equal data, parameters and code is not run again.

    Args:
        dataset: Dataset folder.
        analysis: analysis.json.
        best_params: YAML file to write: overrides that ``train`` lays on its parameters.
        trials: CSV file to write, one row per trial.
        report: HTML page to write.
        params: Sections tune, train, audio, text and tracking.
        runs: Folder of resumable work; the study lives in its ``studies``.
        force: Replace outputs that exist, and make generations that failed again.
        on_progress: Told of the steps trained, of all trials.

    Raises:
        StoppedError: SIGINT or SIGTERM; the same command continues.
        ParamsError: the search space does not fit the parameters.
        PipelineError: every trial failed.
    """
    from kamerton.data.epoch_rule import read_recommended_epochs
    from kamerton.data.manifest import Dataset
    from kamerton.smart_tuner.generation_plan import GenerationPlan
    from kamerton.smart_tuner.history import HISTORY_FILE
    from kamerton.smart_tuner.study import StudyFolder, baseline_of, best_of
    from kamerton.smart_tuner.study_history import Lessons

    for output in (best_params, trials, report):
        require_new(output, force=force)
        require_apart(output, dataset, analysis)
    require_alerts(params.tracking.alerts)
    card = Dataset.open(dataset).card
    # What every trial's trainer will read; refused here, before any of them starts.
    epochs = read_recommended_epochs(analysis)
    fingerprint = _fingerprint(params, card["content_sha256"], epochs)
    folder = StudyFolder(runs / "studies" / fingerprint, runs)
    GenerationPlan.of(params.tune.generations, params.tune.trial_steps)  # refused before the trials
    with file_lock(folder.path / ".lock"):
        trainers = _Trainers(dataset, analysis, params)
        lessons = Lessons.of(runs / HISTORY_FILE, analysis, card, params)
        engine = _open(folder, params, lessons)
        if engine.is_complete() and best_of(engine.finished()) is None and not params.tune.storage:
            folder.clear()  # it failed as a whole, and perhaps its cause is gone
            engine = _open(folder, params, lessons)
        reused = engine.is_complete()
        with _told(params, folder, trials=0 if reused else params.tune.trials) as tell:
            if not reused:
                _search(engine, folder, trainers, tell, on_progress)
            results = engine.finished()
            best = best_of(results)
            if best is None:
                raise _all_failed(results, folder)
            lessons.keep(
                fingerprint, results
            )  # again where it was kept: a kill may have been faster
            tree = _generations(engine, folder, trainers, best, tell, on_progress, again=force)
        _write_outputs(engine, folder, results, best, params, best_params, trials, report, tree)
    return TuneReport(tuple(results), best, baseline_of(results), reused, tree)


def _open(folder: StudyFolder, params: Params, lessons: Lessons) -> OptimizationEngine:
    from kamerton.smart_tuner.opt_engine import OptimizationEngine

    return OptimizationEngine(
        folder.journal,
        params,
        name=folder.path.name,
        history=lessons.first_trials(),
        owner=folder.owner(),
    )


def _fingerprint(params: Params, content_sha256: str, epochs: int) -> str:
    from kamerton.core.code import TRAINING, code_digest
    from kamerton.core.environment import package_versions

    sections = params.model_dump(mode="json", include={"tune", "train", "audio", "text"})
    # How many at a time and where it is kept may change while a study goes on.
    for key in ("workers", "storage"):
        del sections["tune"][key]
    del sections["tune"]["generations"]  # the trials are the same, whatever comes after them
    content = {
        "format": _STUDY_FORMAT,
        "params": sections,
        "dataset": content_sha256,
        "epochs": epochs,
        "code": code_digest((*TRAINING, "smart_tuner")),
        # What the trainer's own fingerprint holds beside these: another makes other runs.
        "torch": package_versions(("torch",)),
        "threads": params.train.threads or usable_cores(),
    }
    return sha256_json(content)[:_FINGERPRINT_CHARS]


@dataclass(frozen=True, slots=True)
class _Trainers:
    """What every trial's trainer is given."""

    dataset: Path
    analysis: Path
    params: Params


@contextlib.contextmanager
def _told(params: Params, folder: StudyFolder, *, trials: int) -> Iterator[Tell]:
    """Who is told of the study while it lasts, and of how it ends; a finished one tells nobody."""
    from kamerton.smart_tuner.alert_manager import AlertManager, failure_text

    alerts = params.tracking.alerts if trials else AlertParams(log=False)
    with AlertManager.opened(alerts, f"study-{folder.path.name[:8]}") as manager:

        def tell(kind: str, text: str, fields: Mapping[str, Any]) -> None:
            manager.emit(kind, text, fields)

        tell("started", f"the search begins, or goes on: {trials} trials", {})
        try:
            yield tell
        except StoppedError:
            tell("stop", "the search stopped on request; the same command goes on", {})
            raise
        except Exception as error:
            tell("failed", failure_text(error), {})
            raise
        tell("done", "the search is finished", {})


def _search(
    engine: OptimizationEngine, folder: StudyFolder, trainers: _Trainers, tell: Tell,
    on_progress: Progress,
) -> None:  # fmt: skip
    """Run the trials that the study still lacks."""
    from kamerton.smart_tuner.recorder import StudyRecorder
    from kamerton.smart_tuner.study import trainer_command
    from kamerton.smart_tuner.trial_pool import TrialPool

    recorder = StudyRecorder(folder, trainers.params, tell=tell)
    state: EndState = "failed"
    try:
        with StopRequest() as stop:
            TrialPool(
                engine, folder, trainers.params,
                command=trainer_command(trainers.dataset, trainers.analysis),
                recorder=recorder, stop=lambda: stop.requested, on_progress=on_progress,
            ).run()  # fmt: skip
        state = "finished"
    except (StoppedError, KeyboardInterrupt):
        state = "stopped"
        raise
    finally:
        recorder.close(state)


def _generations(
    engine: OptimizationEngine,
    folder: StudyFolder,
    trainers: _Trainers,
    best: TrialResult,
    tell: Tell,
    on_progress: Progress,
    *,
    again: bool,
) -> GenerationTree | None:
    """The warm loop on the best trial; None where none is asked for."""
    from kamerton.smart_tuner.generations import finished_generations, run_generations
    from kamerton.smart_tuner.recorder import StudyRecorder
    from kamerton.smart_tuner.study import trainer_command

    objective = engine.objective()
    if not trainers.params.tune.generations.count or objective is None:
        return None
    if tree := finished_generations(folder, trainers.params, best, again=again):
        return tree
    recorder = StudyRecorder(folder, trainers.params, tell=tell)
    state: EndState = "failed"
    try:
        with StopRequest() as stop:
            tree = run_generations(
                folder, trainers.params, best, objective,
                command=trainer_command(trainers.dataset, trainers.analysis),
                recorder=recorder, stop=lambda: stop.requested, on_progress=on_progress,
                again=again,
            )  # fmt: skip
        state = "finished"
    except (StoppedError, KeyboardInterrupt):
        state = "stopped"
        raise
    finally:
        recorder.close(state)
    return tree


def _all_failed(results: Sequence[TrialResult], folder: StudyFolder) -> PipelineError:
    from kamerton.smart_tuner.trainer_wrapper import last_words

    last = results[-1]
    words = last_words(folder.log(last.number))
    return PipelineError(
        f"all {len(results)} trials failed; the last: {last.reason}." + (words and f"\n{words}"),
        hint=f"see {folder.log(last.number)}, narrow tune.search_space or raise tune.trial_steps",
    )


def _write_outputs(
    engine: OptimizationEngine,
    folder: StudyFolder,
    results: Sequence[TrialResult],
    best: TrialResult,
    params: Params,
    best_params: Path,
    trials: Path,
    report: Path,
    tree: GenerationTree | None,
) -> None:
    from kamerton.smart_tuner.report_story import read_story
    from kamerton.smart_tuner.tuning_report import (
        best_params_yaml,
        importances,
        render_page,
        trials_csv,
    )

    names = list(params.tune.search_space)
    shares = importances(engine.frozen_trials(), names)
    write_text(trials, trials_csv(results, names))
    story = read_story(
        folder, results, best, params.tune,
        shares=shares, tree=tree, from_history=engine.history_trials(),
    )  # fmt: skip
    write_text(report, render_page(story))
    changes = tree.best_changes if tree else ()
    write_text(best_params, best_params_yaml(results, best, changes))
