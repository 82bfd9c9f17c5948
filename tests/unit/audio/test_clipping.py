import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.audio.clipping import ClippingMeter, clipped_share, runs_at_top
from kamerton.audio.decode import open_audio
from tests.recordings import write_sound
from tests.speechlike import speechlike

RATE_HZ = 16_000


def measured(wave, sizes=(997,)):
    meter, place, turn = ClippingMeter(RATE_HZ), 0, 0
    while place < len(wave):
        size = sizes[turn % len(sizes)]
        meter.feed(wave[place : place + size])
        place, turn = place + size, turn + 1
    return meter.finish()


@given(st.lists(st.booleans(), max_size=60))
def test_runs_are_those_of_a_loop(flags):
    kept = np.zeros(len(flags), dtype=bool)
    for start in range(len(flags) - 2):
        if all(flags[start : start + 3]):
            kept[start : start + 3] = True
    assert (runs_at_top(np.array(flags, dtype=bool)) == kept).all()


@given(st.integers(0, 99), st.lists(st.integers(1, 700), min_size=1, max_size=5), st.floats(1, 4))
def test_a_stream_counts_as_the_whole_does(seed, sizes, gain):
    rng = np.random.default_rng(seed)
    wave = np.clip(gain * 0.3 * rng.standard_normal(3000), -0.5, 0.5).astype(np.float32)
    wave[0] = 0.5  # the peak is known from the start
    counts = measured(wave, sizes)
    assert counts.sum() == round(clipped_share(wave, 0.5) * len(wave))
    assert len(counts) == -(-len(wave) * 100 // RATE_HZ)


def test_a_higher_peak_shows_that_lower_tops_were_none():
    quiet = np.full(1000, 0.5, dtype=np.float32)
    loud = np.concatenate([quiet, np.zeros(500, np.float32), np.full(50, -0.9, np.float32)])
    assert measured(quiet).sum() == 1000
    assert measured(loud).sum() == 50
    assert measured(loud)[:9].sum() == 0


def test_nothing_is_not_clipped():
    assert measured(np.zeros(1000, np.float32)).sum() == 0
    assert len(measured(np.zeros(0, np.float32))) == 0
    assert clipped_share(np.zeros(10, np.float32), 0.0) == 0.0


def test_clipped_samples_are_runs_at_the_peak():
    wave = np.zeros(1000, np.float32)
    wave[100:103] = 0.8
    wave[200:202] = 0.8  # too short a run
    wave[300:305] = -0.8
    wave[400:500] = 0.7  # below the peak
    assert clipped_share(wave, 0.8) == pytest.approx(8 / 1000)
    assert clipped_share(wave, 1.0) == 0.0


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_overdriven_recordings_are_told_from_good_ones(tmp_path, rate_hz):
    wave = speechlike(3.0, rate_hz, seed=3)
    shares = []
    for over_db in (0, 1, 3, 6, 12):
        driven = np.clip(2 * wave * 10 ** (over_db / 20), -1, 1)
        path = write_sound(tmp_path / f"{over_db}.wav", driven, rate_hz, subtype="PCM_16")
        with open_audio(path) as stream:
            samples = sum(len(block) for block in stream.blocks())
        shares.append(stream.clipping.finish().sum() / samples)
    assert shares[0] < 0.0005
    assert shares[1] > 0.0
    assert shares[2] > 0.002, "the worst that the score knows"
    assert shares == sorted(shares)
