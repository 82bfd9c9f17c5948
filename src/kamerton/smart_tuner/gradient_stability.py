"""Whether gradients stay what they were: a watch over their norms before clipping."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from kamerton.config.tuner_sections import QualityControlParams
from kamerton.tracking.hooks import Action, Alert, EvalFacts, Measure, Note, StepFacts

WINDOW_STEPS: Final = 500  # norms that say what is usual
KNOWN_NORMS: Final = 10  # before so many nothing is usual
UNSTABLE_STEPS: Final = 3  # bad steps in a row that are more than a spike
PART_MEMORY: Final = 0.99  # of the running mean of a part's norm: some hundred steps
KEPT_EPISODES: Final = 5  # told of one by one at an evaluation; of the others only their number

# Figures at evaluations; those of the parts are PREFIX + part.
PREFIX: Final = "gradients/"
USUAL: Final = PREFIX + "usual_norm"  # median of the window
VARIATION: Final = PREFIX + "variation"  # robust standard deviation over the median
LARGEST: Final = PREFIX + "largest_norm"  # since the last evaluation, where finite
UNSTABLE_SHARE: Final = PREFIX + "unstable_share"  # of the steps since the last evaluation
NON_FINITE: Final = PREFIX + "non_finite_steps"  # since the last evaluation


@dataclass(frozen=True, slots=True)
class GradientRecord:
    """What the norms of a run's steps come to; a new record for every step.

    A step is bad if its norm is not finite, or more than ``max(gradient_norm, gradient_factor x
    usual norm)``. One bad step is a spike, which clipping takes care of; three in a row are an
    episode, and unstable.

    Attributes:
        norms: The newest finite ones, the oldest first.
        row: Bad steps in a row up to now.
        steps: Since the record was last taken.
        unstable: Those of them that belong to episodes.
        episodes: How many began, as far as three steps make one.
        non_finite: How many were not finite.
        largest: The largest finite norm of them.
    """

    norms: tuple[float, ...] = ()
    row: int = 0
    steps: int = 0
    unstable: int = 0
    episodes: int = 0
    non_finite: int = 0
    largest: float = 0.0

    def limit(self, params: QualityControlParams) -> float:
        """The norm above which a step is bad; infinite while nothing is usual yet."""
        if len(self.norms) < KNOWN_NORMS:
            return math.inf
        return max(params.gradient_norm, params.gradient_factor * self.usual)

    def after(self, facts: StepFacts, params: QualityControlParams) -> Self:
        """The record with one more step."""
        norm = facts.grad_norm
        finite = math.isfinite(norm) and math.isfinite(facts.loss)
        # The median is looked for only where the fixed bound does not answer already.
        bad = not finite or (norm > params.gradient_norm and norm > self.limit(params))
        row = self.row + 1 if bad else 0
        return dataclasses.replace(
            self,
            norms=(*self.norms[-(WINDOW_STEPS - 1) :], norm) if finite else self.norms,
            row=row,
            steps=self.steps + 1,
            unstable=self.unstable + _joining(row),
            episodes=self.episodes + (row == UNSTABLE_STEPS),
            non_finite=self.non_finite + (not finite),
            largest=max(self.largest, norm) if finite else self.largest,
        )

    @property
    def usual(self) -> float:
        """The median norm; 0 before the first step."""
        return statistics.median(self.norms) if self.norms else 0.0

    @property
    def variation(self) -> float:
        """1.4826 times the median distance from the median, as a share of it; 0 for nothing."""
        usual = self.usual
        if not usual:
            return 0.0
        return 1.4826 * statistics.median(abs(norm - usual) for norm in self.norms) / usual

    @property
    def unstable_share(self) -> float:
        """Of the steps since the record was last taken; at most 1."""
        return min(1.0, self.unstable / self.steps) if self.steps else 0.0

    def taken(self) -> Self:
        """The record from here on: what is usual stays, what is counted begins anew."""
        return dataclasses.replace(self, steps=0, unstable=0, episodes=0, non_finite=0, largest=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**dataclasses.asdict(self), "norms": list(self.norms)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Undo ``to_dict``; an empty mapping is a record of nothing."""
        return cls(**{**values, "norms": tuple(values.get("norms", ()))})


