"""Generations: the warm loop of the tuner, on the best trial.

The best trial's configuration is trained anew up to the first generation. Every generation then
goes on from one checkpoint several times over the same steps of the same schedule: unchanged, which
is the control, and with a delta on what a run may change at any time (``ParamScheduler``). Each is
scored after the same cool-down, made on a copy. A delta that beats the control by more than noise
is accepted and becomes one more entry of ``train.changes``; else the control is gone on with.
Frequent greedy restarts end worse than a plain schedule of equal budget (docs/decisions/0021), so
generations are few and long, and what was accepted counts only if the whole run is then better
than the trial it came from, by more than noise and over no more steps than that made.

The tree is saved after every candidate. Proposals are a function of the seed and of the tree, so
a loop that is killed at any instant goes on as if nothing had happened. Call, from the tune stage:

    tree = run_generations(
        folder, params, best, objective, command=trainer_command(dataset, analysis),
        recorder=recorder, stop=lambda: stop.requested, on_progress=on_progress,
    )
    best_params = best_params_yaml(results, best, changes=tree.best_changes)
"""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from kamerton.config.schema import Params
from kamerton.config.train_section import ChangeParams
from kamerton.core.errors import ParamsError
from kamerton.core.files import read_json, sha256_file, sha256_json
from kamerton.core.progress import Progress, silent
from kamerton.smart_tuner.fork import require_checkpoint
from kamerton.smart_tuner.generation_plan import GenerationPlan
from kamerton.smart_tuner.generation_tree import (
    FILE,
    Candidate,
    Generation,
    GenerationTree,
    decided,
    score_of,
)
from kamerton.smart_tuner.objective import Objective, ObjectiveError
from kamerton.smart_tuner.opt_engine import TrialResult
from kamerton.smart_tuner.param_scheduler import (
    Delta,
    Outcome,
    ParamScheduler,
    changed_from,
    cooled_down,
)
from kamerton.smart_tuner.recorder import StudyRecorder
from kamerton.smart_tuner.stretch import (
    CandidateError,
    Stretch,
    Stretches,
    effective_factors,
    evaluated,
)
from kamerton.smart_tuner.study import StudyFolder, trial_params
from kamerton.tracking.run_directory import RunDirectory, list_runs

_TRUNK: Final = "trunk"
_FINAL: Final = "final"
_AGAIN: Final = "`kamerton tune --force` tries again"
_log = logging.getLogger("kamerton.tune")


def run_generations(
    folder: StudyFolder, params: Params, best: TrialResult, objective: Objective, *,
    command: Sequence[str], recorder: StudyRecorder, stop: Callable[[], bool],
    on_progress: Progress = silent, again: bool = False,
) -> GenerationTree:  # fmt: skip
    """Make the generations that the study still lacks.

    Args:
        folder: Of the study, which nobody else works in.
        params: Of the study; ``tune.generations`` says how many.
        best: The trial to go on from, complete.
        objective: The study's.
        command: The trainer's command line, without parameters and runs folder.
        recorder: Of the study, open.
        stop: Whether we were asked to stop.
        on_progress: Told of the steps made, of all this loop makes at most.
        again: Begin anew what ended because a trainer failed.

    Raises:
        StoppedError: we were asked to stop; the same call goes on.
        ParamsError: the generations do not fit into ``tune.trial_steps``.
        PipelineError: the trainer cannot work here.
    """
    total = _budget(folder, params, best.number)
    try:
        plan = GenerationPlan.of(params.tune.generations, total)
    except ParamsError as error:
        if total >= params.tune.trial_steps:
            raise
        # Nobody could know before the trials how long they would be.
        return _left_out(folder, _key(folder, params, best), best, total, recorder, error)
    if again and _failed(folder):
        (folder.path / FILE).unlink()
    loop = _WarmLoop(folder, params, best, objective, plan, command, recorder, stop, on_progress)
    return loop.run()


