import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.config.schema import AnalyzeParams
from kamerton.data.analysis import (
    COMPONENTS,
    VoiceMeasures,
    accent_evidence,
    clip_quality,
    complexity_of,
    dataset_quality,
    measure_voice,
    measured_share,
    worst_clips,
)
from kamerton.data.epoch_rule import Complexity
from kamerton.data.manifest import Row
from kamerton.data.measures import (
    WAVEFORM_SNR_LIMIT_DB,
    ClipMeasures,
    bandwidth_hz,
    measure_clip,
    speech_levels_db,
)
from tests.clip_folder import hum
from tests.speechlike import noise_at, speechlike

RATE_HZ = 22050
PARAMS = AnalyzeParams()


def row(number=0, **changed):
    values = {
        "id": f"{number:04x}",
        "shard": "v-0000.tar",
        "offset_bytes": 512,
        "size_bytes": 1,
        "audio_sha256": "0",
        "duration_seconds": 3.0,
        "sample_rate_hz": RATE_HZ,
        "text_raw": "one two three",
        "text": "one two three",
        "language": "en",
        "speaker": "v",
        "split": "train",
        "source": "a.wav",
        "source_sha256": "0",
        "source_rate_hz": 44100,
        "start_sample": 0,
        "end_sample": 1,
        "snr_db": 40.0,
        "avg_logprob": -0.2,
    }
    return Row(**(values | changed))


def measures(number=0, *, of=None, **changed):
    values = {
        "row": row(number, **(of or {})),
        "snr_db": 40.0,
        "snr_origin": "pauses",
        "clipped_share": 0.0,
        "bandwidth_hz": 11025.0,
        "loudness_lufs": -23.0,
        "f0_hz": np.full(100, 110.0, np.float32),
        "speech_levels_db": np.full(100, -25.0, np.float32),
        "characters_per_second": 15.0,
    }
    return ClipMeasures(**(values | changed))


def test_a_clean_clip_is_perfect():
    quality = clip_quality(measures())
    assert quality.score == pytest.approx(1.0)
    assert quality.problems == ()


@pytest.mark.parametrize(
    ("of", "changed", "component", "value"),
    [
        ({}, {"snr_db": 25.0}, "noise", 0.5),
        ({}, {"snr_db": 5.0}, "noise", 0.0),
        ({}, {"clipped_share": 0.0005}, "clipping", 0.75),
        ({}, {"clipped_share": 0.1}, "clipping", 0.0),
        ({}, {"bandwidth_hz": 3400.0}, "bandwidth", 0.0),
        ({}, {"bandwidth_hz": (3400.0 + 0.9 * 11025) / 2}, "bandwidth", 0.5),
        ({"avg_logprob": -0.6}, {}, "confidence", 0.5),
        ({"avg_logprob": -3.0}, {}, "confidence", 0.0),
    ],
)
def test_each_component_counts_by_its_weight(of, changed, component, value):
    quality = clip_quality(measures(of=of, **changed))
    assert quality.components[component] == pytest.approx(value)
    assert quality.score == pytest.approx(1.0 - COMPONENTS[component][0] * (1.0 - value))
    assert quality.problems == ((component,) if value < 0.5 else ())


def test_a_low_rate_is_measured_against_what_it_can_hold():
    full = measures(of={"sample_rate_hz": 16000}, bandwidth_hz=7500.0)
    assert clip_quality(full).components["bandwidth"] == pytest.approx(1.0)


def test_what_was_not_measured_does_not_count():
    quality = clip_quality(measures(of={"avg_logprob": None}, snr_db=None, clipped_share=0.01))
    assert quality.components["noise"] is None
    assert quality.score == pytest.approx(0.5), "two components of equal weight, one of them 0"


def test_weights_add_up_to_one():
    assert sum(weight for weight, _ in COMPONENTS.values()) == pytest.approx(1.0)


