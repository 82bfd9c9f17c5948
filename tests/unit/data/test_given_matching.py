"""Which given text belongs to which clip."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.data.given_texts import NOTES, PROBLEMS, GivenText, align_given, match_given
from kamerton.data.tables import Clip

RATE_HZ = 1000


def clip(start, end, *, name=None, source="a.wav", reasons=()):
    known = {
        "id": name or f"{source}-{start}",
        "source": source,
        "start_sample": round(start * RATE_HZ),
        "end_sample": round(end * RATE_HZ),
        "sample_rate_hz": RATE_HZ,
        "duration_seconds": end - start,
        "status": "rejected" if reasons else "kept",
        "reasons": tuple(reasons),
    }
    return Clip(**{field.name: None for field in fields(Clip)} | known)


def correction(text, *, name=None, source=None, at=(None, None), where="corrections.csv:2"):
    return GivenText("correction", source, name, *at, text, where)


def cue(start, end, text, source="a.wav"):
    return GivenText("subtitle", source, None, start, end, text, f"a.srt:{start}")


def whole(text, source="a.wav", kind="text"):
    return GivenText(kind, source, None, None, None, text, f"{source}.txt")


def found(matched):
    assert all(note in NOTES for note in matched.notes.values())
    assert all(problem.reason in PROBLEMS for problem in matched.problems)
    return {key: value.text for key, value in matched.by_clip.items()}


# --- corrections


def test_a_correction_fits_by_id_or_by_time():
    clips = [clip(0, 2, name="one"), clip(3, 5, name="two"), clip(6, 8, name="three")]
    texts = [
        correction("1", name="one", source="a.wav", at=(3.0, 5.0)),
        correction("2", name="gone", source="a.wav", at=(3.1, 5.05)),
        correction("", source="a.wav", at=(6.0, 8.0)),
    ]
    matched = match_given(texts, clips)
    assert found(matched) == {"one": "1", "two": "2", "three": ""}
    assert not matched.problems
    assert {text.origin for text in matched.by_clip.values()} == {"corrected"}


@pytest.mark.parametrize("at", [(0.0, 1.7), (0.0, 2.5), (2.0, 4.0), (None, None)])
def test_a_correction_of_nothing_is_told(at):
    text = correction("1", name="gone" if at[0] is None else None, source="a.wav", at=at)
    matched = match_given([text], [clip(0, 2)])
    assert not matched.by_clip
    assert [(p.where, p.reason) for p in matched.problems] == [
        ("corrections.csv:2", "correction_unused")
    ]


def test_a_correction_fits_the_recording_it_names():
    clips = [clip(0, 2, source="a.wav"), clip(0, 2, source="b.wav")]
    assert found(match_given([correction("x", source="b.wav", at=(0, 2))], clips)) == {
        "b.wav-0": "x"
    }


def test_two_corrections_cancel_each_other_unless_they_agree():
    clips = [clip(0, 2, name="one"), clip(3, 5, name="two")]
    texts = [
        correction("yes", name="one", where="corrections.csv:2"),
        correction("no", source="a.wav", at=(0.0, 2.0), where="b/corrections.csv:7"),
        correction("same", name="two"),
        correction("same", source="a.wav", at=(3.0, 5.0)),
    ]
    matched = match_given(texts, clips)
    assert found(matched) == {"two": "same"}
    (problem,) = matched.problems
    assert problem.reason == "contradiction"
    assert "corrections.csv:2" in str(problem)
    assert "b/corrections.csv:7" in str(problem)


def test_a_clip_that_was_never_written_cannot_be_corrected():
    clips = [clip(0, 2, name="one", reasons=["too_short"])]
    matched = match_given([correction("x", name="one")], clips)
    assert [problem.reason for problem in matched.problems] == ["correction_of_rejected"]
    assert "too_short" in str(matched.problems[0])
    assert not match_given([correction("", name="one")], clips).problems


def test_a_correction_goes_before_everything():
    clips = [clip(0, 2, name="one")]
    texts = [whole("text"), cue(0, 2, "cue"), correction("word", name="one")]
    matched = match_given(texts, clips)
    assert found(matched) == {"one": "word"}
    assert not matched.to_align


# --- subtitles


def test_a_clip_gets_the_cues_that_lie_in_it():
    clips = [clip(1, 5), clip(6, 9)]
    cues = [cue(7.5, 10, "four"), cue(0.8, 2, "one"), cue(2, 5.3, "two"), cue(5.9, 7.5, "three")]
    matched = match_given(cues, clips)
    assert found(matched) == {"a.wav-1": "one two", "a.wav-6": "three four"}
    assert matched.by_clip["a.wav-1"].origin == "given"
    assert matched.by_clip["a.wav-1"].where == "a.srt:0.8"


def test_a_cue_that_is_cut_leaves_both_clips_to_the_recogniser():
    clips = [clip(0, 3), clip(3.5, 6), clip(7, 9)]
    matched = match_given([cue(0, 2, "a"), cue(2, 5, "b"), cue(5, 6, "c"), cue(7, 9, "d")], clips)
    assert found(matched) == {"a.wav-7": "d"}
    assert matched.notes == {"a.wav-0": "cut_through_cue", "a.wav-3.5": "cut_through_cue"}


def test_a_long_cue_may_not_lend_a_second_to_the_next_clip():
    clips = [clip(0, 8), clip(8, 10)]
    matched = match_given([cue(0, 8.9, "long"), cue(8.9, 10, "short")], clips)
    assert not matched.by_clip
    assert set(matched.notes.values()) == {"cut_through_cue"}


def test_subtitles_stay_on_after_the_last_word():
    assert found(match_given([cue(0, 4, "x")], [clip(0.2, 2)])) == {"a.wav-0.2": "x"}


def test_a_cue_of_something_else_is_not_taken_for_the_edge_of_a_clip():
    matched = match_given([cue(0, 2, "not heard"), cue(2, 4, "x")], [clip(1.9, 4)])
    assert found(matched) == {"a.wav-1.9": "x"}


def test_cues_that_cover_half_a_clip_are_not_its_text():
    matched = match_given([cue(0, 2, "x"), cue(0, 1, "y")], [clip(0, 4), clip(5, 9)])
    assert not matched.by_clip
    assert matched.notes == {"a.wav-0": "cues_cover_part"}


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30)), max_size=8), st.data())
def test_no_cue_is_told_twice_and_their_order_stays(pieces, data):
    clips, at = [], 0.0
    for gap, length in pieces:
        start = at + gap / 10
        at = start + length / 10
        clips.append(clip(start, at, name=str(len(clips))))
    spans = data.draw(
        st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), unique=True, max_size=10)
    )
    cues = [cue(a / 10, (a + b) / 10, f"w{n}") for n, (a, b) in enumerate(spans)]
    matched = match_given(cues, clips)
    told = [word for c in clips if c.id in matched.by_clip for word in found(matched)[c.id].split()]
    order = sorted(cues, key=lambda text: (text.start_seconds, text.end_seconds))
    assert len(told) == len(set(told))
    assert told == [text.text for text in order if text.text in told]
    assert not set(matched.notes) & set(matched.by_clip)
    for c in clips:
        low, high = c.start_sample / RATE_HZ, c.end_sample / RATE_HZ
        for text in cues:
            if c.id in matched.by_clip and text.text not in found(matched)[c.id].split():
                shared = min(high, text.end_seconds) - max(low, text.start_seconds)
                assert shared <= 0.5 + 1e-6


# --- texts of whole recordings


def test_the_only_clip_has_the_whole_text():
    clips = [clip(0, 9), clip(9.5, 9.8, reasons=["too_short"])]
    matched = match_given([whole("All of it.")], clips)
    assert found(matched) == {"a.wav-0": "All of it."}
    assert not matched.to_align


@pytest.mark.parametrize("other", [clip(6, 9), clip(6, 9, reasons=["forced_cut"])])
def test_several_clips_share_the_text(other):
    matched = match_given([whole("All of it.")], [clip(0, 5), other])
    assert not matched.by_clip
    assert list(matched.to_align) == ["a.wav"]


def test_a_text_file_goes_before_metadata_and_metadata_may_not_contradict_itself():
    clips = [clip(0, 5), clip(0, 5, source="b.wav")]
    texts = [
        whole("meta", kind="metadata"),
        whole("text"),
        whole("x", source="b.wav", kind="metadata"),
        whole("y", source="b.wav", kind="metadata"),
    ]
    matched = match_given(texts, clips)
    assert found(matched) == {"a.wav-0": "text"}
    assert [problem.reason for problem in matched.problems] == ["contradiction"]


def test_a_text_is_shared_out_over_clips():
    clips = [
        clip(6, 9, name="c"),
        clip(0, 3, name="a"),
        clip(3.5, 4, name="b", reasons=["too_short"]),
        clip(10, 12, name="d"),
    ]
    text = whole("The quick brown fox. Yes! It jumps over the lazy dog, and sleeps.")
    heard = {"a": "the quick brown fogs", "c": "it jumps over lazy dog", "d": "what is this"}
    given, notes = align_given({"a.wav": text}, clips, heard)
    assert {key: value.text for key, value in given.items()} == {
        "a": "The quick brown fox.",
        "c": "It jumps over the lazy dog,",
    }
    assert notes == {"d": "text_disagrees"}
    assert {value.kind for value in given.values()} == {"text"}


# --- several files of subtitles


def told(file, *texts):
    return [
        GivenText("subtitle", "a.wav", None, 2.0 * at, 2.0 * at + 2, text, f"{file}:{at}")
        for at, text in enumerate(texts)
    ]


@pytest.mark.parametrize(
    ("files", "language", "text"),
    [
        ({"a.en.srt": "hello", "a.de.srt": "hallo"}, "en", "hello"),
        ({"a.de.srt": "hallo", "a.en-GB.vtt": "hello"}, "en", "hello"),
        ({"a.srt": "hello", "a.vtt": "hello"}, "en", "hello"),
        ({"a.srt": "hi", "a.vtt": "hello"}, "en", None),
        ({"a.en.srt": "hello", "a.de.srt": "hallo"}, "fr", None),
        ({"a.en.srt": "hello", "a.de.srt": "hallo"}, None, None),
        ({"a.de.srt": "hallo"}, "en", "hallo"),
    ],
)
def test_one_file_of_subtitles_is_taken_or_none(files, language, text):
    texts = [cue for file, said in files.items() for cue in told(file, said, "and more")]
    matched = match_given(texts, [clip(0, 4)], language)
    assert list(found(matched).values()) == ([] if text is None else [f"{text} and more"])
    assert [problem.reason for problem in matched.problems] == (
        ["contradiction"] if text is None else []
    )
