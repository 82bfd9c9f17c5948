"""Larger batches where training is steady, smaller ones where gradients grow."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from kamerton.config.tuner_sections import BatchSizeParams
from kamerton.tracking.hooks import Action, EvalFacts, Measure, ScaleBatch, StepFacts

RECENT_STEPS: Final = 50  # losses that say how steady training is
USUAL_STEPS: Final = 500  # gradient norms that say what is usual
GROWTH: Final = 1.25
SHRINKAGE: Final = 0.8

# Figures at evaluations.
STEADINESS: Final = "batches/steadiness"
GRADIENT_RATIO: Final = "batches/gradient_ratio"
SIZE: Final = "batches/size"  # utterances of average length

HasRoom = Callable[[float], bool]


def steadiness(losses: Sequence[float]) -> float:
    """1 - deviation / mean: 1 where all losses are equal; 0 where their mean is not positive."""
    mean = statistics.fmean(losses)
    return 1.0 - statistics.pstdev(losses, mean) / mean if mean > 0.0 else 0.0


def grown(size: int, params: BatchSizeParams) -> int:
    """A quarter more, at least one; not above the maximum, and never less than it was."""
    wanted = max(size + 1, round(GROWTH * size))
    return max(size, min(wanted, params.max_batch_size))


def shrunk(size: int, params: BatchSizeParams) -> int:
    """A fifth less, at least one; not below the minimum, and never more than it was."""
    wanted = min(size - 1, round(SHRINKAGE * size))
    return min(size, max(wanted, params.min_batch_size))


class BatchSizeAdapter:
    """Asks for other batches at evaluations; the trainer makes them from the next epoch on.

    Steadiness of the last 50 losses of at least ``increase_threshold`` lets batches grow by a
    quarter, unless memory is short. A gradient norm (median of the last 50 steps) of more than
    ``decrease_threshold`` times the usual one (median of the last 500) lets them shrink by a fifth,
    which comes first. Sizes are whole numbers within ``min_batch_size`` and ``max_batch_size``.
    After a change it waits until that has come and 50 steps were made with it.

    The trainer scales the learning rate with the root of the batch size (the usual rule for Adam).
    """

    name = "batch_size"

    def __init__(
        self,
        params: BatchSizeParams,
        batch_size: int,
        *,
        has_room: HasRoom = lambda _growth: True,
    ) -> None:
        """Take the bounds and the size to begin with.

        Args:
            params: Thresholds and bounds.
            batch_size: ``train.batch_size``, of which scales are multiples.
            has_room: Whether memory holds batches of so many times the present size.
        """
        self._params = params
        self._begun = batch_size
        self._has_room = has_room
        self._asked = batch_size
        self._seen = 0.0  # the size that the losses are of
        self._losses: deque[float] = deque(maxlen=RECENT_STEPS)
        self._norms: deque[float] = deque(maxlen=USUAL_STEPS)

    def on_step(self, facts: StepFacts) -> None:
        """Remember loss and gradient norm of a step that was applied."""
        if not self._seen:  # a run that others may have changed before
            self._asked = round(facts.batch_size)
        if facts.batch_size != self._seen:
            self._seen = facts.batch_size
            self._losses.clear()
        if facts.applied and math.isfinite(facts.loss) and math.isfinite(facts.grad_norm):
            self._losses.append(facts.loss)
            self._norms.append(facts.grad_norm)

    def on_eval(self, facts: EvalFacts) -> Sequence[Action]:  # noqa: ARG002 - by its steps
        """Perhaps another size."""
        if len(self._losses) < RECENT_STEPS or round(self._seen) != self._asked:
            return []  # where the epoch is just over, the losses are still of the old size
        steady, ratio, size = steadiness(self._losses), self._ratio(), self._asked
        figures = {STEADINESS: steady, GRADIENT_RATIO: ratio, SIZE: float(size)}
        told: list[Action] = [Measure(figures)]
        if ratio > self._params.decrease_threshold:
            wanted = shrunk(size, self._params)
            reason = f"the gradient norm is {ratio:.1f} times the usual one"
        elif steady >= self._params.increase_threshold:
            wanted = grown(size, self._params)
            reason = f"the last {RECENT_STEPS} losses are steady ({steady:.3f})"
        else:
            return told
        if wanted == size or (wanted > size and not self._has_room(wanted / size)):
            return told
        self._asked = wanted
        return [*told, ScaleBatch(wanted / self._begun, f"{reason}: {size} to {wanted}")]

    def on_epoch(self, facts: StepFacts) -> None:
        """The trainer changes sizes here; what they are stands in the facts of steps."""

    def on_exception(self, error: Exception) -> None:
        """Nothing is to be ended."""

    def memory(self) -> dict[str, Any]:
        """Losses, norms, and what was asked for."""
        return {
            "begun": self._begun, "asked": self._asked, "seen": self._seen,
            "losses": list(self._losses), "norms": list(self._norms),
        }  # fmt: skip

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Undo ``memory``.

        What was asked for is kept as the multiple it was, also where a run goes on with another
        batch size, for that is how the trainer keeps it.
        """
        scale = memory.get("asked", 1) / memory.get("begun", 1)
        self._asked = max(1, round(scale * self._begun))
        self._seen = memory.get("seen", 0.0)
        self._losses = deque(memory.get("losses", ()), maxlen=RECENT_STEPS)
        self._norms = deque(memory.get("norms", ()), maxlen=USUAL_STEPS)

    def _ratio(self) -> float:
        """The recent gradient norm over the usual one; 1 where all gradients are nothing."""
        usual = statistics.median(self._norms)
        recent = statistics.median(list(self._norms)[-RECENT_STEPS:])
        return recent / usual if usual else 1.0
