import hashlib
import importlib.util
import sys

import numpy as np
import pytest

from kamerton.audio import silero
from kamerton.audio.activity import frame_count
from kamerton.audio.silero import SileroDetector, choose_detector, model_path
from kamerton.core.errors import ToolMissingError

INSTALLED = importlib.util.find_spec("onnxruntime") is not None and model_path() is not None
needs_network = pytest.mark.skipif(
    not INSTALLED, reason="silero-vad and onnxruntime are not installed"
)


def detect(wave, rate_hz=16_000, block=16_384):
    detector = SileroDetector(rate_hz)
    for start in range(0, len(wave), block):
        detector.feed(wave[start : start + block])
    return detector.finish()


def noise(seconds, rate_hz=16_000, level=0.05):
    rng = np.random.default_rng(0)
    return (level * rng.standard_normal(round(seconds * rate_hz))).astype(np.float32)


@needs_network
def test_it_is_read_without_importing_its_package():
    detect(noise(0.5))
    assert "silero_vad" not in sys.modules


@needs_network
@pytest.mark.parametrize("rate_hz", [8000, 16_000, 22_050, 44_100])
@pytest.mark.parametrize("samples", [0, 1, 300, 5000, 40_001])
def test_one_score_per_frame_whatever_the_rate(rate_hz, samples):
    scores = detect(noise(10, rate_hz)[:samples], rate_hz)
    assert len(scores) == frame_count(samples, rate_hz)
    assert ((scores >= 0) & (scores <= 1)).all()


@needs_network
def test_noise_and_silence_are_no_speech():
    assert detect(noise(20)).mean() < 0.1
    assert detect(np.zeros(160_000, dtype=np.float32)).max() < 0.5


@needs_network
@pytest.mark.parametrize("block", [160, 7919, 1 << 20])
def test_blocks_of_any_size_give_the_same_scores(block):
    """30 s are four calls of the network: state and context go from one to the next."""
    wave = noise(30) * np.linspace(0.1, 1.0, 480_000, dtype=np.float32)
    np.testing.assert_allclose(detect(wave, block=block), detect(wave), atol=1e-6)


def naive_probabilities(wave):
    """One step at a time, as the streaming model is used."""
    session = silero._session()
    state = [np.zeros((1, 1, 128), dtype=np.float32)] * 2
    context, values = np.zeros(64, dtype=np.float32), []
    for start in range(0, len(wave) - 511, 512):
        step = wave[start : start + 512]
        window = np.concatenate([context, step])[None]
        value, *state = session.run(None, {"input": window, "h": state[0], "c": state[1]})
        context = step[-64:]
        values.append(float(value[0]))
    return np.array(values)


@needs_network
def test_long_calls_equal_one_step_at_a_time(speech_wave):
    """Beyond the first batch, whose level is the reference's too."""
    detector = SileroDetector(16_000)
    detector._gain = lambda _steps: np.float32(1.0)
    detector.feed(speech_wave)
    detector.finish()
    expected = naive_probabilities(speech_wave)
    found = np.frombuffer(detector._probabilities, dtype=np.float32)[: len(expected)]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert (expected > 0.5).mean() > 0.3


@pytest.fixture(scope="module")
def speech_wave():
    pytest.importorskip("espeakng_loader")
    from kamerton.audio.resample import resample
    from kamerton.demo.espeak import Utterance, speak_all

    texts = ["the old man counted seven boats", "a storm was coming from the north"] * 2
    pause = np.zeros(9000, dtype=np.float32)
    parts = [
        part for speech in speak_all([*map(Utterance, texts)]) for part in (speech.wave, pause)
    ]
    return resample(np.concatenate([pause, *parts]), 22_050, 16_000)


@needs_network
@pytest.mark.parametrize("gain_db", [-50.0, -30.0, 10.0])
def test_the_level_does_not_matter(speech_wave, gain_db):
    quiet = detect(speech_wave * np.float32(10 ** (gain_db / 20)))
    np.testing.assert_allclose(quiet, detect(speech_wave), atol=0.02)


@needs_network
def test_frames_are_where_the_speech_is(speech_wave):
    """The pauses of half a second are heard where they are, to 80 ms."""
    heard = detect(speech_wave) >= 0.5
    power = np.add.reduceat(speech_wave**2, np.arange(0, len(speech_wave), 160))[: len(heard)]
    loud = np.convolve(power > 1e-6, np.ones(17), mode="same") > 0
    quiet = np.convolve(power > 1e-6, np.ones(17), mode="same") == 0
    assert heard[quiet].mean() < 0.02
    assert heard[loud].mean() > 0.8


def test_another_version_is_refused_and_told(monkeypatch, tmp_path):
    pytest.importorskip("onnxruntime")
    other = tmp_path / "other.onnx"
    other.write_bytes(b"another network")
    assert hashlib.sha256(b"another network").hexdigest() != silero._SHA256
    silero._session.cache_clear()
    monkeypatch.setattr(silero, "model_path", lambda: other)
    with pytest.raises(ToolMissingError, match=r"another version") as caught:
        choose_detector("neural")
    assert silero.PACKAGE in caught.value.hint
    assert choose_detector("auto") == "energy"
    silero._session.cache_clear()


def test_a_missing_network_is_told_or_done_without(monkeypatch):
    silero._session.cache_clear()
    monkeypatch.setattr(silero, "model_path", lambda: None)
    with pytest.raises(ToolMissingError):
        choose_detector("neural")
    assert choose_detector("auto") == "energy"
    assert choose_detector("energy") == "energy"
    silero._session.cache_clear()


@needs_network
def test_auto_takes_it_where_it_is():
    assert choose_detector("auto") == "neural" == choose_detector("neural")
