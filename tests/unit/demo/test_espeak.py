import numpy as np
import pytest
from numpy.testing import assert_array_equal

from kamerton.core.errors import PipelineError, ToolMissingError
from kamerton.demo import espeak
from kamerton.demo.espeak import SAMPLE_RATE_HZ, Utterance, phonemes, speak_all

pytest.importorskip("espeakng_loader")

TEXT = "every green captain slowly follows another horse"


@pytest.fixture(scope="module")
def spoken() -> list[espeak.Speech]:
    return speak_all(
        [
            Utterance(TEXT),
            Utterance(TEXT.replace("captain", "captain,")),
            Utterance(TEXT, rate_wpm=110),
            Utterance(TEXT, pitch=90, pitch_range=0),
            Utterance(TEXT),
        ]
    )


def test_the_same_list_gives_the_same_samples(spoken: list[espeak.Speech]) -> None:
    again = speak_all([Utterance(TEXT)])[0]
    assert_array_equal(again.wave, spoken[0].wave)
    assert again.words == spoken[0].words


def test_a_wave_is_speech_without_silence_at_its_ends(spoken: list[espeak.Speech]) -> None:
    for speech in spoken:
        assert speech.wave.dtype == np.float32
        assert 0.2 < np.abs(speech.wave).max() <= 1.0
        assert np.abs(speech.wave[:200]).max() > 1e-3
        assert np.abs(speech.wave[-200:]).max() > 5e-4


def test_words_have_their_names_in_order_and_do_not_overlap(spoken: list[espeak.Speech]) -> None:
    for speech in spoken:
        assert " ".join(word.word.strip(",") for word in speech.words) == TEXT
        edges = [edge for word in speech.words for edge in (word.start_seconds, word.end_seconds)]
        assert edges == sorted(edges)
        assert edges[0] == 0.0
        assert edges[-1] == pytest.approx(len(speech.wave) / SAMPLE_RATE_HZ)


def test_the_pause_at_a_comma_belongs_to_no_word(spoken: list[espeak.Speech]) -> None:
    plain, paused = spoken[:2]
    assert paused.words[3].start_seconds - paused.words[2].end_seconds > 0.15
    assert plain.words[3].start_seconds - plain.words[2].end_seconds < 0.05
    wave = paused.wave[
        round(paused.words[2].end_seconds * SAMPLE_RATE_HZ) : round(
            paused.words[3].start_seconds * SAMPLE_RATE_HZ
        )
    ]
    assert np.abs(wave).max() < 2e-3


def test_tempo_and_pitch_have_an_effect(spoken: list[espeak.Speech]) -> None:
    plain, _, slow, high, _ = spoken
    assert len(slow.wave) > 1.25 * len(plain.wave)

    def pitch_hz(wave: np.ndarray) -> float:
        at = len(wave) // 4
        part = wave[at : at + 2048] - wave[at : at + 2048].mean()
        lags = np.correlate(part, part, "full")[2047:]
        return SAMPLE_RATE_HZ / (60 + int(lags[60:400].argmax()))

    assert pitch_hz(high.wave) > 1.3 * pitch_hz(plain.wave)


def test_phonemes_are_ipa() -> None:
    assert phonemes([Utterance("horse"), Utterance("music")]) == ["hˈɔːɹs", "mjˈuːzɪk"]


def test_an_unknown_voice_is_an_error_with_its_name() -> None:
    with pytest.raises(PipelineError, match="no-such-voice") as caught:
        speak_all([Utterance("horse", voice="no-such-voice")])
    assert caught.value.exit_code == 1
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "   ", "..."])
def test_a_text_without_words_is_an_error(text: str) -> None:
    with pytest.raises(PipelineError, match="said nothing"):
        speak_all([Utterance(text)])


def test_nothing_to_say_is_no_error() -> None:
    assert speak_all([]) == []


def test_without_the_wheel_the_error_names_the_extra(monkeypatch, tmp_path) -> None:
    (tmp_path / "espeakng_loader.py").write_text("raise ImportError('no wheel here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ToolMissingError, match="no wheel here") as caught:
        speak_all([Utterance("horse")])
    assert caught.value.exit_code == 5
    assert "kamerton[demo]" in caught.value.hint
