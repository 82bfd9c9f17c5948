"""What can be measured of one clip: noise, clipping, bandwidth, level, pitch and tempo."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kamerton.audio.loudness import integrated_loudness
from kamerton.audio.pitch import pitch_track
from kamerton.audio.wada import wada_snr_db
from kamerton.data.manifest import Dataset, Row

SnrOrigin = Literal["pauses", "waveform"]

# The shape of a waveform tells little more than "quiet" above this.
WAVEFORM_SNR_LIMIT_DB = 30.0
_SPECTRUM_SAMPLES = 1024
_SPECTRUM_DEPTH_DB = 50.0
_FRAME_SECONDS, _HOP_SECONDS = 0.025, 0.010
_SPEECH_DEPTH_DB = 30.0  # frames further below the loud ones are pauses
_FLOOR = 1e-10


@dataclass(frozen=True, slots=True)
class ClipMeasures:
    """Measures of one clip.

    ``snr_db`` is that of the segmenter, measured in the pauses of the recording, or guessed from
    the shape of the waveform where the recording has none; ``clipped_share`` that of the recording
    before it was resampled, None where the manifest does not tell. ``f0_hz`` holds the pitch of the
    voiced frames, ``speech_levels_db`` the level of the frames that are speech.
    ``characters_per_second`` is by second of voiced sound, None without any.
    """

    row: Row
    snr_db: float | None
    snr_origin: SnrOrigin | None
    clipped_share: float | None
    bandwidth_hz: float
    loudness_lufs: float | None
    f0_hz: NDArray[np.float32]
    speech_levels_db: NDArray[np.float32]
    characters_per_second: float | None


@dataclass(frozen=True, slots=True)
class MeasuringTask:
    """Clips of a dataset for one process to measure."""

    dataset: Path
    rows: tuple[Row, ...]


def measure_task(task: MeasuringTask, tick: Callable[[float], None]) -> list[ClipMeasures]:
    """Measure clips; ``tick`` is told how many seconds of sound are done.

    Raises:
        InputMissingError, InputCorruptError: a clip cannot be read.
    """
    dataset = Dataset(task.dataset, {}, task.rows)
    measured, seconds = [], 0.0
    for row in task.rows:
        measured.append(measure_clip(row, dataset.audio(row)[0]))
        seconds += row.duration_seconds
        tick(seconds)
    return measured


def measure_clip(row: Row, wave: NDArray[np.float32]) -> ClipMeasures:
    """Measure one clip."""
    rate_hz = row.sample_rate_hz
    track, hop_seconds = pitch_track(wave, rate_hz)
    f0_hz = np.asarray(track, dtype=np.float32)
    f0_hz = f0_hz[np.isfinite(f0_hz) & (f0_hz > 0.0)]
    voiced_seconds = len(f0_hz) * hop_seconds
    loudness = integrated_loudness(wave, rate_hz)
    snr_db, snr_origin = _snr(row, wave)
    return ClipMeasures(
        row=row,
        snr_db=snr_db,
        snr_origin=snr_origin,
        clipped_share=row.clipped_share,
        bandwidth_hz=bandwidth_hz(wave, rate_hz),
        loudness_lufs=float(loudness) if np.isfinite(loudness) else None,
        f0_hz=f0_hz,
        speech_levels_db=speech_levels_db(wave, rate_hz),
        characters_per_second=len(row.text) / voiced_seconds if voiced_seconds > 0.0 else None,
    )


def _snr(row: Row, wave: NDArray[np.float32]) -> tuple[float | None, SnrOrigin | None]:
    if row.snr_db is not None:
        return row.snr_db, "pauses"
    guess = wada_snr_db(wave)
    return (None, None) if guess is None else (min(guess, WAVEFORM_SNR_LIMIT_DB), "waveform")


def bandwidth_hz(wave: NDArray[np.float32], rate_hz: int) -> float:
    """The highest frequency at which the mean spectrum is within 50 dB of its maximum."""
    from scipy.fft import rfft

    frames = _frames(wave, _SPECTRUM_SAMPLES, _SPECTRUM_SAMPLES)
    spectrum = rfft(frames * np.hanning(_SPECTRUM_SAMPLES).astype(np.float32), axis=1)
    mean = np.einsum("ij,ij->j", spectrum, spectrum.conj()).real
    if mean.max() <= 0.0:
        return 0.0
    loud = np.flatnonzero(mean >= mean.max() * 10.0 ** (-_SPECTRUM_DEPTH_DB / 10.0))
    return float(loud[-1]) * rate_hz / _SPECTRUM_SAMPLES


def speech_levels_db(wave: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    """Level of the 25 ms frames that are speech, in dB re full scale."""
    frames = _frames(wave, round(_FRAME_SECONDS * rate_hz), round(_HOP_SECONDS * rate_hz))
    power = np.einsum("ij,ij->i", frames, frames) / np.float32(frames.shape[1])
    levels = 10.0 * np.log10(power.astype(np.float64) + _FLOOR)
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
