"""Faults found at evaluations, and changes against them: one at a time, bounded, checked."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kamerton.config.schema import Params, TrainParams
from kamerton.config.tuner_sections import QualityControlParams
from kamerton.smart_tuner.quality_controller import QualityController, useless_in
from kamerton.smart_tuner.quality_issues import (
    FAULTS,
    UNSTABLE,
    Setting,
    find_issues,
)
from kamerton.tracking import names
from kamerton.tracking.hooks import (
    Action,
    Adjust,
    Adjustable,
    Alert,
    EvalFacts,
    Note,
    StepFacts,
)

PARAMS = QualityControlParams(enabled=True)
TOTAL, INTERVAL = 100_000, 1000
F_SCORE, F_ENTROPY = names.FORCED + names.ATTENTION_SCORE, names.FORCED + names.ATTENTION_ENTROPY
F_COVERAGE = names.FORCED + names.ATTENTION_COVERAGE
F_FOCUS = names.FORCED + names.ATTENTION_FOCUS

HEALTHY = {
    names.ATTENTION_SCORE: 0.92, names.ATTENTION_COVERAGE: 1.0, names.ALIGNED_SHARE: 0.5,
    names.PREMATURE_STOPPING: 0.0,
    names.RUNAWAY_SHARE: 0.0, names.MEL_VARIANCE_RATIO: 0.9, names.SILENCE_SHARE: 0.15,
    names.RECORDED_SILENCE_SHARE: 0.1, F_SCORE: 0.95, F_ENTROPY: 0.25, F_COVERAGE: 1.0,
    F_FOCUS: 0.6,
}  # fmt: skip

# What shows each fault, beside what is healthy, and what shows a little less than it.
FAULTY: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "attention_diffuse": ({F_ENTROPY: 0.65}, {F_ENTROPY: 0.55}),
    "attention_stuck": (
        {F_COVERAGE: 0.2, F_FOCUS: 0.9, names.ATTENTION_SCORE: 0.1, F_SCORE: 0.1},
        {F_COVERAGE: 0.35, F_FOCUS: 0.9, names.ATTENTION_SCORE: 0.1, F_SCORE: 0.1},
    ),
    "attention_skipping": ({names.ATTENTION_COVERAGE: 0.7}, {names.ATTENTION_COVERAGE: 0.85}),
    "attention_degraded": ({names.ATTENTION_SCORE: 0.80}, {names.ATTENTION_SCORE: 0.84}),
    "gate_early": ({names.PREMATURE_STOPPING: 0.35}, {names.PREMATURE_STOPPING: 0.25}),
    "gate_late": (
        {names.RUNAWAY_SHARE: 0.4, names.ATTENTION_SCORE: 0.0},
        {names.RUNAWAY_SHARE: 0.25},
    ),
    "mel_blurred": ({names.MEL_VARIANCE_RATIO: 0.45}, {names.MEL_VARIANCE_RATIO: 0.55}),
    "mel_rough": ({names.MEL_VARIANCE_RATIO: 2.2}, {names.MEL_VARIANCE_RATIO: 1.9}),
    "too_much_silence": ({names.SILENCE_SHARE: 0.35}, {names.SILENCE_SHARE: 0.25}),
    "unstable_gradients": ({UNSTABLE: 0.01}, {UNSTABLE: 0.002}),
}
SETTING = Setting(warm=True, best_score=0.92)


def found(changes: Mapping[str, float], setting: Setting = SETTING) -> list[str]:
    figures = {**HEALTHY, UNSTABLE: 0.0, **changes}
    return [issue.fault.name for issue in find_issues(figures, setting)]


@dataclass
class Run:
    """A run without a trainer: values by what is adjusted, and the hook's answers carried out."""

    voice: Callable[[int, Mapping[str, float]], Mapping[str, float]]
    quality: Callable[[int, Mapping[str, float]], float] = lambda _count, _factors: 0.4
    params: QualityControlParams = PARAMS
    useless: tuple[Adjustable, ...] = ()
    total: int = TOTAL
    phase: int = 2
    recoveries: int = 0
    cause: str = ""
    reset_step: int = 0
    count: int = 0
    factors: dict[str, float] = field(default_factory=dict)
    actions: list[tuple[int, Action]] = field(default_factory=list)
    hook: QualityController = field(init=False)

    def __post_init__(self) -> None:
        self.hook = self.new_hook()

    def new_hook(self) -> QualityController:
        return QualityController(self.params, useless=self.useless)

    def evaluate(self, count: int = 1) -> Run:
        for _ in range(count):
            self.count += 1
            values = {**HEALTHY, **self.voice(self.count, self.factors)}
            facts = EvalFacts(
                step=self.count * INTERVAL, total=self.total, phase=self.phase, values=values,
                quality=self.quality(self.count, self.factors), recoveries=self.recoveries,
                recovery_cause=self.cause, attention_reset_step=self.reset_step,
                adjustments=dict(self.factors),
            )  # fmt: skip
            for action in self.hook.on_eval(facts):
                self.actions.append((self.count, action))
                if isinstance(action, Adjust):
                    self.factors[action.parameter] = action.factor
        return self

    def killed(self) -> Run:
        memory = json.loads(json.dumps(self.hook.memory(), allow_nan=False))
        self.hook = self.new_hook()
        self.hook.restore(memory)
        return self

    def notes(self, event: str) -> list[tuple[int, Mapping[str, Any]]]:
        return [
            (count, action.fields)
            for count, action in self.actions
            if isinstance(action, Note) and action.event == event
        ]

    def adjusted(self) -> list[tuple[int, str, float]]:
        return [
            (count, action.parameter, action.factor)
            for count, action in self.actions
            if isinstance(action, Adjust)
        ]


