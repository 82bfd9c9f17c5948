import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from kamerton.audio.griffin_lim import griffin_lim, istft, linear_magnitudes
from kamerton.audio.mel import log_mel, mel_filterbank, stft
from kamerton.config.schema import AudioParams

AUDIO = AudioParams()


def vowel(seconds: float = 1.0, pitch_hz: float = 140.0) -> np.ndarray:
    """A buzz with three formants that glide: something with the structure of a voice."""
    time = np.arange(round(seconds * AUDIO.sample_rate_hz)) / AUDIO.sample_rate_hz
    wave = np.zeros_like(time)
    for harmonic in range(1, 40):
        hz = harmonic * pitch_hz
        gain = sum(
            np.exp(-(((hz - centre * (1 + 0.2 * time)) / 180.0) ** 2))
            for centre in (600.0, 1200.0, 2600.0)
        )
        wave += (0.02 + gain) * np.sin(2 * np.pi * hz * time)
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


def distance(wave: np.ndarray, mel: np.ndarray) -> float:
    """Mean absolute difference of log-mels: how far ``wave`` is from what was asked for."""
    again = log_mel(wave, AUDIO)
    frames = min(again.shape[1], mel.shape[1])
    return float(np.abs(again[:, :frames] - mel[:, :frames]).mean())


@settings(max_examples=25, deadline=None)
@given(
    samples=st.integers(600, 6000),
    sizes=st.sampled_from([(1024, 256, 1024), (1024, 200, 800), (512, 128, 400), (300, 70, 300)]),
)
def test_istft_undoes_stft(samples: int, sizes: tuple[int, int, int]) -> None:
    wave = np.random.default_rng(samples).normal(size=samples).astype(np.float32)
    again = istft(stft(wave, *sizes), *sizes)
    assert len(again) == samples // sizes[1] * sizes[1]
    assert_allclose(again, wave[: len(again)], atol=2e-4)


def test_as_good_as_librosa_from_the_same_magnitudes() -> None:
    librosa = pytest.importorskip("librosa")
    mel = log_mel(vowel(), AUDIO)
    ours = griffin_lim(mel, AUDIO, iterations=32)
    theirs = librosa.griffinlim(
        linear_magnitudes(mel, AUDIO), n_iter=32, hop_length=AUDIO.hop_samples, random_state=0
    )
    assert len(ours) == len(theirs)
    assert distance(ours, mel) <= 1.1 * distance(theirs, mel)


def test_iterations_and_momentum_help() -> None:
    mel = log_mel(vowel(), AUDIO)
    none, few, many = (distance(griffin_lim(mel, AUDIO, iterations=n), mel) for n in (0, 4, 32))
    assert many < few < none
    plain = distance(griffin_lim(mel, AUDIO, iterations=8, momentum=0.0), mel)
    fast = distance(griffin_lim(mel, AUDIO, iterations=8), mel)
    assert fast < plain


def test_same_seed_same_samples_other_seed_others() -> None:
    mel = log_mel(vowel(0.3), AUDIO)
    first = griffin_lim(mel, AUDIO, iterations=4, seed=3)
    assert_array_equal(first, griffin_lim(mel, AUDIO, iterations=4, seed=3))
    assert not np.array_equal(first, griffin_lim(mel, AUDIO, iterations=4, seed=4))


@settings(max_examples=15, deadline=None)
@given(frames=st.integers(2, 40))
def test_length_is_one_hop_less_than_frames(frames: int) -> None:
    mel = np.random.default_rng(frames).uniform(-8, 0, (80, frames)).astype(np.float32)
    wave = griffin_lim(mel, AUDIO, iterations=1)
    assert wave.shape == ((frames - 1) * AUDIO.hop_samples,)
    assert np.isfinite(wave).all()


def test_magnitudes_are_never_negative_and_give_the_mel_back() -> None:
    mel = log_mel(vowel(0.5), AUDIO)
    magnitudes = linear_magnitudes(mel, AUDIO)
    assert (magnitudes >= 0).all()
    rebuilt = np.log(np.maximum(mel_filterbank(AUDIO) @ magnitudes, 1e-5))
    loud = mel > np.log(1e-2)
    assert np.abs(rebuilt - mel)[loud].mean() < 0.1


def test_silence_stays_silent() -> None:
    mel = np.full((80, 20), np.log(1e-5), dtype=np.float32)
    assert np.abs(griffin_lim(mel, AUDIO)).max() < 1e-3


@pytest.mark.parametrize("shape", [(79, 10), (80, 1), (80,)])
def test_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        griffin_lim(np.zeros(shape, dtype=np.float32), AUDIO)
