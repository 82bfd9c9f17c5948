import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kamerton.core.cache import WorkCache
from kamerton.data import listening
from kamerton.data.listening import Listener, Sound, find_language, listen
from kamerton.data.transcription import ListeningIdentity
from kamerton.data.windows import FULL_SECONDS, pack
from tests.fake_ear import FakeEar, coded, sounds, words

SIX = [5.0, 4.0, 5.0, 5.0, 4.0, 3.0]  # one window
TWELVE = [*SIX, *SIX]
IDENTITY = ListeningIdentity("whisper", "tiny", ("whisper 1",), "cpu", 1, (0.0, 0.2))


def listener(ear, cache=None, **identity):
    made_by = dataclasses.replace(IDENTITY, **identity)
    return Listener(lambda: ear, lambda: made_by, cache)


def never():
    raise AssertionError("the recogniser was loaded")


def listen_to(ear, seconds, **options):
    return listen(sounds(seconds), listener(ear), "en", **options)


def test_clips_are_heard_together_and_answered_each():
    ear = FakeEar()
    heard = listen_to(ear, SIX)
    assert [heard.answers[at].text for at in range(6)] == [
        words(at, length) for at, length in enumerate(SIX)
    ]
    assert (ear.windows, ear.clips, heard.windows) == ([(0, 1, 2, 3, 4, 5)], [], 1)
    assert {(a.way, a.redo, a.language, a.temperature) for a in heard.answers.values()} == {
        ("packed", None, "en", 0.0)
    }
    assert heard.answers[0].avg_logprob == pytest.approx(-0.2)
    assert heard.answers[0].no_speech_prob == 0.05


def test_one_window_for_each_clip_when_packing_is_off():
    ear = FakeEar()
    heard = listen_to(ear, SIX, packed=False)
    assert (ear.windows, ear.clips, heard.windows) == ([], list(range(6)), 0)
    assert {(a.way, a.redo) for a in heard.answers.values()} == {("alone", None)}


def merging(texts):
    """A decoder that writes the second and third clip of full windows as one text."""
    if len(texts) < 4:
        return texts
    both = dataclasses.replace(texts[1][1], end_seconds=texts[2][1].end_seconds)
    return [texts[0], (1, both), *texts[3:]]


def test_what_straddles_a_join_gets_another_window():
    ear = FakeEar(merging)
    heard = listen_to(ear, SIX)
    assert ear.windows == [(0, 1, 2, 3, 4, 5), (1, 2)]
    assert (ear.clips, heard.windows) == ([], 2)
    assert [heard.answers[at].redo for at in range(3)] == [None, "straddles", "straddles"]
    assert heard.answers[1].way == "packed"


def test_former_neighbours_are_set_apart():
    ear = FakeEar(merging)
    listen_to(ear, [9.0, 5.0, 4.0, 3.0, 9.0, 5.0, 4.0, 3.0])
    first, second, third = ear.windows
    assert len(first) == len(second) == 4
    assert third == (first[1], second[1], first[2], second[2])


def test_what_fails_twice_is_heard_alone():
    ear = FakeEar(lambda texts: [item for item in texts if item[0] not in (1, 2)])
    heard = listen_to(ear, SIX)
    assert ear.windows == [(0, 1, 2, 3, 4, 5), (1, 2)]
    assert ear.clips == [1, 2]
    assert heard.answers[1].way == "alone"
    assert heard.answers[1].redo == "not_reached"
    assert heard.answers[1].text == words(1, 4.0)


def test_an_unsure_clip_goes_straight_to_the_ladder():
    def unsure(texts):
        return [
            (n, dataclasses.replace(text, logprobs=(-2.0,)) if n in (1, 2) else text)
            for n, text in texts
        ]

    ear = FakeEar(unsure)
    assert listen_to(ear, SIX).answers[1].redo == "unsure"
    assert (len(ear.windows), ear.clips) == (1, [1, 2])


def test_words_of_a_neighbour_show_in_the_tempo():
    """One text too long for its clip, and within every other limit."""

    def swallow(texts):
        return [
            (n, dataclasses.replace(text, text=f"{text.text} {text.text[:-8]} again"))
            if n == 3
            else (n, text)
            for n, text in texts
        ]

    ear = FakeEar(swallow)
    heard = listen_to(ear, TWELVE)
    assert ear.clips[-1] == 3
    assert heard.answers[3].redo == "odd_tempo"
    assert heard.answers[3].text == words(3, 5.0)
    assert len(heard.answers) == 12