def healthy(_count: int, _factors: Mapping[str, float]) -> dict[str, float]:
    return {}


def diffuse(_count: int, _factors: Mapping[str, float]) -> dict[str, float]:
    """Nothing helps it."""
    return {F_ENTROPY: 0.8}


def guided(_count: int, factors: Mapping[str, float]) -> dict[str, float]:
    """Diffuse attention that the guide helps."""
    return {F_ENTROPY: 0.8 / factors.get("guided_attention_weight", 1.0)}


def test_every_fault_is_tried() -> None:
    assert set(FAULTY) == set(FAULTS)


def test_a_healthy_voice_has_no_fault() -> None:
    assert found({}) == []
    run = Run(healthy).evaluate(40)
    assert run.actions == []


@pytest.mark.parametrize("name", FAULTY)
def test_each_fault_is_found_by_its_own_figures_and_not_below_its_threshold(name: str) -> None:
    bad, less = FAULTY[name]
    setting = Setting(best_score=0.1) if name == "attention_stuck" else SETTING
    assert found(bad, setting) == [name]
    assert found(less, setting) == []


@pytest.mark.parametrize("name", FAULTY)
def test_each_fault_leads_to_its_remedies_one_after_the_other(name: str) -> None:
    """Nothing helps here."""
    bad = {key: value for key, value in FAULTY[name][0].items() if key != UNSTABLE}

    def voice(count: int, _factors: Mapping[str, float]) -> dict[str, float]:
        return {} if count <= 3 and name == "attention_degraded" else bad

    run = Run(voice)
    for _ in range(30):
        loud = 3 if name == "unstable_gradients" and run.count > 2 else 0
        for step in range(100):
            norm = 100.0 if step < loud else 1.0
            run.hook.on_step(StepFacts(step=1, total=TOTAL, grad_norm=norm))
        run.evaluate()
    first, second = FAULTS[name].remedies
    assert [made[1:] for made in run.adjusted()] == [
        (first.parameter, first.factor), (first.parameter, 1.0),
        (second.parameter, second.factor), (second.parameter, 1.0),
    ]  # fmt: skip
    assert {fields["issue"] for _, fields in run.notes("intervention")} == {name}
    assert {fault for _, note in run.notes("quality_issues") for fault in note["issues"]} == {name}
    gaps = [count for count, _ in run.notes("intervention")]
    assert gaps[1] - gaps[0] == PARAMS.cooldown_evaluations


