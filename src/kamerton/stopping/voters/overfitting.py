"""How likely it is that a run learns its training clips by heart."""

from __future__ import annotations

from dataclasses import dataclass

from kamerton.config.stopping_section import OverfittingParams
from kamerton.stopping.types import Risk, Vote
from kamerton.stopping.view import View
from kamerton.stopping.voters.mann_kendall import trend

MEDIUM, HIGH = 0.3, 0.6
_SIGNIFICANT = 1.645  # one-sided, one in twenty
_DROP = 0.1  # of diagonality below its best
_IN_A_ROW = 3


@dataclass(frozen=True, slots=True)
class Assessment:
    """The risk, as a word and a number, and the signs it was made from."""

    risk: Risk
    score: float
    signs: tuple[str, ...]


class OverfittingRisk:
    """0.4 validation rises + 0.3 training falls meanwhile + 0.2 attention worse + 0.1 early ends.

    The rise is measured in the range of the curve, so that a loss in other units, or with another
    zero, has the same risk. It only informs: its rule asks for free-running signals as well.
    """

    name = "overfitting"
    group = None

    def __init__(self, params: OverfittingParams, *, attention: bool = True) -> None:
        """Take the thresholds, and whether attention is looked at."""
        self._params = params
        self._attention = attention and params.min_diagonality > 0.0

    def assess(self, view: View) -> Assessment:
        """The risk at this check."""
        if not self._params.enabled:
            return Assessment("low", 0.0, ())
        signs = [
            (0.4, "validation above its best", self._above(view)),
            (0.3, "training falls while validation rises", _parts(view)),
            (0.2, "attention below its best", self._attention_worse(view)),
            (0.1, "sentences end early", self._premature(view)),
        ]
        score = sum(weight for weight, _, holds in signs if holds)
        risk: Risk = "high" if score >= HIGH - 1e-9 else "medium" if score >= MEDIUM else "low"
        return Assessment(risk, score, tuple(name for _, name, holds in signs if holds))

    def explain(self, found: Assessment) -> Vote:
        """The row that is shown: its score goes from -1 for no sign to 1 for all."""
        signs = ", ".join(found.signs) or "no sign"
        return Vote(
            self.name,
            self.group,
            2.0 * found.score - 1.0,
            1.0 if self._params.enabled else 0.0,
            f"risk {found.risk}: {signs}",
        )

    def vote(self, view: View) -> Vote:
        """The row of a fresh assessment."""
        return self.explain(self.assess(view))

    def _above(self, view: View) -> bool:
        last = view.recent[-_IN_A_ROW:]
        limit = view.best + self._params.val_loss_increase_threshold * view.span
        return last.size == _IN_A_ROW and view.span > 0.0 and bool((last > limit).all())

    def _attention_worse(self, view: View) -> bool:
        if not self._attention or view.attention_best is None or view.attention.size == 0:
            return False
        now, best = float(view.attention[-1]), view.attention_best
        return best - now >= _DROP or (best >= self._params.min_diagonality > now)

    def _premature(self, view: View) -> bool:
        threshold = self._params.premature_stopping_threshold
        return view.premature.size > 0 and float(view.premature[-1]) > threshold


def _parts(view: View) -> bool:
    """Whether the training loss falls and the validation loss rises, both significantly."""
    return trend(view.train[-12:]) < -_SIGNIFICANT and trend(view.recent[-12:]) > _SIGNIFICANT
