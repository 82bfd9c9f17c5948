import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.audio.resample import StreamResampler, resample, shared_grid_hz

RATES = [8000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000]


def tone(rate_hz, seconds=0.6, frequency_hz=440.0):
    return np.sin(2 * np.pi * frequency_hz * np.arange(int(seconds * rate_hz)) / rate_hz).astype(
        np.float32
    )


@pytest.mark.parametrize("to_hz", RATES)
@pytest.mark.parametrize("from_hz", RATES)
def test_a_tone_keeps_its_pitch_level_and_time(from_hz, to_hz):
    expected = tone(to_hz)
    converted = resample(tone(from_hz), from_hz, to_hz)
    assert abs(len(converted) - len(expected)) <= 1
    inner = slice(to_hz // 20, len(expected) - to_hz // 20)  # its sudden ends ring
    np.testing.assert_allclose(converted[inner], expected[inner], atol=2e-3)


def test_what_the_lower_rate_cannot_hold_is_gone():
    converted = resample(tone(44_100, frequency_hz=15_000.0), 44_100, 22_050)
    assert np.abs(converted[1000:-1000]).max() < 1e-3


@given(
    sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=12),
    rates=st.tuples(st.sampled_from(RATES), st.sampled_from(RATES)),
)
def test_blocks_of_any_size_give_the_samples_of_one_piece(sizes, rates):
    wave = np.random.default_rng(0).standard_normal(sum(sizes)).astype(np.float32)
    stream = StreamResampler(*rates)
    parts = [stream.feed(part) for part in np.split(wave, np.cumsum(sizes)[:-1])]
    streamed = np.concatenate([*parts, stream.finish()])
    np.testing.assert_allclose(streamed, resample(wave, *rates), atol=1e-6)
    assert abs(len(streamed) - len(wave) * rates[1] / rates[0]) <= 1


def test_an_equal_rate_changes_nothing():
    wave = tone(16_000)
    assert resample(wave, 16_000, 16_000) is wave


def test_shared_instants():
    assert shared_grid_hz(44_100, 22_050) == 22_050
    assert shared_grid_hz(48_000, 22_050) == 150
