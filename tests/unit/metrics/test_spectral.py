"""Mel-cepstral distortion: the transform, the exact time warping, and how the number behaves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kamerton.metrics.pair import HOP_SAMPLES, PairError, frame_levels, prepare_pair
from kamerton.metrics.spectral import (
    DECIBELS,
    FFT_SAMPLES,
    ORDER,
    WARP_ALPHA,
    cheapest_path,
    frequency_warp,
    mel_cepstra,
    mel_cepstral_distortion,
    warp_path,
)
from tests.speechlike import noise_at, speechlike

RATE = 16_000


def distortion(reference, synthesis, rate_hz=RATE):
    return mel_cepstral_distortion(prepare_pair(reference, rate_hz, synthesis, rate_hz))[0]


def cheapest_by_recursion(costs):
    """The least sum over all monotone paths, straight from the definition."""
    known = {}

    def least(i, j):
        if (i, j) not in known:
            before = [
                least(a, b) for a, b in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if a >= 0 <= b
            ]
            known[i, j] = costs[i, j] + (min(before) if before else 0.0)
        return known[i, j]

    return least(costs.shape[0] - 1, costs.shape[1] - 1)


@given(rows=st.integers(1, 14), columns=st.integers(1, 14), seed=st.integers(0, 2**16))
@settings(max_examples=60)
def test_time_warping_is_exact_and_its_path_is_legal(rows, columns, seed):
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((rows, 3)), rng.standard_normal((columns, 3))
    costs = np.sqrt(((left[:, None] - right[None]) ** 2).sum(axis=-1))
    path, mean = warp_path(left, right)

    assert path[0].tolist() == [0, 0]
    assert path[-1].tolist() == [rows - 1, columns - 1]
    steps = np.diff(path, axis=0)
    assert ((steps >= 0) & (steps <= 1)).all()
    assert (steps.sum(axis=1) >= 1).all()
    walked = costs[path[:, 0], path[:, 1]].sum()
    assert walked == pytest.approx(cheapest_by_recursion(costs))
    assert mean == pytest.approx(walked / len(path))


def test_compiled_and_plain_time_warping_take_the_same_path():
    rng = np.random.default_rng(3)
    # Few values, so that there are many ties.
    left, right = rng.integers(0, 2, (40, 2)).astype(float), rng.integers(0, 2, (33, 2))
    costs = np.sqrt(((left[:, None] - right[None]) ** 2).sum(axis=-1))
    assert np.array_equal(warp_path(left, right.astype(float))[0], cheapest_path(costs))


def test_the_frequency_warp_evaluates_the_spectrum_at_the_warped_frequency():
    """Series in the warped frequency must give the same log spectrum: that is its definition."""
    cepstrum = np.random.default_rng(0).standard_normal(12) * 0.5 ** np.arange(12)
    warped = frequency_warp(cepstrum[:, None], 120, WARP_ALPHA)[:, 0]
    omega = np.linspace(0.05, np.pi - 0.05, 50)
    # Phase of the all-pass (z^-1 - a) / (1 - a z^-1), Oppenheim and Johnson 1972.
    bent = omega + 2 * np.arctan2(WARP_ALPHA * np.sin(omega), 1 - WARP_ALPHA * np.cos(omega))
    straight = np.cos(np.outer(omega, np.arange(12))) @ cepstrum
    assert np.cos(np.outer(bent, np.arange(121))) @ warped == pytest.approx(straight, abs=1e-9)


def test_the_mel_cepstrum_is_that_of_the_log_spectrum():
    """Against the two steps done one after the other, with numpy's own transform."""
    wave = speechlike(0.5).astype(float)
    found = mel_cepstra(wave)
    window = np.hanning(401)[:-1]
    padded = np.pad(wave, 200)
    index = 40
    power = np.abs(np.fft.rfft(padded[index * 80 : index * 80 + 400] * window, FFT_SAMPLES)) ** 2
    every = [
        np.abs(np.fft.rfft(padded[i * 80 : i * 80 + 400] * window, FFT_SAMPLES)) ** 2
        for i in range(len(found))
    ]
    power = np.maximum(power, np.max(every) * 1e-6)
    cepstrum = np.fft.irfft(np.log(power))[: FFT_SAMPLES // 2 + 1]
    cepstrum[0] /= 2
    expected = frequency_warp(cepstrum[:, None], ORDER, WARP_ALPHA)[1:, 0]
    assert found[index] == pytest.approx(expected, abs=1e-9)
    assert found.shape == (1 + wave.size // HOP_SAMPLES, 24)


def test_identical_sounds_have_no_distortion():
    assert distortion(speechlike(), speechlike()) == 0.0


@pytest.mark.parametrize("gain", [1e-3, 0.3, 20.0])
def test_gain_changes_nothing(gain):
    assert distortion(speechlike(), speechlike() * gain) == pytest.approx(0.0, abs=1e-4)


def test_outer_silence_changes_nothing():
    wave = speechlike()
    padded = np.concatenate([np.zeros(4000), wave, np.zeros(9000)])
    assert distortion(wave, padded) < 0.1
    assert prepare_pair(wave, RATE, padded, RATE).duration_ratio == pytest.approx(1.0, abs=0.02)


def test_noise_raises_the_distortion_step_by_step():
    wave = speechlike()
    values = [distortion(wave, wave + noise_at(wave, snr)) for snr in (60, 40, 20, 10, 0, -5)]
    assert values == sorted(values)
    assert values[0] < 0.2
    assert values[-1] > 8


def test_another_tempo_is_close_and_another_text_is_far():
    wave = speechlike()
    slower = distortion(wave, speechlike(2.0, tempo=0.8))
    other = distortion(wave, speechlike(seed=5))
    assert slower < 0.5
    assert other > 5


def test_an_empty_band_above_the_vocoder_does_not_decide():
    """A voice whose mels end at 6 kHz: without the floor this alone would be over 20 dB."""
    wave = speechlike()
    spectrum = np.fft.rfft(wave)
    spectrum[int(6000 / 8000 * len(spectrum)) :] = 0
    assert distortion(wave, np.fft.irfft(spectrum, wave.size)) < 3


def test_the_unit_is_the_published_one():
    assert pytest.approx(6.14185, abs=1e-5) == DECIBELS


@pytest.mark.parametrize(
    ("synthesis", "reason"),
    [
        (np.zeros(16_000), "the synthesis is silent"),
        (np.zeros(0), "the synthesis is empty"),
        (np.full(16_000, np.nan), "not finite"),
        (np.full(16_000, np.inf), "not finite"),
        (np.zeros((100, 2)), "not mono"),
        (speechlike(0.3), "of voice, less than 0.4 s"),
    ],
)
def test_what_cannot_be_measured_says_why(synthesis, reason):
    with pytest.raises(PairError, match=reason):
        prepare_pair(speechlike(), RATE, synthesis, RATE)
    with pytest.raises(PairError, match=reason.replace("synthesis", "reference")):
        prepare_pair(synthesis, RATE, speechlike(), RATE)


def test_frame_levels_are_local_root_mean_squares():
    wave = np.random.default_rng(0).standard_normal(1000)
    levels = frame_levels(wave)
    assert levels[5] == pytest.approx(np.sqrt((wave[200:600] ** 2).sum() / 400))
    assert len(levels) == 1 + 1000 // HOP_SAMPLES


def test_rates_are_brought_together():
    wave = speechlike(rate_hz=22_050)
    assert distortion(speechlike(rate_hz=22_050), wave, 22_050) == 0.0
    pair = prepare_pair(wave, 22_050, speechlike(rate_hz=RATE), RATE)
    assert pair.duration_ratio == pytest.approx(1.0, abs=0.02)
    assert mel_cepstral_distortion(pair)[0] < 1.5
