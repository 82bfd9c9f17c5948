"""Where generations lie, how they are decided, and what is kept of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kamerton.config.tuner_sections import GenerationParams
from kamerton.core.errors import InputCorruptError, ParamsError
from kamerton.smart_tuner.generation_plan import PROBE_EVALUATIONS, GenerationPlan
from kamerton.smart_tuner.generation_tree import (
    CONTROL,
    Candidate,
    Generation,
    GenerationTree,
    decided,
    score_of,
    sigma_of,
)

FALLING = {10: 0.50, 20: 0.40, 30: 0.30, 40: 0.20}


def moved(by: float, jitter: float = 0.0) -> dict[int, float]:
    signs = (1, -1, -1, 1)
    return {
        step: value + by + jitter * sign
        for (step, value), sign in zip(FALLING.items(), signs, strict=True)
    }


def candidate(number: int, probe: dict[int, float]) -> Candidate:
    delta = {} if number == CONTROL else {"learning_rate": 0.5}
    return Candidate(number, delta, "complete", score=score_of(probe), probe=probe)


def generation(*candidates: Candidate) -> Generation:
    return Generation(1, 50, 70, "trunk", "a" * 64, candidates)


def test_a_score_is_the_mean_of_the_last_three() -> None:
    assert score_of(FALLING) == pytest.approx(0.3)
    assert score_of({40: 0.2, 10: 9.0, 30: 0.3, 20: 0.4}) == pytest.approx(0.3)


@given(
    st.lists(
        st.lists(st.floats(0, 2), min_size=4, max_size=8), min_size=1, max_size=4
    )
)  # fmt: skip
def test_sigma_is_what_lines_leave(curves: list[list[float]]) -> None:
    squares, freedom = 0.0, 0
    for curve in curves:
        steps = 3.0 * np.arange(len(curve)) + 7
        left = np.asarray(curve) - np.polyval(np.polyfit(steps, curve, 1), steps)
        squares, freedom = squares + float(left @ left), freedom + len(curve) - 2
    expected = max(5e-4, float(np.sqrt(2 * squares / freedom)))
    probes = [{3 * index + 7: value for index, value in enumerate(curve)} for curve in curves]
    assert sigma_of(probes) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_steady_fall_is_no_noise() -> None:
    assert sigma_of([FALLING]) == pytest.approx(5e-4)
    assert sigma_of([{1: 0.5, 2: 0.1}]) == 5e-4  # too few to tell


def test_a_gain_must_exceed_the_noise() -> None:
    noisy, clear = moved(0.0, 0.02), moved(-0.1, 0.02)
    sigma = sigma_of([noisy, clear])
    one = decided(generation(candidate(0, noisy), candidate(1, clear)), 2.0)
    assert one.sigma == pytest.approx(sigma)
    assert one.accepted == 1
    assert one.gain(one.candidates[1]) == pytest.approx(0.1 / sigma)
    little = decided(generation(candidate(0, noisy), candidate(1, moved(-0.03, 0.02))), 2.0)
    assert little.accepted == CONTROL
    assert "at best, not more than 2" in little.reason
    assert decided(generation(candidate(0, noisy), candidate(1, clear)), 50.0).accepted == CONTROL


@given(st.lists(st.floats(-0.2, 0.2), min_size=1, max_size=5), st.floats(0, 5))
def test_the_best_that_is_good_enough_is_accepted(shifts: list[float], sigmas: float) -> None:
    control = moved(0.0, 0.01)
    candidates = [candidate(n, moved(shift, 0.01)) for n, shift in enumerate(shifts, start=1)]
    one = decided(generation(candidate(0, control), *candidates), sigmas)
    assert one.sigma is not None
    gains = {item.number: one.gain(item) or 0.0 for item in one.candidates}
    assume(all(abs(gain - sigmas) > 1e-6 for gain in gains.values()))
    assert one.accepted is not None
    assert gains[one.accepted] == max(gains.values()) or max(gains.values()) <= sigmas
    assert one.accepted == CONTROL or gains[one.accepted] > sigmas


def test_a_failed_candidate_is_neither_accepted_nor_counted() -> None:
    failed = Candidate(1, {"dropout": 2.0}, "failed", reason="no number")
    one = decided(generation(candidate(0, FALLING), failed), 0.0)
    assert one.accepted == CONTROL
    assert one.gain(failed) is None
    assert one.reason == "no changed candidate has a score"


def test_a_tree_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "generations.json"
    assert GenerationTree.load(path) is None
    one = decided(generation(candidate(0, FALLING), candidate(1, moved(-0.1, 0.01))), 2.0)
    tree = GenerationTree("key", 3, 0.5, 100, changes=({"from_share": 0.5, "dropout": 0.8},))
    tree = tree.with_generation(generation(candidate(0, FALLING))).with_generation(one)
    tree.save(path)
    assert GenerationTree.load(path) == tree
    assert tree.generations == (one,)
    assert tree.best_changes == ()  # not proven
    path.write_text(json.dumps({"format": 99}))
    assert GenerationTree.load(path) is None
    path.write_text('{"format": 1, "generations": [{"x": 1}], "changes": []}')
    with pytest.raises(InputCorruptError, match="not a tree of generations"):
        GenerationTree.load(path)


@given(
    st.integers(1, 6), st.integers(20, 20000), st.floats(0.02, 0.5), st.floats(0.05, 1.0)
)  # fmt: skip
def test_generations_follow_each_other_and_end_with_the_budget(
    count: int, total: int, length: float, probe: float
) -> None:
    params = GenerationParams(count=count, length_share=length, probe_share=probe)
    try:
        plan = GenerationPlan.of(params, total)
    except ParamsError:
        taken = count * length + probe * length + 4 / total
        assert taken > 0.75 or length * total < 30  # what is refused is full, or tiny
        return
    assert len(plan.starts) == count
    assert plan.starts[0] >= plan.unit
    for index, start in enumerate(plan.starts):
        assert start % plan.unit == plan.end(index) % plan.unit == 0
        assert index == 0 or start == plan.end(index - 1)
        last, every = plan.probe_end(index), plan.probe_interval
        evaluated = [step for step in range(plan.end(index) + 1, last + 1) if step % every == 0]
        assert len(evaluated) == PROBE_EVALUATIONS
        assert evaluated[-1] == last <= total
    assert plan.length <= length * total
    whole = plan.steps_before(0, 0, 3)
    for index in range(count):
        for number in range(3):
            assert plan.steps_before(index, number, 3) == whole
            whole += plan.probe_end(index) - plan.starts[index]
    assert plan.steps(3) == whole + total - plan.end(count - 1)
