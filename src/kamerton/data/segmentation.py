"""From one long recording to clips: listen once, plan, then cut.

The recording is decoded twice in constant memory (a third time only if its peaks come near the
ceiling): the first pass measures, the second writes. Positions are kept to the sample of the
source, at its own rate.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kamerton.audio.activity import FRAMES_PER_SECOND, EnergyDetector, FrameLevels, LevelMeter
from kamerton.audio.decode import AudioReadError, AudioStream, open_audio
from kamerton.audio.loudness import STEPS_PER_SECOND, LoudnessMeter, gated_loudness, true_peak
from kamerton.audio.resample import StreamResampler, shared_grid_hz
from kamerton.data.cuts import CutLimits, Span, plan_clips, runs, speech_mask
from kamerton.data.noise import NoiseMeter

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from kamerton.config.schema import AudioParams, SegmentParams

_SURELY_QUIET = 0.1  # score below which a frame is no speech beyond doubt
_OVERSHOOT_DB = 2.0  # true peaks of speech are hardly ever further above its samples
_ID_HEX_DIGITS = 16
# Below this SNR noise begins to hide weak sounds, and at the lower end pauses must be longer by
# the factor, and speech is taken to be wider, than in a quiet room.
_QUIET_ROOM_DB, _NOISY_ROOM_DB = 22.0, 10.0
_NOISY_PAUSE_FACTOR = 2.3
_NOISY_GROW_FRAMES = 5
# Grids coarser than this would move a cut audibly; then positions are rounded instead.
_MIN_GRID_HZ = 50

Tick = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class SourceAnalysis:
    """What the first pass hears; per-frame arrays are (T,) at 100 frames per second.

    ``samples`` counts at the clips' rate, ``source_samples`` at the source's own. The levels are
    those without ``offset``, the constant that pauses show. ``loudness_blocks`` are the mean
    squares of the gating blocks of BS.1770, ten a second.
    """

    rate_hz: int
    channels: int
    source_samples: int
    samples: int
    scores: NDArray[np.float32]
    levels: FrameLevels
    loudness_blocks: NDArray[np.float64]
    offset: float
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip as planned: limits in the source [start_sample, end_sample) at the source's rate.

    ``start`` and ``end`` are the same instants in samples of the clips' rate. ``snr_db`` is None
    where the recording has no pause to measure noise in.
    """

    id: str
    start_sample: int
    end_sample: int
    start: int
    end: int
    duration_seconds: float
    speech_seconds: float
    snr_db: float | None
    forced_cut: bool
    reasons: tuple[str, ...]


Emit = Callable[[Clip, "NDArray[np.float32]"], None]


@dataclass(frozen=True, slots=True)
class SegmentedSource:
    """One recording, cut; the clips without reasons are written."""

    analysis: SourceAnalysis
    mask: NDArray[np.bool_]
    clips: tuple[Clip, ...]
    loudness_lufs: float
    gain_db: float


def segment_source(
    path: Path,
    source_sha256: str,
    segment: SegmentParams,
    audio: AudioParams,
    *,
    emit: Emit,
    tick: Tick = lambda _seconds: None,
) -> SegmentedSource:
    """Cut one recording and hand out the clips that are kept.

    Args:
        path: the recording.
        source_sha256: hash of its bytes, part of each clip's id.
        emit: called with each kept clip and its samples at the clips' rate, in order.
        segment: limits, margins and loudness.
        audio: the rate of the clips.
        tick: called with the position in seconds while decoding, from 0 in each pass.

    Raises:
        AudioReadError: it cannot be read, or nobody speaks in it.
    """
    analysis = analyse_source(path, audio.sample_rate_hz, tick=tick)
    mask, spans = plan_source(analysis, segment)
    if not spans:
        raise AudioReadError("no_speech")
    noise = NoiseMeter(analysis.levels.power, mask)
    clips = tuple(
        _clip(span, analysis, mask, noise, source_sha256, segment, audio.sample_rate_hz)
        for span in spans
    )
    kept = [clip for clip in clips if not clip.reasons]
    loudness_lufs = _speech_loudness(analysis, kept or list(clips), audio.sample_rate_hz)
    gain_db = _gain_db(path, analysis, kept, segment.loudness_lufs - loudness_lufs, segment, audio)
    gain = 10.0 ** (gain_db / 20.0)
    fade_samples = round(segment.fade_seconds * audio.sample_rate_hz)
    for clip, wave in read_clips(path, kept, audio.sample_rate_hz, tick=tick):
        level = faded((wave - np.float32(analysis.offset)) * np.float32(gain), fade_samples)
        emit(clip, level)
    return SegmentedSource(analysis, mask, clips, loudness_lufs, gain_db)