def _joining(row: int) -> int:
    """Steps that the newest one brings into an episode: with the third, all three."""
    if row < UNSTABLE_STEPS:
        return 0
    return UNSTABLE_STEPS if row == UNSTABLE_STEPS else 1


class GradientStabilityMonitor:
    """Measures gradient norms, of the whole and by part, and tells of episodes of bad steps.

    It changes nothing: clipping, recovery and quality control do.
    """

    name = "gradient_stability"

    def __init__(self, params: QualityControlParams) -> None:
        """Take the bounds: ``gradient_norm`` and ``gradient_factor``."""
        self._params = params
        self._record = GradientRecord()
        self._parts: dict[str, float] = {}  # running means
        self._episodes: list[dict[str, Any]] = []

    def on_step(self, facts: StepFacts) -> None:
        """Count a step."""
        before, self._record = self._record, self._record.after(facts, self._params)
        if self._record.row == UNSTABLE_STEPS and len(self._episodes) < KEPT_EPISODES:
            self._episodes.append(self._episode(facts, before))
        for part, norm in facts.module_norms.items():
            if math.isfinite(norm):
                mean = self._parts.get(part, norm)
                self._parts[part] = PART_MEMORY * mean + (1 - PART_MEMORY) * norm

    def on_eval(self, facts: EvalFacts) -> Sequence[Action]:
        """The figures since the last evaluation, and what happened."""
        del facts
        record, episodes = self._record, self._episodes
        if not record.steps:
            return []
        self._record, self._episodes = record.taken(), []
        figures = {
            USUAL: record.usual, VARIATION: record.variation, LARGEST: record.largest,
            UNSTABLE_SHARE: record.unstable_share, NON_FINITE: float(record.non_finite),
            **{PREFIX + part: norm for part, norm in self._parts.items()},
        }  # fmt: skip
        told: list[Action] = [Measure(figures)]
        told += [Note("unstable_gradients", episode) for episode in episodes]
        loud = [episode for episode in episodes if episode["grad_norm"] is not None]
        if loud:  # of numbers that are not finite others tell at once
            told.append(_alert(record, loud))
        return told

    def on_epoch(self, facts: StepFacts) -> None:
        """Nothing depends on epochs."""

    def on_exception(self, error: Exception) -> None:
        """What was counted is in the checkpoint, or lost with the steps."""

    def memory(self) -> dict[str, Any]:
        """Record, running means and what is to be told of."""
        return {
            "record": self._record.to_dict(),
            "parts": dict(self._parts),
            "episodes": list(self._episodes),
        }

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Undo ``memory``."""
        self._record = GradientRecord.from_dict(memory.get("record", {}))
        self._parts = dict(memory.get("parts", {}))
        self._episodes = list(memory.get("episodes", ()))

    def _episode(self, facts: StepFacts, before: GradientRecord) -> dict[str, Any]:
        """What made it one, and the part of the network that is furthest from what it was."""
        growth = {
            part: norm / self._parts[part]
            for part, norm in facts.module_norms.items()
            if self._parts.get(part) and not math.isnan(norm)
        }
        known = len(before.norms) >= KNOWN_NORMS
        return {
            "third_step": facts.step,
            "grad_norm": facts.grad_norm if math.isfinite(facts.grad_norm) else None,
            "usual_norm": before.usual,
            "limit": before.limit(self._params) if known else None,
            "part": max(growth, key=growth.__getitem__) if growth else None,
        }


def _alert(record: GradientRecord, episodes: Sequence[Mapping[str, Any]]) -> Alert:
    text = f"gradients were far above the usual for {record.unstable} of {record.steps} steps"
    parts = sorted({str(episode["part"]) for episode in episodes if episode["part"]})
    where = f", most of all in {', '.join(parts)}" if parts else ""
    figures = {"episodes": record.episodes, "largest_norm": record.largest}
    return Alert("explosion", text + where, figures)
