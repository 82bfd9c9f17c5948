from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kamerton.audio.activity import EnergyDetector, LevelMeter, frame_bounds, frame_count
from tests.recordings import bursts, paced, with_noise

SPANS, SECONDS = paced(
    [1.3, 2.1, 0.9, 1.7, 2.4, 1.1, 1.5], [0.6, 0.4, 0.9, 0.3, 1.2, 0.35, 0.7, 0.8]
)


def detect(wave, rate_hz=16_000, block=5000):
    detector = EnergyDetector(rate_hz)
    for start in range(0, len(wave), block):
        detector.feed(wave[start : start + block])
    return detector.finish()


def truth(frames):
    mask = np.zeros(frames, dtype=bool)
    for start, end in SPANS:
        mask[round(start * 100) : round(end * 100)] = True
    return mask


def errors(scores):
    """Shares of speech missed and of pause taken for speech."""
    speech, found = truth(len(scores)), scores >= 0.5
    return (~found & speech).sum() / speech.sum(), (found & ~speech).sum() / (~speech).sum()


def test_clean_speech():
    missed, invented = errors(detect(bursts(SPANS, SECONDS)))
    assert missed < 0.04
    assert invented < 0.08  # smoothing widens speech by two frames


@pytest.mark.parametrize("rate_hz", [8000, 11_025, 22_050, 44_100])
def test_other_rates(rate_hz):
    missed, invented = errors(detect(bursts(SPANS, SECONDS, rate_hz), rate_hz))
    assert missed < 0.05
    assert invented < 0.08


@pytest.mark.parametrize(
    ("kind", "snr_db", "limit"),
    [
        ("white", 20, 0.06),
        ("white", 10, 0.15),
        ("pink", 20, 0.06),
        ("pink", 10, 0.15),
        ("hum", 15, 0.05),
        ("hum", 5, 0.06),
    ],
)
def test_noise_is_not_speech_and_hides_little_of_it(kind, snr_db, limit):
    missed, invented = errors(detect(with_noise(bursts(SPANS, SECONDS), kind, snr_db)))
    assert missed < limit
    assert invented < 0.08


def test_noise_alone_is_not_speech():
    noise = np.random.default_rng(0).standard_normal(16_000 * 30).astype(np.float32)
    assert (detect(noise) >= 0.5).mean() < 0.002


@pytest.mark.parametrize("gain_db", [-60.0, -30.0, 20.0])
def test_the_level_does_not_matter(gain_db):
    wave = with_noise(bursts(SPANS, SECONDS), "pink", 30)
    quiet = detect(wave * np.float32(10 ** (gain_db / 20)))
    np.testing.assert_allclose(quiet, detect(wave), atol=1e-3)


def test_an_offset_does_not_matter():
    wave = with_noise(bursts(SPANS, SECONDS), "white", 40)
    scores = detect(wave + np.float32(0.2))[50:-50]  # the step at the ends is a sound
    assert np.abs(scores - detect(wave)[50:-50]).mean() < 0.01


@settings(max_examples=15)
@given(block=st.integers(1, 40_000))
def test_block_sizes_do_not_matter(block):
    wave = with_noise(bursts(SPANS[:2], 4.4, 11_025), "white", 25, 11_025)
    block = max(block, 50)
    np.testing.assert_array_equal(detect(wave, 11_025, block), detect(wave, 11_025, len(wave)))


def test_long_streams_have_no_seams():
    """Scored five minutes at a time, and the same as by a detector that begins elsewhere."""
    wave = with_noise(bursts(SPANS, SECONDS, 8000), "white", 30, 8000)
    long = np.tile(wave, 48)  # 10 minutes
    scores = detect(long, 8000, 50_000)
    assert len(scores) == frame_count(len(long), 8000)
    seam = slice(29_000, 31_000)
    later = detect(long[8000 * 250 :], 8000, 50_000)
    difference = np.abs(scores[seam] - later[seam.start - 25_000 : seam.stop - 25_000])
    assert difference.mean() < 0.01


def test_shortest_streams():
    assert len(EnergyDetector(16_000).finish()) == 0
    assert len(detect(np.zeros(1, dtype=np.float32))) == 1
    assert len(detect(np.zeros(161, dtype=np.float32))) == 2


@pytest.mark.parametrize("rate_hz", [8000, 11_025, 22_050, 44_101])
@pytest.mark.parametrize("block", [37, 1000, 100_000])
def test_levels_equal_a_naive_loop(rate_hz, block):
    wave = np.random.default_rng(2).standard_normal(12_345).astype(np.float32)
    meter = LevelMeter(rate_hz)
    for start in range(0, len(wave), block):
        meter.feed(wave[start : start + block])
    levels = meter.finish()
    bounds = frame_bounds(0, frame_count(len(wave), rate_hz), rate_hz)
    assert len(levels.power) == len(bounds) - 1 == len(levels.peak)
    for frame, (start, end) in enumerate(pairwise(bounds)):
        part = wave[start : min(end, len(wave))].astype(float)
        assert levels.power[frame] == pytest.approx((part**2).mean(), rel=1e-5)
        assert levels.peak[frame] == np.abs(part).max()
