"""Gradient norms: what is usual, what is an episode, what is told, and that it survives a kill."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.config.tuner_sections import QualityControlParams
from kamerton.smart_tuner.gradient_stability import (
    KEPT_EPISODES,
    KNOWN_NORMS,
    LARGEST,
    NON_FINITE,
    PREFIX,
    UNSTABLE_SHARE,
    USUAL,
    VARIATION,
    WINDOW_STEPS,
    GradientRecord,
    GradientStabilityMonitor,
)
from kamerton.tracking.hooks import Action, Alert, EvalFacts, Measure, Note, StepFacts

PARAMS = QualityControlParams()
TOTAL = 10_000
norms = st.floats(0.0, 1e6) | st.sampled_from([math.nan, math.inf, 11.0, 9.0, 1.0])


def fed(values: Sequence[float], params: QualityControlParams = PARAMS) -> GradientRecord:
    record = GradientRecord()
    for step, norm in enumerate(values, start=1):
        record = record.after(StepFacts(step=step, total=TOTAL, grad_norm=norm), params)
    return record


def step_all(hook: GradientStabilityMonitor, values: Sequence[float], **parts: float) -> None:
    for step, norm in enumerate(values, start=1):
        hook.on_step(StepFacts(step=step, total=TOTAL, grad_norm=norm, module_norms=dict(parts)))


def evaluated(hook: GradientStabilityMonitor, step: int = 100) -> list[Action]:
    return list(hook.on_eval(EvalFacts(step=step, total=TOTAL)))


def figures(actions: Sequence[Action]) -> dict[str, float]:
    (measure,) = [action for action in actions if isinstance(action, Measure)]
    return dict(measure.values)


def naive(values: Sequence[float], params: QualityControlParams) -> tuple[int, int]:
    """Unstable steps and episodes, by a list of what is bad and its runs."""
    known: list[float] = []
    bad = []
    for norm in values:
        window = known[-WINDOW_STEPS:]
        if not math.isfinite(norm):
            bad.append(True)
            continue
        far = len(window) >= KNOWN_NORMS and norm > max(
            params.gradient_norm, params.gradient_factor * float(np.median(window))
        )
        bad.append(far)
        known.append(norm)
    runs = "".join("x" if one else " " for one in bad).split()
    long = [len(run) for run in runs if len(run) >= 3]
    return sum(long), len(long)


@given(st.lists(norms, max_size=80), st.floats(0.5, 50.0), st.floats(1.1, 8.0))
def test_episodes_are_three_bad_steps_in_a_row(
    values: list[float], norm: float, factor: float
) -> None:
    params = QualityControlParams(gradient_norm=norm, gradient_factor=factor)
    record = fed(values, params)
    assert (record.unstable, record.episodes) == naive(values, params)
    finite = [value for value in values if math.isfinite(value)]
    assert record.non_finite == len(values) - len(finite)
    assert record.largest == max(finite, default=0.0)
    assert record.steps == len(values)


@pytest.mark.parametrize(
    ("usual", "loud", "bad"),
    [(1.0, 9.9, False), (1.0, 10.1, True), (4.0, 19.0, False), (4.0, 21.0, True)],
)
def test_a_norm_is_bad_above_the_fixed_bound_and_the_usual_norm(
    usual: float, loud: float, bad: bool
) -> None:
    """The default bounds: 10, and five times the median."""
    assert fed([usual] * 20 + [loud] * 3).episodes == int(bad)
    assert fed([usual] * 20 + [loud] * 2 + [usual] + [loud] * 2).episodes == 0


def test_nothing_is_loud_before_something_is_usual() -> None:
    assert fed([1000.0] * (KNOWN_NORMS - 1)).row == 0
    assert fed([1.0] * (KNOWN_NORMS - 1) + [1000.0]).row == 0
    assert fed([1.0] * KNOWN_NORMS + [1000.0]).row == 1


def test_what_is_usual_is_the_median_of_the_window() -> None:
    values = list(np.random.default_rng(1).lognormal(0.0, 0.5, WINDOW_STEPS + 300))
    record = fed([1e4] * 100 + values)
    assert record.usual == pytest.approx(np.median(values[-WINDOW_STEPS:]), rel=1e-12)
    deviation = 1.4826 * np.median(np.abs(values[-WINDOW_STEPS:] - np.median(values[-500:])))
    assert record.variation == pytest.approx(deviation / record.usual, rel=1e-12)


def test_a_loss_that_is_not_finite_is_bad_whatever_the_norm() -> None:
    facts = StepFacts(step=1, total=TOTAL, grad_norm=1.0, loss=math.nan, applied=False)
    assert GradientRecord().after(facts, PARAMS).non_finite == 1
    assert GradientRecord().after(facts, PARAMS).norms == ()


def test_an_evaluation_tells_the_figures_since_the_one_before() -> None:
    hook = GradientStabilityMonitor(PARAMS)
    step_all(hook, [1.0] * 20 + [2.0, math.inf], encoder=0.5, postnet=0.25)
    first = figures(evaluated(hook))
    assert first[USUAL] == 1.0
    assert first[LARGEST] == 2.0
    assert first[NON_FINITE] == 1.0
    assert first[UNSTABLE_SHARE] == 0.0
    assert first[VARIATION] == 0.0
    assert first[PREFIX + "encoder"] == pytest.approx(0.5)
    assert first[PREFIX + "postnet"] == pytest.approx(0.25)
    step_all(hook, [1.0] * 6 + [50.0] * 4)
    second = figures(evaluated(hook))
    assert second[LARGEST] == 50.0
    assert second[NON_FINITE] == 0.0
    assert second[UNSTABLE_SHARE] == pytest.approx(0.4)


def test_an_evaluation_without_steps_tells_nothing() -> None:
    """As where a run goes on from a step that was not evaluated yet, with its counts lost."""
    assert evaluated(GradientStabilityMonitor(PARAMS)) == []


def test_an_episode_is_told_of_with_the_part_that_is_furthest_off() -> None:
    hook = GradientStabilityMonitor(PARAMS)
    step_all(hook, [1.0] * 20, encoder=1.0, attention=0.1)
    step_all(hook, [40.0] * 3, encoder=4.0, attention=2.0)
    actions = evaluated(hook)
    (note,) = [action for action in actions if isinstance(action, Note)]
    assert note.event == "unstable_gradients"
    assert note.fields["part"] == "attention"  # 20 times, the encoder 4
    assert note.fields["grad_norm"] == 40.0
    assert note.fields["limit"] == 10.0
    (alert,) = [action for action in actions if isinstance(action, Alert)]
    assert alert.kind == "explosion"
    assert "3 of 23 steps" in alert.text
    assert "attention" in alert.text
    assert [type(action) for action in evaluated(hook)] == []


def test_an_episode_that_is_not_finite_is_noted_and_left_to_others_to_tell() -> None:
    hook = GradientStabilityMonitor(PARAMS)
    step_all(hook, [1.0] * 20 + [math.nan] * 3, encoder=math.nan)
    actions = evaluated(hook)
    assert [type(action) for action in actions] == [Measure, Note]
    note = actions[1]
    assert isinstance(note, Note)
    assert note.fields["grad_norm"] is None
    json.dumps(note.fields, allow_nan=False)


def test_many_episodes_do_not_fill_the_record() -> None:
    hook = GradientStabilityMonitor(PARAMS)
    step_all(hook, [1.0] * 200 + ([50.0] * 3 + [1.0]) * 20)
    actions = evaluated(hook)
    assert sum(isinstance(action, Note) for action in actions) == KEPT_EPISODES
    assert [a.fields["episodes"] for a in actions if isinstance(a, Alert)] == [20]


@given(st.lists(norms, max_size=60), st.integers(0, 60))
def test_a_run_that_was_killed_tells_what_one_that_was_not_does(
    values: list[float], cut: int
) -> None:
    whole, first = GradientStabilityMonitor(PARAMS), GradientStabilityMonitor(PARAMS)
    step_all(whole, values, encoder=1.5, gate=math.inf)
    step_all(first, values[:cut], encoder=1.5, gate=math.inf)
    resumed = GradientStabilityMonitor(PARAMS)
    resumed.restore(json.loads(json.dumps(first.memory(), allow_nan=False)))
    for step, norm in enumerate(values[cut:], start=cut + 1):
        resumed.on_step(
            StepFacts(
                step=step, total=TOTAL, grad_norm=norm,
                module_norms={"encoder": 1.5, "gate": math.inf},
            )
        )  # fmt: skip
    assert resumed.memory() == whole.memory()
    assert evaluated(resumed) == evaluated(whole)


def test_an_empty_memory_is_a_hook_that_saw_nothing() -> None:
    hook, fresh = GradientStabilityMonitor(PARAMS), GradientStabilityMonitor(PARAMS)
    step_all(hook, [1.0] * 30, encoder=1.0)
    hook.restore({})
    assert hook.memory() == fresh.memory()
