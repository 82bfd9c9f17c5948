"""Faults that evaluations show, how bad each is, and what may be tried against it.

Every fault has one figure of its own, its badness, of which less is better: it says whether the
fault is there, how severe it is, and later whether something helped. Attention is judged by the
scores of ``metrics.alignment``, speech by what was read aloud.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kamerton.tracking import names
from kamerton.tracking.hooks import Adjustable

UNSTABLE: Final = "unstable_share"  # of the steps since the last evaluation
QUALITY: Final = "quality"  # what the best checkpoint has least of

WARM_SHARE: Final = 0.2  # of the budget: until then nothing is expected of attention
READABLE: Final = 0.5  # diagonality from which what is spoken says something
ALIGNED: Final = 0.8  # diagonality that is alignment
LOST: Final = 0.7  # and below which it is lost again
HEARD: Final = 0.7  # teacher-forced diagonality from which a voice that never ends is the gate's
LOST_SEVERITY: Final = 0.8
LEAST_RATIO: Final = 1e-3  # of variances: a voice that hums one note is as blurred as can be

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a fault is judged against.

    Attributes:
        warm: Whether attention may be expected by now.
        best_score: The best diagonality of the run so far, smoothed.
    """

    warm: bool = True
    best_score: float = 0.0


@dataclass(frozen=True, slots=True)
class Remedy:
    """What may be tried: so many times the present value, and why that should help."""

    parameter: Adjustable
    factor: float
    why: str


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault.

    Attributes:
        name: What it is called in records.
        measure: What its badness is, in words.
        badness: Of smoothed figures; KeyError where one of them was not measured.
        applies: Whether the figures can mean this fault at all; KeyError likewise.
        threshold: The badness from which it is there.
        worst: The badness that is as severe as can be.
        remedies: What to try, in this order.
    """

    name: str
    measure: str
    badness: Callable[[Figures, Setting], float]
    applies: Callable[[Figures, Setting], bool]
    threshold: float
    worst: float
    remedies: tuple[Remedy, ...]

    def severity(self, badness: float) -> float:
        """From 0.1 at the threshold to 1."""
        share = (badness - self.threshold) / (self.worst - self.threshold)
        return 0.1 + 0.9 * min(1.0, max(0.0, share))


@dataclass(frozen=True, slots=True)
class Issue:
    """A fault that is there; severity in [0.1, 1]."""

    fault: Fault
    badness: float
    severity: float


def find_issues(figures: Figures, setting: Setting) -> list[Issue]:
    """All faults that the figures show, the most severe first; what was not measured shows none."""
    found = []
    for fault in FAULTS.values():
        try:
            badness = fault.badness(figures, setting)
            if badness < fault.threshold or not fault.applies(figures, setting):
                continue
        except KeyError:
            continue
        severity = fault.severity(badness)
        if fault is _DEGRADED and _is_lost(figures, setting):
            severity = max(severity, LOST_SEVERITY)
        found.append(Issue(fault, badness, severity))
    return sorted(found, key=lambda issue: -issue.severity)


def _forced(name: str) -> Callable[[Figures], float]:
    return lambda figures: figures[names.FORCED + name]


_forced_score = _forced(names.ATTENTION_SCORE)
_forced_entropy = _forced(names.ATTENTION_ENTROPY)
_forced_coverage = _forced(names.ATTENTION_COVERAGE)
_forced_focus = _forced(names.ATTENTION_FOCUS)


def _readable(figures: Figures, _setting: Setting) -> bool:
    return figures[names.ATTENTION_SCORE] >= READABLE


def _never_ends(figures: Figures) -> bool:
    """Attention follows the true frames, and yet the voice does not stop: that is the gate."""
    return figures[names.RUNAWAY_SHARE] >= 0.3 and _forced_score(figures) >= HEARD


def _has_fallen(figures: Figures, setting: Setting) -> bool:
    return setting.best_score >= READABLE and not _never_ends(figures)


def _is_lost(figures: Figures, setting: Setting) -> bool:
    return setting.best_score >= ALIGNED and figures[names.ATTENTION_SCORE] < LOST


def _ended_unread(figures: Figures) -> float:
    """Sentences that end early, less those that are merely read fast, for these are aligned."""
    return min(figures[names.PREMATURE_STOPPING], 1.0 - figures[names.ALIGNED_SHARE])


def _log_variance(figures: Figures) -> float:
    """Logarithm of the variance spoken to that recorded."""
    return math.log(max(figures[names.MEL_VARIANCE_RATIO], LEAST_RATIO))


_GUIDE: Final = "guided_attention_weight"
_SLOWER: Final = Remedy("learning_rate", 0.7, "smaller steps disturb less what was learned")

_DEGRADED: Final = Fault(
    "attention_degraded", "diagonality lost since the best",
    lambda figures, setting: setting.best_score - figures[names.ATTENTION_SCORE],
    _has_fallen, threshold=0.1, worst=0.5,
    remedies=(_SLOWER, Remedy(_GUIDE, 1.5, "the guide pulls attention back to the diagonal")),
)  # fmt: skip

_ALL: Final[Sequence[Fault]] = (
    Fault(
        "attention_diffuse", "entropy of attention, teacher-forced",
        lambda figures, _: _forced_entropy(figures),
        lambda _, setting: setting.warm, threshold=0.6, worst=0.95,
        remedies=(
            Remedy(_GUIDE, 2.0, "the guide makes attention choose"),
            Remedy("dropout", 0.5, "less noise in the recurrence lets attention settle"),
        ),
    ),
    Fault(
        "attention_stuck", "share of the text that attention never visits, teacher-forced",
        lambda figures, _: 1.0 - _forced_coverage(figures),
        lambda figures, setting: setting.warm and _forced_focus(figures) >= 0.4,
        threshold=0.7, worst=1.0,
        remedies=(
            Remedy(_GUIDE, 2.0, "the guide makes staying in one place dear"),
            _SLOWER,
        ),
    ),
    Fault(
        "attention_skipping", "share of the text that is not read",
        lambda figures, _: 1.0 - figures[names.ATTENTION_COVERAGE],
        lambda figures, setting: setting.warm and _readable(figures, setting),
        threshold=0.2, worst=0.6,
        remedies=(
            Remedy(_GUIDE, 1.5, "the guide makes jumps dear"),
            Remedy("dropout", 0.7, "less noise in the recurrence keeps attention's place"),
        ),
    ),
    _DEGRADED,
    Fault(
        "gate_early", "share of sentences that end before their text",
        lambda figures, _: _ended_unread(figures),
        lambda _, setting: setting.warm, threshold=0.3, worst=1.0,
        remedies=(
            Remedy("gate_weight", 1.5, "wrong stops cost more"),
            Remedy("dropout", 0.7, "less noise in what the gate sees"),
        ),
    ),
    Fault(
        "gate_late", "share of sentences that do not end",
        lambda figures, _: figures[names.RUNAWAY_SHARE],
        lambda figures, setting: setting.warm and _never_ends(figures),
        threshold=0.3, worst=1.0,
        remedies=(
            Remedy("gate_weight", 1.5, "missed stops cost more"),
            Remedy(_GUIDE, 1.5, "attention that reaches the end lets the gate know it"),
        ),
    ),
    Fault(
        "mel_blurred", "logarithm of the variance recorded to that spoken",
        lambda figures, _: -_log_variance(figures),
        _readable, threshold=math.log(2.0), worst=math.log(8.0),
        remedies=(Remedy("dropout", 0.7, "less noise to average over"), _SLOWER),
    ),
    Fault(
        "mel_rough", "logarithm of the variance spoken to that recorded",
        lambda figures, _: _log_variance(figures),
        _readable, threshold=math.log(2.0), worst=math.log(8.0),
        remedies=(_SLOWER, Remedy("clip_norm", 0.7, "rare gradients count less")),
    ),
    Fault(
        "too_much_silence", "share of silence beyond that of the recordings",
        lambda figures, _: figures[names.SILENCE_SHARE] - figures[names.RECORDED_SILENCE_SHARE],
        _readable, threshold=0.2, worst=0.6,
        remedies=(Remedy("gate_weight", 1.25, "ends are found in time"), _SLOWER),
    ),
    Fault(
        "unstable_gradients", "share of steps in episodes of bad gradients",
        lambda figures, _: figures[UNSTABLE],
        lambda *_: True, threshold=0.003, worst=0.1,
        remedies=(Remedy("clip_norm", 0.5, "rare gradients count less"), _SLOWER),
    ),
)  # fmt: skip

FAULTS: Final[Mapping[str, Fault]] = {fault.name: fault for fault in _ALL}
