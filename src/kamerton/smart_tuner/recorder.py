"""Where a study is recorded: its own metrics.jsonl, and MLflow with a nested run per trial."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from kamerton.config.schema import Params, TrackingParams
from kamerton.smart_tuner.generation_tree import CONTROL, Candidate, Generation, GenerationTree
from kamerton.smart_tuner.opt_engine import TrialResult
from kamerton.smart_tuner.study import StudyFolder, best_of
from kamerton.tracking.metrics_file import JsonlTracker, read_records
from kamerton.tracking.mlflow_follower import MlflowFollower, is_recorded
from kamerton.tracking.protocol import EndState
from kamerton.tracking.run_directory import RunDirectory, list_runs

_END: Final[dict[str, EndState]] = {"complete": "finished", "pruned": "stopped", "failed": "failed"}


Tell = Callable[[str, str, Mapping[str, Any]], None]


def _nobody(_kind: str, _text: str, _fields: Mapping[str, Any]) -> None:
    """Tell nobody."""


class StudyRecorder:
    """Follows a study and its trials.

    The tuner sends its trials' records itself: a trainer that lives for a minute must not spend
    seconds of it on importing mlflow.
    """

    def __init__(self, folder: StudyFolder, params: Params, *, tell: Tell = _nobody) -> None:
        """Record the study in ``folder``.

        Args:
            folder: The study.
            params: Of its baseline; section ``tracking`` says where to record.
            tell: Told of new best trials and of generations, for people.
        """
        self._folder, self._tracking, self._tell = folder, params.tracking, tell
        known = read_records(folder.path / "metrics.jsonl")
        self._recorded = {item.step for item in known if item.kind == "metrics"}
        self._own = JsonlTracker(folder.path)
        if not known:
            self._own.log_params(params.model_dump(mode="json"))
        name = f"study-{folder.path.name[:8]}"
        self._study = self._follow(folder.path, name, {"kamerton.kind": "study"}, parent=None)
        self._trials: dict[int, MlflowFollower] = {}
        self._ended: set[int] = set()
        self._candidates: dict[tuple[int, int], MlflowFollower] = {}

    def _follow(
        self, run: Path, name: str, tags: dict[str, str], *, parent: Path | None
    ) -> MlflowFollower | None:
        tracking: TrackingParams = self._tracking
        if tracking.mlflow_uri is None:
            return None
        return MlflowFollower(
            run,
            uri=tracking.mlflow_uri,
            experiment=tracking.experiment,
            name=name,
            parent=parent,
            tags=tags,
        )

    def trial_started(self, number: int, run: RunDirectory) -> None:
        """Follow a trial's run directory, as soon as its trainer has made it."""
        tags = {"kamerton.kind": "trial", "kamerton.trial": str(number)}
        name = f"trial-{number:03d}"
        follower = self._follow(run.path, name, tags, parent=self._folder.path)
        if follower is not None:
            self._trials[number] = follower

    def trial_stopped(self, number: int) -> None:
        """Say that a trial under way stops with the tuner; it goes on later."""
        if number in self._trials:
            self._trials[number].end("stopped")

    def trials_finished(self, results: list[TrialResult]) -> None:
        """Record every finished trial once; all of the study's trials so far are given.

        A trial that others, begun before it, still have to follow waits for them: readers of a
        series take its points in the order of their steps.
        """
        for result in results:
            self._finish_in_mlflow(result)
        for count, result in enumerate(results, start=1):
            if result.number >= count:  # one before it is under way
                break
            if result.number in self._recorded:
                continue
            self._recorded.add(result.number)
            best = best_of(results[:count])
            scores = {
                "objective": result.objective,
                "best_objective": None if best is None else best.objective,
            }
            values = {name: score for name, score in scores.items() if score is not None}
            self._own.log_metrics({**values, result.state: 1.0}, result.number)
            if best is not None and best.number == result.number:
                text = f"trial {result.number} is the best so far"
                self._tell("best", text, {"objective": result.objective, **result.params})
        self._own.flush()
        if self._study is not None:
            self._study.wake()

    def _finish_in_mlflow(self, result: TrialResult) -> None:
        """End a trial's MLflow run, also one that an earlier, killed tuner left open."""
        uri = self._tracking.mlflow_uri
        if result.number in self._ended or uri is None:
            return
        self._ended.add(result.number)
        if result.number not in self._trials:
            run = next(iter(list_runs(self._folder.trial_runs(result.number))), None)
            if run is None or is_recorded(run.path, uri):
                return
            self.trial_started(result.number, run)
        self._trials[result.number].end(_END[result.state])

    def candidate_started(
        self, generation: int, candidate: Candidate, parent_sha256: str, run: Path
    ) -> None:
        """Follow a candidate of a generation (from 1) from its copy of the parent on."""
        number = candidate.number
        tags = {
            "kamerton.kind": "generation",
            "kamerton.generation": str(generation),
            "kamerton.candidate": str(number),
            "kamerton.parent_checkpoint_sha256": parent_sha256,
            "kamerton.reason": "control" if number == CONTROL else candidate.words,
        }
        name = f"generation-{generation}-{number}"
        follower = self._follow(run, name, tags, parent=self._folder.path)
        if follower is not None:
            self._candidates[generation, number] = follower

    def candidate_finished(self, generation: int, to_step: int, candidate: Candidate) -> None:
        """Record a candidate's score at the step that it was trained to, and end its run."""
        if candidate.run and candidate.score is not None:
            scores = {"generation_score": candidate.score, "generation": float(generation)}
            own = JsonlTracker(self._folder.path / candidate.run)
            own.log_metrics(scores, to_step)
            own.close("finished")
        self._end_candidate(generation, candidate)

    def candidates_known(self, tree: GenerationTree) -> None:
        """End the MLflow runs that an earlier, killed tuner left open."""
        uri = self._tracking.mlflow_uri
        for generation in tree.generations:
            for candidate in generation.candidates:
                run = self._folder.path / candidate.run
                if uri is not None and candidate.run and not is_recorded(run, uri):
                    sha256 = generation.parent_sha256
                    self.candidate_started(generation.number, candidate, sha256, run)
                    self._end_candidate(generation.number, candidate)

    def _end_candidate(self, generation: int, candidate: Candidate) -> None:
        follower = self._candidates.get((generation, candidate.number))
        if follower is not None:
            follower.end("finished" if candidate.state == "complete" else "failed")

    def generation_decided(self, generation: Generation) -> None:
        """Record which candidate is gone on from."""
        self._own.log_event(
            "generation", number=generation.number, accepted=generation.accepted,
            sigma=generation.sigma, reason=generation.reason,
        )  # fmt: skip
        self._tell("milestone", f"generation {generation.number}: {generation.reason}", {})
        self._own.flush()

    def generations_finished(self, tree: GenerationTree) -> None:
        """Record what became of them all."""
        self._own.log_event(
            "generations_finished", verdict=tree.verdict, kept=tree.kept, objective=tree.objective
        )
        self._own.flush()

    def close(self, state: EndState) -> None:
        """Wait, within bounds, until everything is sent."""
        self._own.close(state)
        if self._study is not None:
            self._study.end(state)
        for follower in (self._study, *self._trials.values(), *self._candidates.values()):
            if follower is not None:
                follower.close(state)
