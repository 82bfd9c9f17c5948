"""What is done about faults that evaluations show: one small, bounded, checked change at a time.

At every ``interval_evaluations``-th evaluation the controller looks for faults (``quality_issues``)
in the median of the last three evaluations. Against the most severe one that something is left to
try for, it changes one parameter, and looks again ``trial_evaluations`` later. The change is kept
if the fault's own figure fell by a tenth, or the fault is gone, and quality did not suffer; it is
taken back otherwise, and for the same fault it is not tried again. No two changes are made within
``cooldown_evaluations``, no parameter leaves ``[1 / max_factor, max_factor]`` times what the
schedule gives, and none is touched so late that its effect could not be seen.

Decisions are pure functions of a frozen record, which is the controller's memory. The stop of a run
is not its business, nor are crises: recovery's word goes first, and one in the middle of a trial
ends it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from kamerton.config.schema import TrainParams
from kamerton.config.tuner_sections import QualityControlParams
from kamerton.smart_tuner.gradient_stability import GradientRecord
from kamerton.smart_tuner.quality_issues import (
    FAULTS,
    QUALITY,
    UNSTABLE,
    WARM_SHARE,
    Figures,
    Issue,
    Remedy,
    Setting,
    find_issues,
)
from kamerton.tracking import names
from kamerton.tracking.hooks import Action, Adjust, Adjustable, Alert, EvalFacts, Note, StepFacts

SMOOTHED: Final = 3  # evaluations that one look takes the median of
REMEMBERED: Final = 8  # that say how much quality varies by itself
LEAST_CHANGE: Final = 0.05  # what changes less is not worth a trial
LEAST_GAIN: Final = 0.1  # share by which a fault must have lessened
QUALITY_LOSS: Final = 0.05  # share by which quality may be worse without being harm

_READ: Final = (
    names.ATTENTION_SCORE, names.ATTENTION_COVERAGE, names.ALIGNED_SHARE,
    names.PREMATURE_STOPPING, names.RUNAWAY_SHARE, names.MEL_VARIANCE_RATIO, names.SILENCE_SHARE,
    names.RECORDED_SILENCE_SHARE, names.FORCED + names.ATTENTION_SCORE,
    names.FORCED + names.ATTENTION_ENTROPY, names.FORCED + names.ATTENTION_COVERAGE,
    names.FORCED + names.ATTENTION_FOCUS,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trial:
    """A change whose effect is awaited.

    Attributes:
        fault: The name of what it is against.
        parameter: What was changed.
        before: Its factor until then.
        factor: Its factor now.
        begun: The number of the evaluation it was made at.
        badness: What the fault's figure was.
        quality: What quality was; None where it was not finite.
        noise: How much quality varies by itself, one standard deviation.
    """

    fault: str
    parameter: Adjustable
    before: float
    factor: float
    begun: int
    badness: float
    quality: float | None
    noise: float


@dataclass(frozen=True, slots=True)
class ControlRecord:
    """All that the controller knows of a run.

    Attributes:
        evaluations: How many it saw.
        last_step: Of the last one.
        recent: Figures of the newest evaluations of the weights in use, the oldest first.
        best_score: The best smoothed diagonality.
        recoveries: Interventions of the recovery so far.
        attention_reset_step: When one of them made attention anew; 0 for never.
        next_change: The number of the evaluation from which a change may be made.
        trial: What is on trial.
        failed: What is not tried again: fault and parameter.
        told: The faults of the last look, in the order of their names.
    """

    evaluations: int = 0
    last_step: int = 0
    recent: tuple[Figures, ...] = ()
    best_score: float = 0.0
    recoveries: int = 0
    attention_reset_step: int = 0
    next_change: int = 0
    trial: Trial | None = None
    failed: tuple[tuple[str, str], ...] = ()
    told: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        values = dataclasses.asdict(self)
        values["recent"] = [dict(figures) for figures in self.recent]
        values["failed"] = [list(pair) for pair in self.failed]
        values["told"] = list(self.told)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Undo ``to_dict``; an empty mapping is a record of nothing."""
        given = dict(values)
        if given.get("trial"):
            given["trial"] = Trial(**given["trial"])
        given["recent"] = tuple(dict(figures) for figures in given.get("recent", ()))
        given["failed"] = tuple((fault, name) for fault, name in given.get("failed", ()))
        given["told"] = tuple(given.get("told", ()))
        return cls(**given)


