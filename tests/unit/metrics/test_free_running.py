"""What is wrong with a sentence read aloud: closed forms, and what must not matter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.metrics.free_running import ended_early, mel_variance_ratio, silence_share


def at(symbol, *, symbols):
    """Attention of one step that listens to one symbol, counted from 1."""
    weights = np.zeros((1, symbols))
    weights[0, symbol - 1] = 1.0
    return weights


@pytest.mark.parametrize(
    ("symbol", "symbols", "frames", "early"),
    [
        (20, 20, 100, False),
        (18, 20, 100, False),  # nine tenths of the text
        (17, 20, 100, True),
        (20, 20, 90, False),
        (20, 20, 89, True),
        (3, 4, 100, False),  # all but the end of a short text, though less than nine tenths
        (2, 4, 100, True),
        (1, 1, 100, False),
    ],
)
def test_a_sentence_ends_early_by_its_length_or_by_what_it_read(symbol, symbols, frames, early):
    assert ended_early(at(symbol, symbols=symbols), frames, 100) == early


def test_where_it_listens_is_the_mean_of_the_last_step():
    between = (at(10, symbols=20) + at(20, symbols=20)) / 2
    assert ended_early(between, 100, 100)  # symbol 15
    late = np.vstack([at(1, symbols=20), at(20, symbols=20)])
    assert not ended_early(late, 100, 100)
    assert ended_early(late[::-1], 100, 100)


@given(scale=st.floats(0.01, 3.0), offset=st.floats(-5.0, 5.0), seed=st.integers(0, 99))
def test_the_variance_ratio_is_the_square_of_the_scale_whatever_the_level(scale, offset, seed):
    recorded = np.random.default_rng(seed).normal(size=(5, 40))
    assert mel_variance_ratio(scale * recorded + offset, recorded) == pytest.approx(scale**2)


def test_the_variance_ratio_weighs_channels_by_what_moves_in_them():
    recorded = np.stack([np.arange(10.0), np.zeros(10)])
    assert mel_variance_ratio(np.zeros((2, 4)), recorded) == 0.0
    assert mel_variance_ratio(recorded[::-1], recorded) == pytest.approx(1.0)
    assert np.isnan(mel_variance_ratio(np.full((2, 4), np.nan), recorded))


def test_silence_is_counted_below_the_recordings_peak():
    recorded = np.zeros((2, 10))  # every frame at the peak
    spoken = np.zeros((2, 10))
    spoken[:, :3] = -41 / 20 * np.log(10)  # natural-log amplitude, 41 dB down
    spoken[:, 3:5] = -39 / 20 * np.log(10)
    assert silence_share(spoken, recorded) == pytest.approx(0.3)
    assert silence_share(recorded, recorded) == 0.0
    # What is all faint is all silent, though its own peak is no louder than the rest of it.
    assert silence_share(np.full((2, 10), -10.0), recorded) == 1.0


def test_level_adds_power_over_channels():
    many, one = np.zeros((100, 1)), np.full((100, 1), -50.0)
    one[0] = 0.0
    # One of a hundred channels holds a hundredth of the power: 20 dB less, and not silence.
    assert silence_share(one, many) == 0.0
    one[0] = -21 / 20 * np.log(10)
    assert silence_share(one, many) == 1.0


@pytest.mark.filterwarnings("error")
def test_a_model_that_diverged_is_measured_without_a_warning():
    recorded = np.zeros((2, 4))
    for value in (np.nan, np.inf, -np.inf):
        spoken = np.full((2, 4), value)
        assert 0.0 <= silence_share(spoken, recorded) <= 1.0
        mel_variance_ratio(spoken, recorded)
