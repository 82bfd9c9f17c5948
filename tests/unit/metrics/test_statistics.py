"""Bootstrap intervals: repeatable, close to theory, and honest about what they cannot do."""

import numpy as np
import pytest

from kamerton.metrics.statistics import Bootstrap


def test_the_mean_and_its_interval_match_the_normal_theory():
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    found = Bootstrap(samples=4000).mean(values.tolist())
    half = 1.96 * values.std() / np.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.value == pytest.approx(half, rel=0.1)
    assert found.value - found.low == pytest.approx(half, rel=0.1)
    assert found.items == 400


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    bootstrap = Bootstrap(samples=400)
    hits = 0
    for _ in range(200):
        found = bootstrap.mean(rng.exponential(1.0, 60).tolist())
        hits += found.low <= 1.0 <= found.high
    assert 0.86 <= hits / 200 <= 0.99


def test_the_same_seed_gives_the_same_interval_and_another_another():
    values = np.random.default_rng(4).normal(size=30).tolist()
    assert Bootstrap(seed=7).mean(values) == Bootstrap(seed=7).mean(values)
    assert Bootstrap(seed=7).mean(values).low != Bootstrap(seed=8).mean(values).low


def test_a_wider_level_is_a_wider_interval():
    values = np.random.default_rng(2).normal(size=50).tolist()
    narrow, wide = Bootstrap(level=0.8).mean(values), Bootstrap(level=0.99).mean(values)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_a_rate_weighs_long_sentences_more():
    found = Bootstrap().ratio([0, 10], [90, 10])
    assert found.value == pytest.approx(0.1)


def test_a_single_utterance_has_no_width():
    found = Bootstrap().mean([3.0])
    assert (found.low, found.value, found.high) == (3.0, 3.0, 3.0)


def test_pairing_finds_a_small_difference_that_two_intervals_hide():
    rng = np.random.default_rng(3)
    hard = rng.normal(10, 3, 100)
    champion, candidate = hard, hard - 0.3 + rng.normal(0, 0.2, 100)
    bootstrap = Bootstrap()
    left, right = bootstrap.mean(candidate.tolist()), bootstrap.mean(champion.tolist())
    assert left.high > right.low
    difference = bootstrap.paired_difference(candidate.tolist(), champion.tolist())
    assert difference.high < 0


def test_weights_make_a_difference_of_rates():
    found = Bootstrap().paired_difference([1, 0], [3, 0], [10, 10])
    assert found.value == pytest.approx(-0.1)


@pytest.mark.parametrize("values", [[], [float("nan")], [1.0, float("inf")]])
def test_nothing_and_not_finite_is_refused(values):
    with pytest.raises(ValueError, match="finite"):
        Bootstrap().mean(values)


def test_values_of_different_utterances_cannot_be_paired():
    with pytest.raises(ValueError, match="same utterances"):
        Bootstrap().paired_difference([1.0], [1.0, 2.0])


def test_a_rate_of_no_words_is_refused():
    with pytest.raises(ValueError, match="ratio"):
        Bootstrap().ratio([1.0], [0.0])
