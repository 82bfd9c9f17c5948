"""How many epochs to train: the specification's rule, corrected by what finished runs needed.

A run needed the epochs that it took to come within 2 % of its best, and a quarter more: with
that plan it reaches its best at four fifths of it, and a patience of a quarter of the plan has
room to see that nothing better comes. Without the margin, plans would shrink with every run made
after the last recommendation, since no run can need more than it was given.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from kamerton.config.schema import AnalyzeParams
from kamerton.core.errors import PipelineError
from kamerton.data.epoch_rule import EPOCHS_STEP, Recommendation
from kamerton.smart_tuner.history import Descriptors, History, RunOutcome

NEAREST: Final = 5
MARGIN: Final = 1.25  # of the epochs to within 2 % of the best
SHRINKAGE: Final = 3.0  # n runs weigh n / (n + 3)
LEAST_FACTOR, MOST_FACTOR = 0.5, 2.0
LEAST_PLAN: Final = 0.5  # of the rule: a run that was given less cannot tell what is needed
# Ends of runs that went wrong: when they were at their best says nothing of when they should be.
WENT_WRONG: Final = frozenset({"gave_up", "divergence", "collapse", "not_finite"})
CONFIDENCE_PER_RUN: Final = 0.02  # up to five of them if they agree
_DIGITS = 4

HistoryState = Literal["off", "absent", "unreadable", "read"]

_log = logging.getLogger("kamerton.analyze")


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the runs on one dataset needed, or one run on the dataset at hand.

    Attributes:
        source: Id of the run, of the newest one where there are several.
        runs: How many.
        same_dataset: Whether it is the dataset at hand.
        distance: How unlike its dataset is; 0 for equal, 1 for a difference that matters.
        rule_epochs: What the rule gave there.
        near_best_epochs: Geometric mean of the epochs to within 2 % of the best.
        ratio: What was needed, margin included, to what the rule gave; geometric mean.
    """

    source: str
    runs: int
    same_dataset: bool
    distance: float
    rule_epochs: int
    near_best_epochs: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Correction:
    """What history makes of the rule.

    Attributes:
        factor: What the rule's epochs are multiplied by, 0.5 to 2; 1 without history.
        observed: Geometric mean of what was needed to what the rule gave.
        weight: How much of it counts: n / (n + 3).
        spread: Standard deviation of the logarithms of the ratios; 0 for fewer than two.
        lessons: What it was made of, the most alike first.
        known_runs: Finished runs in the history, of any dataset.
        state: Whether there was a history to read.
    """

    factor: float
    observed: float
    weight: float
    spread: float
    lessons: tuple[Lesson, ...]
    known_runs: int
    state: HistoryState

    @property
    def used_runs(self) -> int:
        """Runs behind it."""
        return sum(lesson.runs for lesson in self.lessons)

    @property
    def added_confidence(self) -> float:
        """What history adds; runs that differ by a factor of two add nothing."""
        agreement = max(0.0, 1.0 - self.spread / math.log(2.0))
        return CONFIDENCE_PER_RUN * min(len(self.lessons), NEAREST) * agreement

    def as_dict(self) -> dict[str, Any]:
        """Plain values, rounded."""
        values = asdict(self) | {"used_runs": self.used_runs}
        values["lessons"] = [_rounded(asdict(lesson)) for lesson in self.lessons]
        return _rounded(values)


@dataclass(frozen=True, slots=True)
class EpochAdvice:
    """The rule's recommendation and what became of it."""

    rule: Recommendation
    correction: Correction
    recommended_epochs: int
    confidence: float
    reasons: tuple[str, ...]