def decide(
    record: ControlRecord, facts: EvalFacts, unstable_share: float, params: QualityControlParams,
    useless: Collection[Adjustable] = (),
) -> tuple[ControlRecord, list[Action]]:  # fmt: skip
    """What to do after an evaluation.

    Args:
        record: From before it.
        facts: The evaluation.
        unstable_share: Of the steps since the one before, those in episodes of bad gradients.
        params: When and how much.
        useless: Parameters whose change would change nothing.

    Returns:
        The record from here on, and the actions.
    """
    before, record = record, _seen(record, facts, unstable_share)
    setting = Setting(facts.phase >= 1 or facts.step >= WARM_SHARE * facts.total, record.best_score)
    actions: list[Action] = []
    trial = record.trial
    if trial is not None and record.recoveries != before.recoveries:
        # A learning rate that rises anew at a plateau says nothing against what was on trial.
        blamed = facts.recovery_cause != "plateau"
        why = "a recovery was needed" if blamed else "the learning rate rises anew"
        record, told = _ended(record, trial, "reverted", why, None, None, blamed=blamed)
        actions += told
    elif trial is not None and record.evaluations - trial.begun >= params.trial_evaluations:
        record, told = _judged(record, trial, setting)
        actions += told
    if record.evaluations % params.interval_evaluations == 0 and record.recent:
        issues = find_issues(_smoothed(record.recent), setting)
        record, told = _told_of(record, issues)
        actions += told
        if record.trial is None and _may_change(record, before, facts, params):
            record, told = _changed(record, issues, facts, params, useless)
            actions += told
    return record, actions


def _seen(record: ControlRecord, facts: EvalFacts, unstable_share: float) -> ControlRecord:
    """The record with the figures of one more evaluation."""
    figures = {name: facts.values[name] for name in _READ if name in facts.values}
    figures |= {UNSTABLE: unstable_share, QUALITY: facts.quality}
    figures = {name: value for name, value in figures.items() if math.isfinite(value)}
    recovered = facts.recoveries != record.recoveries
    recent = (figures,) if recovered else (*record.recent[-(REMEMBERED - 1) :], figures)
    score = _smoothed(recent).get(names.ATTENTION_SCORE, 0.0)
    anew = facts.attention_reset_step != record.attention_reset_step  # it was never so good yet
    return dataclasses.replace(
        record,
        evaluations=record.evaluations + 1,
        last_step=facts.step,
        recent=recent,
        best_score=score if anew else max(record.best_score, score),
        recoveries=facts.recoveries,
        attention_reset_step=facts.attention_reset_step,
    )


def _smoothed(recent: Sequence[Figures]) -> dict[str, float]:
    """Medians of the newest evaluations; of unstable steps the mean, for few episodes count."""
    newest = recent[-SMOOTHED:]
    found = {}
    for name in (*_READ, QUALITY, UNSTABLE):
        column = [figures[name] for figures in newest if name in figures]
        if column:
            found[name] = (statistics.fmean if name == UNSTABLE else statistics.median)(column)
    return found


def _noise(recent: Sequence[Figures]) -> float:
    """How much quality differs from one evaluation to the next."""
    column = [figures[QUALITY] for figures in recent if QUALITY in figures]
    if len(column) < SMOOTHED:
        return 0.0
    steps = [after - before for before, after in itertools.pairwise(column)]
    middle = statistics.median(steps)
    return 1.4826 * statistics.median(abs(step - middle) for step in steps) / math.sqrt(2)


def _may_change(
    record: ControlRecord, before: ControlRecord, facts: EvalFacts, params: QualityControlParams
) -> bool:
    """Whether a change may be made now, and there is time left to see what it does."""
    interval = facts.step - before.last_step
    seen_at = facts.step + params.trial_evaluations * interval
    enough = len(record.recent) >= SMOOTHED
    return enough and record.evaluations >= record.next_change and seen_at <= facts.total


def _changed(
    record: ControlRecord, issues: Sequence[Issue], facts: EvalFacts,
    params: QualityControlParams, useless: Collection[Adjustable],
) -> tuple[ControlRecord, list[Action]]:  # fmt: skip
    """Try the first remedy that is left against the most severe fault that has one."""
    for issue in issues:
        for remedy in issue.fault.remedies:
            tried = (issue.fault.name, remedy.parameter) in record.failed
            if tried or remedy.parameter in useless:
                continue
            now = facts.adjustments.get(remedy.parameter, 1.0)
            factor = min(params.max_factor, max(1.0 / params.max_factor, now * remedy.factor))
            if abs(factor / now - 1.0) < LEAST_CHANGE or (factor > now) != (remedy.factor > 1.0):
                continue
            return _begun(record, issue, remedy, (now, factor), params)
    return record, []


def _begun(
    record: ControlRecord, issue: Issue, remedy: Remedy, factors: tuple[float, float],
    params: QualityControlParams,
) -> tuple[ControlRecord, list[Action]]:  # fmt: skip
    now, factor = factors
    trial = Trial(
        issue.fault.name, remedy.parameter, now, factor, record.evaluations, issue.badness,
        _smoothed(record.recent).get(QUALITY), _noise(record.recent),
    )  # fmt: skip
    record = dataclasses.replace(
        record, trial=trial, next_change=record.evaluations + params.cooldown_evaluations
    )
    fields = {
        "issue": issue.fault.name, "severity": issue.severity, "measure": issue.fault.measure,
        "measured": issue.badness, "parameter": remedy.parameter, "factor_before": now,
        "factor": factor, "why": remedy.why, "trial_evaluations": params.trial_evaluations,
        "cooldown_evaluations": params.cooldown_evaluations,
    }  # fmt: skip
    text = f"{issue.fault.name}: {remedy.parameter} {now:g} to {factor:g} times its value"
    return record, [
        Adjust(remedy.parameter, factor, f"{issue.fault.name}: {remedy.why}"),
        Note("intervention", fields),
        Alert("recovery", text, fields),
    ]


