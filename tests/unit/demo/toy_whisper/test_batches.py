import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from kamerton.demo.toy_whisper import tokens
from kamerton.demo.toy_whisper.batches import Batch, Batches
from kamerton.demo.toy_whisper.data import Sentence, noise_strips
from kamerton.demo.vocabulary import WORDS

NOISE = noise_strips(seed=0, seconds=22.0)


def sentence(ids: list[int], seed: int = 0) -> Sentence:
    mel = np.random.default_rng(seed).normal(-3.0, 1.0, (80, 40 * len(ids)))
    return Sentence(mel.astype(np.float16), tuple(ids))


BANK = [sentence([1, 2, 3]), sentence([4, 5], seed=1), sentence([6, 7, 8, 9], seed=2)]
LOUD = [Sentence(np.full((80, 100), 3.0, dtype=np.float16), (1, 2))]


def drawn(seed: int, *, packed: bool, frames: int | None, bank: list[Sentence] = BANK) -> Batch:
    batches = Batches(bank, seed=seed, noise=NOISE)
    if packed:
        return batches.packed(4, shortest=6.0, longest=20.0, frames=frames)
    return batches.alone(6, sentences=3, frames=frames)


def paragraphs(text: list[int]) -> list[tuple[float, float, list[int]]]:
    """(start, end, words) of a text with timestamps, which must alternate as Whisper's do."""
    found: list[tuple[float, float, list[int]]] = []
    start: float | None = None
    words: list[int] = []
    for token in text:
        if token < tokens.EOT:
            assert start is not None
            words.append(token)
        elif start is None:
            start = tokens.seconds_of(token)
        else:
            assert words
            found.append((start, tokens.seconds_of(token), words))
            start, words = None, []
    assert start is None
    return found


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), packed=st.booleans(), frames=st.sampled_from([None, 3000]))
def test_batches_say_what_they_hold(seed: int, packed: bool, frames: int | None) -> None:
    batch = drawn(seed, packed=packed, frames=frames)
    size, channels, width = batch.mel.shape
    assert channels == 80
    assert width % 2 == 0
    assert width == frames or (frames is None and width <= 3000)
    assert np.isfinite(batch.mel).all()
    assert batch.text.shape == batch.target.shape == batch.heard.shape[:2]
    assert (batch.text[:, 0] == tokens.SOT).all()
    assert (batch.places >= 0).all()
    assert (batch.places + width // 2 <= 1500).all()
    for row in range(size):
        text, target = batch.text[row], batch.target[row]
        wanted = [int(t) for t in target if t != -100]
        assert wanted[-1] == tokens.EOT
        spoken = [t for t in wanted if t < len(WORDS)]
        assert [w - 1 for w in batch.words[row, : batch.word_counts[row]]] == spoken
        if not spoken:
            assert target[0] == tokens.NO_SPEECH
        elif text[1] == tokens.NO_TIMESTAMPS:
            assert not packed
            assert target[0] == -100
            assert [int(t) for t in text[2 : 2 + len(spoken)]] == spoken
        else:
            said = paragraphs(wanted[:-1])
            edges = [time for start, end, _ in said for time in (start, end)]
            assert edges == sorted(edges)
            assert [word for _, _, words in said for word in words] == spoken
            assert [int(t) for t in text[1 : len(wanted)]] == wanted[:-1]


@pytest.mark.parametrize("packed", [False, True])
def test_times_and_guides_are_where_the_sound_is(packed) -> None:
    """Every second of loud sound lies between two times, counted from the window's start."""
    checked = 0
    for seed in range(12):
        batch = drawn(seed, packed=packed, frames=None, bank=LOUD)
        for row in range(len(batch.text)):
            target = [int(t) for t in batch.target[row]]
            if target[0] < tokens.FIRST_TIMESTAMP:
                continue
            level = batch.mel[row].mean(axis=0)
            loud = np.flatnonzero(np.diff(np.r_[0, level > level.max() - 0.2, 0]))
            place = batch.places[row] / 50
            said = paragraphs(target[: target.index(tokens.EOT)])
            assert len(said) == len(loud) // 2
            times = [time for start, end, _ in said for time in (start, end)]
            assert_allclose(times, place + loud / 100, atol=0.071)
            at = [i for i, token in enumerate(target) if token >= tokens.FIRST_TIMESTAMP]
            assert_allclose(batch.heard[row, at].mean(axis=1) / 50, loud / 100, atol=0.06)
            checked += len(said)
    assert checked > 20


def test_guides_of_words_follow_each_other_inside_their_sentence() -> None:
    batch = drawn(3, packed=True, frames=None)
    for target, heard in zip(batch.target, batch.heard, strict=True):
        words = heard[(target >= 0) & (target < tokens.EOT)]
        assert (words[:, 1] > words[:, 0]).all()
        assert (np.diff(words[:, 0]) > 0).all()
    assert (batch.heard[batch.target == tokens.EOT] == -1).all()


def test_packed_windows_hold_several_clips_and_digital_silence_between_them() -> None:
    batches = Batches(LOUD, seed=1, noise=NOISE)
    windows, said = batches.examination(6)
    assert windows.mel.shape == (6, 80, 3000)
    assert (windows.places == 0).all()
    for picture, sentences in zip(windows.mel, said, strict=True):
        if not sentences:
            continue
        assert len(sentences) > 8
        for one, other in itertools.pairwise(sentences):
            assert one.end < other.start
        # eight powers of ten below the loudest point, in Whisper's scale
        assert picture.min() == pytest.approx(min(0.0, picture.max() - 2.0), abs=1e-4)


@pytest.mark.parametrize("packed", [False, True])
def test_the_same_seed_draws_the_same_batches(packed) -> None:
    one, other = (drawn(3, packed=packed, frames=None) for _ in range(2))
    assert_allclose(one.mel, other.mel)
    assert (one.text == other.text).all()
