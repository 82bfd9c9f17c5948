"""From one long recording to clips: listen once, plan, then cut.

The recording is decoded once, in constant memory; its samples at the clips' rate wait on disk until
the cuts are known (and are decoded again where the disk has no room). Positions are kept to the
sample of the source, at its own rate.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kamerton.audio.activity import FRAMES_PER_SECOND
from kamerton.audio.decode import AudioReadError, open_audio
from kamerton.audio.loudness import STEPS_PER_SECOND, gated_loudness, true_peak
from kamerton.audio.resample import shared_grid_hz
from kamerton.audio.silero import choose_detector
from kamerton.audio.store import SampleStore
from kamerton.data.cuts import CutLimits, Span, plan_clips, whole_span
from kamerton.data.hearing import SourceAnalysis, analyse_source, converted, why_no_clips
from kamerton.data.noise import NoiseMeter
from kamerton.data.pauses import find_speech

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from kamerton.config.schema import AudioParams, SegmentParams

__all__ = ["Clip", "Emit", "SegmentedSource", "SourceAnalysis", "analyse_source", "segment_source"]

_OVERSHOOT_DB = 2.0  # true peaks of speech are hardly ever further above its samples
_ID_HEX_DIGITS = 16
# Grids coarser than this would move a cut audibly; then positions are rounded instead.
_MIN_GRID_HZ = 50

Tick = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip as planned: limits in the source [start_sample, end_sample) at the source's rate.

    ``start`` and ``end`` are the same instants in samples of the clips' rate. ``snr_db`` is None
    where the recording has no pause to measure noise in. ``clipped_share`` is that of samples at
    the top of the source.
    """

    id: str
    start_sample: int
    end_sample: int
    start: int
    end: int
    duration_seconds: float
    speech_seconds: float
    snr_db: float | None
    clipped_share: float
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
    whole: bool = False,
    scratch: Path | None = None,
) -> SegmentedSource:
    """Cut one recording and hand out the clips that are kept.

    Args:
        path: the recording.
        source_sha256: hash of its bytes, part of each clip's id.
        emit: called with each kept clip and its samples at the clips' rate, in order.
        segment: the detector, limits, margins and loudness.
        audio: the rate of the clips.
        tick: called with the position in seconds, from 0 in each of two passes (three where the
            channels cancel each other out).
        whole: make one clip from the first speech to the last, if that is within the maximum.
        scratch: folder for samples that wait, 320 MB an hour; None: the system's.

    Raises:
        AudioReadError: it cannot be read, or nobody speaks in it.
        ToolMissingError: ``segment.detector`` is neural and that is not installed.
    """
    detector, rate_hz = choose_detector(segment.detector), audio.sample_rate_hz
    with SampleStore(scratch) as store:
        analysis = analyse_source(path, rate_hz, detector=detector, store=store, tick=tick)
        mask, spans = plan_source(analysis, segment, whole=whole)
        if not spans:
            raise AudioReadError(*why_no_clips(analysis, segment.min_seconds))
        noise = NoiseMeter(analysis.levels.power, mask)
        clips = tuple(
            _clip(span, analysis, mask, noise, source_sha256, segment, rate_hz) for span in spans
        )
        kept = [clip for clip in clips if not clip.reasons]
        sound = _Sound(path, analysis, rate_hz, store)
        loudness_lufs = _speech_loudness(analysis, kept or list(clips), rate_hz)
        gain_db = _gain_db(sound, kept, segment.loudness_lufs - loudness_lufs, segment)
        gain = np.float32(10.0 ** (gain_db / 20.0))
        fade_samples = round(segment.fade_seconds * rate_hz)
        for clip, wave in sound.clips(kept):
            np.multiply(wave, gain, out=wave)
            fade(wave, fade_samples)
            emit(clip, wave)
            tick(clip.end / rate_hz)
    return SegmentedSource(analysis, mask, clips, loudness_lufs, gain_db)


