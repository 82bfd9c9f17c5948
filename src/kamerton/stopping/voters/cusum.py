"""Page's cumulative sums: whether the level of a curve has changed, up or down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kamerton.stopping.series import Floats
from kamerton.stopping.types import Group, Vote
from kamerton.stopping.view import View

_CLIP = 4.0  # one outlier is no change of level


class Cusum:
    """Two-sided sums over standardised innovations of block means (Page 1954; Montgomery, ch. 9).

    With slack 0.5 and threshold 5 a shift of one standard deviation is found in about ten blocks,
    and independent normal innovations raise a false alarm every 465 (both sides together).
    """

    name = "cusum"
    group: Group = "statistical_consensus"

    def __init__(self, slack: float, threshold: float) -> None:
        self._slack = slack
        self._threshold = threshold
        self.rising = 0.0
        self.falling = 0.0
        self._since_alarm = -1
        self._alarm = ""

    def update(self, innovation: float) -> None:
        """Take one standardised innovation: (value - level) / standard deviation."""
        z = max(-_CLIP, min(_CLIP, innovation))
        self.rising = min(2.0 * self._threshold, max(0.0, self.rising + z - self._slack))
        self.falling = max(0.0, self.falling - z - self._slack)
        if self._since_alarm >= 0:
            self._since_alarm += 1
        if self.falling > self._threshold:
            self._alarm, self._since_alarm = "falling", 0
            self.reset()
        elif self.rising > self._threshold:
            self._alarm, self._since_alarm = "rising", 0

    def reset(self) -> None:
        """Forget the sums: after an alarm, a restart or a change of the learning rate."""
        self.rising = self.falling = 0.0

    def alarmed(self, kind: str, within: int) -> bool:
        """Whether the last alarm was of this kind and at most so many blocks ago."""
        return self._alarm == kind and 0 <= self._since_alarm <= within

    def vote(self, view: View) -> Vote:  # noqa: ARG002 - it has seen every block already
        """1 for a rise of the level, -1 for a fall in the last blocks, else no opinion."""
        if self.rising > self._threshold:
            return Vote(self.name, self.group, 1.0, 1.0, f"the level rose (sum {self.rising:.1f})")
        if self.alarmed("falling", 6):
            return Vote(
                self.name, self.group, -1.0, 1.0, f"the level fell {self._since_alarm} blocks ago"
            )
        largest = max(self.rising, self.falling) / self._threshold
        return Vote(
            self.name, self.group, 0.0, 0.0, f"no change of level ({largest:.0%} of an alarm)"
        )

    def state(self) -> dict[str, Any]:
        """Everything, as plain JSON values."""
        return {
            "rising": self.rising,
            "falling": self.falling,
            "since_alarm": self._since_alarm,
            "alarm": self._alarm,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Undo ``state``."""
        self.rising = float(state["rising"])
        self.falling = float(state["falling"])
        self._since_alarm = int(state["since_alarm"])
        self._alarm = str(state["alarm"])


def innovation(recent: Floats | Sequence[float], noise: float, window: int = 12) -> float:
    """The last block mean against the median of those before it, in standard deviations of it.

    The block before the last is left out of the median, so that a slow change is not followed.
    0 where there are fewer than six blocks, or no noise to measure with.
    """
    values = np.asarray(recent, dtype=np.float64)
    if values.size < 6 or noise <= 0.0:
        return 0.0
    before = values[-window - 2 : -2]
    # the median's own error adds to that of the block
    return float(values[-1] - np.median(before)) / (noise * math.sqrt(1.0 + 1.57 / before.size))