def test_a_decoder_that_stops_early_gets_a_second_window_first():
    ear = FakeEar(lambda texts: texts[:3])
    heard = listen_to(ear, SIX)
    assert ear.windows == [(0, 1, 2, 3, 4, 5), (3, 4, 5)]
    assert (ear.clips, heard.windows) == ([], 2)
    assert {answer.way for answer in heard.answers.values()} == {"packed"}
    assert [heard.answers[at].redo for at in range(6)] == [None] * 3 + ["not_reached"] * 3


def test_a_decoder_that_says_nothing_is_not_asked_the_same_again():
    ear = FakeEar(lambda _texts: [])
    heard = listen_to(ear, SIX)
    assert (len(ear.windows), ear.clips) == (1, list(range(6)))
    assert {answer.redo for answer in heard.answers.values()} == {"not_reached"}


def test_a_window_longer_than_the_table_says_is_heard_clip_by_clip():
    ear = FakeEar()
    lying = [Sound(s.key, 5.0, lambda n=n: coded(n, 8.0)) for n, s in enumerate(sounds([5.0] * 5))]
    heard = listen(lying, listener(ear), "en")
    assert (ear.windows, ear.clips) == ([], list(range(5)))
    assert len(heard.answers) == 5


def test_nothing_to_hear_loads_nothing():
    silent = Listener(never, never)
    assert listen([], silent, "en").answers == {}
    assert listen(sounds(SIX), silent, "en", needed=[]).answers == {}


def test_progress_counts_the_seconds_of_every_needed_clip_once():
    seen = []
    listen_to(FakeEar(lambda texts: texts[:1]), TWELVE, on_heard=seen.append)
    assert sorted(seen) == sorted(TWELVE)


@pytest.mark.parametrize(("at_once", "batches"), [(1, [1, 1, 1]), (2, [2, 1]), (8, [3])])
def test_windows_go_together_to_a_gpu(at_once, batches):
    ear = FakeEar(windows_at_once=at_once)
    answers = listen_to(ear, [5.0] * 15).answers
    assert ear.batches == batches
    assert answers == listen_to(FakeEar(), [5.0] * 15).answers


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_the_decoder_says_every_needed_clip_is_answered(data):
    seconds = data.draw(st.lists(st.sampled_from([1.0, 3.0, 8.0, 29.0, 30.0]), max_size=10))
    needed = data.draw(st.sets(st.integers(0, max(0, len(seconds) - 1)))) if seconds else set()
    lost = data.draw(st.sets(st.integers(0, 10)))
    ear = FakeEar(lambda texts: [item for item in texts if item[0] not in lost])
    heard = listen_to(ear, seconds, needed=needed)
    assert set(heard.answers) == needed
    assert len(set(ear.clips)) == len(ear.clips), "no clip is heard alone twice"
    for at, answer in heard.answers.items():
        assert answer.text == words(at, seconds[at])
        assert (answer.way == "packed") is (at not in ear.clips)


def test_what_was_heard_is_not_heard_again(tmp_path):
    cache = WorkCache(tmp_path)
    ear = FakeEar(lambda texts: texts[:3])
    first = listen(sounds(TWELVE), listener(ear, cache), "en")
    again = listen(sounds(TWELVE), Listener(never, lambda: IDENTITY, cache), "en")
    assert again == first


def test_a_killed_run_loses_at_most_one_window(tmp_path):
    cache = WorkCache(tmp_path)
    ear = FakeEar()

    def killed(texts):
        if len(ear.windows) == 3:
            raise KeyboardInterrupt
        return texts

    ear.spoil = killed
    with pytest.raises(KeyboardInterrupt):
        listen(sounds([5.0] * 20), listener(ear, cache), "en")
    rest = FakeEar()
    listen(sounds([5.0] * 20), listener(rest, cache), "en")
    assert len(rest.windows) == 2


def test_a_correction_by_hand_costs_no_hearing(tmp_path):
    cache = WorkCache(tmp_path)
    before = listen(sounds(TWELVE), listener(FakeEar(), cache), "en")
    needed = sorted(set(range(12)) - {3, 7})
    after = listen(sounds(TWELVE), Listener(never, lambda: IDENTITY, cache), "en", needed=needed)
    assert after.answers == {at: before.answers[at] for at in needed}


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "base"},
        {"beam_size": 2},
        {"temperatures": (0.0,)},
        {"backend": "faster-whisper"},
        {"device": "gpu"},
        {"packages": ("whisper 2",)},
    ],
)
def test_what_changes_the_answer_is_part_of_the_key(tmp_path, changed):
    cache = WorkCache(tmp_path)
    listen(sounds(SIX), listener(FakeEar(), cache), "en")
    ear = FakeEar()
    listen(sounds(SIX), listener(ear, cache, **changed), "en")
    assert len(ear.windows) == 1


