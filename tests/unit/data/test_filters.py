import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.config.schema import DatasetParams, TranscribeParams
from kamerton.data.duplicates import Candidate
from kamerton.data.filters import (
    REASONS,
    is_one_of,
    judge_clip,
    judge_dataset,
    judge_recognition,
    repeated_answers,
    unique_word_share,
    usual_range,
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
        ({"language": "ru", "language_prob": 0.9}, ["other_language"]),
        ({"language": "ru", "language_prob": 0.7}, ["unsure_language"]),
        ({"language_prob": 0.79}, ["unsure_language"]),
        ({"language_prob": 0.8}, []),
        ({"text": " Thanks for watching!"}, ["known_hallucination"]),
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
        ({"min_language_prob": 0.95}, {"language_prob": 0.9}),
        ({"hallucinations": ["one two three four five"]}, {}),
    ],
)
def test_each_limit_is_a_parameter(limit, changed):
    assert judge_recognition(answer(**changed), LIMITS, "en") == []
    assert judge_recognition(answer(**changed), TranscribeParams(**limit), "en") != []


@pytest.mark.parametrize(
    ("text", "phrases", "found"),
    [
        ("Thanks for watching!", ["thanks for watching"], True),
        ("Thanks, for WATCHING...", ["Thanks for watching."], True),
        ("Thanks for watching the birds.", ["thanks for watching"], False),
        ("Субтитры сделал DimaTorzok", LIMITS.hallucinations, True),
        ("Субтитры сделали этот фильм понятным", LIMITS.hallucinations, False),
        ("Продолжение следует…", LIMITS.hallucinations, True),
        ("subtitles by the crew", ["subtitles by *"], True),
        ("subtitles bygone", ["subtitles by *"], False),
        ("subtitles by", ["subtitles by *"], True),
        ("Café", ["CAFE"], True),
        ("", ["*", "", "..."], False),
        ("anything", ["*", ""], False),
    ],
)
def test_known_phrases_are_compared_as_a_whole(text, phrases, found):
    assert is_one_of(text, phrases) is found


@given(st.text(), st.text())
def test_any_texts_can_be_compared(text, phrase):
    alike = is_one_of(text, [phrase])
    assert alike <= is_one_of(f" {text} !", [phrase])


@pytest.mark.parametrize(("text", "share"), [("", 1.0), ("a b", 1.0), ("a A b b", 0.5)])
def test_different_words_are_counted_whatever_their_case(text, share):
    assert unique_word_share(text) == share


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


def test_a_text_that_a_person_corrected_is_no_matter_of_tempo():
    slow = Candidate("id", "a", 3.0, "sound", corrected=True)
    fast = Candidate("id", "a" * 99, 2.0, "sound", corrected=True)
    assert judge_clip(slow, DATASET) == judge_clip(fast, DATASET) == []
    assert judge_clip(Candidate("id", "", 0.1, "s", corrected=True), DATASET) == [
        "no_spoken_text",
        "too_short",
    ]
    usual = [candidate(n, text="a" * (20 + n % 5)) for n in range(30)]
    assert judge_dataset([*usual, fast], DatasetParams(reject_duplicates=False)) == {}


def test_what_is_usual_is_unknown_with_few_clips():
    assert usual_range([10.0] * 19, 3.0) == (-math.inf, math.inf)


def test_what_is_usual_are_the_widened_quartiles():
    assert usual_range([float(n) for n in range(21)], 1.5) == (5 - 15, 15 + 15)
    assert usual_range([5.0] * 20, 3.0, least_spread=1.0) == (2.0, 8.0)


def test_a_clip_far_from_the_usual_length_goes():
    """Quartiles of a minute of two-second prompts: one of twelve seconds is no such prompt."""
    params = DatasetParams(reject_duplicates=False)
    usual = [candidate(n, text="a" * 30, seconds=2.0 + 0.1 * (n % 3)) for n in range(30)]
    long = candidate(98, text="a" * 180, seconds=12.0)
    short = candidate(99, text="a" * 9, seconds=0.6)
    twice = candidate(97, text="a" * 60, seconds=3.9)
    assert judge_dataset([*usual, long, short, twice], params) == {
        "id98": (["length_outlier"], None),
        "id99": (["length_outlier"], None),
    }
    wide = DatasetParams(reject_duplicates=False, outlier_iqr=99.0)
    assert judge_dataset([*usual, long, short, twice], wide) == {}


def test_a_clip_far_from_the_usual_tempo_goes():
    usual = [candidate(n, text="a" * (20 + n % 5)) for n in range(30)]
    odd = candidate(99, text="a" * 45)
    out = judge_dataset([*usual, odd], DatasetParams(reject_duplicates=False))
    assert out == {"id99": (["tempo_outlier"], None)}
    assert (
        judge_dataset([*usual, odd], DatasetParams(reject_duplicates=False, outlier_iqr=99.0)) == {}
    )


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
