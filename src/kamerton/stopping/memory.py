"""What the controller remembers of a run: bounded series and a few marks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from kamerton.stopping.series import RecentBlocks, WholeCurve
from kamerton.stopping.types import Observation
from kamerton.stopping.view import View, block_noise
from kamerton.stopping.voters.attention import lost, regained

KEPT_BLOCKS = 32
CHECKS = 96  # per plan: a block of evaluations is a check, and what rules and voters look at

_SERIES = ("value", "attention", "train_loss", "premature", "runaway", "gate_f1")
_ANNEALING = 0.9  # of the highest learning rate so far


class Memory:
    """One run's evaluations, as far as decisions need them."""

    def __init__(self, planned: float, interval: float) -> None:
        self._planned = planned
        size = max(1, int(planned / interval / CHECKS))
        self._blocks = planned / interval / size
        self._whole = WholeCurve()
        self._recent = {name: RecentBlocks(size, KEPT_BLOCKS) for name in _SERIES}
        self.evaluations = 0
        self.step = -math.inf
        self.best = math.inf
        self.best_step: float = 0
        self.better_value = math.inf
        self.better_step: float = 0.0
        self.aligned_step: float | None = None
        self.lost_step: float | None = None
        self.intervened_step: float | None = None
        self._start = math.nan
        self._highest = -math.inf
        self._attention_best: float | None = None
        self._monotonicity: float | None = None
        self._rates = [0.0, 0.0, 0.0]  # highest, the one before, last

    def take(self, seen: Observation, min_delta: float, guard_threshold: float) -> bool:
        """Add one finite evaluation; True when it completed a block."""
        if self.evaluations == 0:
            self._start = seen.value
        self.evaluations += 1
        self.step = float(seen.step)
        self._highest = max(self._highest, seen.value)
        if seen.value < self.best:
            self.best, self.best_step = seen.value, seen.step
        if seen.value < self.better_value - min_delta * self.span:
            self.better_value, self.better_step = seen.value, self.step
        self._whole.add(self.step, seen.value)
        filled = {name: self._recent[name].add(_number(getattr(seen, name))) for name in _SERIES}
        self._take_marks(seen)
        if filled["value"]:
            self._take_attention(guard_threshold)
        return filled["value"]

    def _take_marks(self, seen: Observation) -> None:
        self._monotonicity = _number(seen.monotonicity)
        rate = _number(seen.learning_rate)
        if rate is not None:
            self._rates = [max(self._rates[0], rate), self._rates[2], rate]

    def _take_attention(self, guard_threshold: float) -> None:
        known = self._recent["attention"].known()
        if known.size == 0:
            return
        self._attention_best = max(float(known[-1]), self._attention_best or -1.0)
        self._take_loss_of_attention(float(known[-1]), self._attention_best)
        if self.aligned_step is None and self._attention_best >= guard_threshold:
            self.aligned_step = self.step

    def _take_loss_of_attention(self, now: float, best: float) -> None:
        """Mark where it was lost; where it reads again, it has aligned anew."""
        if self.lost_step is None:
            if lost(now, best):
                self.lost_step = self.step
        elif regained(now, best):
            self.lost_step, self.aligned_step = None, self.step

    def intervened(self, step: float, *, attention_anew: bool) -> None:
        """Someone else changed the run after ``step``, and perhaps made its attention anew."""
        self.intervened_step = step
        if attention_anew:
            self._recent["attention"].forget()
            self._attention_best = self.aligned_step = self.lost_step = None

    @property
    def span(self) -> float:
        """How far the curve came down; where it never did, how far it went."""
        if self.evaluations == 0:
            return 0.0
        down = self._start - self.best
        return down if down > 0.0 else self._highest - self.best

    @property
    def has_attention(self) -> bool:
        """Whether a diagonality was ever seen."""
        return self._attention_best is not None

    @property
    def annealing(self) -> bool:
        """Whether the learning rate has come down from its highest and still falls."""
        highest, before, last = self._rates
        return last < _ANNEALING * highest and last < before

    def view(self) -> View:
        """What voters look at."""
        steps, values = self._whole.arrays()
        series = {name: blocks.known() for name, blocks in self._recent.items()}
        recent = series["value"]
        return View(
            step=self.step,
            planned=self._planned,
            blocks=self._blocks,
            evaluations=self.evaluations,
            start=self._start,
            best=self.best,
            span=self.span,
            noise=block_noise(recent[-24:]),
            recent=recent,
            steps=steps,
            values=values,
            attention=series["attention"],
            attention_best=self._attention_best,
            monotonicity=self._monotonicity,
            train=series["train_loss"],
            premature=series["premature"],
            runaway=series["runaway"],
            gate_f1=series["gate_f1"],
        )

    def state(self) -> dict[str, Any]:
        """Everything, as plain JSON values."""
        marks = {name: _written(getattr(self, name)) for name in _MARKS}
        return {
            **marks,
            "rates": list(self._rates),
            "whole": self._whole.state(),
            "recent": {name: blocks.state() for name, blocks in self._recent.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Undo ``state``."""
        for name, absent in _MARKS.items():
            value = state.get(name)
            setattr(self, name, absent if value is None else value)
        self._rates = [float(rate) for rate in state["rates"]]
        self._whole.restore(state["whole"])
        for name, blocks in self._recent.items():
            blocks.restore(state["recent"][name])


# Single values, and what stands in a fresh memory where JSON has null.
_MARKS: dict[str, Any] = {
    "evaluations": 0,
    "step": -math.inf,
    "best": math.inf,
    "best_step": 0,
    "better_value": math.inf,
    "better_step": 0.0,
    "aligned_step": None,
    "lost_step": None,
    "intervened_step": None,
    "_start": math.nan,
    "_highest": -math.inf,
    "_attention_best": None,
    "_monotonicity": None,
}


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def _written(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