def analyse_source(
    path: Path, rate_hz: int, *, tick: Tick = lambda _seconds: None
) -> SourceAnalysis:
    """Measure activity, level and loudness of a recording as it sounds at ``rate_hz``.

    Raises:
        AudioReadError: it cannot be read, or holds no samples.
    """
    detector, meter, loudness = EnergyDetector(rate_hz), LevelMeter(rate_hz), LoudnessMeter(rate_hz)
    samples = 0
    with open_audio(path) as stream:
        for block in _converted(stream, rate_hz):
            detector.feed(block)
            meter.feed(block)
            loudness.feed(block)
            samples += len(block)
            tick(samples / rate_hz)
    if not samples:
        raise AudioReadError("no_samples", stream.damage or "")
    warnings = [stream.damage] if stream.damage else []
    if stream.repaired:
        warnings.append(f"not_finite: {stream.repaired} samples made silent")
    scores, levels = detector.finish(), meter.finish()
    offset = _offset(scores, levels)
    return SourceAnalysis(
        rate_hz=stream.format.rate_hz,
        channels=stream.format.channels,
        source_samples=stream.frames,
        samples=samples,
        scores=scores,
        levels=levels.without_offset(offset),
        loudness_blocks=loudness.block_powers(),
        offset=offset,
        warnings=tuple(warnings),
    )


def _offset(scores: NDArray[np.float32], levels: FrameLevels) -> float:
    """The constant on which a recording rides: its mean where nobody speaks.

    Voices are lopsided, so the mean of everything is not it where pauses are digital silence.
    """
    quiet = scores < _SURELY_QUIET
    return float(levels.mean[quiet if quiet.any() else slice(None)].mean(dtype=np.float64))


def _converted(stream: AudioStream, rate_hz: int) -> Iterator[NDArray[np.float32]]:
    resampler = StreamResampler(stream.format.rate_hz, rate_hz)
    for block in stream.blocks():
        yield resampler.feed(block)
    yield resampler.finish()


def plan_source(
    analysis: SourceAnalysis, segment: SegmentParams
) -> tuple[NDArray[np.bool_], list[Span]]:
    """Where somebody speaks, (T,), and the clips to cut.

    Noise makes pauses look longer and words shorter than they are, so the noisier a recording,
    the longer a silence must be to be believed; unless it is needed to keep a clip within the
    maximum length.
    """
    limits = cut_limits(segment)
    mask = speech_mask(analysis.scores, limits.min_pause_frames)
    snr_db = NoiseMeter(analysis.levels.power, mask).snr_db(0, len(mask))
    if snr_db is not None and snr_db < _QUIET_ROOM_DB:
        mask = _cautious_mask(analysis.scores, mask, snr_db, limits)
    return mask, plan_clips(analysis.scores, mask, limits)


def _cautious_mask(
    scores: NDArray[np.float32], bold: NDArray[np.bool_], snr_db: float, limits: CutLimits
) -> NDArray[np.bool_]:
    """The speech mask of a noisy recording; ``bold`` is what it would be in a quiet room."""
    caution = min(1.0, (_QUIET_ROOM_DB - snr_db) / (_QUIET_ROOM_DB - _NOISY_ROOM_DB))
    pause = limits.min_pause_frames
    grow = round(caution * _NOISY_GROW_FRAMES)
    longer = round(pause * (1.0 + caution * (_NOISY_PAUSE_FACTOR - 1.0)))
    mask = speech_mask(scores, longer, grow)
    for bolder in (speech_mask(scores, pause, grow), bold):
        for start, end in zip(*runs(mask), strict=True):
            if end - start > limits.max_frames:
                mask[start:end] = bolder[start:end]
    return mask


def cut_limits(segment: SegmentParams) -> CutLimits:
    """The parameters in frames."""

    def frames(seconds: float) -> int:
        return round(seconds * FRAMES_PER_SECOND)

    return CutLimits(
        min_frames=math.ceil(segment.min_seconds * FRAMES_PER_SECOND - 1e-9),
        target_frames=frames(segment.target_seconds),
        max_frames=math.floor(segment.max_seconds * FRAMES_PER_SECOND + 1e-9),
        min_pause_frames=frames(segment.min_pause_seconds),
        max_inner_pause_frames=frames(segment.max_inner_pause_seconds),
        pad_frames=frames(segment.pad_seconds),
        keep_forced_cuts=segment.keep_forced_cuts,
    )


def _clip(
    span: Span,
    analysis: SourceAnalysis,
    mask: NDArray[np.bool_],
    noise: NoiseMeter,
    source_sha256: str,
    segment: SegmentParams,
    rate_hz: int,
) -> Clip:
    start, start_sample = _aligned(span.start, analysis, rate_hz, last=False)
    end, end_sample = _aligned(span.end, analysis, rate_hz, last=True)
    snr_db = noise.snr_db(span.start, span.end)
    reasons = list(span.reasons)
    if end - start < segment.min_seconds * rate_hz and "too_short" not in reasons:
        reasons.append("too_short")
    if snr_db is not None and snr_db < segment.min_snr_db:
        reasons.append("low_snr")
    return Clip(
        id=clip_id(source_sha256, start_sample, end_sample),
        start_sample=start_sample,
        end_sample=end_sample,
        start=start,
        end=end,
        duration_seconds=round((end - start) / rate_hz, 6),
        speech_seconds=int(mask[span.start : span.end].sum()) / FRAMES_PER_SECOND,
        snr_db=None if snr_db is None else round(snr_db, 2),
        forced_cut=span.forced_cut,
        reasons=tuple(reasons),
    )


