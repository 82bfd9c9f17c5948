"""Attention scores: the published table of shapes, and properties that hold for any shape."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kamerton.metrics.alignment import (
    FAILED,
    AttentionScores,
    attention_scores,
    summarise_attention,
)

FRAMES, TOKENS = 400, 50


def one_hot(places, tokens=TOKENS):
    weights = np.zeros((len(places), tokens))
    weights[np.arange(len(places)), places] = 1
    return weights


def diagonal(frames=FRAMES, tokens=TOKENS):
    return one_hot(((np.arange(frames) + 0.5) * tokens / frames).astype(int), tokens)


def spoken(lead, tail, blur, contrast):
    """Tokens of uneven length between two silences, each frame blurred over its neighbours."""
    lengths = np.where(np.arange(TOKENS) % 3 == 0, contrast, 1.0)
    lengths *= (FRAMES - lead - tail) / lengths.sum()
    lengths[0] += lead
    lengths[-1] += tail
    centre = np.searchsorted(np.cumsum(lengths), np.arange(FRAMES) + 0.5).clip(0, TOKENS - 1)
    weights = np.exp(-0.5 * ((np.arange(TOKENS)[None] - centre[:, None]) / blur) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)


def uniform(frames=FRAMES, tokens=TOKENS):
    return np.full((frames, tokens), 1 / tokens)


def noise():
    weights = np.random.default_rng(0).random((FRAMES, TOKENS))
    return weights / weights.sum(axis=1, keepdims=True)


def jump_to_end():
    return one_hot(np.where(np.arange(FRAMES) < FRAMES // 2, np.arange(FRAMES) // 8, TOKENS - 1))


# Columns: diagonality, band, monotonicity, focus, entropy, coverage; at 400 frames x 50 tokens.
TABLE = {
    "perfect": (diagonal(), (1.00, 1.00, 1.00, 1.00, 0.00, 1.00)),
    "natural": (spoken(46, 45, 0.85, 2.0), (0.93, 0.88, 1.00, 0.50, 0.27, 1.00)),
    "early, wide blur": (spoken(50, 15, 4.9, 3.0), (0.81, 0.67, 1.00, 0.10, 0.71, 1.00)),
    "uniform": (uniform(), (0.00, 0.19, 0.00, 0.02, 1.00, 1.00)),
    "random": (noise(), (0.00, 0.19, 0.50, 0.02, 0.95, 1.00)),
    "stuck on one token": (one_hot(np.full(FRAMES, 17)), (0.10, 0.20, 0.00, 1.00, 0.00, 0.02)),
    "jumps to the end": (jump_to_end(), (0.58, 0.61, 1.00, 1.00, 0.00, 0.52)),
    "reversed": (diagonal()[::-1], (-0.30, 0.10, 0.00, 1.00, 0.00, 1.00)),
}
# The shapes that the table describes in words only are met to the second digit, not the third.
TOLERANCE = {"natural": 0.02, "random": 0.02}


@pytest.mark.parametrize("shape", TABLE)
def test_scores_of_the_published_shapes(shape):
    weights, expected = TABLE[shape]
    found = attention_scores(weights)
    measured = (
        found.diagonality,
        found.band,
        found.monotonicity,
        found.focus,
        found.entropy,
        found.coverage,
    )
    assert measured == pytest.approx(expected, abs=TOLERANCE.get(shape, 0.006))


def test_only_the_perfect_and_the_natural_shapes_are_aligned():
    aligned = {shape for shape, (weights, _) in TABLE.items() if attention_scores(weights).aligned}
    assert aligned == {"perfect", "natural"}


def test_a_skipped_third_of_the_text_is_not_aligned_though_its_diagonality_is_high():
    places = ((np.arange(FRAMES) + 0.5) * TOKENS / FRAMES).astype(int)
    skipping = places - places % 3  # only every third token is ever heard
    scores = attention_scores(one_hot(skipping))
    assert scores.diagonality > 0.9
    assert scores.coverage == pytest.approx(17 / 50)
    assert not scores.aligned


@given(frames=st.integers(1, 300), tokens=st.integers(1, 120))
@settings(max_examples=60, deadline=None)
def test_the_diagonal_of_any_shape_is_perfect(frames, tokens):
    scores = attention_scores(diagonal(frames, tokens))
    assert scores.diagonality == pytest.approx(1.0)
    assert scores.coverage == pytest.approx(1.0)
    assert scores.focus == 1.0
    assert scores.band == pytest.approx(1.0)
    assert scores.aligned


@given(frames=st.integers(2, 300), tokens=st.integers(2, 120))
@settings(max_examples=40, deadline=None)
def test_uniform_attention_of_any_shape_is_zero(frames, tokens):
    scores = attention_scores(uniform(frames, tokens))
    assert scores.diagonality == pytest.approx(0.0, abs=1e-9)
    assert scores.entropy == pytest.approx(1.0)


@given(
    frames=st.integers(1, 60),
    tokens=st.integers(1, 40),
    sharpness=st.floats(0.05, 5),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=80, deadline=None)
def test_scores_stay_in_their_ranges(frames, tokens, sharpness, seed):
    weights = np.random.default_rng(seed).dirichlet(np.full(tokens, sharpness), size=frames)
    scores = attention_scores(weights)
    assert scores.diagonality <= 1.0 + 1e-6 or frames < tokens
    for value in (
        scores.coverage,
        scores.focus,
        scores.entropy,
        scores.monotonicity,
        scores.band,
    ):
        assert -1e-9 <= value <= 1 + 1e-9


def test_blur_lowers_diagonality_and_focus_step_by_step():
    scores = [attention_scores(spoken(0, 0, blur, 1.0)) for blur in (0.3, 1, 3, 6, 12, 25)]
    for name in ("diagonality", "focus"):
        values = [getattr(score, name) for score in scores]
        assert values == sorted(values, reverse=True)
        assert len(set(values)) == len(values)


def test_attention_that_is_not_finite_has_failed():
    weights = diagonal()
    weights[3, 4] = np.nan
    assert attention_scores(weights) == FAILED
    assert not FAILED.aligned


@pytest.mark.parametrize("shape", [(4,), (0, 3), (3, 0), (1, 2, 3)])
def test_what_is_not_a_matrix_is_refused(shape):
    with pytest.raises(ValueError, match="matrix"):
        attention_scores(np.ones(shape))


def test_the_summary_gives_the_middle_the_worst_and_the_share():
    good = AttentionScores(0.98, 1.0, 0.8, 0.1, 1.0, 1.0)
    fair = AttentionScores(0.92, 0.95, 0.5, 0.2, 1.0, 0.9)
    summary = summarise_attention([good, FAILED, fair])
    assert summary.utterances == 3
    assert summary.aligned_share == pytest.approx(2 / 3)
    assert (summary.diagonality_median, summary.diagonality_worst) == (0.92, 0.0)
    assert (summary.coverage_median, summary.coverage_worst) == (0.95, 0.0)
    assert (summary.focus_median, summary.focus_worst) == (0.5, 0.0)


def test_no_utterances_are_not_aligned():
    assert summarise_attention([]).aligned_share == 0.0
