"""Advice is what scoring the dataset anew without a part of it gives, and no more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.config.schema import AnalyzeParams
from kamerton.data.advice import advise
from kamerton.data.analysis import complexity_of, dataset_quality, measure_voice
from kamerton.data.by_recording import by_recording
from kamerton.data.epoch_rule import recommend
from tests.unit.data.test_analysis import measures

PARAMS = AnalyzeParams()


def clip(number, source, *, snr_db=45.0, seconds=60.0, **changed):
    of = {"source": source, "duration_seconds": seconds}
    return measures(number, of=of, snr_db=snr_db, **changed)


def recordings(**snr_of):
    """Ten minutes of each source, at these ratios."""
    return [
        clip(10 * index + n, f"{source}.wav", snr_db=snr_db)
        for index, (source, snr_db) in enumerate(snr_of.items())
        for n in range(10)
    ]


def test_a_noisy_tape_is_to_be_dropped_and_the_gain_is_real():
    clips = recordings(a=45.0, b=42.0, c=40.0, tape=8.0, e=44.0)
    (advice,) = advise(clips, PARAMS)
    assert advice.source == "tape.wav"
    assert advice.problems == ("noise",)
    rest = [c for c in clips if c.row.source != "tape.wav"]
    assert advice.before.quality == dataset_quality(clips).score
    assert advice.without.quality == dataset_quality(rest).score
    assert advice.without.hours == pytest.approx(40 / 60)
    complexity = complexity_of(measure_voice(rest), PARAMS)
    expected = recommend(40 / 60, dataset_quality(rest).score, complexity, PARAMS)
    assert advice.without.epochs == expected.recommended_epochs
    assert advice.again.hours == advice.before.hours
    assert advice.again.quality == advice.without.quality
    assert advice.text == (
        "drop 'tape.wav' (10.0 min, SNR 8 dB; noisy): quality 0.91 → 1.00, leaves 40.0 min, "
        "2400 epochs still; recorded again as well as the rest: 1.00 with all 50.0 min, "
        "2400 epochs"
    )


def test_an_even_dataset_has_nothing_to_drop():
    assert advise(recordings(a=25.0, b=25.0, c=27.0), PARAMS) == []
    assert advise(recordings(a=12.0), PARAMS) == [], "the only recording"


def test_a_little_gain_for_many_minutes_is_no_advice():
    clips = recordings(a=45.0, b=45.0, c=45.0, worse=30.0)
    assert advise(clips, PARAMS) == []
    eager = AnalyzeParams(drop_gain=0.1)
    assert [piece.source for piece in advise(clips, eager)] == ["worse.wav"]


def test_single_bad_clips_of_good_recordings_are_named():
    clips = recordings(a=45.0, b=45.0)
    clips += [
        clip(100 + n, "a.wav", snr_db=45.0, clipped_share=0.01, bandwidth_hz=3000.0)
        for n in range(2)
    ]
    (advice,) = advise(clips, PARAMS)
    assert advice.source is None
    assert advice.clip_ids == ("0064", "0065")
    assert set(advice.problems) == {"clipping", "bandwidth"}
    assert advice.text.startswith("drop 2 clips (2.0 min, SNR 45 dB; ")


def test_advice_builds_on_what_stands_before_it():
    clips = recordings(a=45.0, b=45.0, c=45.0, d=45.0, e=45.0, f=45.0, g=45.0, bad=6.0, poor=9.0)
    clips += [clip(200, "a.wav", snr_db=2.0, clipped_share=0.1, seconds=90.0)]
    first, second, third = advise(clips, PARAMS)
    assert {first.source, second.source} == {"bad.wav", "poor.wav"}
    assert third.clip_ids == ("00c8",)
    assert first.without == second.before
    assert second.without == third.before


DATASETS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.floats(0, 50), st.floats(1, 100), st.floats(0, 0.005)),
    min_size=1,
    max_size=25,
)


@given(DATASETS, st.floats(0.05, 1.0))
def test_advice_is_worth_it_and_leaves_most(rows, drop_gain):
    clips = [
        clip(n, f"{source}.wav", snr_db=snr, seconds=seconds, clipped_share=clipped)
        for n, (source, snr, seconds, clipped) in enumerate(rows)
    ]
    all_advice = advise(clips, AnalyzeParams(drop_gain=drop_gain))
    lost = sum(piece.seconds for piece in all_advice)
    assert lost <= sum(c.row.duration_seconds for c in clips) / 3 + 1e-6
    ids = [clip_id for piece in all_advice for clip_id in piece.clip_ids]
    assert len(ids) == len(set(ids))
    for piece in all_advice:
        gain = piece.without.quality - piece.before.quality
        share = piece.seconds / (piece.before.hours * 3600)
        assert gain >= 0.005 - 1e-9
        assert gain >= drop_gain * share * (1 - 1e-9)
        assert 0 <= piece.quality.score < piece.before.quality


def test_recordings_are_summed_up_by_name():
    clips = [clip(0, "b.wav", snr_db=30.0, clipped_share=None), clip(1, "a.wav", snr_db=None)]
    clips += [clip(2, "b.wav", snr_db=40.0, seconds=20.0, clipped_share=0.003)]
    first, second = by_recording(clips)
    assert (first.source, second.source) == ("a.wav", "b.wav")
    assert (first.snr_db, second.snr_db) == (None, 35.0)
    assert second.seconds == 80.0
    assert second.clipped_share == pytest.approx(0.003)
    assert second.f0_hz == pytest.approx(110.0)
