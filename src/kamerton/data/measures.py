"""What can be measured of one clip: noise, clipping, bandwidth, level, pitch and tempo."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kamerton.audio.loudness import integrated_loudness
from kamerton.audio.pitch import pitch_track
from kamerton.data.manifest import Row

_CLIPPED_RUN = 3  # equal tops of this many samples are no accident
_CLIPPED_LEVEL = 0.985
_SPECTRUM_SAMPLES = 1024
_SPECTRUM_DEPTH_DB = 50.0
_FRAME_SECONDS, _HOP_SECONDS = 0.025, 0.010
_SPEECH_DEPTH_DB = 30.0  # frames further below the loud ones are pauses
_FLOOR = 1e-10


@dataclass(frozen=True, slots=True)
class ClipMeasures:
    """Measures of one clip.

    ``f0_hz`` holds the pitch of its voiced frames, ``speech_levels_db`` the level of the frames
    that are speech. ``characters_per_second`` is by second of voiced sound, None without any.
    """

    row: Row
    clipped_share: float
    bandwidth_hz: float
    loudness_lufs: float | None
    f0_hz: NDArray[np.float32]
    speech_levels_db: NDArray[np.float32]
    characters_per_second: float | None


def measure_clip(row: Row, wave: NDArray[np.float32], source_peak: float) -> ClipMeasures:
    """Measure one clip; ``source_peak`` is the largest amplitude of all clips of its recording."""
    rate_hz = row.sample_rate_hz
    track, hop_seconds = pitch_track(wave, rate_hz)
    f0_hz = np.asarray(track, dtype=np.float32)
    f0_hz = f0_hz[np.isfinite(f0_hz) & (f0_hz > 0.0)]
    voiced_seconds = len(f0_hz) * hop_seconds
    loudness = integrated_loudness(wave, rate_hz)
    return ClipMeasures(
        row=row,
        clipped_share=clipped_share(wave, source_peak),
        bandwidth_hz=bandwidth_hz(wave, rate_hz),
        loudness_lufs=float(loudness) if np.isfinite(loudness) else None,
        f0_hz=f0_hz,
        speech_levels_db=speech_levels_db(wave, rate_hz),
        characters_per_second=len(row.text) / voiced_seconds if voiced_seconds > 0.0 else None,
    )


def clipped_share(wave: NDArray[np.float32], peak: float) -> float:
    """Share of samples in runs of three or more that stay at the recording's own ``peak``."""
    if peak <= 0.0 or not len(wave):
        return 0.0
    at_peak = np.abs(wave) >= _CLIPPED_LEVEL * peak
    edges = np.flatnonzero(np.diff(np.concatenate(([False], at_peak, [False])).astype(np.int8)))
    lengths = edges[1::2] - edges[::2]
    return float(lengths[lengths >= _CLIPPED_RUN].sum()) / len(wave)


def bandwidth_hz(wave: NDArray[np.float32], rate_hz: int) -> float:
    """The highest frequency at which the mean spectrum is within 50 dB of its maximum."""
    frames = _frames(wave, _SPECTRUM_SAMPLES, _SPECTRUM_SAMPLES // 2)
    power = np.abs(np.fft.rfft(frames * np.hanning(_SPECTRUM_SAMPLES), axis=1)) ** 2
    mean = power.mean(axis=0)
    loud = np.flatnonzero(mean >= mean.max() * 10.0 ** (-_SPECTRUM_DEPTH_DB / 10.0))
    if mean.max() <= 0.0:
        return 0.0
    return float(loud[-1]) * rate_hz / _SPECTRUM_SAMPLES


def speech_levels_db(wave: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    """Level of the 25 ms frames that are speech, in dB re full scale."""
    frames = _frames(wave, round(_FRAME_SECONDS * rate_hz), round(_HOP_SECONDS * rate_hz))
    levels = 10.0 * np.log10(np.mean(np.square(frames, dtype=np.float64), axis=1) + _FLOOR)
    speech: NDArray[np.float32] = levels[
        levels >= np.quantile(levels, 0.95) - _SPEECH_DEPTH_DB
    ].astype(np.float32)
    return speech


def _frames(wave: NDArray[np.float32], size: int, step: int) -> NDArray[np.float32]:
    """Frames of a wave, (count, size); at least one, padded with silence."""
    if len(wave) < size:
        wave = np.pad(wave, (0, size - len(wave)))
    frames: NDArray[np.float32] = np.lib.stride_tricks.sliding_window_view(wave, size)[::step]
    return frames
