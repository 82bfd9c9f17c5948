"""STOI, ESTOI and PESQ: equal, worse and worse still, and what they refuse to answer."""

import builtins

import numpy as np
import pytest

from kamerton.metrics.measurement import Status
from kamerton.metrics.pair import Pair, prepare_pair
from kamerton.metrics.perceptual import pesq_wb, stoi, warp_to_reference
from kamerton.metrics.spectral import mel_cepstral_distortion
from tests.speechlike import noise_at, speechlike

RATE = 16_000


def warped(reference, synthesis):
    pair = prepare_pair(reference, RATE, synthesis, RATE)
    return warp_to_reference(pair, mel_cepstral_distortion(pair)[1])


def test_warping_a_wave_to_itself_gives_it_back():
    pair = warped(speechlike(), speechlike())
    assert pair.synthesis == pytest.approx(pair.reference, abs=1e-12)


def test_warping_brings_another_tempo_to_the_references_length():
    pair = warped(speechlike(), speechlike(2.4, tempo=2 / 3))
    assert pair.reference.size == pair.synthesis.size
    assert pair.reference.size == pytest.approx(speechlike().size, abs=800)


def test_identical_sounds_score_best():
    pair = warped(speechlike(), speechlike())
    assert stoi(pair).value == pytest.approx(1.0, abs=1e-6)
    assert stoi(pair, extended=True).value == pytest.approx(1.0, abs=1e-6)
    assert pesq_wb(pair).value == pytest.approx(4.6439, abs=1e-3)


def test_level_does_not_matter():
    pair = warped(speechlike(), speechlike() * 0.01)
    assert stoi(pair).value == pytest.approx(1.0, abs=1e-4)
    assert pesq_wb(pair).value == pytest.approx(4.6439, abs=1e-2)


def test_noise_lowers_all_three_step_by_step():
    wave = speechlike()
    pairs = [Pair(wave, wave + noise_at(wave, snr)) for snr in (60, 20, 10, 0)]
    for metric in (stoi, lambda pair: stoi(pair, extended=True), pesq_wb):
        values = [metric(pair).value for pair in pairs]
        assert values == sorted(values, reverse=True)
        assert values[0] - values[-1] > 0.3


def test_after_warping_the_right_text_beats_the_wrong_one_and_before_it_does_not():
    wave, slower, other = speechlike(), speechlike(2.0, tempo=0.8), speechlike(seed=5)
    assert stoi(warped(wave, slower)).value - stoi(warped(wave, other)).value > 0.3
    raw = prepare_pair(wave, RATE, slower, RATE)
    assert stoi(raw).value < 0.6


def test_too_little_voice_is_no_number_even_for_equal_signals():
    short = speechlike(0.2).astype(float)
    found = stoi(Pair(short, short))
    assert (found.value, found.status) == (None, Status.INVALID)
    assert "0.4 s" in found.reason


@pytest.mark.parametrize("side", ["reference", "synthesis"])
def test_pesq_of_silence_is_no_number(side):
    waves = {"reference": speechlike().astype(float), "synthesis": speechlike().astype(float)}
    waves[side] = np.zeros(RATE)
    found = pesq_wb(Pair(**waves))
    assert (found.value, found.status) == (None, Status.INVALID)
    assert found.reason


def test_pesq_of_a_moment_is_no_number():
    short = speechlike(0.1).astype(float)
    found = pesq_wb(Pair(short, short))
    assert found.status is Status.INVALID
    assert "1/4 of a second" in found.reason


@pytest.mark.parametrize(("package", "metric"), [("pystoi", stoi), ("pesq", pesq_wb)])
def test_a_package_that_is_not_installed_makes_its_metric_unavailable(package, metric, monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == package:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    found = metric(Pair(speechlike().astype(float), speechlike().astype(float)))
    assert (found.value, found.status) == (None, Status.UNAVAILABLE)
    assert "kamerton[eval]" in found.reason
