import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from kamerton.audio.griffin_lim import griffin_lim
from kamerton.audio.mel import log_mel
from kamerton.demo import espeak
from kamerton.demo.toy_whisper import data, tokens
from kamerton.demo.vocabulary import WORDS

WORD_IDS = st.lists(st.integers(0, len(WORDS) - 1), min_size=1, max_size=8)


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


@given(st.floats(0.0, 30.0))
def test_times_are_kept_to_a_tenth_of_a_second(seconds: float) -> None:
    token = tokens.timestamp(seconds)
    assert tokens.FIRST_TIMESTAMP <= token < tokens.COMPACT_SIZE
    assert abs(tokens.seconds_of(token) - seconds) <= 0.05 + 1e-9


def test_a_time_is_whispers_token_for_that_time() -> None:
    tokenizer = pytest.importorskip("whisper.tokenizer").get_tokenizer(multilingual=False)
    ids = tokens.full_ids()
    for seconds in (0.0, 0.1, 7.3, 30.0):
        full = ids[tokens.timestamp(seconds)]
        assert tokenizer.decode_with_timestamps([full]) == f"<|{seconds:.2f}|>"


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
