"""The first pass over a recording: who speaks where, how loud, and what is wrong with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kamerton.audio.activity import ActivityDetector, EnergyDetector, FrameLevels, LevelMeter
from kamerton.audio.blend import Blend, blend
from kamerton.audio.decode import AudioReadError, AudioStream, open_audio
from kamerton.audio.loudness import LoudnessMeter
from kamerton.audio.resample import StreamResampler
from kamerton.audio.silero import Detector, SileroDetector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from kamerton.audio.store import SampleStore

    Tick = Callable[[float], None]

_SILENT_DBFS = -75.0  # a loudest moment below this is the last bits of a converter
_CLICK_FRAMES = 6
_SURELY_QUIET = 0.1  # score below which a frame is no speech beyond doubt


@dataclass(frozen=True, slots=True)
class SourceAnalysis:
    """What the first pass hears; per-frame arrays are (T,) at 100 frames per second.

    ``samples`` counts at the clips' rate, ``source_samples`` at the source's own. ``energy_scores``
    are those without the network, the same where there is none. ``distrust`` is
    0 where the room is steady and 1 where only the network tells speech from what else sounds.
    ``band_level_db`` is the mean level of the bands that energy listens to.
    ``channel`` is the only one that was heard, or None for the mix of all. The levels are those
    without ``offset``, the constant that pauses show. ``loudness_blocks`` are the mean squares of
    the gating blocks of BS.1770, ten a second. ``gaps`` are stretches [start, end) of the source's
    samples that could not be read; an empty one is where the recording breaks off. ``clipped``
    counts the source's samples at its top, in every 10 ms.
    """

    rate_hz: int
    channels: int
    source_samples: int
    samples: int
    detector: Detector
    scores: NDArray[np.float32]
    energy_scores: NDArray[np.float32]
    distrust: float
    band_level_db: NDArray[np.float32]
    channel: int | None
    levels: FrameLevels
    loudness_blocks: NDArray[np.float64]
    offset: float
    gaps: tuple[tuple[int, int], ...]
    clipped: NDArray[np.uint16]
    warnings: tuple[str, ...]


def analyse_source(
    path: Path,
    rate_hz: int,
    *,
    detector: Detector = "energy",
    store: SampleStore | None = None,
    tick: Tick = lambda _seconds: None,
) -> SourceAnalysis:
    """Measure activity, level and loudness of a recording as it sounds at ``rate_hz``.

    Channels that cancel each other out are noticed at the end; then the recording is heard once
    more, the loudest channel alone.

    Args:
        path: the recording.
        rate_hz: the rate of the clips.
        detector: who listens for speech.
        store: where to keep the samples at ``rate_hz`` for the second pass.
        tick: called with the position in seconds.

    Raises:
        AudioReadError: it cannot be read, or holds no samples.
        ToolMissingError: the network or its runtime is not installed.
    """
    first = _listen(path, rate_hz, detector, store, tick, None)
    if first.cancelled is None:
        return first.result(detector)
    if store is not None:
        store.clear()
    again = _listen(path, rate_hz, detector, store, tick, first.cancelled)
    text = f"out_of_phase: the channels cancel each other, channel {first.cancelled + 1} is used"
    return again.result(detector, text)


@dataclass(frozen=True, slots=True)
class _Heard:
    stream: AudioStream
    samples: int
    blend: Blend
    energy_scores: NDArray[np.float32]
    band_level_db: NDArray[np.float32]
    levels: FrameLevels
    loudness_blocks: NDArray[np.float64]
    channel: int | None
    cancelled: int | None

    def result(self, detector: Detector, *remarks: str) -> SourceAnalysis:
        stream = self.stream
        warnings = [*stream.problems, *remarks]
        if stream.repaired:
            warnings.append(f"not_finite: {stream.repaired} samples made silent")
        offset = _offset(self.blend.scores, self.levels)
        self.levels.remove_offset(offset)
        return SourceAnalysis(
            rate_hz=stream.format.rate_hz,
            channels=stream.format.channels,
            source_samples=stream.frames,
            samples=self.samples,
            detector=detector,
            scores=self.blend.scores,
            energy_scores=self.energy_scores,
            distrust=self.blend.distrust,
            band_level_db=self.band_level_db,
            channel=self.channel,
            levels=self.levels,
            loudness_blocks=self.loudness_blocks,
            offset=offset,
            gaps=tuple(stream.gaps),
            clipped=stream.clipping.finish(),
            warnings=tuple(warnings),
        )


def _listen(
    path: Path,
    rate_hz: int,
    detector: Detector,
    store: SampleStore | None,
    tick: Tick,
    channel: int | None,
) -> _Heard:
    """One pass over the recording."""
    energy, meter, loudness = EnergyDetector(rate_hz), LevelMeter(rate_hz), LoudnessMeter(rate_hz)
    network: ActivityDetector | None = SileroDetector(rate_hz) if detector == "neural" else None
    samples = 0
    with open_audio(path, channel) as stream:
        for block in converted(stream, rate_hz):
            if store is not None:
                store.append(block)
            for listener in (energy, meter, loudness, network):
                if listener is not None:
                    listener.feed(block)
            samples += len(block)
            tick(samples / rate_hz)
    if not samples:
        raise AudioReadError("no_samples", stream.damage or "")
    scores = energy.finish()
    return _Heard(
        stream=stream,
        samples=samples,
        blend=blend(network.finish(), scores) if network is not None else Blend(scores, 0.0),
        energy_scores=scores,
        band_level_db=energy.band_level_db(),
        levels=meter.finish(),
        loudness_blocks=loudness.block_powers(),
        channel=channel,
        cancelled=stream.cancelled(),
    )


def converted(stream: AudioStream, rate_hz: int) -> Iterator[NDArray[np.float32]]:
    """The stream's samples at another rate."""
    resampler = StreamResampler(stream.format.rate_hz, rate_hz)
    for block in stream.blocks():
        yield resampler.feed(block)
    yield resampler.finish()


def _offset(scores: NDArray[np.float32], levels: FrameLevels) -> float:
    """The constant on which a recording rides: its mean where nobody speaks.

    Voices are lopsided, so the mean of everything is not it where pauses are digital silence.
    """
    quiet = scores < _SURELY_QUIET
    return float(levels.mean[quiet if quiet.any() else slice(None)].mean(dtype=np.float64))


def why_no_clips(analysis: SourceAnalysis, min_seconds: float) -> tuple[str, str]:
    """Reason and detail for a recording in which no speech was found."""
    seconds = analysis.source_samples / analysis.rate_hz
    if seconds < min_seconds:
        return "too_short", f"{seconds:.3f} s"
    # Not the very loudest: where a constant begins and ends there is a click.
    power = float(np.sort(analysis.levels.power)[-_CLICK_FRAMES:][0])
    loudest_dbfs = 10.0 * math.log10(power + 1e-12)
    reason = "silent" if loudest_dbfs < _SILENT_DBFS else "no_speech"
    return reason, f"{seconds:.1f} s, of at most {loudest_dbfs:.0f} dBFS"
