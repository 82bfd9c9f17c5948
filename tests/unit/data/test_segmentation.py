import hashlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.audio.decode import AudioReadError
from kamerton.audio.files import read_audio, write_flac
from kamerton.audio.loudness import integrated_loudness, true_peak
from kamerton.audio.resample import resample
from kamerton.config.schema import AudioParams, SegmentParams
from kamerton.data.cuts import runs
from kamerton.data.noise import MAX_SNR_DB
from kamerton.data.segmentation import (
    analyse_source,
    clip_id,
    fade,
    segment_source,
)
from tests.recordings import bursts, paced, with_noise, write_sound

AUDIO = AudioParams(sample_rate_hz=22_050)


def params(**values):
    """Energy alone, because the network does not take these signals for a voice."""
    return SegmentParams(detector="energy", **values)


SENTENCES = params(target_seconds=2.5, max_inner_pause_seconds=0.28)
SPANS, SECONDS = paced([2.4, 3.0, 2.1, 2.7, 2.2, 2.9], [0.7, 0.35, 0.6, 1.1, 0.3, 0.45, 0.6])


def run(tmp_path, wave, rate_hz, segment=SENTENCES, audio=AUDIO, name="a.wav", **options):
    path = write_sound(tmp_path / name, wave, rate_hz, **options)
    folder = tmp_path / "clips"
    folder.mkdir(exist_ok=True)

    def emit(clip, samples):
        write_flac(folder / f"{clip.id}.flac", samples, audio.sample_rate_hz)

    return segment_source(path, "0" * 64, segment, audio, emit=emit), folder


def clip_seconds(done):
    rate_hz = done.analysis.rate_hz
    return [(c.start_sample / rate_hz, c.end_sample / rate_hz) for c in done.clips]


@pytest.mark.parametrize(
    ("kind", "snr_db", "gain_db"),
    [
        (None, 0, 0),
        (None, 0, -30),
        ("white", 40, -20),
        ("white", 20, 0),
        ("pink", 20, -10),
        ("hum", 20, 0),
    ],
)
def test_each_sentence_becomes_one_clip_around_it(tmp_path, kind, snr_db, gain_db):
    wave = bursts(SPANS, SECONDS, 16_000)
    wave = with_noise(wave, kind, snr_db) if kind else wave
    done, _ = run(tmp_path, wave * np.float32(10 ** (gain_db / 20)), 16_000, subtype="PCM_24")
    assert len(done.clips) == len(SPANS)
    for (start, end), (first, last) in zip(SPANS, clip_seconds(done), strict=True):
        assert first <= start + 0.02
        assert last >= end - 0.06  # the weak end of the last syllable may drown
        assert start - first < 0.16
        assert last - end < 0.16
    assert all(clip.reasons == () and not clip.forced_cut for clip in done.clips)


@pytest.mark.parametrize("kind", ["white", "pink"])
@pytest.mark.parametrize("target", [2.5, 6.0])
def test_no_cut_inside_a_sentence_in_strong_noise(tmp_path, kind, target):
    wave = with_noise(bursts(SPANS, SECONDS), kind, 10)
    segment = params(target_seconds=target)
    done, _ = run(tmp_path, wave, 16_000, segment)
    limits = np.array(clip_seconds(done)).ravel()
    for start, end in SPANS:
        assert not ((limits > start + 0.15) & (limits < end - 0.15)).any()


@pytest.mark.parametrize(
    ("rate_hz", "options", "tolerance"),
    [
        (44_100, {"subtype": "PCM_16"}, 1e-3),
        (48_000, {"subtype": "FLOAT"}, 1e-3),
        (22_050, {"subtype": "PCM_24"}, 1e-4),
        (16_000, {"subtype": "PCM_16"}, 1e-3),
    ],
)
def test_a_clip_is_the_named_slice_of_its_source(tmp_path, rate_hz, options, tolerance):
    segment = SENTENCES.model_copy(update={"fade_seconds": 0.0})
    source = with_noise(bursts(SPANS[:3], 9.6, rate_hz), "white", 40, rate_hz)
    done, folder = run(tmp_path, source, rate_hz, segment, **options)
    assert len(done.clips) == 3
    whole = resample(read_audio(tmp_path / "a.wav")[0], rate_hz, 22_050)
    for clip in done.clips:
        wave, clip_hz = read_audio(folder / f"{clip.id}.flac")
        assert clip_hz == 22_050
        assert len(wave) / clip_hz == pytest.approx(clip.duration_seconds, abs=1e-6)
        # The slice cut from the source by the numbers alone, converted on its own.
        expected = converted_slice(tmp_path / "a.wav", clip, 22_050)
        scaled = wave / 10 ** (done.gain_db / 20)
        assert np.abs(scaled - expected).max() < tolerance * np.abs(expected).max() + 1e-4
        assert np.abs(scaled - whole[clip.start : clip.end]).max() < 1e-4


