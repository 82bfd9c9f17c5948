import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.demo.score import (
    CutWord,
    merged,
    overlap_seconds,
    said_in,
    score_segmentation,
    score_transcripts,
)
from kamerton.demo.truth import SpokenWord, TrueSentence, read_truth, write_truth

RATE = 1000


def sentence(source: str, *words: tuple[str, float, float]) -> TrueSentence:
    spoken = tuple(SpokenWord(*word) for word in words)
    text = " ".join(word.word for word in spoken)
    return TrueSentence(source, spoken[0].start_seconds, spoken[-1].end_seconds, text, spoken)


def clip(name: str, source: str, start: float, end: float, status: str = "kept") -> dict:
    return {
        "id": name,
        "source": source,
        "start_sample": round(start * RATE),
        "end_sample": round(end * RATE),
        "sample_rate_hz": RATE,
        "status": status,
    }


def transcript(name: str, text: str, status: str = "kept") -> dict:
    return {"id": name, "text": text, "status": status}


TRUTH = [
    sentence("a.wav", ("small", 1.0, 1.5), ("river", 1.5, 2.0)),
    sentence("a.wav", ("green", 3.0, 3.4), ("horse", 3.6, 4.0)),
    sentence("b.wav", ("quiet", 0.5, 1.0), ("paper", 1.0, 1.5)),
]


def test_perfect_clips_keep_all_and_cut_nothing() -> None:
    clips = [clip("1", "a.wav", 0.9, 2.1), clip("2", "a.wav", 2.9, 4.1), clip("3", "b.wav", 0, 2)]
    score = score_segmentation(TRUTH, clips)
    assert score.speech_seconds == pytest.approx(1.0 + 0.8 + 1.0)  # the 0.2 s pause is not speech
    assert score.kept_share == pytest.approx(1.0)
    assert score.cut_words == ()
    assert score.borders == 6
    assert score.longest_seconds == pytest.approx(2.0)


def test_a_border_inside_a_word_is_named_and_between_words_is_not() -> None:
    clips = [clip("1", "a.wav", 0.9, 1.7), clip("2", "a.wav", 3.5, 4.2), clip("3", "a.wav", 1.5, 2)]
    score = score_segmentation(TRUTH, clips)
    assert score.cut_words == (CutWord("a.wav", "river", 1.7),)


def test_a_rejected_clip_keeps_nothing_and_its_borders_do_not_count() -> None:
    clips = [clip("1", "a.wav", 1.2, 2.0, "rejected"), clip("2", "b.wav", 0.5, 1.0)]
    score = score_segmentation(TRUTH, clips)
    assert score.kept_speech_seconds == pytest.approx(0.5)
    assert score.cut_words == ()
    assert (score.kept, score.rejected) == (1, 1)


def test_overlapping_clips_do_not_count_speech_twice() -> None:
    clips = [clip("1", "b.wav", 0.5, 1.5), clip("2", "b.wav", 0.4, 1.6)]
    assert score_segmentation(TRUTH, clips).kept_speech_seconds == pytest.approx(1.0)


def test_no_clips_at_all() -> None:
    score = score_segmentation(TRUTH, [])
    assert score.kept_share == 0.0
    assert score.longest_seconds == 0.0


def test_word_errors_are_counted_against_the_words_inside_each_clip() -> None:
    clips = [
        clip("1", "a.wav", 0.9, 2.1),
        clip("2", "a.wav", 2.9, 4.1),
        clip("3", "b.wav", 0.0, 1.0),  # holds the middle of "quiet" only
    ]
    heard = [
        transcript("1", "small river"),
        transcript("2", "Green house.", "rejected"),
        transcript("3", "quiet quiet"),
    ]
    score = score_transcripts(TRUTH, clips, heard)
    assert (score.words, score.kept_words) == (5, 3)
    assert score.wer == pytest.approx(2 / 5)
    assert score.kept_wer == pytest.approx(1 / 3)
    assert (score.clips, score.kept) == (3, 2)


def test_silence_transcribed_as_words_counts_against() -> None:
    clips = [clip("1", "a.wav", 0.0, 0.9), clip("2", "b.wav", 0, 2)]
    score = score_transcripts(TRUTH, clips, [transcript("1", "oh"), transcript("2", "quiet paper")])
    assert score.wer == pytest.approx(1 / 2)


def test_said_in_gives_every_word_to_exactly_one_of_two_adjoining_clips() -> None:
    words = TRUTH[0].words
    for edge in (0.5, 1.2, 1.25, 1.3, 1.5, 1.75, 2.5):
        both = [said_in(words, (0.0, edge)), said_in(words, (edge, 9.0))]
        assert " ".join(both).split() == ["small", "river"]


whole = st.integers(0, 60)
spans = st.lists(st.tuples(whole, whole), max_size=8)


@given(spans, spans)
def test_interval_arithmetic_equals_counting_cells(one: list, other: list) -> None:
    def cells(intervals: list) -> set[int]:
        return {cell for start, end in intervals for cell in range(start, end)}

    assert cells(merged(one)) == cells(one)
    assert overlap_seconds(merged(one), merged(other)) == len(cells(one) & cells(other))


def test_truth_survives_being_written(tmp_path) -> None:
    write_truth(tmp_path, TRUTH)
    assert read_truth(tmp_path) == TRUTH