def plan_source(
    analysis: SourceAnalysis, segment: SegmentParams, *, whole: bool = False
) -> tuple[NDArray[np.bool_], list[Span]]:
    """Where somebody speaks, (T,), and the clips to cut."""
    limits = cut_limits(segment)
    scores, mask = find_speech(analysis, limits)
    span = whole_span(mask, limits) if whole else None
    return mask, [span] if span else plan_clips(scores, mask, limits)


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
    if any(start <= end_sample and end >= start_sample for start, end in analysis.gaps):
        reasons.append("damaged")
    return Clip(
        id=clip_id(source_sha256, start_sample, end_sample),
        start_sample=start_sample,
        end_sample=end_sample,
        start=start,
        end=end,
        duration_seconds=round((end - start) / rate_hz, 6),
        speech_seconds=int(mask[span.start : span.end].sum()) / FRAMES_PER_SECOND,
        snr_db=None if snr_db is None else round(snr_db, 2),
        clipped_share=_clipped_share(analysis, start_sample, end_sample),
        forced_cut=span.forced_cut,
        reasons=tuple(reasons),
    )


def _clipped_share(analysis: SourceAnalysis, start_sample: int, end_sample: int) -> float:
    first, last = (
        round(sample * FRAMES_PER_SECOND / analysis.rate_hz)
        for sample in (start_sample, end_sample)
    )
    clipped = int(analysis.clipped[first:last].sum(dtype=np.int64))
    return round(clipped / max(1, end_sample - start_sample), 6)


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


class _Sound:
    """The recording's samples at the clips' rate, without its offset, clip by clip."""

    def __init__(
        self, path: Path, analysis: SourceAnalysis, rate_hz: int, store: SampleStore
    ) -> None:
        self.analysis, self.rate_hz = analysis, rate_hz
        self._path, self._store = path, store

    def clips(self, clips: list[Clip]) -> Iterator[tuple[Clip, NDArray[np.float32]]]:
        """Each clip's samples, yours to change; clips must be sorted and must not overlap."""
        waves: Iterator[tuple[Clip, NDArray[np.float32]]]
        if self._store.complete:
            waves = ((clip, self._store.read(clip.start, clip.end)) for clip in clips)
        else:
            waves = _decoded_again(self._path, clips, self.analysis, self.rate_hz)
        for clip, wave in waves:
            np.subtract(wave, np.float32(self.analysis.offset), out=wave)
            yield clip, wave

    def peak(self, clip: Clip) -> float:
        """Largest magnitude of a clip's samples, or a little more."""
        first = clip.start * FRAMES_PER_SECOND // self.rate_hz
        last = clip.end * FRAMES_PER_SECOND // self.rate_hz
        return float(self.analysis.levels.peak[first : last + 1].max())


def _decoded_again(
    path: Path, clips: list[Clip], analysis: SourceAnalysis, rate_hz: int
) -> Iterator[tuple[Clip, NDArray[np.float32]]]:
    waiting = iter(clips)
    clip = next(waiting, None)
    parts: list[NDArray[np.float32]] = []
    position = 0
    with open_audio(path, analysis.channel) as stream:
        for block in converted(stream, rate_hz):
            while clip is not None and clip.start < position + len(block):
                parts.append(block[max(0, clip.start - position) : clip.end - position])
                if clip.end > position + len(block):
                    break
                yield clip, np.concatenate(parts)
                parts, clip = [], next(waiting, None)
            position += len(block)
            if clip is None:
                return
    if clip is not None:
        raise AudioReadError("changed_while_reading", f"ended before clip {clip.id}")


def _gain_db(sound: _Sound, kept: list[Clip], wanted_db: float, segment: SegmentParams) -> float:
    """The wanted gain, or as much of it as leaves no kept clip above the ceiling.

    True peaks are sought only in clips whose samples come near it.
    """
    if not kept or not math.isfinite(wanted_db):
        return 0.0
    near_db = segment.true_peak_dbfs - _OVERSHOOT_DB - wanted_db
    near = [clip for clip in kept if _decibels(sound.peak(clip)) > near_db]
    if near:
        peak = max(true_peak(wave) for _, wave in sound.clips(near))
        wanted_db = min(wanted_db, segment.true_peak_dbfs - _decibels(peak))
    return math.floor(wanted_db * 1000.0) / 1000.0


def _decibels(amplitude: float) -> float:
    return 20.0 * math.log10(max(amplitude, 1e-10))


def fade(wave: NDArray[np.float32], samples: int) -> None:
    """Put a raised-cosine fade on both ends of the wave."""
    samples = min(samples, len(wave) // 2)
    if not samples:
        return
    ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(samples) + 0.5) / samples)).astype(np.float32)
    wave[:samples] *= ramp
    wave[-samples:] *= ramp[::-1]