def test_the_dataset_is_the_mean_by_duration():
    clips = [
        measures(0, of={"duration_seconds": 9.0}),
        measures(1, of={"duration_seconds": 1.0, "avg_logprob": None}, snr_db=10.0),
    ]
    quality = dataset_quality(clips)
    assert quality.components["noise"] == pytest.approx(0.9)
    assert quality.components["confidence"] == pytest.approx(1.0)
    assert quality.score == pytest.approx(0.9 + 0.1 * 0.4 / 0.85)


@given(
    st.lists(
        st.tuples(
            st.none() | st.floats(-50, 90),
            st.none() | st.floats(-9, 0),
            st.none() | st.floats(0, 1),
            st.floats(0, 12000),
            st.floats(0.1, 20),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_scores_stay_between_0_and_1(values):
    clips = [
        measures(
            number,
            of={"avg_logprob": logprob, "duration_seconds": seconds},
            snr_db=snr,
            clipped_share=clipped,
            bandwidth_hz=band,
        )
        for number, (snr, logprob, clipped, band, seconds) in enumerate(values)
    ]
    scores = [clip_quality(clip).score for clip in clips]
    assert all(0.0 <= score <= 1.0 for score in scores)
    whole = dataset_quality(clips).score
    assert min(scores) - 1e-9 <= whole <= max(scores) + 1e-9


def test_the_worst_come_first_and_equals_by_id():
    clips = [measures(n, snr_db=snr) for n, snr in enumerate([40.0, 12.0, 20.0, 12.0])]
    assert [clip.row.id for clip, _ in worst_clips(clips, 3)] == ["0001", "0003", "0002"]
    assert worst_clips(clips, 0) == []


@pytest.mark.parametrize("cutoff_hz", [2000, 4000, 8000])
def test_bandwidth_finds_the_end_of_a_brick_wall(cutoff_hz):
    noise = np.random.default_rng(1).standard_normal(2 * RATE_HZ)
    spectrum = np.fft.rfft(noise)
    spectrum[np.fft.rfftfreq(len(noise), 1 / RATE_HZ) > cutoff_hz] = 0.0
    wave = np.fft.irfft(spectrum).astype(np.float32)
    assert bandwidth_hz(wave, RATE_HZ) == pytest.approx(cutoff_hz, abs=80)


def test_silence_has_no_bandwidth():
    assert bandwidth_hz(np.zeros(100, np.float32), RATE_HZ) == 0.0


def test_pauses_are_left_out_of_the_level():
    speech = 0.1 * np.ones(RATE_HZ, np.float32)
    wave = np.concatenate([speech, np.zeros(RATE_HZ, np.float32)])
    levels = speech_levels_db(wave, RATE_HZ)
    assert np.median(levels) == pytest.approx(-20.0, abs=0.01)
    assert len(levels) == pytest.approx(100, abs=4)


def test_a_clip_is_measured_whole():
    wave = hum(3.0, pitch_hz=150.0, rate_hz=RATE_HZ)
    found = measure_clip(row(clipped_share=0.001), wave)
    assert (found.snr_db, found.snr_origin, found.clipped_share) == (40.0, "pauses", 0.001)
    assert np.median(found.f0_hz) == pytest.approx(150.0, rel=0.02)
    assert found.characters_per_second == pytest.approx(len("one two three") / 3.0, rel=0.35)
    assert -40.0 < found.loudness_lufs < -5.0
    assert 1650.0 <= found.bandwidth_hz <= RATE_HZ / 2, "eleven harmonics of 150 Hz"


def test_a_silent_clip_is_measured_too():
    found = measure_clip(row(), np.zeros(RATE_HZ, np.float32))
    assert len(found.f0_hz) == 0
    assert (found.loudness_lufs, found.characters_per_second) == (None, None)
    voice = measure_voice([found])
    assert voice.median_f0_hz is None
    assert complexity_of(voice, PARAMS) == Complexity()


def test_measures_of_a_voice_in_closed_form():
    # A glide of two octaves: 24 semitones, of which the middle 90 % are 21.6.
    glide = (100.0 * 2.0 ** (np.linspace(-12, 12, 2001) / 12)).astype(np.float32)
    clips = [
        measures(0, f0_hz=glide, characters_per_second=10.0),
        measures(1, f0_hz=glide, characters_per_second=14.0),
        measures(2, f0_hz=glide, characters_per_second=1.0, of={"duration_seconds": 1.9}),
    ]
    voice = measure_voice(clips)
    assert voice.median_f0_hz == pytest.approx(100.0, rel=1e-3)
    assert voice.pitch_range_semitones == pytest.approx(21.6, abs=0.02)
    assert voice.pitch_sd_semitones == pytest.approx(21.6 / np.sqrt(12), abs=0.02)
    assert voice.pitch_sd_between_clips == pytest.approx(0.0, abs=1e-6)
    assert voice.tempo_cv == pytest.approx(np.std([10, 14], ddof=1) / 12), (
        "short clips are left out"
    )
    assert voice.level_range_db == 0.0


CALM = VoiceMeasures(110.0, 10.0, 2.5, 1.0, 0.1, 15.0, 1.0)


def voice_with(**changed):
    return VoiceMeasures(**({name: getattr(CALM, name) for name in CALM.__slots__} | changed))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, Complexity()),
        ({"pitch_range_semitones": 16.1}, Complexity(pitch=True)),
        ({"pitch_sd_semitones": 4.6}, Complexity(pitch=True)),
        ({"tempo_cv": 0.21}, Complexity(tempo=True)),
        ({"level_range_db": 27.0}, Complexity()),
        ({"level_range_db": 27.0, "level_sd_between_clips_db": 3.1}, Complexity(emotion=True)),
        (
            {"pitch_sd_semitones": 4.6, "pitch_sd_between_clips": 2.6},
            Complexity(emotion=True, pitch=True),
        ),
    ],
)
def test_complexity_follows_its_limits(changed, expected):
    assert complexity_of(voice_with(**changed), PARAMS) == expected