def _judged(
    record: ControlRecord, trial: Trial, setting: Setting
) -> tuple[ControlRecord, list[Action]]:
    """Keep a change that helped, take back one that harmed or did nothing."""
    fault = FAULTS[trial.fault]
    figures = _smoothed(record.recent[-(record.evaluations - trial.begun) :])
    quality = figures.get(QUALITY)
    try:
        badness = fault.badness(figures, setting)
    except KeyError:
        return _ended(record, trial, "reverted", "its figure is gone", None, quality)
    if quality is None:
        return _ended(record, trial, "reverted", "quality is not finite", badness, None)
    if trial.quality is not None:
        allowed = max(QUALITY_LOSS * abs(trial.quality), trial.noise)
        if quality - trial.quality > allowed:
            return _ended(record, trial, "reverted", "quality suffered", badness, quality)
    if badness < fault.threshold:
        return _ended(record, trial, "kept", "the fault is gone", badness, quality)
    if badness <= trial.badness - LEAST_GAIN * abs(trial.badness):
        return _ended(record, trial, "kept", "the fault is less", badness, quality)
    reason = "the fault is worse" if badness > trial.badness else "the fault is no less"
    return _ended(record, trial, "reverted", reason, badness, quality)


def _ended(
    record: ControlRecord, trial: Trial, outcome: str, reason: str, badness: float | None,
    quality: float | None, *, blamed: bool = True,
) -> tuple[ControlRecord, list[Action]]:  # fmt: skip
    """The record without the trial, and what is told of it; what is blamed is not tried again."""
    finite = badness if badness is not None and math.isfinite(badness) else None
    fields = {
        "issue": trial.fault, "parameter": trial.parameter, "outcome": outcome, "reason": reason,
        "measured_before": trial.badness, "measured": finite, "quality_before": trial.quality,
        "quality_after": quality, "factor": trial.factor, "factor_before": trial.before,
    }  # fmt: skip
    record = dataclasses.replace(record, trial=None)
    text = f"{trial.parameter} against {trial.fault}: {outcome}, {reason}"
    told: list[Action] = [
        Note("intervention_effect", fields),
        Alert("recovery", text, fields),
    ]
    if outcome == "kept":
        return record, told
    failed = (*record.failed, (trial.fault, trial.parameter)) if blamed else record.failed
    undone = Adjust(trial.parameter, trial.before, f"{trial.fault}: {reason}")
    return dataclasses.replace(record, failed=failed), [undone, *told]


def _told_of(record: ControlRecord, issues: Sequence[Issue]) -> tuple[ControlRecord, list[Action]]:
    """Say which faults there are where they are others than those of the last look."""
    found = tuple(sorted(issue.fault.name for issue in issues))
    if found == record.told:
        return record, []
    severities = {issue.fault.name: round(issue.severity, 3) for issue in issues}
    return dataclasses.replace(record, told=found), [Note("quality_issues", {"issues": severities})]


class QualityController:
    """The hook: gathers what evaluations and gradients show, and asks ``decide``."""

    name = "quality_controller"

    def __init__(
        self, params: QualityControlParams, *, useless: Collection[Adjustable] = ()
    ) -> None:
        """Take the parameters; see ``decide``."""
        self._params = params
        self._useless = frozenset(useless)
        self._record = ControlRecord()
        self._gradients = GradientRecord()

    @classmethod
    def of(cls, train: TrainParams) -> Self:
        """The controller of a run, by its resolved parameters: what is zero cannot be scaled."""
        return cls(train.quality_control, useless=useless_in(train))

    def on_step(self, facts: StepFacts) -> None:
        """Count a step's gradient."""
        self._gradients = self._gradients.after(facts, self._params)

    def on_eval(self, facts: EvalFacts) -> Sequence[Action]:
        """Look, and perhaps change or take back something."""
        share = self._gradients.unstable_share
        self._gradients = self._gradients.taken()
        self._record, actions = decide(self._record, facts, share, self._params, self._useless)
        return actions

    def on_epoch(self, facts: StepFacts) -> None:
        """Nothing depends on epochs."""

    def on_exception(self, error: Exception) -> None:
        """A trial goes on when the run does."""

    def memory(self) -> dict[str, Any]:
        """The record, and that of gradients."""
        return {"record": self._record.to_dict(), "gradients": self._gradients.to_dict()}

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Undo ``memory``."""
        self._record = ControlRecord.from_dict(memory.get("record", {}))
        self._gradients = GradientRecord.from_dict(memory.get("gradients", {}))


def useless_in(train: TrainParams) -> frozenset[Adjustable]:
    """The parameters that change nothing in a run however they are scaled."""
    found: set[Adjustable] = set()
    if not train.guided_attention_weight:
        found.add("guided_attention_weight")
    noise = train.regularisation
    learned = noise.recurrent == "variational" and noise.variational == "learned"
    if learned or not (train.attention_dropout or train.decoder_dropout):
        found.add("dropout")
    return frozenset(found)
