import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from kamerton.data import cuts
from kamerton.data.cuts import CutLimits, cut_cost, plan_clips, runs, speech_mask

SMALL = CutLimits(
    min_frames=4,
    target_frames=7,
    max_frames=12,
    min_pause_frames=2,
    max_inner_pause_frames=5,
    pad_frames=1,
)


@st.composite
def scored(draw, longest=400):
    """Scores of a recording: stretches of speech and pause of any length, uncertain at places."""
    levels = draw(
        st.lists(
            st.tuples(st.integers(1, 60), st.sampled_from([0.0, 0.0, 0.2, 0.6, 0.9, 1.0])),
            min_size=1,
            max_size=20,
        )
    )
    scores = np.concatenate([np.full(length, level, dtype=np.float32) for length, level in levels])
    return scores[:longest]


@st.composite
def any_limits(draw):
    low = draw(st.integers(2, 20))
    target = low + draw(st.integers(0, 20))
    return CutLimits(
        min_frames=low,
        target_frames=target,
        max_frames=target + draw(st.integers(0, 40)),
        min_pause_frames=draw(st.integers(1, 10)),
        max_inner_pause_frames=draw(st.integers(5, 60)),
        pad_frames=draw(st.integers(0, 12)),
        keep_forced_cuts=draw(st.booleans()),
    )


@given(scores=scored(), limits=any_limits(), grow=st.integers(0, 6))
def test_promises_hold_for_any_recording(scores, limits, grow):
    mask = speech_mask(scores, limits.min_pause_frames, grow)
    spans = plan_clips(scores, mask, limits)
    pauses = list(zip(*runs(~mask), strict=True))
    held = np.zeros(len(mask), dtype=int)
    for span in spans:
        held[span.speech_start : span.speech_end] += mask[span.speech_start : span.speech_end]
        assert 0 <= span.start <= span.speech_start < span.speech_end <= span.end <= len(mask)
        assert span.end - span.start <= limits.max_frames
        assert span.speech_start - span.start <= limits.pad_frames
        assert span.end - span.speech_end <= limits.pad_frames
        inner = [e - s for s, e in pauses if span.speech_start < s and e < span.speech_end]
        assert max(inner, default=0) <= limits.max_inner_pause_frames
        too_short = span.end - span.start < limits.min_frames
        assert ("too_short" in span.reasons) == too_short
        assert ("forced_cut" in span.reasons) == (span.forced_cut and not limits.keep_forced_cuts)
    # All speech is in exactly one clip, kept or rejected.
    np.testing.assert_array_equal(held, mask.astype(int))
    for left, right in itertools.pairwise(spans):
        assert left.end <= right.start
    for start, end in pauses:
        for span in spans:  # margins never pass the middle of a pause
            if start > 0 and span.speech_end == start and end < len(mask):
                assert span.end <= (start + end) / 2
            if end < len(mask) and span.speech_start == end and start > 0:
                assert span.start >= (start + end) / 2


@given(scores=scored(), limits=any_limits())
def test_speech_is_cut_only_where_no_pause_helps(scores, limits):
    mask = speech_mask(scores, limits.min_pause_frames)
    for span in plan_clips(scores, mask, limits):
        inside = [p for p in (span.speech_start, span.speech_end) if 0 < p < len(mask)]
        if any(mask[p - 1] and mask[p] for p in inside):
            assert span.forced_cut
            lengths = [e - s for s, e in zip(*runs(mask), strict=True) if s < span.speech_end]
            assert max(lengths) > limits.max_frames


def reference_cost(chosen, table, limits):
    """Cost of cutting at ``chosen``, written once more, clip by clip."""
    total = 0.0
    for i, j in itertools.pairwise(chosen):
        if table.before[j] - table.after[i] > limits.max_frames:
            return math.inf
        length = min(table.finish[j] - table.begin[i], limits.max_frames)
        forced = (table.forced[i] or table.forced[j]) and not limits.keep_forced_cuts
        if forced or length < limits.min_frames:
            total += cuts._LOSS_PER_FRAME * (table.before[j] - table.after[i])
        else:
            total += cuts._LENGTH_WEIGHT * math.log(length / limits.target_frames) ** 2
        total += sum(table.spanned[i + 1 : j]) + table.cost[j]
    return total


@given(
    scores=numpy_strategies.arrays(
        np.float32, st.integers(6, 28), elements=st.sampled_from([0.0, 0.0, 0.25, 0.75, 1.0, 1.0])
    ),
    keep=st.booleans(),
)
def test_the_cuts_are_the_best_of_all_there_are(scores, keep):
    limits = CutLimits(4, 7, 12, 2, 5, 1, keep)
    mask = speech_mask(scores, limits.min_pause_frames)
    starts, ends = runs(mask)
    if not len(starts):
        assert plan_clips(scores, mask, limits) == []
        return
    table = cuts._find_candidates(cut_cost(scores), starts, ends, len(mask), limits)
    walls = np.flatnonzero(table.wall)
    for first, last in itertools.pairwise(walls.tolist()):
        between = range(first + 1, last)
        every = (
            [first, *inner, last]
            for size in range(len(between) + 1)
            for inner in itertools.combinations(between, size)
        )
        best = min(reference_cost(chosen, table, limits) for chosen in every)
        found = cuts._cheapest_path(table, first, last, limits)
        assert reference_cost(found, table, limits) == pytest.approx(best)