class EpochAdvisor:
    """Corrects the epoch rule by the finished runs on the most similar datasets."""

    def __init__(
        self, runs: Sequence[RunOutcome], params: AnalyzeParams, *, state: HistoryState = "read"
    ) -> None:
        """Learn from ``runs``; ``state`` says where they come from, for the explanation."""
        self._runs = tuple(runs)
        self._params = params
        self._state = state

    @classmethod
    def of(cls, params: AnalyzeParams) -> EpochAdvisor:
        """One that has read ``analyze.history``; a history that cannot be read is warned of."""
        if params.history is None:
            return cls((), params, state="off")
        path = Path(params.history)
        if not path.exists():
            return cls((), params, state="absent")
        try:
            return cls(History(path).runs(), params)
        except PipelineError as error:
            _log.warning("the recommendation is the rule's alone: %s", error.message)
            return cls((), params, state="unreadable")

    def advise(
        self, rule: Recommendation, descriptors: Descriptors, dataset_sha256: str
    ) -> EpochAdvice:
        """What to train for.

        Args:
            rule: The rule's recommendation for the dataset.
            descriptors: Of the dataset.
            dataset_sha256: Its content hash: runs on it count one by one, other datasets as one
                each.
        """
        correction = self.correction(descriptors, dataset_sha256)
        exact = rule.recommended_epochs * correction.factor
        rounded = max(EPOCHS_STEP, int(exact / EPOCHS_STEP + 0.5) * EPOCHS_STEP)
        epochs = rule.recommended_epochs
        if correction.lessons:
            epochs = min(max(rounded, self._params.min_epochs), self._params.max_epochs)
        confidence = min(0.99, rule.confidence + correction.added_confidence)
        reasons = (*rule.reasons, *self._reasons(rule, correction, rounded, epochs))
        return EpochAdvice(rule, correction, epochs, round(confidence, _DIGITS), reasons)

    def correction(self, descriptors: Descriptors, dataset_sha256: str) -> Correction:
        """What the history says of a dataset: the specification's kappa, shrunk by its amount.

        kappa = exp(mean log ratio) ** (n / (n + 3)) over the n <= 5 nearest lessons, within
        [0.5, 2].
        """
        nearest = self._lessons(descriptors, dataset_sha256)[:NEAREST]
        logs = [math.log(lesson.ratio) for lesson in nearest]
        weight = len(logs) / (len(logs) + SHRINKAGE)
        mean = statistics.fmean(logs) if logs else 0.0
        return Correction(
            factor=min(max(math.exp(weight * mean), LEAST_FACTOR), MOST_FACTOR),
            observed=math.exp(mean),
            weight=weight,
            spread=statistics.stdev(logs) if len(logs) > 1 else 0.0,
            lessons=tuple(nearest),
            known_runs=len(self._runs),
            state=self._state,
        )

    def _lessons(self, descriptors: Descriptors, dataset_sha256: str) -> list[Lesson]:
        """Lessons, the most alike first; of equal ones the newest first."""
        groups: dict[str, list[RunOutcome]] = {}
        for run in reversed(self._runs):
            if usable(run):
                same = run.dataset_sha256 == dataset_sha256
                key = f"run {run.run_id}" if same else f"dataset {run.dataset_sha256}"
                groups.setdefault(key, []).append(run)
        found = [_lesson(runs, descriptors, dataset_sha256) for runs in groups.values()]
        return sorted(found, key=lambda lesson: lesson.distance)

    def _reasons(
        self, rule: Recommendation, correction: Correction, rounded: int, epochs: int
    ) -> list[str]:
        if not correction.lessons:
            return [_WITHOUT[correction.state].format(known=correction.known_runs)]
        runs = correction.used_runs
        own = sum(lesson.same_dataset for lesson in correction.lessons)
        on = f"{own} of them on this dataset" if own else "on similar datasets"
        agree = math.exp(correction.spread)
        told = [
            f"{runs} earlier {'run' if runs == 1 else 'runs'} ({on}) needed "
            f"×{correction.observed:.2f} of the rule"
            + (f", give or take ×{agree:.2f}" if len(correction.lessons) > 1 else "")
            + f"; of that {correction.weight:.0%} counts: ×{correction.factor:.2f}",
            f"{rule.recommended_epochs} epochs by the rule, {rounded} with history",
        ]
        if epochs != rounded:
            told.append(f"{rounded} epochs lie outside the limits: {epochs}")
        return told


_WITHOUT: Mapping[HistoryState, str] = {
    "off": "history is switched off (analyze.history): the rule alone",
    "absent": "no run has finished yet: the rule alone",
    "unreadable": "the history cannot be read: the rule alone",
    "read": "of {known} finished runs none went well, from the start, with epochs enough to tell: "
    "the rule alone",
}


def usable(run: RunOutcome) -> bool:
    """Whether a run can tell how long training takes.

    One that went wrong cannot, nor one that began with the weights of another, nor one that was
    given less than half of the rule: its learning rate fell before the voice was learned, so it is
    near its best early, whatever that is.
    """
    return (
        run.ended not in WENT_WRONG
        and not run.warm_started
        and run.rule_epochs > 0
        and run.near_best_step > 0
        and run.planned_epochs >= LEAST_PLAN * run.rule_epochs
    )


def _lesson(runs: Sequence[RunOutcome], descriptors: Descriptors, dataset_sha256: str) -> Lesson:
    """The lesson of the runs on one dataset, newest first."""
    newest = runs[0]
    ratio = statistics.geometric_mean([MARGIN * r.near_best_epochs / r.rule_epochs for r in runs])
    same = newest.dataset_sha256 == dataset_sha256
    return Lesson(
        source=newest.run_id,
        runs=len(runs),
        same_dataset=same,
        distance=0.0 if same else descriptors.distance(newest.descriptors),
        rule_epochs=newest.rule_epochs,
        near_best_epochs=statistics.geometric_mean([r.near_best_epochs for r in runs]),
        ratio=ratio,
    )


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: round(value, _DIGITS) if isinstance(value, float) else value
        for name, value in values.items()
    }
