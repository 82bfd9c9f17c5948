"""Trend test and cumulative sums against other implementations, and their error rates."""

import numpy as np
import pymannkendall
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.config.stopping_section import EarlyStoppingParams
from kamerton.stopping.series import RecentBlocks, WholeCurve
from kamerton.stopping.view import block_noise
from kamerton.stopping.voters.cusum import Cusum, innovation
from kamerton.stopping.voters.mann_kendall import MannKendall, trend


def ar1(rng: np.random.Generator, count: int, phi: float) -> np.ndarray:
    noise, value = np.empty(count), 0.0
    for index in range(count):
        value = phi * value + np.sqrt(1 - phi**2) * rng.normal()
        noise[index] = value
    return noise


@given(st.lists(st.integers(-6, 6), min_size=4, max_size=40))
def test_the_uncorrected_trend_is_that_of_another_library(values):
    ours = trend(np.asarray(values, dtype=float), corrected=False)
    if len(set(values)) == 1:
        assert ours == 0.0  # where the other divides by a variance of 0
        return
    assert ours == pytest.approx(pymannkendall.original_test(values).z, abs=1e-9)


@pytest.mark.parametrize("phi", [0.0, 0.3, 0.6])
def test_noise_with_memory_is_seldom_called_a_trend(phi):
    rng = np.random.default_rng(7)
    found = 0
    for _ in range(400):
        blocks = ar1(rng, 240, phi).reshape(24, 10).mean(axis=1)
        found += abs(trend(blocks)) > 1.96  # two-sided 5 %
    assert found / 400 <= 0.08


def test_the_correction_only_ever_takes_certainty_away():
    rng = np.random.default_rng(3)
    for phi in (0.0, 0.5, 0.9):
        values = ar1(rng, 24, phi)
        assert abs(trend(values)) <= abs(trend(values, corrected=False)) + 1e-12


def test_a_falling_series_is_found_falling_and_its_mirror_rising():
    values = -np.arange(20.0) + np.random.default_rng(0).normal(size=20)
    assert trend(values) < -2.0
    assert trend(-values) == pytest.approx(-trend(values))


def naive_alarm(innovations, slack, threshold):
    """Page's recursion as an explicit maximum over all starts of the sum."""
    for end in range(1, len(innovations) + 1):
        for sign, kind in ((1, "rising"), (-1, "falling")):
            sums = [sum(sign * z - slack for z in innovations[start:end]) for start in range(end)]
            if max(sums) > threshold:
                return end - 1, kind
    return None


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=30))
def test_the_first_alarm_is_that_of_the_sums_over_all_starts(innovations):
    cusum, found = Cusum(0.5, 3.0), None
    for index, z in enumerate(innovations):
        cusum.update(z)
        kinds = [kind for kind in ("rising", "falling") if cusum.alarmed(kind, 0)]
        if kinds:
            found = (index, kinds[0])
            break
    expected = naive_alarm(innovations, 0.5, 3.0)
    if expected != found:  # only where a sum meets the threshold to the last bit
        nearly = {naive_alarm(innovations, 0.5, 3.0 + shift) for shift in (-1e-9, 1e-9)}
        assert found in nearly


def test_false_alarms_of_independent_noise_are_about_465_apart():
    rng = np.random.default_rng(11)
    lengths = []
    for _ in range(60):
        cusum, length = Cusum(0.5, 5.0), 0
        while not (cusum.alarmed("rising", 0) or cusum.alarmed("falling", 0)):
            cusum.update(rng.normal())
            length += 1
        lengths.append(length)
    assert 300 < np.mean(lengths) < 700


def test_a_shift_of_one_deviation_is_found_in_about_ten_blocks():
    rng = np.random.default_rng(12)
    delays = []
    for _ in range(200):
        cusum, delay = Cusum(0.5, 5.0), 0
        while not cusum.alarmed("rising", 0):
            cusum.update(rng.normal(1.0))
            delay += 1
        delays.append(delay)
    assert 8.5 < np.mean(delays) < 12.5  # 10.4 in Montgomery's table


def test_innovations_measure_the_distance_from_the_level_before():
    values = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 99.0, 3.0])  # the block before is left out
    scale = np.sqrt(1.0 + 1.57 / 5)
    assert innovation(values, 0.5) == pytest.approx(2.0 / (0.5 * scale))
    assert innovation(values[:4], 0.5) == 0.0
    assert innovation(values, 0.0) == 0.0


@given(slope=st.floats(-5, 5), level=st.floats(-100, 100))
def test_noise_is_measured_without_the_trend(slope, level):
    noise = np.random.default_rng(5).normal(size=200)
    straight = level + slope * np.arange(200)
    assert block_noise(noise + straight) == pytest.approx(block_noise(noise), rel=1e-6)
    assert block_noise(noise) == pytest.approx(1.0, rel=0.25)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=300))
def test_the_whole_curve_keeps_its_mean_and_its_bound(values):
    curve = WholeCurve(capacity=16)
    for step, value in enumerate(values, start=1):
        curve.add(step, value)
    steps, means = curve.arrays()
    assert means.size < 16
    used = int(2 * steps.mean() - 1) if steps.size else 0  # blocks are equal and without gaps
    if used:
        assert means.mean() == pytest.approx(np.mean(values[:used]), abs=1e-9)


def test_a_block_in_which_nothing_was_known_is_left_out():
    blocks = RecentBlocks(size=2, keep=3)
    for value in (1.0, 3.0, None, None, 5.0, None):
        blocks.add(value)
    assert blocks.known().tolist() == [2.0, 5.0]


def test_the_window_of_the_voter_is_a_share_of_a_long_plan_and_no_less_than_ten():
    voter = MannKendall(EarlyStoppingParams().mann_kendall_alpha, 10)
    assert voter.group == "statistical_consensus"