def test_limits_and_the_accent_are_parameters():
    voice = voice_with(pitch_range_semitones=16.1, tempo_cv=0.3)
    lenient = AnalyzeParams(wide_pitch_semitones=20.0, variable_tempo_cv=0.5)
    assert complexity_of(voice, lenient) == Complexity()
    assert complexity_of(CALM, AnalyzeParams(accent=True)) == Complexity(accent=True)


def test_without_pauses_the_waveform_tells_the_noise():
    wave = speechlike(6.0, RATE_HZ, seed=2)
    noisy = (wave + noise_at(wave, 10.0)).astype(np.float32)
    found = measure_clip(row(snr_db=None), noisy)
    assert found.snr_origin == "waveform"
    assert found.snr_db == pytest.approx(10.0, abs=4.0)
    clean = measure_clip(row(snr_db=None), wave)
    assert clean.snr_db <= WAVEFORM_SNR_LIMIT_DB


def test_what_was_measured_is_counted_by_duration():
    clips = [
        measures(0, of={"duration_seconds": 6.0, "avg_logprob": None}),
        measures(1, of={"duration_seconds": 3.0}, clipped_share=None),
        measures(2, of={"duration_seconds": 1.0}, snr_db=None),
    ]
    assert measured_share(clips) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("logprob", "snr_db", "count", "stated", "evidence"),
    [
        (-0.2, 40.0, 30, True, "stated"),
        (-0.8, 40.0, 30, False, "suspected"),
        (-0.8, 12.0, 30, False, "unknown"),
        (-0.3, 40.0, 30, False, "unknown"),
        (-0.8, 40.0, 5, False, "unknown"),
        (None, 40.0, 30, False, "unknown"),
    ],
)
def test_an_accent_is_stated_suspected_or_unknown(logprob, snr_db, count, stated, evidence):
    clips = [measures(n, of={"avg_logprob": logprob}, snr_db=snr_db) for n in range(count)]
    params = AnalyzeParams(accent=stated)
    assert accent_evidence(clips, params) == evidence
    assert complexity_of(CALM, params).accent is stated, "a suspicion changes nothing"
