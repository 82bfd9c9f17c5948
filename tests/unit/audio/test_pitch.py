import numpy as np
import pytest

from kamerton.audio.files import read_audio
from kamerton.audio.pitch import pitch_track


def buzz(frequency_hz, rate_hz, seconds=1.0):
    """A harmonic tone; the frequency may be an array over time."""
    frequency = np.broadcast_to(frequency_hz, int(seconds * rate_hz))
    phase = 2 * np.pi * np.cumsum(frequency) / rate_hz
    return sum(np.sin(k * phase) / k for k in range(1, 9)).astype(np.float32)


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 22_050, 48_000])
@pytest.mark.parametrize("frequency_hz", [70.0, 112.5, 219.0, 430.0])
def test_a_steady_voice(frequency_hz, rate_hz):
    track, hop_seconds = pitch_track(0.01 * buzz(frequency_hz, rate_hz), rate_hz)
    assert hop_seconds == 0.01
    assert len(track) == 100
    assert (track[5:-5] > 0).all()
    np.testing.assert_allclose(track[5:-5], frequency_hz, rtol=0.005)


def test_a_glide_is_followed_in_time():
    rate_hz = 16_000
    frequency = np.linspace(100.0, 200.0, 2 * rate_hz)
    track, hop_seconds = pitch_track(buzz(frequency, rate_hz, 2.0), rate_hz)
    instants = (np.arange(len(track)) * hop_seconds * rate_hz).astype(int)
    np.testing.assert_allclose(track[5:-5], frequency[instants[5:-5]], rtol=0.01)


def test_noise_and_silence_have_no_pitch():
    noise = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    track, _ = pitch_track(noise, 16_000)
    assert (track > 0).mean() < 0.02
    assert not pitch_track(np.zeros(16_000, dtype=np.float32), 16_000)[0].any()
    assert len(pitch_track(np.zeros(0, dtype=np.float32), 16_000)[0]) == 0


def test_pauses_are_unvoiced():
    wave = buzz(150.0, 16_000)
    wave[6000:10_000] = 0.0
    track, _ = pitch_track(wave, 16_000)
    assert not track[41:60].any()
    assert (track[5:35] > 0).all()


def test_ten_decibels_of_noise_are_borne():
    wave = buzz(180.0, 16_000)
    noise = np.random.default_rng(1).standard_normal(len(wave)) * wave.std() * 10 ** (-10 / 20)
    track, _ = pitch_track((wave + noise).astype(np.float32), 16_000)
    voiced = track[track > 0]
    assert len(voiced) > 0.8 * len(track)
    assert np.median(voiced) == pytest.approx(180.0, rel=0.01)


def test_a_real_reader_has_a_plausible_pitch(real_speech):
    """One woman: medians of her clips lie where yin finds them too, within a few per cent."""
    import librosa

    for path in sorted(real_speech.glob("*.flac"))[:3]:
        wave, rate_hz = read_audio(path)
        track, _ = pitch_track(wave, rate_hz)
        voiced = track[track > 0]
        assert 0.3 < len(voiced) / len(track) < 0.9
        reference = librosa.yin(wave, fmin=60, fmax=500, sr=rate_hz, hop_length=rate_hz // 100)
        common = min(len(reference), len(track))
        both = reference[:common][track[:common] > 0]
        assert np.median(voiced) == pytest.approx(np.median(both), rel=0.05)
