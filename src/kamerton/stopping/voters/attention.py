"""Whether attention reads: never aligned, getting better, well, or lost again."""

from __future__ import annotations

from kamerton.config.stopping_section import AttentionMonitoringParams
from kamerton.stopping.types import Group, Vote
from kamerton.stopping.view import View
from kamerton.stopping.voters.mann_kendall import trend

COLLAPSE_FROM = 0.6  # a best diagonality from which its loss is a collapse
COLLAPSE_SHARE = 0.5  # of its best
REGAINED_SHARE = 0.75  # of its best; more than it was lost at, or noise would end a collapse


def lost(now: float, best: float) -> bool:
    """Whether attention had been there and less than half of its best is left."""
    return best >= COLLAPSE_FROM and now < COLLAPSE_SHARE * best


def regained(now: float, best: float) -> bool:
    """Whether attention that was lost reads again."""
    return now >= REGAINED_SHARE * best


class AttentionHealth:
    """Free-running diagonality as a reason to go on, or to stop."""

    name = "attention_health"
    group: Group = "attention_analysis"

    def __init__(self, params: AttentionMonitoringParams) -> None:
        self._params = params

    def vote(self, view: View) -> Vote:
        """By the first of these that holds: not aligned -1, collapse 1, rising -0.5, aligned 0.2.

        No confidence where the model has no attention: the weight goes to the others.
        """
        params = self._params
        if not params.enabled or view.attention_best is None or view.attention.size == 0:
            return Vote(self.name, self.group, 0.0, 0.0, "no attention to look at")
        now, best = float(view.attention[-1]), view.attention_best
        if best < params.guard_threshold and view.share < params.guard_share:
            return self._say(-1.0, 1.0, f"not aligned yet (best diagonality {best:.2f})")
        if lost(now, best):
            return self._say(1.0, 1.0, f"diagonality fell from {best:.2f} to {now:.2f}")
        z = trend(view.attention[-12:])
        if z > 1.0:
            return self._say(-0.5, 1.0, f"diagonality rises ({now:.2f}, Z {z:+.1f})")
        health = now * self._monotonic(view)
        if health >= params.alignment_threshold:
            return self._say(0.2, 0.5, f"aligned (health {health:.2f})")
        return self._say(0.0, 0.3, f"neither aligned nor rising (health {health:.2f})")

    def _say(self, score: float, confidence: float, reason: str) -> Vote:
        return Vote(self.name, self.group, score, confidence, reason)

    def _monotonic(self, view: View) -> float:
        """What is left of health where attention goes back: 1 - 10 penalty (1 - M), at least 0."""
        if view.monotonicity is None:
            return 1.0
        penalty = 10.0 * self._params.monotonic_penalty * (1.0 - view.monotonicity)
        return max(0.0, 1.0 - penalty)
