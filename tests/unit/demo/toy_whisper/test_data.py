import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from kamerton.audio.griffin_lim import griffin_lim
from kamerton.audio.mel import log_mel
from kamerton.demo import espeak
from kamerton.demo.toy_whisper import data, tokens
from kamerton.demo.vocabulary import WORDS

WORD_IDS = st.lists(st.integers(0, len(WORDS) - 1), min_size=1, max_size=8)


def sentence(ids: list[int], seed: int = 0) -> data.Sentence:
    mel = np.random.default_rng(seed).normal(-3.0, 1.0, (80, 40 * len(ids)))
    return data.Sentence(mel.astype(np.float16), tuple(ids))


NOISE = data.noise_strips(seed=0, seconds=12.0)
BANK = [sentence([1, 2, 3]), sentence([4, 5], seed=1), sentence([6, 7, 8, 9], seed=2)]


def test_the_input_is_exactly_whispers_own() -> None:
    from whisper.audio import log_mel_spectrogram

    wave = np.random.default_rng(0).normal(scale=0.1, size=32000).astype(np.float32)
    wave[8000:16000] *= 1e-4
    assert_allclose(
        data.normalised(data.power_mel(wave)), log_mel_spectrogram(wave).numpy(), atol=1e-5
    )


@given(WORD_IDS)
def test_words_survive_the_compact_vocabulary(ids: list[int]) -> None:
    assert tokens.encode(tokens.decode(ids)) == ids


def test_special_tokens_are_no_words() -> None:
    specials = [tokens.SOT, tokens.NO_SPEECH, tokens.NO_TIMESTAMPS, tokens.timestamp(3.0)]
    assert tokens.decode([*specials, 0, tokens.EOT]) == WORDS[0]
    with pytest.raises(KeyError):
        tokens.encode("xylophone")


def test_tokens_of_the_full_vocabulary_are_different_and_inside_it() -> None:
    ids = tokens.full_ids()
    assert len(ids) == len(set(ids)) == tokens.COMPACT_SIZE
    assert max(ids) == tokens.FULL_SIZE - 1


def test_copy_synthesis_of_a_mel_and_its_degradation_stay_close_but_not_equal() -> None:
    wave = np.sin(np.arange(22050) * 0.06).astype(np.float32) * np.hanning(22050).astype("f")
    mel = log_mel(wave, data.AUDIO)
    rough = data.degraded(mel, np.random.default_rng(3))
    assert rough.shape[0] == 80
    assert 0.84 * mel.shape[1] <= rough.shape[1] <= 1.26 * mel.shape[1]
    assert abs(float(rough.max() - mel.max())) < 2.0
    loudest = np.abs(int(rough.mean(axis=1).argmax()) - int(mel.mean(axis=1).argmax()))
    assert loudest <= 2
    assert len(griffin_lim(rough, data.AUDIO, iterations=2)) == (rough.shape[1] - 1) * 256


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), most=st.integers(1, 3), frames=st.sampled_from([None, 600]))
def test_batches_say_what_they_hold(seed: int, most: int, frames: int | None) -> None:
    batch = data.Batches(BANK, seed=seed, noise=NOISE).draw(6, most_sentences=most, frames=frames)
    size, channels, width = batch.mel.shape
    assert (size, channels) == (6, 80)
    assert width % 2 == 0
    assert frames is None or width == frames
    assert np.isfinite(batch.mel).all()
    assert batch.text.shape == batch.target.shape
    assert (batch.text[:, 0] == tokens.SOT).all()
    for text, target, words, count in zip(
        batch.text, batch.target, batch.words, batch.word_counts, strict=True
    ):
        wanted = [t for t in target if t != -100]
        assert wanted[-1] == tokens.EOT
        spoken = [int(t) for t in wanted if t < len(WORDS)]
        assert [w - 1 for w in words[:count]] == spoken  # 0 is CTC's blank
        if not spoken:
            assert target[0] == tokens.NO_SPEECH
        elif text[1] == tokens.NO_TIMESTAMPS:
            assert target[0] == -100
            assert [int(t) for t in text[2 : 2 + len(spoken)]] == spoken
        else:
            start, end = wanted[0], wanted[-2]
            assert tokens.FIRST_TIMESTAMP <= start < end
            assert text[1] == start


def test_timestamps_are_when_the_speech_is() -> None:
    """The loudest stretch of the mel lies between the two times, to a tenth of a second."""
    loud = [data.Sentence(np.full((80, 100), 3.0, dtype=np.float16), (1, 2))]
    batches = data.Batches(loud, seed=5, noise=NOISE)
    checked = 0
    for _ in range(20):
        batch = batches.draw(4)
        for mel, text in zip(batch.mel, batch.text, strict=True):
            if text[1] < tokens.FIRST_TIMESTAMP or 1 not in text:
                continue
            times = [(t - tokens.FIRST_TIMESTAMP) * 0.02 for t in text if t > tokens.EOT + 3]
            high = np.flatnonzero(mel.mean(axis=0) > mel.mean(axis=0).max() - 0.1) / 100
            assert abs(high[0] - times[0]) < 0.06
            assert abs(high[-1] + 0.01 - times[1]) < 0.06
            checked += 1
    assert checked > 20


def test_the_same_seed_draws_the_same_batches() -> None:
    one, other = (data.Batches(BANK, seed=3, noise=NOISE).draw(4) for _ in range(2))
    assert_allclose(one.mel, other.mel)
    assert (one.text == other.text).all()


def test_the_bank_has_originals_and_resyntheses_of_what_was_read() -> None:
    pytest.importorskip("espeakng_loader")
    bank = data.sentence_bank(2, seed=1)
    assert len(bank) == 6
    assert bank[0].words == bank[1].words != bank[2].words
    assert bank[0].mel.shape[0] == 80
    assert bank[0].mel.dtype == np.float16
    read = data.read_sentences(4, seed=1, part="training")
    assert [tuple(tokens.encode(text)) for text, _ in read[::2]] == [bank[0].words, bank[3].words]


def test_held_out_sentences_are_the_corpus_voice_and_not_the_training_part() -> None:
    pytest.importorskip("espeakng_loader")
    from kamerton.demo.vocabulary import part_of

    held = list(data.held_out(5, seed=1))
    assert {part_of(text) for text, _ in held} == {"corpus"}
    assert all(len(wave) > espeak.SAMPLE_RATE_HZ for _, wave in held)
