"""Whether sentences end where they should, when the model speaks by itself."""

from __future__ import annotations

from kamerton.stopping.series import Floats
from kamerton.stopping.types import Group, Vote
from kamerton.stopping.view import View
from kamerton.stopping.voters.mann_kendall import trend

GOOD_F1 = 0.8  # of the stop frame, from which the gate is learned


def _last(values: Floats) -> float | None:
    return float(values[-1]) if values.size else None


def faults(view: View) -> Floats:
    """Share of sentences that end wrongly, of the last blocks in which it is known."""
    known = [values for values in (view.premature, view.runaway) if values.size]
    if not known:
        return 1.0 - view.gate_f1
    length = min(values.size for values in known)
    return sum((values[-length:] for values in known[1:]), start=known[0][-length:])


class GateHealth:
    """Sentences that end too early or not at all: learning, learned, or given up."""

    name = "gate_health"
    group: Group = "attention_analysis"

    def __init__(self, premature_threshold: float) -> None:
        self._threshold = premature_threshold

    def vote(self, view: View) -> Vote:
        """Fewer faults -0.5; more 0.5; few 0.2; else, not learned yet, -0.2."""
        wrong = faults(view)
        now = _last(wrong)
        if now is None:
            return Vote(self.name, self.group, 0.0, 0.0, "no sentences' ends to look at")
        z = trend(wrong[-12:])
        f1 = _last(view.gate_f1)
        told = f"{now:.0%} of sentences end wrongly"
        if view.premature.size == 0 and view.runaway.size == 0:
            told = f"F1 of the stop frame {1.0 - now:.2f}"
        if z < -1.0:
            return Vote(self.name, self.group, -0.5, 0.5, f"{told}, it gets better (Z {z:+.1f})")
        if z > 1.645:
            return Vote(self.name, self.group, 0.5, 0.5, f"{told}, it gets worse (Z {z:+.1f})")
        if now < self._threshold and (f1 is None or f1 >= GOOD_F1):
            return Vote(self.name, self.group, 0.2, 0.5, told)
        return Vote(self.name, self.group, -0.2, 0.3, f"{told}: not learned yet")
