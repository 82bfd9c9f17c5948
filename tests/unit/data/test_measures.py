"""Measures against what is known of a recording, all the way through the segmenter."""

import numpy as np
import pytest

from kamerton.audio.resample import resample
from kamerton.config.schema import Params
from kamerton.data.measures import bandwidth_hz
from kamerton.data.segmentation import segment_source
from tests.recordings import bursts, paced, with_noise, write_sound

RATE_HZ = 44_100
SPANS, SECONDS = paced([2.4, 2.2, 2.6], [0.8, 1.0, 1.1, 0.9])
PARAMS = Params.model_validate(
    {"segment": {"detector": "energy", "target_seconds": 2.5, "min_snr_db": -20.0}}
)


def cut(folder, wave):
    """Clips of a recording and their sound."""
    path = write_sound(folder / "a.wav", wave, RATE_HZ, subtype="PCM_16")
    sounds = []
    done = segment_source(
        path, "00", PARAMS.segment, PARAMS.audio, emit=lambda _, wave: sounds.append(wave)
    )
    assert len(done.clips) == len(SPANS)
    return done.clips, sounds


@pytest.fixture(scope="module")
def voice():
    return bursts(SPANS, SECONDS, RATE_HZ)


@pytest.mark.parametrize("over_db", [0, 3, 9])
def test_clipping_is_that_of_the_recording_not_of_the_resampled_clip(tmp_path, voice, over_db):
    driven = np.clip(2 * voice * 10 ** (over_db / 20), -1, 1)
    clips, _ = cut(tmp_path, with_noise(driven, "white", 45, RATE_HZ) * 0.9)
    for clip in clips:
        span = driven[clip.start_sample : clip.end_sample]
        truth = np.mean(np.abs(span) >= 0.999)
        # Noise blurs the tops, and the last 1.5 % below the peak count as top.
        assert clip.clipped_share == pytest.approx(truth, abs=0.3 * truth + 5e-4)


@pytest.mark.parametrize("cutoff_hz", [3400, 7000])
def test_the_bandwidth_of_a_codec_is_seen_in_the_clips(tmp_path, voice, cutoff_hz):
    narrow = resample(resample(voice, RATE_HZ, 2 * cutoff_hz), 2 * cutoff_hz, RATE_HZ)
    hiss = np.random.default_rng(0).standard_normal(len(narrow)).astype(np.float32)
    band = resample(resample(hiss, RATE_HZ, 2 * cutoff_hz), 2 * cutoff_hz, RATE_HZ)
    _, sounds = cut(tmp_path, narrow[: len(band)] + 0.003 * band[: len(narrow)])
    for wave in sounds:
        assert bandwidth_hz(wave, 22_050) == pytest.approx(cutoff_hz, rel=0.06)
