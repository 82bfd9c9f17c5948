import numpy as np
import pytest

from kamerton.data.noise import MAX_SNR_DB, NoiseMeter


def test_noise_is_local():
    """Quiet in the first minute, loud in the second: each clip has the noise of its own time."""
    mask = np.zeros(12_000, dtype=bool)
    mask[1000:1200] = mask[9000:9200] = True
    power = np.where(np.arange(12_000) < 6000, 1e-6, 1e-4).astype(np.float32)
    power[mask] += 1e-2
    meter = NoiseMeter(power, mask)
    assert meter.snr_db(1000, 1200) == pytest.approx(40.0, abs=0.01)
    assert meter.snr_db(9000, 9200) == pytest.approx(20.0, abs=0.01)
    assert meter.snr_db(5000, 5100) is None
    assert NoiseMeter(power, np.ones(12_000, dtype=bool)).snr_db(0, 100) is None


def test_it_is_the_ratio_of_speech_alone_to_noise():
    """Mean squares 1.1 in speech and 0.1 in pauses: the speech itself has 1.0."""
    mask = np.arange(3000) // 300 % 2 == 1
    power = np.where(mask, 1.1, 0.1).astype(np.float32)
    assert NoiseMeter(power, mask).snr_db(0, 3000) == pytest.approx(10.0, abs=1e-3)


def test_speech_that_leaks_into_the_frames_beside_it_is_no_noise():
    mask = np.zeros(2000, dtype=bool)
    mask[1000:1200] = True
    power = np.full(2000, 1e-6, dtype=np.float32)
    power[996:1204] = 1e-2
    assert NoiseMeter(power, mask).snr_db(1000, 1200) == pytest.approx(40.0, abs=0.01)


def test_silent_pauses_and_inaudible_speech_have_finite_ratios():
    mask = np.zeros(1000, dtype=bool)
    mask[400:600] = True
    assert NoiseMeter(mask.astype(np.float32), mask).snr_db(400, 600) == MAX_SNR_DB
    flat = np.ones(1000, dtype=np.float32)
    assert NoiseMeter(flat, mask).snr_db(400, 600) == -MAX_SNR_DB