def converted_slice(path, clip, to_hz, shift=0):
    source, rate_hz = read_audio(path)
    begin = max(0, clip.start_sample - rate_hz // 10)
    converted = resample(source[begin : clip.end_sample + rate_hz // 10], rate_hz, to_hz)
    start = round((clip.start_sample - begin) * to_hz / rate_hz) + shift
    return converted[start : start + clip.end - clip.start]


def test_rates_without_common_instants_are_right_to_the_nearest_sample(tmp_path):
    source = bursts(SPANS[:2], 6.8, 44_099)
    done, folder = run(tmp_path, source, 44_099, subtype="FLOAT")
    for clip in done.clips:
        wave = read_audio(folder / f"{clip.id}.flac")[0] / 10 ** (done.gain_db / 20)
        error = {
            shift: np.abs(wave - converted_slice(tmp_path / "a.wav", clip, 22_050, shift)).mean()
            for shift in range(-4, 5)
        }
        assert abs(min(error, key=error.get)) <= 1


def test_stereo_and_mp3_keep_their_times(tmp_path):
    wave = bursts(SPANS, SECONDS, 44_100)
    stereo = np.stack([wave, wave * 0.5], axis=1)
    flac, _ = run(tmp_path, stereo, 44_100, name="a.flac")
    mp3, _ = run(tmp_path, wave, 44_100, name="a.mp3")
    assert flac.analysis.channels == 2
    np.testing.assert_allclose(clip_seconds(flac), clip_seconds(mp3), atol=0.05)


def test_loudness_is_one_gain_for_the_whole_source(tmp_path):
    wave = bursts(SPANS, SECONDS, 22_050)
    wave[: round(3.2 * 22_050)] *= 0.3  # the first sentence is spoken softly and stays so
    done, folder = run(tmp_path, wave * 0.1, 22_050, subtype="FLOAT")
    assert done.gain_db == pytest.approx(-23.0 - done.loudness_lufs, abs=0.001)
    level = integrated_loudness(wave * np.float32(0.1), 22_050)
    assert done.loudness_lufs == pytest.approx(level, abs=0.2)
    clips = [read_audio(folder / f"{clip.id}.flac")[0] for clip in done.clips]
    soft, loud = (integrated_loudness(clips[index], 22_050) for index in (0, 2))
    assert 8.0 < loud - soft < 13.0


def test_the_ceiling_limits_the_gain(tmp_path):
    """Sparse clicks on quiet speech: the target would put them far above full scale."""
    wave = bursts(SPANS, SECONDS, 22_050) * 0.02
    for start, end in SPANS:
        wave[round((start + end) / 2 * 22_050)] = 0.9
    done, folder = run(tmp_path, wave, 22_050, subtype="FLOAT")
    assert done.gain_db < -23.0 - integrated_loudness(wave, 22_050) - 3.0
    peaks = [true_peak(read_audio(folder / f"{clip.id}.flac")[0]) for clip in done.clips]
    assert max(peaks) <= 10 ** (-1.0 / 20) + 1e-4
    assert max(peaks) == pytest.approx(10 ** (-1.0 / 20), abs=0.01)


def test_a_bang_outside_the_clips_does_not_lower_them(tmp_path):
    wave = bursts(SPANS, SECONDS, 22_050) * 0.02
    quiet, _ = run(tmp_path, wave, 22_050, subtype="FLOAT")
    wave[2000:2040] = 0.9  # somebody touches the microphone before the first word
    loud, _ = run(tmp_path, wave, 22_050, subtype="FLOAT")
    assert [c.reasons for c in loud.clips] == [("too_short",)] + [()] * len(quiet.clips)
    assert loud.gain_db == pytest.approx(quiet.gain_db, abs=0.01)


def test_an_offset_is_taken_out(tmp_path):
    wave = with_noise(bursts(SPANS, SECONDS, 22_050), "white", 40, 22_050) * 0.3 + 0.2
    done, folder = run(tmp_path, wave.astype(np.float32), 22_050, subtype="FLOAT")
    assert len(done.clips) == len(SPANS)
    means = [read_audio(folder / f"{clip.id}.flac")[0].mean() for clip in done.clips]
    assert np.abs(means).max() < 0.003


@pytest.mark.parametrize("kind", ["white", "pink"])
@pytest.mark.parametrize("snr_db", [10.0, 20.0, 30.0])
def test_snr_is_measured_in_the_pauses_around(tmp_path, kind, snr_db):
    wave = with_noise(bursts(SPANS, SECONDS), kind, snr_db)
    done, _ = run(tmp_path, wave, 16_000, params(min_snr_db=-20.0))
    assert np.median([clip.snr_db for clip in done.clips]) == pytest.approx(snr_db, abs=1.2)


def test_digital_silence_has_a_finite_snr(tmp_path):
    done, _ = run(tmp_path, bursts(SPANS, SECONDS, 22_050), 22_050)
    assert all(clip.snr_db == MAX_SNR_DB for clip in done.clips)


def test_noisy_clips_are_rejected_and_not_written(tmp_path):
    wave = with_noise(bursts(SPANS, SECONDS), "white", 10)
    done, folder = run(tmp_path, wave, 16_000, params(min_snr_db=20.0))
    assert done.clips
    assert all("low_snr" in clip.reasons for clip in done.clips)
    assert list(folder.iterdir()) == []


def test_limits_hold_for_every_clip_to_the_sample(tmp_path):
    rng = np.random.default_rng(3)
    spans, seconds = paced(rng.uniform(0.3, 6.0, 14), rng.uniform(0.2, 0.9, 15))
    segment = params(min_seconds=1.0, target_seconds=3.0, max_seconds=5.0)
    done, folder = run(tmp_path, bursts(spans, seconds, 8000), 48_000, segment, name="b.wav")
    for clip in done.clips:
        assert clip.end - clip.start <= 5 * 22_050
        assert (clip.duration_seconds >= 1.0) == ("too_short" not in clip.reasons)
        assert 0 <= clip.start_sample < clip.end_sample <= done.analysis.source_samples
        assert (folder / f"{clip.id}.flac").exists() == (not clip.reasons)
    ends = [(c.start_sample, c.end_sample) for c in done.clips]
    assert all(a[1] <= b[0] for a, b in pairwise(ends))


def test_speech_without_pause_is_flagged(tmp_path):
    wave = bursts([(0.5, 20.5)], 21.0, 8000)
    done, folder = run(tmp_path, wave, 8000)
    assert [clip.forced_cut for clip in done.clips] == [True] * len(done.clips)
    assert not list(folder.iterdir())
    kept, folder = run(tmp_path, wave, 8000, params(keep_forced_cuts=True))
    assert all(clip.forced_cut and not clip.reasons for clip in kept.clips)
    assert len(list(folder.iterdir())) == len(kept.clips)


def test_the_same_input_gives_the_same_bytes(tmp_path):
    wave = with_noise(bursts(SPANS, SECONDS, 44_100), "pink", 30, 44_100)

    def digests(name):
        done, folder = run(tmp_path / name, wave, 44_100)
        files = [(folder / f"{clip.id}.flac").read_bytes() for clip in done.clips]
        return done.clips, [hashlib.sha256(data).hexdigest() for data in files]

    assert digests("one") == digests("two")


def test_silence_noise_and_nothing_have_reasons(tmp_path):
    noise = np.random.default_rng(0).standard_normal(400_000) * 0.1
    for wave, reason in ((np.zeros(40_000), "silent"), (noise, "no_speech")):
        with pytest.raises(AudioReadError, match=reason):
            run(tmp_path, wave.astype(np.float32), 16_000)
    with pytest.raises(AudioReadError, match="no_samples"):
        run(tmp_path, np.zeros(0, dtype=np.float32), 16_000)
    for size in (1, 7, 300):
        with pytest.raises(AudioReadError, match="too_short"):
            run(tmp_path, np.zeros(size, dtype=np.float32), 16_000)


def test_damage_is_a_warning(tmp_path):
    wave = bursts(SPANS, SECONDS, 22_050)
    wave[10] = np.nan
    path = write_sound(tmp_path / "a.wav", wave, 22_050, subtype="FLOAT")
    path.write_bytes(path.read_bytes()[:-40_000])
    warnings = analyse_source(path, 22_050).warnings
    assert [warning.partition(":")[0] for warning in warnings] == ["truncated", "not_finite"]


def test_a_file_that_changes_meanwhile_is_refused(tmp_path):
    path = write_sound(tmp_path / "a.wav", bursts(SPANS, SECONDS, 22_050), 22_050)

    def shorten(seconds, once=[]):  # noqa: B006 - remembers that it ran
        if seconds > SECONDS - 1 and not once:
            once.append(True)
            path.write_bytes(path.read_bytes()[:300_000])

    with pytest.raises(AudioReadError, match="changed_while_reading"):
        segment_source(
            path, "0" * 64, SENTENCES, AUDIO, emit=lambda _clip, _wave: None, tick=shorten
        )


@given(samples=st.integers(0, 50), length=st.integers(0, 60))
def test_fades_rise_and_fall_and_leave_the_rest(samples, length):
    result = np.ones(length, dtype=np.float32)
    fade(result, samples)
    ramp = min(samples, length // 2)
    assert (result[ramp : length - ramp] == 1.0).all()
    assert (np.diff(result[:ramp]) > 0).all()
    np.testing.assert_array_equal(result, result[::-1])


def test_ids_name_the_place():
    ids = {clip_id("a", 0, 1), clip_id("a", 0, 2), clip_id("b", 0, 1), clip_id("a", 1, 2)}
    assert len(ids) == 4
    assert all(len(name) == 16 for name in ids)
    assert clip_id("a", 0, 1) == hashlib.blake2b(b"a|0|1").hexdigest()[:16]


def join_real(folder, rng):
    """All real clips in one recording with random pauses of room noise: wave, spans, rate."""
    parts, spans, time = [], [], 0
    for path in sorted(folder.glob("*.flac")):
        wave, rate_hz = read_audio(path)
        pause = np.zeros(round(rng.uniform(0.9, 2.0) * rate_hz), dtype=np.float32)
        parts += [pause, wave]
        time += len(pause)
        spans.append((time / rate_hz, (time + len(wave)) / rate_hz))
        time += len(wave)
    whole = np.concatenate([*parts, np.zeros(rate_hz, dtype=np.float32)])
    return whole + 1e-4 * rng.standard_normal(len(whole)).astype(np.float32), spans, rate_hz


@pytest.mark.parametrize("seed", range(2))
def test_real_speech_comes_back_whole(tmp_path, real_speech, seed):
    """No cut within a real clip except at a pause that the clean signal shows to be one."""
    wave, spans, rate_hz = join_real(real_speech, np.random.default_rng(seed))
    segment = params(target_seconds=8.0, max_seconds=14.0)
    done, _ = run(tmp_path, wave, rate_hz, segment)
    assert all(clip.reasons == () for clip in done.clips)
    level = 10 * np.log10(done.analysis.levels.power + 1e-12)
    loud = np.quantile(level, 0.9)
    limits = clip_seconds(done)
    found = [
        any(abs(first - start) < 0.15 and abs(last - end) < 0.15 for first, last in limits)
        for start, end in spans
    ]
    assert sum(found) >= len(spans) - 2  # a long clip may be cut at a comma
    for first, last in limits:
        for limit in (first, last):
            frame = round(limit * 100)
            assert level[max(0, frame - 3) : frame + 3].min() < loud - 20
    speech_frames = runs(done.mask)
    covered = sum(last - first for first, last in limits)
    assert covered >= (speech_frames[1] - speech_frames[0]).sum() / 100
    assert 25 < np.median([clip.snr_db for clip in done.clips]) < 70


def test_caution_in_noise_ends_where_a_clip_would_be_too_long(tmp_path):
    """Short pauses are doubted in noise; used all the same when nothing else keeps the limit."""
    spans, seconds = paced([2.8] * 6, [0.8, 0.24, 0.24, 0.24, 0.24, 0.24, 0.8])
    wave = with_noise(bursts(spans, seconds), "pink", 12)
    segment = params(target_seconds=6.0, max_seconds=8.0)
    done, _ = run(tmp_path, wave, 16_000, segment)
    assert all(clip.reasons == () and not clip.forced_cut for clip in done.clips)
    cuts_at = [(a[1] + b[0]) / 2 for a, b in pairwise(clip_seconds(done))]
    pauses = [(end, start) for (_, end), (start, _) in pairwise(spans)]
    assert all(any(low - 0.1 < cut < high + 0.1 for low, high in pauses) for cut in cuts_at)
    assert len(cuts_at) >= 2


def test_channels_in_opposite_phase_are_noticed_and_one_is_used(tmp_path):
    wave = with_noise(bursts(SPANS, SECONDS, 22_050), "white", 40, 22_050)
    alone, _ = run(tmp_path, wave, 22_050, name="mono.wav")
    turned, folder = run(
        tmp_path / "two", np.stack([0.7 * wave, -wave], axis=1), 22_050, name="stereo.wav"
    )
    assert [c.start_sample for c in turned.clips] == [c.start_sample for c in alone.clips]
    assert turned.analysis.channel == 1
    assert any(text.startswith("out_of_phase") for text in turned.analysis.warnings)
    sound = read_audio(folder / f"{turned.clips[0].id}.flac")[0]
    assert integrated_loudness(sound, 22_050) == pytest.approx(-23.0, abs=2.0)


@pytest.mark.parametrize("other", [0.0, 0.4, 1.0])
def test_channels_that_agree_or_are_silent_are_mixed(tmp_path, other):
    wave = with_noise(bursts(SPANS[:2], 6.8, 22_050), "white", 40, 22_050)
    stereo = np.stack([wave, other * wave], axis=1)
    done, _ = run(tmp_path, stereo, 22_050)
    assert done.analysis.channel is None
    assert done.analysis.warnings == ()


def test_without_room_on_disk_the_recording_is_decoded_again(tmp_path, monkeypatch):
    wave = with_noise(bursts(SPANS, SECONDS, 44_100), "pink", 30, 44_100)

    def digests(name):
        done, folder = run(tmp_path / name, np.stack([wave, -wave], axis=1), 44_100)
        files = [(folder / f"{clip.id}.flac").read_bytes() for clip in done.clips]
        return done.clips, files

    kept = digests("one")
    monkeypatch.setattr("kamerton.audio.store._SPARE_BYTES", 1 << 62)
    assert digests("two") == kept


def test_a_recording_whose_whole_text_is_given_stays_one_clip(tmp_path):
    wave = with_noise(bursts(SPANS[:3], 9.6, 22_050), "white", 40, 22_050)
    path = write_sound(tmp_path / "a.wav", wave, 22_050)

    def cut(segment):
        return segment_source(
            path, "0" * 64, segment, AUDIO, emit=lambda _clip, _wave: None, whole=True
        )

    (clip,) = cut(params(max_seconds=12.0)).clips
    assert clip.reasons == ()
    assert clip.start_sample / 22_050 == pytest.approx(SPANS[0][0] - 0.1, abs=0.04)
    assert clip.end_sample / 22_050 == pytest.approx(SPANS[2][1] + 0.1, abs=0.08)
    assert len(cut(params(max_seconds=6.0)).clips) > 1


def test_a_clip_at_which_the_recording_breaks_off_is_rejected(tmp_path):
    wave = with_noise(bursts(SPANS[:2], 6.8, 22_050), "white", 40, 22_050)
    path = write_sound(tmp_path / "a.wav", wave, 22_050)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: int(size * (SPANS[1][1] - 0.5) / 6.8)])
    done = segment_source(path, "0" * 64, SENTENCES, AUDIO, emit=lambda _clip, _wave: None)
    assert [clip.reasons for clip in done.clips] == [(), ("damaged",)]


@pytest.mark.parametrize(("before_db", "after_db"), [(45, 18), (18, 45)])
def test_a_room_that_changes_hides_no_pause(tmp_path, before_db, after_db):
    spans, seconds = paced([2.2] * 16, [0.7] + [0.5] * 15 + [0.7])
    wave = bursts(spans, seconds)
    half = round(sum(spans[8]) / 2 * 16_000)
    noisy = [with_noise(wave, "white", snr_db) for snr_db in (before_db, after_db)]
    done, _ = run(tmp_path, np.concatenate([noisy[0][:half], noisy[1][half:]]), 16_000)
    assert len(done.clips) == len(spans)
    assert all(clip.reasons == () for clip in done.clips)


def test_energy_alone_finds_pauses_in_what_changes_all_the_time(tmp_path):
    """Sound that comes and goes, 12 dB below the voice: no floor is to be found in it."""
    spans, seconds = paced([2.6] * 10, [0.7] + [0.6] * 9 + [0.7])
    voice = bursts(spans, seconds)
    rng = np.random.default_rng(5)
    swell = np.repeat(10 ** rng.uniform(-0.6, 0.0, int(seconds / 0.12) + 1), round(0.12 * 16_000))
    babble = rng.standard_normal(len(voice)) * swell[: len(voice)]
    level = np.sqrt(np.mean(voice[np.abs(voice) > 1e-4] ** 2) / np.mean(babble**2)) * 10**-0.6
    done, _ = run(tmp_path, (voice + level * babble).astype(np.float32), 16_000, params())
    kept = [clip for clip in done.clips if not clip.reasons]
    assert sum(clip.speech_seconds for clip in kept) > 0.8 * 26
