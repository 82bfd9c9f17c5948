import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.config.schema import DatasetParams, TranscribeParams
from kamerton.data.filters import (
    REASONS,
    Candidate,
    find_duplicates,
    judge_clip,
    judge_dataset,
    judge_recognition,
    repeated_answers,
    tempo_limits,
)
from kamerton.data.transcription import Recognition

LIMITS = TranscribeParams()
GOOD = Recognition("one two three four five", "en", -0.2, 0.01, 1.1, 0.0)


def answer(**changed):
    values = {name: getattr(GOOD, name) for name in GOOD.__slots__} | changed
    return Recognition(**values)


@pytest.mark.parametrize(
    ("changed", "reasons"),
    [
        ({}, []),
        ({"text": "  "}, ["empty_text"]),
        ({"avg_logprob": -1.0}, []),
        ({"avg_logprob": -1.01}, ["low_logprob"]),
        ({"no_speech_prob": 0.9}, []),
        ({"no_speech_prob": 0.9, "avg_logprob": -0.6}, ["no_speech"]),
        ({"no_speech_prob": 0.5, "avg_logprob": -0.6}, []),
        ({"compression_ratio": 2.5}, ["repetitive"]),
        ({"text": "so so so so so so so"}, ["repeated_words"]),
        ({"text": "so so so"}, []),
        ({"language": "ru"}, ["other_language"]),
        (
            {"text": "", "avg_logprob": -2.0, "no_speech_prob": 0.9, "compression_ratio": 9.0},
            ["empty_text", "low_logprob", "no_speech", "repetitive"],
        ),
    ],
)
def test_answers_are_refused_for_named_reasons(changed, reasons):
    assert judge_recognition(answer(**changed), LIMITS, "en") == reasons
    assert set(reasons) <= set(REASONS)


def test_silence_has_no_figures_and_is_refused():
    assert judge_recognition(Recognition("", "en", None, None, None, None), LIMITS, "en") == [
        "empty_text"
    ]


@pytest.mark.parametrize(
    ("limit", "changed"),
    [
        ({"min_avg_logprob": -0.1}, {}),
        ({"max_compression_ratio": 1.05}, {}),
        ({"max_no_speech_prob": 0.0, "min_avg_logprob": -0.3}, {}),
        ({"min_unique_word_share": 0.9}, {"text": "a b c a"}),
    ],
)
def test_each_limit_is_a_parameter(limit, changed):
    assert judge_recognition(answer(**changed), LIMITS, "en") == []
    assert judge_recognition(answer(**changed), TranscribeParams(**limit), "en") != []


@given(st.lists(st.sampled_from(["", "a", "b"]), max_size=30))
def test_answers_repeated_in_a_row_match_a_naive_search(texts):
    naive = {
        position
        for start in range(len(texts) - 2)
        for position in range(start, start + 3)
        if texts[start] and texts[start] == texts[start + 1] == texts[start + 2]
    }
    assert repeated_answers(texts) == naive


DATASET = DatasetParams()


def candidate(number=0, text="a sentence of ordinary length", seconds=2.0, sound=None):
    return Candidate(f"id{number}", text, seconds, sound or f"sound{number}")


@pytest.mark.parametrize(
    ("clip", "reasons"),
    [
        (candidate(), []),
        (candidate(text=""), ["no_spoken_text"]),
        (candidate(text="a" * 6, seconds=0.4), ["too_short"]),
        (candidate(text="a" * 160, seconds=15.1), ["too_long"]),
        (candidate(text="a" * 5, seconds=2.0), ["too_slow"]),
        (candidate(text="a" * 6, seconds=2.0), []),
        (candidate(text="a" * 51, seconds=2.0), ["too_fast"]),
        (candidate(text="a" * 50, seconds=2.0), []),
        (candidate(seconds=0.0), ["too_short", "too_slow"]),
    ],
)
def test_clips_are_refused_for_named_reasons(clip, reasons):
    assert judge_clip(clip, DATASET) == reasons
    assert set(reasons) <= set(REASONS)


def test_usual_tempo_is_unknown_with_few_clips():
    assert tempo_limits([10.0] * 19, 3.0) == (0.0, math.inf)


def test_usual_tempo_is_the_widened_quartiles():
    assert tempo_limits([float(n) for n in range(21)], 1.5) == (5 - 15, 15 + 15)


def test_a_clip_far_from_the_usual_tempo_goes():
    usual = [candidate(n, text="a" * (20 + n % 5)) for n in range(30)]
    odd = candidate(99, text="a" * 45)
    out = judge_dataset([*usual, odd], DatasetParams(reject_duplicates=False))
    assert out == {"id99": (["tempo_outlier"], None)}
    assert (
        judge_dataset([*usual, odd], DatasetParams(reject_duplicates=False, outlier_iqr=99.0)) == {}
    )


def test_equal_sound_and_equal_text_of_equal_length_are_found():
    clips = [
        candidate(0, text="one", seconds=2.0, sound="x"),
        candidate(1, text="other", seconds=3.0, sound="x"),
        candidate(2, text="one", seconds=2.05),
        candidate(3, text="one", seconds=2.2),
        candidate(4, text="one", seconds=2.15),
    ]
    assert find_duplicates(clips) == {
        "id1": ("same_sound", "id0"),
        "id2": ("same_text_and_length", "id0"),
        "id4": ("same_text_and_length", "id3"),
    }


def test_duplicates_stay_when_they_are_wanted():
    clips = [candidate(0, sound="x"), candidate(1, sound="x")]
    assert judge_dataset(clips, DATASET) == {"id1": (["same_sound"], "id0")}
    assert judge_dataset(clips, DatasetParams(reject_duplicates=False)) == {}


CLIPS = st.lists(
    st.tuples(st.sampled_from(["", "a", "ten chars.", "x" * 30]), st.floats(0, 20)), max_size=40
)


@given(CLIPS)
def test_what_stays_would_stay_again(values):
    clips = [candidate(n, text, seconds) for n, (text, seconds) in enumerate(values)]
    params = DatasetParams(outlier_iqr=1e6)
    out = judge_dataset(clips, params)
    kept = [clip for clip in clips if clip.id not in out]
    assert judge_dataset(kept, params) == {}
    assert all(judge_clip(clip, params) == [] for clip in kept)
    assert all(set(reasons) <= set(REASONS) for reasons, _ in out.values())