def scores_of(*parts):
    """Scores from (seconds, score) pairs."""
    return np.concatenate([np.full(round(s * 100), score, dtype=np.float32) for s, score in parts])


SECONDS = CutLimits(100, 300, 1200, 15, 80, 10)


def plan(scores, limits=SECONDS):
    return plan_clips(scores, speech_mask(scores, limits.min_pause_frames), limits)


def test_every_sentence_is_a_clip_when_pauses_are_long():
    rng = np.random.default_rng(0)
    parts, truth, time = [(0.5, 0.0)], [], 0.5
    for _ in range(30):
        speech, pause = round(rng.uniform(2, 3.2), 2), round(rng.uniform(0.3, 1.2), 2)
        truth.append((time, time + speech))
        parts += [(speech, 1.0), (pause, 0.0)]
        time += speech + pause
    spans = plan(scores_of(*parts))
    assert [s.reasons for s in spans] == [()] * 30
    found = [(s.speech_start / 100, s.speech_end / 100) for s in spans]
    np.testing.assert_allclose(found, truth, atol=0.011)
    assert all(s.speech_start - s.start == 10 == s.end - s.speech_end for s in spans)


def test_a_longer_target_joins_sentences_and_keeps_short_pauses():
    sentence = [(2.5, 1.0), (0.4, 0.0)] * 12
    long = CutLimits(100, 600, 1200, 15, 80, 10)
    lengths = [(s.end - s.start) / 100 for s in plan(scores_of(*sentence), long)]
    assert 5.0 < np.median(lengths) < 9.0
    assert 2.0 < np.median([(s.end - s.start) / 100 for s in plan(scores_of(*sentence))]) < 3.0


def test_of_two_pauses_the_longer_one_is_cut():
    scores = scores_of((0.5, 0), (4.0, 1), (0.16, 0), (1.0, 1), (0.6, 0), (4.5, 1), (0.5, 0))
    spans = plan(scores, CutLimits(100, 600, 1000, 15, 80, 10))
    assert len(spans) == 2
    assert spans[0].speech_end == 50 + 400 + 16 + 100


def test_speech_without_a_pause_is_cut_at_its_weakest_place_and_rejected():
    scores = scores_of((0.5, 0), (7.0, 1.0), (0.1, 0.55), (7.5, 1.0), (0.5, 0))
    spans = plan(scores)
    assert [s.forced_cut for s in spans] == [True, True]
    assert [s.reasons for s in spans] == [("forced_cut",)] * 2
    assert abs(spans[0].end - 755) <= 2
    assert spans[0].end == spans[1].start
    kept = plan(scores, CutLimits(100, 300, 1200, 15, 80, 10, keep_forced_cuts=True))
    assert all(s.reasons == () and s.forced_cut for s in kept)


def test_what_is_lost_to_a_forced_cut_stays_small():
    """3 s, a pause, 13 s without any: the first part is saved."""
    scores = scores_of((0.5, 0), (3.0, 1), (0.3, 0), (13.0, 1), (0.5, 0))
    first, *rest = plan(scores)
    assert first.reasons == ()
    assert (first.speech_start, first.speech_end) == (50, 350)
    assert all(span.forced_cut for span in rest)


def test_margins_give_way_to_the_maximum_not_speech():
    scores = scores_of((0.5, 0), (11.96, 1), (0.5, 0))
    (span,) = plan(scores)
    assert span.end - span.start == 1200
    assert (span.speech_start, span.speech_end) == (50, 1246)
    assert span.reasons == ()


def test_short_words_between_long_pauses_are_listed():
    (span,) = plan(scores_of((2.0, 0), (0.4, 1), (2.0, 0)))
    assert span.reasons == ("too_short",)


def test_nothing_and_silence_have_no_clips():
    assert plan(np.zeros(0, dtype=np.float32)) == []
    assert plan(np.zeros(500, dtype=np.float32)) == []


@given(scores=scored(), pause=st.integers(1, 20), grow=st.integers(0, 8))
def test_a_mask_has_no_short_pause_inside(scores, pause, grow):
    mask = speech_mask(scores, pause, grow)
    assert len(mask) == len(scores)
    starts, ends = runs(mask)
    assert (starts[1:] - ends[:-1] >= pause).all()
    reach = grow + pause
    near = np.convolve(scores >= 0.5, np.ones(1 + 2 * reach))[reach : reach + len(scores)] > 0
    assert not (mask & ~near).any()


def test_a_click_is_no_speech_but_a_release_is():
    click = scores_of((1.0, 0), (0.03, 1), (1.0, 0))
    assert not speech_mask(click, 15).any()
    release = scores_of((1.0, 0), (0.5, 1), (0.08, 0), (0.03, 1), (1.0, 0))
    assert speech_mask(release, 15).sum() == 61


def test_cost_is_low_in_pauses_and_lower_in_long_ones():
    cost = cut_cost(scores_of((1.0, 1), (0.2, 0), (1.0, 1), (0.6, 0), (1.0, 1)))
    assert cost[50] == pytest.approx(1.5, abs=1e-6)
    assert cost[250] < 0.02 < cost[110] < 0.5