def clip_id(source_sha256: str, start_sample: int, end_sample: int) -> str:
    """The name of a clip: the same sound at the same place has the same name for ever."""
    text = f"{source_sha256}|{start_sample}|{end_sample}"
    return hashlib.blake2b(text.encode()).hexdigest()[:_ID_HEX_DIGITS]


def _aligned(frame: int, analysis: SourceAnalysis, rate_hz: int, *, last: bool) -> tuple[int, int]:
    """A frame's limit as (sample of the clip's rate, sample of the source).

    Limits are moved inwards, by 20 ms at most, to an instant that is a sample at both rates, so
    that a clip's position in its source is exact and not rounded.
    """
    exact = frame * rate_hz
    sample = exact // FRAMES_PER_SECOND if last else -(-exact // FRAMES_PER_SECOND)
    sample = min(sample, analysis.samples)
    grid_hz = shared_grid_hz(analysis.rate_hz, rate_hz)
    if grid_hz < _MIN_GRID_HZ:
        rounded = round(sample * analysis.rate_hz / rate_hz)
        return sample, min(rounded, analysis.source_samples)
    step, source_step = rate_hz // grid_hz, analysis.rate_hz // grid_hz
    instant = sample // step if last else -(-sample // step)
    return instant * step, instant * source_step


def _speech_loudness(analysis: SourceAnalysis, clips: list[Clip], rate_hz: int) -> float:
    """Loudness of what lies in clips: a door that slams between them does not count."""
    inside = np.zeros(len(analysis.loudness_blocks), dtype=bool)
    for clip in clips:
        first, last = (
            position * STEPS_PER_SECOND // rate_hz - 1 for position in (clip.start, clip.end)
        )
        inside[max(0, first) : max(0, last)] = True  # blocks centred in the clip, 0.4 s long
    return gated_loudness(analysis.loudness_blocks[inside])


def _gain_db(
    path: Path,
    analysis: SourceAnalysis,
    kept: list[Clip],
    wanted_db: float,
    segment: SegmentParams,
    audio: AudioParams,
) -> float:
    """The wanted gain, or as much of it as leaves no kept clip above the ceiling."""
    if not kept or not math.isfinite(wanted_db):
        return 0.0
    rate_hz = audio.sample_rate_hz
    frames = np.zeros(len(analysis.levels.peak), dtype=bool)
    for clip in kept:
        first = clip.start * FRAMES_PER_SECOND // rate_hz
        frames[first : clip.end * FRAMES_PER_SECOND // rate_hz + 1] = True
    peak = float(analysis.levels.peak[frames].max())
    if _decibels(peak) + wanted_db > segment.true_peak_dbfs - _OVERSHOOT_DB:
        offset = np.float32(analysis.offset)
        waves = (wave - offset for _, wave in read_clips(path, kept, rate_hz))
        peak = max(true_peak(wave) for wave in waves)
        wanted_db = min(wanted_db, segment.true_peak_dbfs - _decibels(peak))
    return math.floor(wanted_db * 1000.0) / 1000.0


def _decibels(amplitude: float) -> float:
    return 20.0 * math.log10(max(amplitude, 1e-10))


def read_clips(
    path: Path, clips: list[Clip], rate_hz: int, *, tick: Tick = lambda _seconds: None
) -> Iterator[tuple[Clip, NDArray[np.float32]]]:
    """Decode the source again and yield each clip's samples at ``rate_hz``, in order.

    Clips must be sorted and must not overlap.
    """
    waiting = iter(clips)
    clip = next(waiting, None)
    parts: list[NDArray[np.float32]] = []
    position = 0
    with open_audio(path) as stream:
        for block in _converted(stream, rate_hz):
            while clip is not None and clip.start < position + len(block):
                parts.append(block[max(0, clip.start - position) : clip.end - position])
                if clip.end > position + len(block):
                    break
                yield clip, np.concatenate(parts)
                parts, clip = [], next(waiting, None)
            position += len(block)
            if clip is None:
                return
            tick(position / rate_hz)
    if clip is not None:
        raise AudioReadError("changed_while_reading", f"ended before clip {clip.id}")


def faded(wave: NDArray[np.float32], samples: int) -> NDArray[np.float32]:
    """The wave with a raised-cosine fade at both ends."""
    samples = min(samples, len(wave) // 2)
    if not samples:
        return wave
    ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(samples) + 0.5) / samples)).astype(np.float32)
    result = wave.copy()
    result[:samples] *= ramp
    result[-samples:] *= ramp[::-1]
    return result