@pytest.mark.parametrize("name", FAULTY)
def test_what_is_worse_is_more_severe(name: str) -> None:
    fault = FAULTS[name]
    middle = (fault.threshold + fault.worst) / 2
    severities = [fault.severity(b) for b in (fault.threshold, middle, fault.worst, math.inf)]
    assert severities == pytest.approx([0.1, 0.55, 1.0, 1.0])


def test_the_most_severe_fault_comes_first() -> None:
    changes = {names.PREMATURE_STOPPING: 0.9, names.ALIGNED_SHARE: 0.1,
               names.MEL_VARIANCE_RATIO: 0.45}  # fmt: skip
    assert found(changes) == ["gate_early", "mel_blurred"]
    changes = {names.PREMATURE_STOPPING: 0.35, names.MEL_VARIANCE_RATIO: 0.1}
    assert found(changes) == ["mel_blurred", "gate_early"]


def test_attention_is_not_expected_from_the_start() -> None:
    cold = Setting(warm=False, best_score=0.0)
    young = {F_ENTROPY: 0.9, F_FOCUS: 0.1, names.ATTENTION_SCORE: 0.1, F_SCORE: 0.2}
    assert (
        found({**young, names.PREMATURE_STOPPING: 1.0, names.MEL_VARIANCE_RATIO: 0.1}, cold) == []
    )
    assert "attention_diffuse" in found(young, Setting(warm=True))


@pytest.mark.parametrize(
    ("phase", "share", "warm"), [(0, 0.1, False), (1, 0.1, True), (0, 0.3, True)]
)
def test_it_is_expected_from_the_second_phase_or_a_fifth_of_the_budget(
    phase: int, share: float, warm: bool
) -> None:
    run = Run(diffuse, phase=phase, total=round(10 * INTERVAL / share)).evaluate(10)
    assert bool(run.notes("intervention")) == warm


def test_a_fall_is_seen_against_the_best_and_more_so_once_aligned() -> None:
    fallen = {names.ATTENTION_SCORE: 0.69}
    assert found(fallen, Setting(best_score=0.75)) == []
    (issue,) = find_issues({**HEALTHY, UNSTABLE: 0.0, **fallen}, Setting(best_score=0.79))
    assert issue.severity < 0.2
    (issue,) = find_issues({**HEALTHY, UNSTABLE: 0.0, **fallen}, Setting(best_score=0.81))
    assert issue.severity >= 0.8
    assert found({names.ATTENTION_SCORE: 0.2}, Setting(best_score=0.45)) == []  # it never was there


def test_sentences_that_are_read_fast_and_whole_do_not_end_early() -> None:
    assert found({names.PREMATURE_STOPPING: 0.6, names.ALIGNED_SHARE: 0.8}) == []
    assert found({names.PREMATURE_STOPPING: 0.6, names.ALIGNED_SHARE: 0.6}) == ["gate_early"]


def test_a_voice_that_does_not_end_though_attention_holds_is_the_gates_fault() -> None:
    silent_gate = {names.RUNAWAY_SHARE: 1.0, names.ATTENTION_SCORE: 0.0}
    assert found(silent_gate) == ["gate_late"]
    assert found({**silent_gate, F_SCORE: 0.3}) == ["attention_degraded"]


@given(st.dictionaries(st.sampled_from(sorted(HEALTHY)), st.floats(-2.0, 3.0)), st.floats(0.0, 1.0))
def test_any_figures_can_be_judged(figures: dict[str, float], best: float) -> None:
    """Whatever is missing, and whatever is measured."""
    issues = find_issues(figures, Setting(best_score=best))
    assert all(0.1 <= issue.severity <= 1.0 and math.isfinite(issue.badness) for issue in issues)


