import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.audio.wada import gamma_curve, wada_snr_db
from tests.speechlike import noise_at, speechlike


def mixture(snr_db, size=400_000, seed=0):
    """Samples of the two distributions that the method supposes."""
    rng = np.random.default_rng(seed)
    speech = rng.gamma(0.4, 1.0, size) * rng.choice([-1.0, 1.0], size)
    noise = rng.standard_normal(size) * np.sqrt(0.56 / 10 ** (snr_db / 10))
    return (0.02 * (speech + noise)).astype(np.float32)


@pytest.mark.parametrize("snr_db", [-5, 0, 7.3, 15, 25, 35])
def test_the_supposed_mixture_gives_its_own_ratio(snr_db):
    assert wada_snr_db(mixture(snr_db)) == pytest.approx(snr_db, abs=0.3)


def test_the_curve_rises_from_the_gaussian_limit():
    ratios, curve = gamma_curve()
    assert (np.diff(curve) > 0).all()
    # ln E|n| - E ln|n| of a normal distribution, in closed form.
    gaussian = 0.5 * np.log(2 / np.pi) + 0.5 * (np.euler_gamma + np.log(2))
    assert curve[0] == pytest.approx(gaussian, abs=1e-3)
    assert (ratios[0], ratios[-1]) == (-20.0, 100.0)


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 40.0])
def test_the_curve_is_what_drawing_lots_gives(snr_db):
    ratios, curve = gamma_curve()
    drawn = np.abs(mixture(snr_db, 2_000_000, seed=3).astype(np.float64))
    drawn = np.log(drawn.mean()) - np.log(np.maximum(drawn, 1e-12)).mean()
    assert np.interp(snr_db, ratios, curve) == pytest.approx(drawn, abs=0.004)


@given(st.floats(0.1, 1.0))
def test_the_level_does_not_matter(gain):
    wave = mixture(10.0, 20_000)
    assert wada_snr_db(np.float32(gain) * wave) == pytest.approx(wada_snr_db(wave), abs=0.5)


def test_less_noise_is_more_signal():
    wave = speechlike(4.0, seed=5)
    guesses = [
        wada_snr_db((wave + noise_at(wave, snr_db)).astype(np.float32)) for snr_db in (0, 10, 20)
    ]
    assert guesses == sorted(guesses)


def test_silence_has_no_ratio():
    assert wada_snr_db(np.zeros(100, np.float32)) is None
    assert wada_snr_db(np.zeros(0, np.float32)) is None