def test_another_language_or_another_code_is_heard_anew(tmp_path, monkeypatch):
    cache = WorkCache(tmp_path)
    listen(sounds(SIX), listener(FakeEar(), cache), "en")
    ear = FakeEar()
    listen(sounds(SIX), listener(ear, cache), "ru")
    monkeypatch.setattr(listening, "code_digest", lambda _parts: "other")
    listen(sounds(SIX), listener(ear, cache), "en")
    assert len(ear.windows) == 2


def test_a_damaged_entry_is_made_again(tmp_path):
    cache = WorkCache(tmp_path)
    before = listen(sounds(SIX), listener(FakeEar(), cache), "en")
    (entry,) = tmp_path.rglob("answer.json")
    entry.write_text("{")
    ear = FakeEar()
    assert listen(sounds(SIX), listener(ear, cache), "en") == before
    assert len(ear.windows) == 1
    assert listen(sounds(SIX), Listener(never, lambda: IDENTITY, cache), "en") == before


def test_the_key_names_every_source_that_makes_an_answer():
    """A part that is misspelt would be no part of the digest."""
    digests = {listening.code_digest([part]) for part in listening.LISTENING_CODE}
    assert len(digests) == len(listening.LISTENING_CODE)
    assert listening.code_digest(["no such package"]) not in digests


def test_the_language_is_the_mean_of_three_windows():
    ear = FakeEar(languages=[{"en": 0.9, "de": 0.1}, {"en": 0.3, "de": 0.7}, {"de": 0.9}])
    language, probability = find_language(sounds([14.0] * 10), listener(ear))
    assert language == "de"
    assert probability == pytest.approx((0.1 + 0.7 + 0.9) / 3, abs=1e-5)
    assert len(ear.asked) == 3
    assert all(len(numbers) == 2 for numbers in ear.asked)


def test_a_short_recording_has_fewer_windows_and_is_asked_once(tmp_path):
    ear = FakeEar(languages=[{"en": 0.75, "ru": 0.25}])
    cache = WorkCache(tmp_path)
    assert find_language(sounds([2.0]), listener(ear, cache)) == ("en", 0.75)
    assert find_language(sounds([2.0]), listener(ear, cache)) == ("en", 0.75)
    assert ear.asked == [(0,)]


def test_five_second_clips_need_a_fifth_of_the_windows():
    ear = FakeEar()
    assert listen_to(ear, [5.0] * 50).windows == 10
    assert pack([5.0] * 50) == [tuple(range(at, at + 5)) for at in range(0, 50, 5)]
    assert FULL_SECONDS >= 5 * 5.0 + 4 * 0.5


@pytest.mark.parametrize("content", ["[]", "{}", "3", '{"texts": 5, "places": 1}'])
def test_an_entry_of_another_shape_is_made_again(tmp_path, content):
    cache = WorkCache(tmp_path)
    once = [*SIX, 25.0]  # one window and one clip alone
    before = listen(sounds(once), listener(FakeEar(), cache), "en")
    entries = list(tmp_path.rglob("answer.json"))
    assert len(entries) == 2
    for entry in entries:
        entry.write_text(content)
    assert listen(sounds(once), listener(FakeEar(), cache), "en") == before
    assert listen(sounds(once), Listener(never, lambda: IDENTITY, cache), "en") == before


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_an_answer_does_not_depend_on_which_others_are_needed(data):
    lengths = data.draw(
        st.lists(st.sampled_from([2.0, 4.0, 5.0, 9.0, 25.0]), min_size=9, max_size=24)
    )
    merged = data.draw(st.sets(st.integers(0, len(lengths) - 1)))
    longer = data.draw(st.dictionaries(st.integers(0, len(lengths) - 1), st.integers(1, 3)))

    def spoil(texts):
        made = []
        for n, text in texts:
            said = " ".join([text.text] * longer.get(n, 1))
            end = text.end_seconds + 1.0 * (n in merged and len(texts) > 2)
            made.append((n, dataclasses.replace(text, text=said, end_seconds=end)))
        return made

    needed = data.draw(st.sets(st.integers(0, len(lengths) - 1)))
    everything = listen_to(FakeEar(spoil), lengths).answers
    some = listen_to(FakeEar(spoil), lengths, needed=needed).answers
    assert some == {at: everything[at] for at in needed}
