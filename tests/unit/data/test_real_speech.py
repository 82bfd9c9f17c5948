"""One real reader: joined clips come back whole, and she measures as a reader does.

The full tables, with more pauses and seeds: `python -m benchmarks.real_speech`.
"""

import importlib.util

import numpy as np
import pytest
import soundfile

from kamerton.audio.pitch import pitch_track
from kamerton.config.schema import Params
from kamerton.data.measures import bandwidth_hz
from kamerton.data.segmentation import segment_source
from tests.real_speech import join, judge, read_clips, room_tone

NEURAL = all(importlib.util.find_spec(name) for name in ("onnxruntime", "silero_vad"))


@pytest.mark.parametrize("detector", ["energy", "neural"])
def test_joined_clips_come_back_whole(real_speech, tmp_path, detector):
    if detector == "neural" and not NEURAL:
        pytest.skip("the neural detector is not installed")
    clips = read_clips(real_speech)
    joined = join(clips, "room tone", seed=11)
    path = tmp_path / "joined.wav"
    soundfile.write(path, joined.wave, joined.rate_hz, subtype="PCM_16")
    params = Params.model_validate(
        {"segment": {"target_seconds": 12.0, "max_seconds": 12.0, "detector": detector}}
    )
    done = segment_source(path, "00", params.segment, params.audio, emit=lambda *_: None)
    assert all(not clip.reasons for clip in done.clips)
    spans = [(c.start_sample / joined.rate_hz, c.end_sample / joined.rate_hz) for c in done.clips]
    found = judge(joined, spans, params.segment.pad_seconds)
    assert (found.clips, found.whole) == (16, 16)
    assert found.worst <= 0.15
    assert found.cuts_inside == 0
    assert 30.0 < np.median([clip.snr_db for clip in done.clips]) < 65.0


def test_the_judge_sees_a_cut_word_and_a_lost_clip(real_speech):
    """The check itself can fail."""
    clips = read_clips(real_speech)[:4]
    joined = join(clips, "silence", seed=1)
    right = [(start - 0.1, end + 0.1) for start, end in joined.speech]
    assert judge(joined, right, 0.1).whole == 4
    assert judge(joined, right, 0.1).worst < 1e-6
    start, end = joined.speech[0]
    middle = start + 0.4
    halved = [(start - 0.1, middle), (middle, end + 0.1), *right[1:]]
    assert judge(joined, halved, 0.1).whole == 3
    cuts = [(start - 0.1, place / 100) for place in range(round(100 * start), round(100 * end))]
    assert max(judge(joined, [cut], 0.1).cuts_inside for cut in cuts) == 1
    assert judge(joined, right[1:], 0.1).whole == 3


def test_room_tone_is_quiet_and_as_long_as_asked(real_speech):
    clips = read_clips(real_speech)
    tone = room_tone(clips, 1.5, np.random.default_rng(0))
    assert len(tone) == round(1.5 * clips[0][2])
    assert -75.0 < 20 * np.log10(np.sqrt((tone**2).mean())) < -58.0


def test_measures_of_a_calm_reader_are_plausible(real_speech):
    clips = read_clips(real_speech)[::4]
    tracks = [pitch_track(wave, rate_hz)[0] for _, wave, rate_hz in clips]
    pitch = np.concatenate([track[track > 0] for track in tracks])
    assert 180.0 < np.median(pitch) < 250.0
    assert all(9000.0 < bandwidth_hz(wave, rate_hz) < 11_025.0 for _, wave, rate_hz in clips)