def _left_out(
    folder: StudyFolder, key: str, best: TrialResult, total: int, recorder: StudyRecorder,
    error: ParamsError,
) -> GenerationTree:  # fmt: skip
    """No generations in trials that turned out to be shorter than they might have been."""
    verdict = f"no generations: {error.message} {error.hint}."
    tree = GenerationTree(key, best.number, best.objective or 0.0, total, verdict=verdict)
    _log.warning("%s", verdict)
    tree.save(folder.path / FILE)
    recorder.generations_finished(tree)
    return tree


def _failed(folder: StudyFolder) -> bool:
    tree = GenerationTree.load(folder.path / FILE)
    return tree is not None and tree.failed


def finished_generations(
    folder: StudyFolder, params: Params, best: TrialResult, *, again: bool = False
) -> GenerationTree | None:
    """The tree of a loop that is over, for exactly this trial and these parameters; else None.

    With ``again``, one that failed is not over.
    """
    tree = GenerationTree.load(folder.path / FILE)
    if tree is None or not tree.complete or tree.key != _key(folder, params, best):
        return None
    if again and tree.failed:
        return None
    return tree


class _LoopError(Exception):
    """No generation can follow; the message is a sentence for people."""


class _WarmLoop:
    def __init__(
        self, folder: StudyFolder, params: Params, best: TrialResult, objective: Objective,
        plan: GenerationPlan, command: Sequence[str], recorder: StudyRecorder,
        stop: Callable[[], bool], on_progress: Progress,
    ) -> None:  # fmt: skip
        self._folder, self._objective, self._recorder = folder, objective, recorder
        self._on_progress = on_progress
        self._asked = params.tune.generations
        overrides = {} if best.number == 0 else dict(best.params)
        self._base = trial_params(params, overrides)
        self._plan, total = plan, plan.total
        self._trial_end = max(best.curve, default=total)  # its own early stopping may have ended it
        self._scheduler = ParamScheduler(self._base, seed=params.tune.seed)
        self._stretches = Stretches(
            folder, self._plan, self._scheduler, command=command, stop=stop, on_step=self._tell
        )
        key = _key(folder, params, best)
        tree = GenerationTree.load(folder.path / FILE)
        if tree is None or tree.key != key:
            shutil.rmtree(self._stretches.path, ignore_errors=True)
            given = tuple(item.model_dump() for item in self._base.train.changes)
            tree = GenerationTree(key, best.number, best.objective or 0.0, total, changes=given)
        self._tree = tree
        self._made = 0  # for the progress: steps made beside those of the run under way

    def run(self) -> GenerationTree:
        """Everything that is not in the tree yet."""
        if self._tree.complete:
            return self._tree
        if not self._plan.starts:
            return replace(self._tree, verdict="no generations were asked for")
        self._recorder.candidates_known(self._tree)
        try:
            for index in range(self._asked.count):
                self._generation(index)
            self._finish()
        except _LoopError as failed:  # the trials count all the same
            _log.warning("%s", failed)
            self._close(replace(self._tree, verdict=f"{failed}; {_AGAIN}", failed=True))
        return self._tree

    def _save(self, tree: GenerationTree) -> None:
        self._tree = tree
        tree.save(self._folder.path / FILE)

    # Generations

    def _generation(self, index: int) -> None:
        """Bring generation ``index`` (from 0) to its decision."""
        if index < len(self._tree.generations):
            generation = self._tree.generations[index]
            if generation.accepted is not None:
                return
        parent = self._parent(index)
        if index >= len(self._tree.generations):
            start = self._plan.starts[index]
            label = self._tree.generations[-1].label if index else _TRUNK
            sha256 = sha256_file(require_checkpoint(parent, start))
            generation = Generation(index + 1, start, self._plan.end(index), label, sha256)
        deltas: list[Delta] = [{}, *self._proposals(index)]
        for number, delta in enumerate(deltas):
            if any(item.number == number for item in generation.candidates):
                continue
            before = self._plan.steps_before(index, number, self._asked.candidates)
            self._made = before - generation.from_step
            candidate = Candidate(number, dict(delta), "failed")
            candidate = self._candidate(generation, candidate, parent)
            generation = replace(generation, candidates=(*generation.candidates, candidate))
            self._save(self._tree.with_generation(generation))
        control = generation.control
        if control is None or control.state == "failed":
            reason = control.reason if control else "it was not made"
            raise _LoopError(f"the unchanged run of generation {index + 1} failed: {reason}")
        self._decide(index, generation)

    def _decide(self, index: int, generation: Generation) -> None:
        generation = decided(generation, self._asked.min_gain_sigmas)
        chosen = generation.chosen
        assert chosen is not None  # decided says so
        _log.info("generation %d: %s", generation.number, generation.reason)
        changes = changed_from(self._tree.change_params, chosen.delta, self._share(index))
        tree = self._tree.with_generation(generation)
        self._save(replace(tree, changes=tuple(item.model_dump() for item in changes)))
        self._recorder.generation_decided(generation)
        # Only the chosen one is gone on from, and the parent is not needed any more.
        others = [item for item in generation.candidates if item is not chosen]
        labels = {_label(index, item.number) for item in others}
        self._stretches.drop_checkpoints({*labels, generation.parent})

    def _proposals(self, index: int) -> list[dict[str, float]]:
        outcomes = [
            Outcome(generation.number, item.delta, gain)
            for generation in self._tree.generations[:index]
            for item in generation.candidates
            if item.delta and (gain := generation.gain(item)) is not None
        ]
        return self._scheduler.propose(index + 1, self._asked.candidates - 1, outcomes)

    def _share(self, index: int) -> float:
        return self._plan.starts[index] / self._plan.total

    def _parent(self, index: int) -> RunDirectory:
        """The run that generation ``index`` goes on from, made if need be."""
        if index:
            return self._stretches.run_of(self._tree.generations[index - 1].label)
        start = self._plan.starts[0]
        try:
            return self._stretches.make(Stretch(_TRUNK, None, 0, start, self._tree.change_params))
        except CandidateError as failed:
            raise _LoopError(
                f"the best trial could not be repeated up to step {start}: {failed}"
            ) from failed

    def _candidate(
        self, generation: Generation, candidate: Candidate, parent: RunDirectory
    ) -> Candidate:
        """Train and probe one candidate; what is wrong with it is part of the result."""
        index, start, end = generation.number - 1, generation.from_step, generation.to_step
        label = _label(index, candidate.number)
        changes = changed_from(self._tree.change_params, candidate.delta, self._share(index))
        stretch = Stretch(label, parent, start, end, changes)

        def begun(run: RunDirectory) -> None:
            sha256 = generation.parent_sha256
            self._recorder.candidate_started(generation.number, candidate, sha256, run.path)

        try:
            run = self._stretches.make(stretch, begun)
            candidate = replace(
                candidate, run=str(run.path.relative_to(self._folder.path)),
                checkpoint_sha256=sha256_file(require_checkpoint(run, end)),
                curve=self._curve(run, start, end), effective=effective_factors(run),
            )  # fmt: skip
            probe = self._probe(index, label, run, changes)
            candidate = replace(candidate, state="complete", probe=probe, score=score_of(probe))
        except (CandidateError, ObjectiveError) as failed:
            candidate = replace(candidate, reason=str(failed))
            _log.warning("%s failed: %s", label, failed)
        self._recorder.candidate_finished(generation.number, end, candidate)
        return candidate

    def _probe(
        self, index: int, label: str, run: RunDirectory, changes: tuple[ChangeParams, ...]
    ) -> dict[int, float]:
        """Objective by step of a cool-down, made on a copy of a candidate."""
        end, last = self._plan.end(index), self._plan.probe_end(index)
        cooled = cooled_down(changes, end, last, self._plan.total)
        stretch = Stretch(f"{label}-probe", run, end, last, cooled, self._plan.probe_interval)
        probe = self._stretches.make(stretch)
        found = self._curve(probe, end, last)
        if not found:
            raise CandidateError("its cool-down recorded no evaluation")
        self._stretches.drop_checkpoints({stretch.label})
        return found

    def _finish(self) -> None:
        """Bring the accepted run to the end of its budget, and say what it was worth."""
        last = len(self._plan.starts) - 1
        changes, tree = self._tree.change_params, self._tree
        if not any(generation.accepted for generation in tree.generations):
            verdict = "no change was better than going on unchanged"
            self._close(replace(tree, verdict=verdict))
            return
        try:
            end, total = self._plan.end(last), self._plan.total
            self._made = self._plan.steps(self._asked.candidates) - total
            parent = self._stretches.run_of(tree.generations[-1].label)
            run = self._stretches.make(Stretch(_FINAL, parent, end, total, changes))
            curve = self._lineage(run)
        except (CandidateError, ObjectiveError) as failed:
            verdict = f"the run with all changes failed: {failed}; {_AGAIN}"
            self._close(replace(tree, verdict=verdict, failed=True))
            return
        # Who may train for longer has an easier time: compared is what both made.
        objective = min(value for step, value in curve.items() if step <= self._compared_to(curve))
        kept = tree.trial_objective - objective > tree.sigma
        self._close(
            replace(tree, objective=objective, kept=kept, verdict=self._verdict(objective, kept))
        )

    def _compared_to(self, curve: Mapping[int, float]) -> int:
        """The last step that counts: the trial's; its own first where it had none until then."""
        return max(self._trial_end, min(curve))

    def _verdict(self, objective: float, kept: bool) -> str:
        tree = self._tree
        length = "a whole run reaches"
        if self._trial_end < self._plan.total:
            length = f"a run reaches until step {self._trial_end}, where the trial ended itself,"
        words = "better than" if kept else "not better than"
        return (
            f"with the changes {length} {objective:.4f}, {words} {tree.trial_objective:.4f} of "
            f"trial {tree.trial} without them by more than {tree.sigma:.4f} (σ)"
        )

    def _close(self, tree: GenerationTree) -> None:
        self._save(tree)
        self._recorder.generations_finished(tree)
        self._stretches.drop_checkpoints({path.name for path in self._stretches.path.iterdir()})

    def _lineage(self, final: RunDirectory) -> dict[int, float]:
        """Objective by step of the run that was gone on with, from the trunk to its end."""
        trunk = self._stretches.run_of(_TRUNK)
        curve = self._curve(trunk, 0, self._plan.starts[0])
        for generation in self._tree.generations:
            chosen = generation.chosen
            curve |= chosen.curve if chosen else {}
        last = self._plan.end(len(self._plan.starts) - 1)
        return curve | self._curve(final, last, self._plan.total)

    def _curve(self, run: RunDirectory, after: int, until: int) -> dict[int, float]:
        """Objective by step of a run's evaluations in a stretch."""
        return {
            step: self._objective(values)
            for step, values in evaluated(run).items()
            if after < step <= until
        }

    def _tell(self, stretch: Stretch, step: int) -> None:
        total = self._plan.steps(self._asked.candidates)
        done = self._made + min(step, stretch.to_step)
        self._on_progress(min(done, total), total, f"generations: {stretch.label}")


def _label(index: int, number: int) -> str:
    return f"g{index + 1}c{number}"


def _budget(folder: StudyFolder, params: Params, number: int) -> int:
    """Steps of a trial's run as its trainer noted them, which may be less than was asked."""
    for run in list_runs(folder.trial_runs(number))[:1]:
        if (run.path / "origin.json").is_file():
            return int(read_json(run.path / "origin.json", produced_by="train")["total_steps"])
    return params.tune.trial_steps


def _key(folder: StudyFolder, params: Params, best: TrialResult) -> str:
    """What the loop depends on beside its study."""
    asked = params.tune.generations.model_dump(mode="json")
    total = _budget(folder, params, best.number)
    return sha256_json([best.number, dict(best.params), asked, total, params.tune.seed])