def test_a_change_that_helps_is_kept() -> None:
    run = Run(guided).evaluate(30)
    (count, made), *more = run.notes("intervention")
    assert more == []
    assert (made["issue"], made["parameter"], made["factor"]) == (
        "attention_diffuse", "guided_attention_weight", 2.0,
    )  # fmt: skip
    ((checked, effect),) = run.notes("intervention_effect")
    assert checked == count + PARAMS.trial_evaluations
    assert (effect["outcome"], effect["reason"]) == ("kept", "the fault is gone")
    assert (effect["measured_before"], effect["measured"]) == (0.8, 0.4)
    assert run.factors == {"guided_attention_weight": 2.0}


def test_a_change_that_does_nothing_is_taken_back_and_not_tried_again() -> None:
    run = Run(diffuse).evaluate(60)
    effects = [fields for _, fields in run.notes("intervention_effect")]
    assert [(e["parameter"], e["outcome"]) for e in effects] == [
        ("guided_attention_weight", "reverted"), ("dropout", "reverted"),
    ]  # fmt: skip
    assert {effect["reason"] for effect in effects} == {"the fault is no less"}
    assert run.factors == {"guided_attention_weight": 1.0, "dropout": 1.0}


def test_a_change_that_does_harm_is_taken_back_though_the_fault_is_gone() -> None:
    run = Run(
        guided, quality=lambda _, factors: 0.4 * factors.get("guided_attention_weight", 1.0)
    ).evaluate(8)
    ((_, effect),) = run.notes("intervention_effect")
    assert (effect["outcome"], effect["reason"]) == ("reverted", "quality suffered")
    assert (effect["quality_before"], effect["quality_after"]) == (0.4, 0.8)
    assert run.factors == {"guided_attention_weight": 1.0}


def test_a_change_that_makes_the_fault_worse_is_taken_back() -> None:
    run = Run(
        lambda _, factors: {F_ENTROPY: 0.7 * factors.get("guided_attention_weight", 1.0) ** 0.2}
    ).evaluate(8)
    ((_, effect),) = run.notes("intervention_effect")
    assert (effect["outcome"], effect["reason"]) == ("reverted", "the fault is worse")


def test_a_change_that_lessens_the_fault_by_a_tenth_is_kept_and_may_be_made_again() -> None:
    run = Run(
        lambda _, factors: {F_ENTROPY: 0.94 * factors.get("guided_attention_weight", 1.0) ** -0.2}
    ).evaluate(40)
    outcomes = [fields["reason"] for _, fields in run.notes("intervention_effect")]
    assert outcomes[:2] == ["the fault is less", "the fault is less"]
    assert run.factors["guided_attention_weight"] == PARAMS.max_factor


@pytest.mark.parametrize(("worse", "outcome"), [(0.41, "kept"), (0.43, "reverted")])
def test_quality_may_be_worse_by_a_twentieth(worse: float, outcome: str) -> None:
    run = Run(guided, quality=lambda _, factors: worse if factors else 0.4).evaluate(8)
    assert [fields["outcome"] for _, fields in run.notes("intervention_effect")] == [outcome]


