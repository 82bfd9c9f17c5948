import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.data.windows import (
    FULL_SECONDS,
    GAP_SECONDS,
    WINDOW_SECONDS,
    Place,
    join_waves,
    lay,
    pack,
)

LENGTHS = st.lists(st.floats(0.05, 32.0), max_size=60)


@given(LENGTHS)
def test_every_clip_lies_in_one_window_in_its_own_order(seconds):
    windows = pack(seconds)
    assert sorted(at for window in windows for at in window) == list(range(len(seconds)))
    assert all(list(window) == sorted(window) for window in windows)


@given(LENGTHS)
def test_shared_windows_are_never_too_full(seconds):
    for window in pack(seconds):
        used = sum(seconds[at] for at in window) + GAP_SECONDS * (len(window) - 1)
        assert len(window) == 1 or used <= FULL_SECONDS + 1e-9
        places = lay([seconds[at] for at in window])
        assert len(window) == 1 or places[-1].end_seconds < WINDOW_SECONDS


@given(LENGTHS)
def test_few_windows_are_needed(seconds):
    """First fit, longest first, needs at most 11/9 of the fewest possible, and two thirds."""
    shared = [s for s in seconds if s <= FULL_SECONDS]
    fewest = math.ceil(sum(s + GAP_SECONDS for s in shared) / (FULL_SECONDS + GAP_SECONDS) - 1e-9)
    alone = sum(s > FULL_SECONDS / 2 for s in shared)
    windows = len(pack(shared))
    assert max(fewest, alone) <= windows
    assert windows <= 11 / 9 * max(2 * fewest, alone) + 2 / 3


@given(st.lists(st.floats(0.5, 12.0), min_size=1, max_size=40), st.randoms())
def test_only_lengths_and_order_matter(seconds, random):
    windows = pack(seconds)
    assert windows == pack(list(seconds))
    shuffled = random.sample(seconds, len(seconds))
    lengths = sorted(sorted(seconds[at] for at in window) for window in windows)
    assert lengths == sorted(sorted(shuffled[at] for at in window) for window in pack(shuffled))


def test_five_second_clips_share_a_window_by_five():
    assert [len(window) for window in pack([5.0] * 12)] == [5, 5, 2]


def test_a_clip_as_long_as_the_window_is_on_its_own():
    assert pack([30.0, 1.0, 29.0, 28.9]) == [(0,), (2,), (3,), (1,)]
    assert pack([]) == []


def test_places_have_silence_between():
    assert lay([2.0, 3.0]) == (Place(0.0, 2.0), Place(2.5, 5.5))


@pytest.mark.parametrize(
    ("interval", "seconds"), [((0.0, 9.0), 2.0), ((2.5, 3.0), 0.5), ((4.0, 5.0), 0.0)]
)
def test_overlap_is_of_intervals(interval, seconds):
    assert Place(2.0, 4.0).overlap(*interval) == pytest.approx(seconds)


@given(st.lists(st.integers(1, 500), max_size=6))
def test_joined_waves_lie_where_their_places_say(lengths):
    rate_hz = 1000
    waves = [np.full(n, k + 1, dtype=np.float32) for k, n in enumerate(lengths)]
    joined = join_waves(waves, rate_hz)
    places = lay([n / rate_hz for n in lengths])
    for wave, place in zip(waves, places, strict=True):
        start, end = round(place.start_seconds * rate_hz), round(place.end_seconds * rate_hz)
        assert np.array_equal(joined[start:end], wave)
        joined[start:end] = 0
    assert not joined.any()
    assert len(joined) == sum(lengths) + 500 * max(0, len(lengths) - 1)
