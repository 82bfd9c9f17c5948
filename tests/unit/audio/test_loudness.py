import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import resample_poly

from kamerton.audio.loudness import (
    SILENCE_LUFS,
    LoudnessMeter,
    gated_loudness,
    integrated_loudness,
    k_weighting,
    true_peak,
)

# BS.1770-4, tables 1 and 2: the filters at 48 kHz.
SHELF_48K = [1.53512485958697, -2.69169618940638, 1.19839281085285]
SHELF_48K_FEEDBACK = [1.0, -1.69065929318241, 0.73248077421585]
HIGH_PASS_48K = [1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621]


def sine(rate_hz, seconds, frequency_hz=997.0, amplitude=1.0):
    time = np.arange(int(seconds * rate_hz)) / rate_hz
    return (amplitude * np.sin(2 * np.pi * frequency_hz * time)).astype(np.float32)


def naive_loudness(wave, rate_hz):
    """BS.1770 by the letter, one sample and one block at a time."""
    for b0, b1, b2, _, a1, a2 in k_weighting(rate_hz):
        x1 = x2 = y1 = y2 = 0.0
        out = []
        for x in wave.tolist():
            y = b0 * x + b1 * x1 + b2 * x2 - a1 * y1 - a2 * y2
            x1, x2, y1, y2 = x, x1, y, y1
            out.append(y)
        wave = np.array(out)
    blocks, step = [], rate_hz // 10
    for start in range(0, len(wave) - 4 * step + 1, step):
        blocks.append(sum(v * v for v in wave[start : start + 4 * step].tolist()) / (4 * step))

    def lufs(powers):
        return -0.691 + 10 * math.log10(sum(powers) / len(powers)) if powers else -math.inf

    audible = [p for p in blocks if lufs([p]) > -70]
    return lufs([p for p in audible if lufs([p]) > lufs(audible) - 10])


def test_the_filters_at_48_khz_are_those_of_the_recommendation():
    shelf, high_pass = k_weighting(48_000)
    np.testing.assert_allclose(shelf, SHELF_48K + SHELF_48K_FEEDBACK, atol=1e-9)
    np.testing.assert_allclose(high_pass, HIGH_PASS_48K, atol=1e-9)


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 44_100, 48_000])
def test_a_full_scale_sine_is_at_minus_3(rate_hz):
    """The Recommendation: 997 Hz at 0 dBFS in one channel reads -3.01 LKFS."""
    assert integrated_loudness(sine(rate_hz, 3.0), rate_hz) == pytest.approx(-3.01, abs=0.05)


def test_loudness_follows_the_gain():
    wave = sine(22_050, 3.0, amplitude=0.5)
    quieter = integrated_loudness(wave * np.float32(0.1), 22_050)
    assert integrated_loudness(wave, 22_050) - quieter == pytest.approx(20.0, abs=1e-3)


def test_pauses_are_gated_out():
    loud = sine(16_000, 3.0, amplitude=0.3)
    paused = np.concatenate([loud, np.zeros(16_000 * 20, dtype=np.float32)])
    difference = integrated_loudness(paused, 16_000) - integrated_loudness(loud, 16_000)
    assert abs(difference) < 0.3  # blocks across the seam only


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_a_naive_loop(seed):
    rng = np.random.default_rng(seed)
    rate_hz = 8000
    envelope = np.repeat(10 ** rng.uniform(-4, 0, 14), rate_hz // 4)
    wave = (rng.standard_normal(len(envelope)) * envelope * 0.3).astype(np.float32)
    assert integrated_loudness(wave, rate_hz) == pytest.approx(
        naive_loudness(wave, rate_hz), abs=1e-6
    )


@given(
    sizes=st.lists(st.integers(0, 9000), min_size=1, max_size=10),
    rate_hz=st.sampled_from([8000, 11_025, 22_050, 44_101]),
)
def test_blocks_of_any_size_give_the_same_loudness(sizes, rate_hz):
    wave = np.random.default_rng(1).standard_normal(sum(sizes)).astype(np.float32)
    meter = LoudnessMeter(rate_hz)
    for part in np.split(wave, np.cumsum(sizes)[:-1]):
        meter.feed(part)
    assert meter.integrated() == pytest.approx(integrated_loudness(wave, rate_hz), abs=1e-9)


def test_silence_and_nothing():
    assert integrated_loudness(np.zeros(16_000, dtype=np.float32), 16_000) == SILENCE_LUFS
    assert integrated_loudness(np.zeros(0, dtype=np.float32), 16_000) == SILENCE_LUFS
    assert gated_loudness(np.zeros(0)) == SILENCE_LUFS


def test_less_than_one_block_is_measured_whole():
    assert integrated_loudness(sine(48_000, 0.3), 48_000) == pytest.approx(-3.0, abs=0.1)


def test_peaks_between_samples_are_found():
    """At a quarter of the rate and 45 degrees, every sample is 3 dB below the top."""
    wave = np.sin(np.pi / 2 * np.arange(400) + np.pi / 4).astype(np.float32)
    wave *= np.hanning(400).astype(np.float32)
    assert np.abs(wave).max() < 0.72
    assert true_peak(wave) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_true_peak_against_scipy_oversampling(seed):
    rng = np.random.default_rng(seed)
    spectrum = np.zeros(1001, dtype=complex)
    spectrum[:820] = rng.standard_normal(820) + 1j * rng.standard_normal(820)
    wave = np.fft.irfft(spectrum, 2000).astype(np.float32)
    wave *= np.hanning(2000).astype(np.float32)
    expected = np.abs(resample_poly(wave, 4, 1, window=("kaiser", 8.0))).max()
    assert true_peak(wave) == pytest.approx(expected, rel=0.02)
    assert true_peak(wave) >= np.abs(wave).max()


def test_true_peak_of_nothing():
    assert true_peak(np.zeros(0, dtype=np.float32)) == 0.0
    assert true_peak(np.zeros(10, dtype=np.float32)) == 0.0
    assert true_peak(np.full(1, -0.5, dtype=np.float32)) == 0.5