def test_quality_that_varies_by_itself_may_vary() -> None:
    def noisy(count: int, factors: Mapping[str, float]) -> float:
        return (0.45 if factors else 0.4) + 0.1 * (-1) ** (count // 2)

    late = QualityControlParams(enabled=True, interval_evaluations=8)
    run = Run(guided, quality=noisy, params=late).evaluate(12)
    assert [fields["outcome"] for _, fields in run.notes("intervention_effect")] == ["kept"]


def test_quality_that_is_not_finite_is_harm() -> None:
    run = Run(guided, quality=lambda _, factors: math.nan if factors else 0.4).evaluate(8)
    ((_, effect),) = run.notes("intervention_effect")
    assert (effect["outcome"], effect["reason"]) == ("reverted", "quality is not finite")
    json.dumps([dict(fields) for _, fields in run.notes("intervention_effect")], allow_nan=False)


def test_a_recovery_during_a_trial_ends_it() -> None:
    run = Run(guided).evaluate(5)
    assert run.factors == {"guided_attention_weight": 2.0}
    run.recoveries = 1
    run.evaluate()
    ((_, effect),) = run.notes("intervention_effect")
    assert (effect["outcome"], effect["reason"]) == ("reverted", "a recovery was needed")
    assert run.factors == {"guided_attention_weight": 1.0}
    run.evaluate(20)
    assert [fields["parameter"] for _, fields in run.notes("intervention")][1:] == ["dropout"]


def test_a_learning_rate_that_rises_anew_ends_a_trial_and_condemns_nothing() -> None:
    run = Run(guided).evaluate(5)
    run.recoveries, run.cause = 1, "plateau"
    run.evaluate()
    ((_, effect),) = run.notes("intervention_effect")
    assert (effect["outcome"], effect["reason"]) == ("reverted", "the learning rate rises anew")
    assert run.factors == {"guided_attention_weight": 1.0}
    run.evaluate(20)
    assert [fields["parameter"] for _, fields in run.notes("intervention")] == [
        "guided_attention_weight", "guided_attention_weight",
    ]  # fmt: skip


@pytest.mark.parametrize("anew", [True, False])
def test_attention_that_was_made_anew_has_lost_nothing(anew: bool) -> None:
    run = Run(lambda count, _: {names.ATTENTION_SCORE: 0.92 if count <= 5 else 0.3}).evaluate(5)
    run.recoveries, run.cause = 1, "collapse"
    run.reset_step = 5 * INTERVAL if anew else 0
    run.evaluate(2).killed().evaluate(10)
    faults = {fault for _, note in run.notes("quality_issues") for fault in note["issues"]}
    assert ("attention_degraded" in faults) == (not anew)


def test_after_a_recovery_three_evaluations_are_waited_for() -> None:
    run = Run(diffuse, params=QualityControlParams(interval_evaluations=1)).evaluate(1)
    run.recoveries = 1
    run.evaluate(2)
    assert run.adjusted() == []
    run.evaluate(1)
    assert [count for count, _, _ in run.adjusted()] == [4]


def test_one_bad_evaluation_is_no_fault() -> None:
    run = Run(lambda count, _: {F_ENTROPY: 0.9} if count % 3 == 0 else {}).evaluate(30)
    assert run.actions == []


def test_no_change_is_made_whose_effect_could_not_be_seen() -> None:
    last = Run(diffuse, total=8 * INTERVAL).evaluate(8)
    assert [count for count, _, _ in last.adjusted()] == [4, 8]
    assert Run(diffuse, total=7 * INTERVAL).evaluate(7).adjusted() == []


def test_parameters_that_change_nothing_are_left_alone() -> None:
    run = Run(diffuse, useless=("guided_attention_weight",)).evaluate(8)
    assert run.adjusted()[0][1] == "dropout"
    both = Run(diffuse, useless=("guided_attention_weight", "dropout")).evaluate(20)
    assert both.adjusted() == []
    assert both.notes("quality_issues")  # they are told of all the same


def test_what_is_useless_is_read_from_the_parameters() -> None:
    def useless(**changes: Any) -> frozenset[str]:
        given = Params(train=TrainParams(**changes)).train
        return useless_in(given.resolved())

    assert useless() == frozenset()
    assert useless(guided_attention_weight=0.0) == {"guided_attention_weight"}
    assert useless(attention_dropout=0.0) == frozenset()
    assert useless(attention_dropout=0.0, decoder_dropout=0.0) == {"dropout"}
    learned = {"recurrent": "variational", "variational": "learned"}
    assert useless(regularisation=learned) == {"dropout"}


def test_the_controller_of_a_run_has_its_parameters() -> None:
    section = QualityControlParams(enabled=True, trial_evaluations=2, max_factor=1.5)
    train = TrainParams(quality_control=section, guided_attention_weight=0.0).resolved()
    run = Run(diffuse)
    run.hook = QualityController.of(train)
    run.evaluate(6)
    assert run.adjusted() == [(4, "dropout", pytest.approx(1 / 1.5)), (6, "dropout", 1.0)]


def test_faults_are_told_of_when_they_come_and_go() -> None:
    run = Run(lambda count, _: {F_ENTROPY: 0.8} if 10 < count <= 20 else {}).evaluate(30)
    told = [(count, sorted(fields["issues"])) for count, fields in run.notes("quality_issues")]
    assert told == [(12, ["attention_diffuse"]), (22, [])]


def test_a_person_is_told_of_both_ends() -> None:
    run = Run(guided).evaluate(8)
    alerts = [action for _, action in run.actions if isinstance(action, Alert)]
    assert [alert.kind for alert in alerts] == ["recovery", "recovery"]
    assert "guided_attention_weight 1 to 2" in alerts[0].text
    assert "kept" in alerts[1].text


sections = st.builds(
    QualityControlParams,
    enabled=st.just(True),
    interval_evaluations=st.integers(1, 4),
    cooldown_evaluations=st.integers(1, 9),
    trial_evaluations=st.integers(1, 6),
    max_factor=st.floats(1.1, 8.0),
)
voices = st.lists(
    st.dictionaries(st.sampled_from(sorted(HEALTHY)), st.floats(0.0, 2.5), max_size=4),
    min_size=5, max_size=40,
)  # fmt: skip
qualities = st.lists(st.floats(0.1, 2.0) | st.just(math.nan), min_size=5, max_size=5)


def random_run(
    voice: Sequence[Mapping[str, float]], quality: Sequence[float], params: QualityControlParams
) -> Run:
    return Run(
        lambda count, _: voice[(count - 1) % len(voice)],
        lambda count, _: quality[count % len(quality)],
        params,
    )


@settings(max_examples=60)
@given(voices, qualities, sections, st.sets(st.integers(0, 40), max_size=3))
def test_changes_are_bounded_and_one_at_a_time_whatever_happens(
    voice: list[dict[str, float]], quality: list[float], params: QualityControlParams,
    recovered: set[int],
) -> None:  # fmt: skip
    run = random_run(voice, quality, params)
    for count in range(40):
        run.recoveries += count in recovered
        run.evaluate()
        assert all(
            1 / params.max_factor <= factor * (1 + 1e-12) and factor <= params.max_factor
            for factor in run.factors.values()
        )
    begun = [count for count, _ in run.notes("intervention")]
    gaps = [later - earlier for earlier, later in itertools.pairwise(begun)]
    assert all(gap >= params.cooldown_evaluations for gap in gaps)
    assert all(count % params.interval_evaluations == 0 for count in begun)
    ended = [count for count, _ in run.notes("intervention_effect")]
    assert len(begun) - len(ended) in (0, 1)
    order = sorted([(count, 1) for count in begun] + [(count, 0) for count in ended])
    on_trial = 0
    for _, opens in order:
        on_trial += 1 if opens else -1
        assert on_trial in (0, 1)
    reverted = [
        (fields["issue"], fields["parameter"])
        for _, fields in run.notes("intervention_effect")
        if fields["outcome"] == "reverted"
    ]
    assert len(set(reverted)) == len(reverted)


@settings(max_examples=40)
@given(voices, qualities, sections, st.integers(0, 30))
def test_a_run_that_was_killed_answers_as_one_that_was_not(
    voice: list[dict[str, float]], quality: list[float], params: QualityControlParams, cut: int
) -> None:
    whole = random_run(voice, quality, params).evaluate(30)
    resumed = random_run(voice, quality, params).evaluate(cut).killed().evaluate(30 - cut)
    assert resumed.actions == whole.actions
    assert resumed.hook.memory() == whole.hook.memory()


def test_gradients_are_part_of_the_memory() -> None:
    run = Run(healthy)
    for _ in range(50):
        run.hook.on_step(StepFacts(step=1, total=TOTAL, grad_norm=2.0))
    memory = run.hook.memory()
    run.killed()
    assert run.hook.memory() == memory
    run.hook.restore({})
    assert run.hook.memory() == Run(healthy).hook.memory()
