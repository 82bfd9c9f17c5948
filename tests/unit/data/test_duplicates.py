import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from kamerton.data.duplicates import (
    Candidate,
    find_duplicates,
    picture,
    same_recording,
    within_one_edit,
)

RATE_HZ = 22050


def candidate(number, text="a sentence of ordinary length", seconds=2.0, sound=None):
    return Candidate(f"id{number}", text, seconds, sound or f"sound{number}")


def never(one, other):
    return False


def test_equal_samples_and_equal_text_of_equal_length_are_found():
    clips = [
        candidate(0, text="one", seconds=2.0, sound="x"),
        candidate(1, text="other", seconds=3.0, sound="x"),
        candidate(2, text="one", seconds=2.05),
        candidate(3, text="one", seconds=2.2),
        candidate(4, text="one", seconds=2.15),
    ]
    assert find_duplicates(clips, never) == {
        "id1": ("same_sound", "id0"),
        "id2": ("same_text_and_length", "id0"),
        "id4": ("same_text_and_length", "id3"),
    }


def test_only_clips_alike_in_words_and_length_are_listened_to():
    clips = [
        candidate(0, "the red river runs"),
        candidate(1, "The red river, runs!"),  # the same words
        candidate(2, "the read river runs"),  # one letter more
        candidate(3, "the real river runs"),  # two letters
        candidate(4, "the red river runs", seconds=2.5),
        candidate(5, "something else"),
    ]
    asked = []

    def listen(one, other):
        asked.append((one, other))
        return False

    found = find_duplicates(clips, listen)
    assert found == {}
    assert asked == [("id1", "id0"), ("id2", "id0"), ("id2", "id1"), ("id3", "id2")]


def test_what_is_heard_again_is_named_before_what_is_read_again():
    clips = [candidate(0), candidate(1), candidate(2)]
    found = find_duplicates(clips, lambda one, other: one == "id1")
    assert found == {"id1": ("same_sound_again", "id0"), "id2": ("same_text_and_length", "id0")}


def naive_distance(one, other):
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        previous, row[0] = row[0], i
        for j, b in enumerate(other, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]


WORDS = st.text("ab ", max_size=6)


@given(WORDS, WORDS)
def test_one_edit_is_that_of_the_edit_distance(one, other):
    assert within_one_edit(one, other) == (naive_distance(one, other) <= 1)


@given(st.lists(st.text("ab", min_size=1, max_size=7), min_size=2, max_size=12))
def test_every_pair_one_edit_apart_is_asked_about(texts):
    clips = [candidate(n, text) for n, text in enumerate(texts)]
    asked = set()

    def listen(one, other):
        asked.add(frozenset((one, other)))
        return False

    dropped = find_duplicates(clips, listen)
    kept = [clip for clip in clips if clip.id not in dropped]
    expected = {
        frozenset((one.id, other.id))
        for n, one in enumerate(kept)
        for other in kept[:n]
        if naive_distance(one.text, other.text) <= 1
    }
    assert expected <= asked


def speech(seed, tempo=1.0, seconds=2.5):
    """Syllables of changing pitch and colour at their own times, like a sentence."""
    random = np.random.default_rng(seed)
    wave = np.zeros(round(seconds * RATE_HZ / tempo), np.float32)
    at = 0.1
    while at < seconds - 0.4:
        length = random.uniform(0.1, 0.25)
        time = np.arange(round(length * RATE_HZ)) / RATE_HZ
        first, second = random.uniform(300, 800), random.uniform(900, 2500)
        pitch = random.uniform(100, 160)
        tone = sum(
            np.exp(-(((h * pitch - f) / 200) ** 2)) * np.sin(2 * np.pi * h * pitch * time)
            for h in range(1, 25)
            for f in (first, second)
        )
        start = round(at / tempo * RATE_HZ)
        piece = (tone * np.hanning(len(time))).astype(np.float32)[: len(wave) - start]
        wave[start : start + len(piece)] += 0.1 * piece
        at += length + random.uniform(0.0, 0.12)
    return wave + (1e-4 * random.standard_normal(len(wave))).astype(np.float32)


def through(wave, container, subtype, **options):
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, RATE_HZ, format=container, subtype=subtype, **options)
    return soundfile.read(io.BytesIO(buffer.getvalue()), dtype="float32")[0]


def noisy(wave):
    noise = np.random.default_rng(1).standard_normal(len(wave)).astype(np.float32)
    return wave + 0.03 * float(np.sqrt(np.mean(wave**2))) * noise


EXPORTS = {
    "another level": lambda wave: 0.2 * wave,
    "later": lambda wave: np.pad(wave, (3333, 0)),
    "earlier": lambda wave: wave[2000:],
    "ogg": lambda wave: through(wave, "OGG", "VORBIS"),
    "mp3": lambda wave: through(wave, "MP3", "MPEG_LAYER_III"),
    "telephone": lambda wave: through(wave, "WAV", "ULAW"),
    "30 dB of noise": noisy,
    "all of it": lambda wave: np.pad(0.4 * through(wave, "OGG", "VORBIS"), (1500, 0)),
}


@pytest.mark.parametrize("export", EXPORTS.values(), ids=EXPORTS)
def test_one_recording_exported_twice_is_one_sound(export):
    wave = speech(1)
    assert same_recording(picture(wave, RATE_HZ), picture(export(wave), RATE_HZ))


@pytest.mark.parametrize("tempo", [0.97, 0.98, 1.02, 1.03])
def test_a_second_reading_is_another_sound(tempo):
    """As alike as can be: the same syllables, in another tempo."""
    assert not same_recording(picture(speech(1), RATE_HZ), picture(speech(1, tempo), RATE_HZ))


def test_other_speech_is_another_sound():
    assert not same_recording(picture(speech(1), RATE_HZ), picture(speech(2), RATE_HZ))


def test_silence_is_like_nothing():
    silence = picture(np.zeros(RATE_HZ, np.float32), RATE_HZ)
    assert not same_recording(silence, picture(speech(1), RATE_HZ))
    assert not same_recording(silence, silence)
