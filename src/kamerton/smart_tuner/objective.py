"""The number that trials are compared by: how well a short run learned to speak.

J = Σ w·part / Σ w over the parts that the study measures, each about 1 for the baseline or for a
voice that learned nothing and 0 at best:

    0.40  validation mel loss / that of the baseline, at most 2
    0.25  1 - attention alignment score
    0.20  1 - F1 of the stop frame
    0.15  mel-cepstral distortion / that of the baseline, at most 2

The baseline's values are frozen when it ends, so that every trial of a study has one scale.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kamerton.tracking.names import ATTENTION_SCORE, GATE_F1, MCD_DB, VAL_MEL_LOSS

_WEIGHTS: Final = {VAL_MEL_LOSS: 0.40, ATTENTION_SCORE: 0.25, GATE_F1: 0.20, MCD_DB: 0.15}
_RATIOS: Final = frozenset({VAL_MEL_LOSS, MCD_DB})  # lower is better, measured against the baseline
_MOST: Final = 2.0

PARTS: Final = tuple(_WEIGHTS)


class ObjectiveError(ValueError):
    """The metrics of a trial give no objective; the message is a reason for people."""


@dataclass(frozen=True, slots=True)
class Objective:
    """The composite objective of one study, with its frozen constants.

    Attributes:
        baseline: part -> the value that the baseline reached; its keys are the parts in use.
    """

    baseline: Mapping[str, float]

    @classmethod
    def freeze(cls, values: Mapping[str, float]) -> "Objective":
        """The objective whose scale is set by what the baseline measured last.

        Raises:
            ObjectiveError: the validation mel loss is missing, or a value can be no scale.
        """
        parts = {name: values[name] for name in PARTS if name in values}
        if VAL_MEL_LOSS not in parts:
            raise ObjectiveError(f"{VAL_MEL_LOSS} was never recorded")
        for name, value in parts.items():
            if not math.isfinite(value):
                raise ObjectiveError(f"{name} was not finite")
            if name in _RATIOS and value <= 0:
                raise ObjectiveError(f"{name} was {value}, which cannot be a scale")
        return cls(parts)

    def parts(self, values: Mapping[str, float]) -> dict[str, float]:
        """Each part of J before its weight, 0 at best.

        Raises:
            ObjectiveError: a part is missing or not finite.
        """
        found = {}
        for name, scale in self.baseline.items():
            if name not in values:
                raise ObjectiveError(f"{name} was not recorded")
            value = values[name]
            if not math.isfinite(value):
                raise ObjectiveError(f"{name} was not finite")
            part = value / scale if name in _RATIOS else 1.0 - value
            found[name] = min(max(part, 0.0), _MOST)
        return found

    def __call__(self, values: Mapping[str, float]) -> float:
        """J of one evaluation; lower is better. Raises as ``parts`` does."""
        parts = self.parts(values)
        total = sum(_WEIGHTS[name] for name in parts)
        return sum(_WEIGHTS[name] * part for name, part in parts.items()) / total
