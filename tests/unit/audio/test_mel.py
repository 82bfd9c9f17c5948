import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from kamerton.audio.mel import FLOOR, hz_to_mel, log_mel, mel_centres_hz, mel_filterbank, mel_to_hz
from kamerton.config.schema import AudioParams

AUDIO = AudioParams()
NARROW = AudioParams(
    sample_rate_hz=16000,
    fft_samples=512,
    window_samples=400,
    hop_samples=160,
    mel_channels=40,
    mel_fmin_hz=60.0,
    mel_fmax_hz=None,
)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=0.1, size=samples).astype(np.float32)


@pytest.mark.parametrize("audio", [AUDIO, NARROW], ids=["default", "narrow"])
def test_filterbank_equals_librosa(audio: AudioParams) -> None:
    librosa = pytest.importorskip("librosa")
    expected = librosa.filters.mel(
        sr=audio.sample_rate_hz,
        n_fft=audio.fft_samples,
        n_mels=audio.mel_channels,
        fmin=audio.mel_fmin_hz,
        fmax=audio.fmax_hz,
    )
    assert_allclose(mel_filterbank(audio), expected, atol=1e-8)


@pytest.mark.parametrize("audio", [AUDIO, NARROW], ids=["default", "narrow"])
def test_centres_of_the_bands_equal_librosa(audio: AudioParams) -> None:
    librosa = pytest.importorskip("librosa")
    edges = librosa.mel_frequencies(
        n_mels=audio.mel_channels + 2, fmin=audio.mel_fmin_hz, fmax=audio.fmax_hz
    )
    assert_allclose(mel_centres_hz(audio), edges[1:-1], rtol=1e-12)


@pytest.mark.parametrize("audio", [AUDIO, NARROW], ids=["default", "narrow"])
def test_log_mel_equals_librosa(audio: AudioParams) -> None:
    librosa = pytest.importorskip("librosa")
    wave = noise(audio.sample_rate_hz)
    amplitude = librosa.feature.melspectrogram(
        y=wave,
        sr=audio.sample_rate_hz,
        n_fft=audio.fft_samples,
        hop_length=audio.hop_samples,
        win_length=audio.window_samples,
        n_mels=audio.mel_channels,
        fmin=audio.mel_fmin_hz,
        fmax=audio.fmax_hz,
        power=1,
        pad_mode="reflect",
    )
    assert_allclose(log_mel(wave, audio), np.log(np.maximum(amplitude, FLOOR)), atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(samples=st.integers(1, 9000))
def test_any_length_gives_one_frame_per_hop_and_one_more(samples: int) -> None:
    mel = log_mel(noise(samples), AUDIO)
    assert mel.shape == (AUDIO.mel_channels, 1 + samples // AUDIO.hop_samples)
    assert np.isfinite(mel).all()


def test_silence_is_the_floor() -> None:
    mel = log_mel(np.zeros(4096, dtype=np.float32), AUDIO)
    assert_allclose(mel, np.log(FLOOR))


def test_ten_times_louder_is_ln_10_higher() -> None:
    wave = noise(8192)
    quiet, loud = log_mel(wave, AUDIO), log_mel(wave * 10, AUDIO)
    assert_allclose(loud - quiet, np.log(10.0), atol=1e-4)


@pytest.mark.parametrize("hz", [200.0, 440.0, 1000.0, 3000.0, 7000.0])
def test_a_tone_is_loudest_in_the_band_around_it(hz: float) -> None:
    time = np.arange(22050) / AUDIO.sample_rate_hz
    mel = log_mel((0.5 * np.sin(2 * np.pi * hz * time)).astype(np.float32), AUDIO)
    loudest = int(mel.mean(axis=1).argmax())
    centres = mel_to_hz(np.linspace(*hz_to_mel(np.array([AUDIO.mel_fmin_hz, AUDIO.fmax_hz])), 82))[
        1:-1
    ]
    assert abs(loudest - int(np.abs(centres - hz).argmin())) <= 1


@given(st.floats(0.0, 24000.0))
def test_mel_scale_has_an_inverse(hz: float) -> None:
    there_and_back = mel_to_hz(hz_to_mel(np.array([hz])))
    assert_allclose(there_and_back, [hz], rtol=1e-9, atol=1e-9)


def test_the_shared_filterbank_cannot_be_spoilt() -> None:
    with pytest.raises(ValueError, match="read-only"):
        mel_filterbank(AUDIO)[0, 0] = 1.0


@pytest.mark.parametrize("shape", [(0,), (2, 100)])
def test_refuses_what_is_not_a_mono_wave(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        log_mel(np.zeros(shape, dtype=np.float32), AUDIO)
