from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.config.schema import AnalyzeParams
from kamerton.data.epoch_rule import Complexity, quality_of, recommend, size_of

PARAMS = AnalyzeParams()
SIMPLE = Complexity()


def test_the_examples_of_the_specification():
    assert recommend(8.0, 0.95, SIMPLE, PARAMS).recommended_epochs == 1200
    # Its first example prints 3200 for the same input; the rule's own text gives 3600.
    assert recommend(0.4, 0.8, SIMPLE, PARAMS).recommended_epochs == 3600
    # Half an hour is no longer very small: 3000 x 0.9 x 1.2 = 3240, rounded to 50.
    assert recommend(0.5, 0.8, Complexity(accent=True), PARAMS).recommended_epochs == 3250


@pytest.mark.parametrize(
    ("hours", "size", "epochs"),
    [
        (0.0, "very_small", 4000),
        (0.4999, "very_small", 4000),
        (0.5, "small", 3000),
        (0.9999, "small", 3000),
        (1.0, "medium", 2000),
        (2.9999, "medium", 2000),
        (3.0, "large", 1500),
        (9.9999, "large", 1500),
        (10.0, "very_large", 1000),
        (1000.0, "very_large", 1000),
    ],
)
def test_a_boundary_of_length_belongs_to_the_larger_class(hours, size, epochs):
    assert size_of(hours)[:2] == (size, epochs)


@pytest.mark.parametrize(
    ("score", "label", "factor"),
    [
        (1.0, "excellent", 0.8),
        (0.9001, "excellent", 0.8),
        (0.9, "good", 0.9),
        (0.7, "good", 0.9),
        (0.6999, "fair", 1.0),
        (0.5, "fair", 1.0),
        (0.4999, "poor", 1.3),
        (0.0, "poor", 1.3),
    ],
)
def test_quality_classes(score, label, factor):
    assert quality_of(score) == (label, factor)


@pytest.mark.parametrize(
    ("complexity", "share", "label"),
    [
        (SIMPLE, 0.0, "simple"),
        (Complexity(accent=True), 0.2, "moderate"),
        (Complexity(pitch=True), 0.3, "moderate"),
        (Complexity(accent=True, tempo=True), 0.4, "complex"),
        (Complexity(emotion=True, pitch=True), 0.6, "complex"),
        (Complexity(accent=True, tempo=True, pitch=True), 0.7, "very_complex"),
        (Complexity(accent=True, emotion=True, tempo=True, pitch=True), 1.0, "very_complex"),
    ],
)
def test_shares_of_complexity_are_added(complexity, share, label):
    assert complexity.added_share == pytest.approx(share)
    assert complexity.label == label
    assert recommend(2.0, 0.6, complexity, PARAMS).recommended_epochs == round(2000 * (1 + share))


def test_limits_are_kept_and_said():
    everything = Complexity(accent=True, emotion=True, tempo=True, pitch=True)
    most = recommend(0.1, 0.1, everything, PARAMS)
    assert most.recommended_epochs == 5000
    assert "10400 epochs lie outside the limits: 5000" in most.reasons
    least = recommend(20.0, 0.95, SIMPLE, AnalyzeParams(min_epochs=900))
    assert least.recommended_epochs == 900


def test_reasons_name_every_step():
    reasons = recommend(0.7, 0.4, Complexity(tempo=True), PARAMS).reasons
    assert [line.rpartition(": ")[2] for line in reasons] == [
        "3000 epochs to begin with",
        "+30%",
        "+20%",
    ]


def test_confidence_follows_its_formula():
    # 0.45 + 0.35 q + size - 0.1 complexity, worked out by hand
    assert recommend(8.0, 0.95, SIMPLE, PARAMS).confidence == pytest.approx(0.9325)
    assert recommend(0.3, 0.5, Complexity(pitch=True), PARAMS).confidence == pytest.approx(0.595)
    assert recommend(99.0, 1.0, SIMPLE, PARAMS).confidence == pytest.approx(0.98)


def test_what_was_not_measured_lowers_the_confidence_and_nothing_else():
    whole, half = (recommend(8.0, 0.95, SIMPLE, PARAMS, share) for share in (1.0, 0.5))
    assert half.confidence == pytest.approx(0.5 * whole.confidence, abs=1e-4)
    assert replace(half, confidence=whole.confidence) == whole


HOURS = st.floats(0, 500)
SCORES = st.floats(0, 1)
COMPLEXITIES = st.builds(Complexity, *[st.booleans()] * 4)


@given(HOURS, SCORES, COMPLEXITIES)
def test_the_recommendation_stays_inside_its_limits(hours, score, complexity):
    advice = recommend(hours, score, complexity, PARAMS)
    assert PARAMS.min_epochs <= advice.recommended_epochs <= PARAMS.max_epochs
    assert advice.recommended_epochs % 50 == 0
    assert 0.1 <= advice.confidence <= 0.99


@given(HOURS, HOURS, SCORES, COMPLEXITIES)
def test_more_speech_never_asks_for_more_epochs(one, other, score, complexity):
    less, more = sorted((one, other))
    epochs = [recommend(h, score, complexity, PARAMS).recommended_epochs for h in (less, more)]
    assert epochs[0] >= epochs[1]


@given(HOURS, SCORES, COMPLEXITIES, st.sampled_from(["accent", "emotion", "tempo", "pitch"]))
def test_a_harder_voice_never_asks_for_fewer_epochs(hours, score, complexity, name):
    harder = replace(complexity, **{name: True})
    epochs = [recommend(hours, score, c, PARAMS).recommended_epochs for c in (complexity, harder)]
    assert epochs[0] <= epochs[1]
