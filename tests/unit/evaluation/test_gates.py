"""Every gate on both sides of its threshold, and above all what happens without a number."""

from dataclasses import replace

import pytest

from kamerton.config.schema import PromoteParams
from kamerton.evaluation.gates import (
    Champion,
    absolute_gates,
    champion_gates,
    why_not_comparable,
)
from tests.evaluations import scorecard, utterance

ROWS = [utterance(index) for index in range(30)]
CARD = scorecard(ROWS)
# Ceilings of the rows: WER 0, MCD 2.5 dB, ESTOI 0.94; the voice: WER 0, MCD 5.0 dB, ESTOI 0.6.


def gate(name, card=CARD, **params):
    (found,) = [one for one in absolute_gates(card, PromoteParams(**params)) if one.name == name]
    return found


def with_metric(name, **changes):
    metrics = {**CARD.metrics, name: replace(CARD.metrics[name], **changes)}
    return replace(CARD, metrics=metrics)


# Gate, parameter, a value of it that the card passes, one that it fails, and the measured value.
TABLE = [
    ("items", "min_items", 30, 31, 30),
    ("coverage_mcd_dtw", "min_coverage", 1.0, None, 1.0),
    ("aligned_share", "min_aligned_share", 1.0, None, 1.0),
    ("mcd_over_ceiling_db", "max_mcd_over_ceiling_db", 2.5, 2.4, 2.5),
    ("estoi_share_of_ceiling", "min_estoi_share_of_ceiling", 0.63, 0.65, 0.6 / 0.94),
]


@pytest.mark.parametrize(("name", "parameter", "passing", "failing", "value"), TABLE)
def test_both_sides_of_each_threshold(name, parameter, passing, failing, value):
    found = gate(name, **{parameter: passing})
    assert found.passed
    assert found.value == pytest.approx(value, abs=1e-6)
    if failing is not None:
        assert not gate(name, **{parameter: failing}).passed


@pytest.mark.parametrize(("allowed", "passed"), [(0.25, True), (0.15, False)])
def test_the_word_error_rate_is_held_against_copy_synthesis(allowed, passed):
    card = with_metric("wer", value=0.30, ceiling=0.10)
    found = gate("wer_over_ceiling", card, max_wer_over_ceiling=allowed)
    assert found.passed is passed
    assert found.value == pytest.approx(0.2)


def test_a_voice_better_than_its_ceiling_passes():
    assert gate("wer_over_ceiling", with_metric("wer", value=0.0, ceiling=0.1)).value < 0


@pytest.mark.parametrize("share", [0.9, None, float("nan")])
def test_coverage_below_the_threshold_or_unknown_fails(share):
    coverage = {**CARD.coverage, "estoi_dtw": share}
    found = gate("coverage_estoi_dtw", replace(CARD, coverage=coverage))
    assert not found.passed


NO_NUMBER = [None, float("nan"), float("inf"), float("-inf")]


@pytest.mark.parametrize("bad", NO_NUMBER)
@pytest.mark.parametrize("side", ["value", "ceiling"])
@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("wer", "wer_over_ceiling"),
        ("mcd_dtw", "mcd_over_ceiling_db"),
        ("estoi_dtw", "estoi_share_of_ceiling"),
    ],
)
def test_a_number_that_is_missing_or_not_finite_fails_and_says_so(metric, name, side, bad):
    found = gate(name, with_metric(metric, **{side: bad}))
    assert not found.passed
    assert found.value is None
    assert "not measured" in found.reason


def test_a_metric_that_is_not_there_at_all_fails():
    metrics = {name: score for name, score in CARD.metrics.items() if name != "wer"}
    assert not gate("wer_over_ceiling", replace(CARD, metrics=metrics)).passed


def test_no_aligned_share_fails():
    assert not gate("aligned_share", replace(CARD, attention={})).passed


def against(candidate, champion, **params):
    card = scorecard(candidate)
    other = Champion("3", scorecard(champion), [row.as_dict() for row in champion])
    found = champion_gates(
        card, [row.as_dict() for row in candidate], other, PromoteParams(**params)
    )
    return {gate.name: gate for gate in found}


def test_a_candidate_equal_to_the_champion_passes():
    found = against(ROWS, ROWS)
    assert {gate.passed for gate in found.values()} == {True}
    assert found["wer_against_champion"].value == 0.0


def test_a_candidate_with_more_errors_is_stopped():
    worse = [utterance(index, wrong_words=index % 2) for index in range(30)]
    found = against(worse, ROWS)
    assert not found["wer_against_champion"].passed
    assert "version 3" in found["wer_against_champion"].reason
    assert found["mcd_against_champion_db"].passed


def test_a_candidate_with_more_distortion_is_stopped():
    worse = [utterance(index, mcd=5.5 + 0.1 * (index % 3)) for index in range(30)]
    assert not against(worse, ROWS)["mcd_against_champion_db"].passed


def test_uncertainty_counts_against_the_candidate():
    """The same mean difference passes on many sentences and fails on few."""

    def pair(count):
        noisy = [utterance(i, mcd=5.0 + (1.5 if i % 2 else -1.3)) for i in range(count)]
        return against(noisy, [utterance(i) for i in range(count)], non_inferiority_mcd_db=0.4)

    few, many = pair(10)["mcd_against_champion_db"], pair(400)["mcd_against_champion_db"]
    assert not few.passed
    assert many.passed


def test_nothing_measured_for_both_fails():
    silent = [utterance(index, mcd=None) for index in range(5)]
    found = against(silent, ROWS[:5])["mcd_against_champion_db"]
    assert (found.passed, found.value) == (False, None)


def test_only_equal_test_sets_and_definitions_can_be_compared():
    def champion(**changes):
        return Champion("3", replace(CARD, **changes), [])

    assert why_not_comparable(CARD, champion()) is None
    assert "other test sentences" in why_not_comparable(CARD, champion(eval_set_sha256="x"))
    changed = {**CARD.definitions, "recogniser": "whisper large-v3"}
    assert "definition of recogniser" in why_not_comparable(CARD, champion(definitions=changed))
