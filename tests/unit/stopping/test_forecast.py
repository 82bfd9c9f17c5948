"""The forecast against curves whose end is known, and its process against direct formulas."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kamerton.stopping.voters import residual
from kamerton.stopping.voters.forecast import basis, mixture, outlook

STEPS = np.arange(1.0, 49.0)


def ahead(values, planned=96.0, least=0.01):
    return outlook(STEPS, values, planned, float(values.max() - values.min()), least)


@pytest.mark.parametrize(
    "course",
    [lambda t: t**-0.5, lambda t: 2.0 + np.exp(-t / 96 / 0.24), lambda t: np.exp(-t / 96)],
    ids=["power", "exponential", "slow exponential"],
)
def test_the_expected_gain_of_an_exact_curve_is_what_it_brings(course):
    values = course(STEPS)
    span = values.max() - values.min()
    brought = (values[-1] - course(np.arange(49.0, 97.0)).min()) / span
    assert ahead(values).gain == pytest.approx(brought, abs=0.01)
    assert ahead(values).probability == pytest.approx(float(brought >= 0.01), abs=0.02)


def test_nothing_is_to_be_expected_of_a_curve_that_rises():
    found = ahead(3.0 - 2.0 * np.exp(-STEPS / 48))
    assert found.gain < 0.01


def test_probabilities_of_an_improvement_are_calibrated():
    """Of noisy curves said to improve with probability p, about that share does."""
    rng = np.random.default_rng(4)
    said, came = [], []
    for _ in range(250):
        scale = 10 ** rng.uniform(-1.3, 0.2)

        def course(t, scale=scale):
            return np.exp(-t / 96 / scale)

        noisy = course(STEPS) + 0.01 * rng.normal(size=STEPS.size)
        span = noisy.max() - noisy.min()
        said.append(outlook(STEPS, noisy, 96.0, span, 0.02).probability)
        came.append(course(48.0) - course(96.0) >= 0.02 * span)
    said, came = np.asarray(said), np.asarray(came)
    assert came[said < 0.1].mean() < 0.1
    assert came[said > 0.9].mean() > 0.9
    assert np.mean((said - came) ** 2) < 0.1  # Brier; 0.25 is a coin


def test_remaining_steps_are_where_an_exponential_comes_near_its_end():
    scale = 0.24 * 96
    values = np.exp(-STEPS / scale)
    end, span = np.exp(-96 / scale), values.max() - values.min()
    expected = -scale * np.log(end + 0.01 * span) - 48.0
    assert ahead(values).remaining == pytest.approx(expected, abs=3.0)


def test_a_step_or_a_spike_is_a_misfit_and_a_smooth_curve_is_none():
    smooth = np.exp(-STEPS / 10)
    assert ahead(smooth).misfit < 0.02
    assert ahead(smooth - 0.3 * (STEPS > 30)).misfit > 0.05
    assert ahead(smooth + 0.5 * (np.abs(STEPS - 35) < 2)).misfit > 0.05


def test_too_little_of_a_curve_and_a_constant_give_no_forecast():
    assert outlook(STEPS[:5], STEPS[:5], 96.0, 1.0, 0.01) is None
    assert outlook(STEPS, np.ones(48), 96.0, 0.0, 0.01) is None
    assert outlook(np.empty(0), np.empty(0), 96.0, 1.0, 0.01) is None


def test_each_shape_is_fitted_by_least_squares():
    rng = np.random.default_rng(1)
    times, asked = STEPS / 96, np.array([0.8, 1.0])
    values = 0.2 + times**-0.5 + 0.05 * rng.normal(size=48)
    fits = mixture(times, values, asked)
    for shape, future, fitted, follows in zip(
        basis(times), basis(asked), fits.fitted, fits.ahead, strict=True
    ):
        design = np.column_stack([np.ones(48), shape])
        solution, *_ = np.linalg.lstsq(design, values, rcond=None)
        assert fitted == pytest.approx(design @ solution, abs=1e-6)
        assert follows == pytest.approx(solution[0] + solution[1] * future, abs=1e-6)
    assert fits.weights.sum() == pytest.approx(1.0)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    length=st.floats(0.1, 1.5),
    signal=st.floats(0.05, 0.95),
)
def test_the_process_is_that_of_the_direct_formulas(seed, length, signal):
    rng = np.random.default_rng(seed)
    times, asked = np.sort(rng.uniform(0, 3, 10)), np.array([0.5, 3.5])
    left = rng.normal(size=10)
    power = np.mean(left**2)

    def covariance(first, second):
        return np.array(
            [
                [power * signal * np.exp(-((a - b) ** 2) / (2 * length**2)) for b in second]
                for a in first
            ]
        )

    inverse = np.linalg.inv(covariance(times, times) + power * (1 - signal) * np.eye(10))
    cross = covariance(asked, times)
    found = residual.posterior(times, left, asked, length=length, signal=signal)
    assert found.mean == pytest.approx(cross @ inverse @ left, abs=1e-8)
    direct = np.diag(covariance(asked, asked) - cross @ inverse @ cross.T)
    assert found.variance == pytest.approx(direct, abs=1e-8)
    _, determinant = np.linalg.slogdet(inverse)
    expected = -0.5 * left @ inverse @ left + 0.5 * determinant
    assert residual.likelihood(times, left, length=length, signal=signal) == pytest.approx(expected)
