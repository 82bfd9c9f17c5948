"""What the page on a study tells of: its trials with what their trainers recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from kamerton.config.schema import TuneParams
from kamerton.smart_tuner.generation_tree import GenerationTree
from kamerton.smart_tuner.study import StudyFolder, baseline_of
from kamerton.smart_tuner.trials import TrialResult
from kamerton.tracking import Record, read_records
from kamerton.tracking.curves import Series, read_curves
from kamerton.tracking.improvement_plan import PlanRow, improvement_plan
from kamerton.tracking.names import VAL_MEL_LOSS
from kamerton.tracking.run_directory import RunDirectory, list_runs

STATE_WORDS: Final = {"complete": "complete", "pruned": "ended early", "failed": "failed"}
# What people are shown of a run; the rest of a long record need not be kept.
_KEPT_EVENTS: Final = frozenset(
    {"decision", "stop", "recovery", "recovery_effect", "intervention", "intervention_effect"}
)


@dataclass(frozen=True)
class RunRecord:
    """What one run recorded.

    Attributes:
        curves: Its series by name, each (steps, values).
        events: Decisions, and what was done about trouble.
        steps: The last step made.
    """

    curves: Mapping[str, Series] = field(default_factory=dict)
    events: Sequence[Record] = ()
    steps: int = 0

    @classmethod
    def of(cls, records: Sequence[Record]) -> RunRecord:
        """Of a run's metrics.jsonl."""
        steps = [item.step for item in records if item.kind == "metrics" and item.step is not None]
        events = [item for item in records if item.kind == "event" and item.name in _KEPT_EVENTS]
        return cls(read_curves(records), events, max(steps, default=0))

    @cached_property
    def decisions(self) -> list[Record]:
        """Of its stop controller, in order."""
        return [event for event in self.events if event.name == "decision"]

    @cached_property
    def stop(self) -> Record | None:
        """The decision that ended it; None where its stop controller did not."""
        return next((item for item in self.decisions if item.fields.get("stop")), None)

    @cached_property
    def plan(self) -> tuple[PlanRow, ...]:
        """What was done about its trouble, with the effect."""
        return improvement_plan(self.events).rows


@dataclass(frozen=True, slots=True)
class StudyStory:
    """A finished study.

    Attributes:
        results: All trials, in the order of their numbers.
        best: The one to train with.
        tune: The search as it was asked for.
        shares: Of the objective's variation that each dimension explains; empty with few trials.
        tree: The generations; None where none were asked for.
        runs: What each trial's trainer recorded, by number; a trial may have none.
        candidates: The same of the candidates of generations, by label (``g1c2``).
        from_history: How many trials after the baseline begin with what other studies found.
    """

    results: Sequence[TrialResult]
    best: TrialResult
    tune: TuneParams
    shares: Mapping[str, float] = field(default_factory=dict)
    tree: GenerationTree | None = None
    runs: Mapping[int, RunRecord] = field(default_factory=dict)
    candidates: Mapping[str, RunRecord] = field(default_factory=dict)
    from_history: int = 0

    @property
    def baseline(self) -> TrialResult | None:
        """The trial of the unchanged parameters, if it is complete."""
        return baseline_of(self.results)

    def run(self, number: int) -> RunRecord:
        """What a trial recorded; nothing where that is gone."""
        return self.runs.get(number, RunRecord())

    def steps(self, result: TrialResult) -> int:
        """The optimiser steps that a trial cost."""
        return max(self.run(result.number).steps, *result.curve, 0, 0)

    def is_from_history(self, result: TrialResult) -> bool:
        """Whether its values are what another study found."""
        return 0 < result.number <= self.from_history

    def role(self, result: TrialResult) -> str:
        """Where its values come from, for people."""
        if result.number == 0:
            return "baseline"
        return "from history" if self.is_from_history(result) else "search"


def read_story(
    folder: StudyFolder, results: Sequence[TrialResult], best: TrialResult, tune: TuneParams, *,
    shares: Mapping[str, float], tree: GenerationTree | None, from_history: int,
) -> StudyStory:  # fmt: skip
    """The story of a study whose runs lie in ``folder``."""
    runs = {
        result.number: RunRecord.of(_seen(result, read_records(run.metrics_file)))
        for result in results
        for run in list_runs(folder.trial_runs(result.number))[:1]
    }
    candidates = {}
    for generation in tree.generations if tree else ():
        for candidate in generation.candidates:
            file = RunDirectory(folder.path / candidate.run).metrics_file
            if candidate.run and file.is_file():
                # It begins with its parent's record, which is told of there, and its trainer is
                # told to end as soon as it did what it was made for.
                first, last = generation.from_step, generation.to_step
                own = [item for item in read_records(file) if first < (item.step or 0) <= last]
                candidates[f"g{generation.number}c{candidate.number}"] = RunRecord.of(own)
    return StudyStory(results, best, tune, shares, tree, runs, candidates, from_history)


def _seen(result: TrialResult, records: Sequence[Record]) -> list[Record]:
    """A trial's record up to where the study decided about it.

    Its trainer is told to end, and makes a few more steps until it does: how many is chance.
    """
    until = max(result.curve, default=0)
    if result.state == "complete":
        return list(records)
    if result.state == "failed":
        until = _failed_at(records)
    return [item for item in records if item.step is None or item.step <= until]


def _failed_at(records: Sequence[Record]) -> int:
    """The first evaluation that gave no number; the last one where all did."""
    step = 0
    for record in records:
        if record.step is not None and VAL_MEL_LOSS in record.values:
            step = record.step
            if not math.isfinite(record.values[VAL_MEL_LOSS]):
                break
    return step
