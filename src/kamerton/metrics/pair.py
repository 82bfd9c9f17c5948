"""Two recordings of one sentence, brought to the form that every audio metric measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kamerton.audio.resample import resample

Wave = NDArray[np.float64]

RATE_HZ = 16_000
HOP_SAMPLES = 80  # 5 ms
TRIM_DB = -40.0
MIN_VOICED_SECONDS = 0.4  # pystoi needs 30 frames; below, it answers 1e-5 even for equal signals
SILENCE_LEVEL = 1e-4  # -80 dB of full scale; what a vocoder makes of an empty mel is below

PAIR_DEFINITION = "mono f64, 16 kHz, trimmed at -40 dB below the loudest 25 ms, >= 0.4 s voiced"

_TRIM_WINDOW_SAMPLES = 400  # 25 ms
_TRIM_MARGIN_HOPS = 3  # the half window that the level of a frame comes from, rounded up


class PairError(ValueError):
    """The pair cannot be measured; the message says which side and why."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Reference and synthesis, (n,) and (m,), both at 16 kHz, without outer silence."""

    reference: Wave
    synthesis: Wave

    @property
    def duration_ratio(self) -> float:
        """Length of the synthesis as a multiple of the reference's; DTW cannot see this."""
        return self.synthesis.size / self.reference.size


def prepare_pair(
    reference: NDArray[Any],
    reference_hz: int,
    synthesis: NDArray[Any],
    synthesis_hz: int,
) -> Pair:
    """Resample and trim two mono waves.

    Silence is judged against each wave's own loudest 25 ms, which is the reference's level after
    the two were matched: a synthesis that is quieter as a whole loses nothing.

    Raises:
        PairError: one side is empty, not finite, silent, or too short.
    """
    return Pair(
        _prepare(reference, reference_hz, "reference"),
        _prepare(synthesis, synthesis_hz, "synthesis"),
    )


def _prepare(wave: NDArray[Any], rate_hz: int, side: str) -> Wave:
    samples = np.asarray(wave, dtype=np.float64)
    if samples.ndim != 1:
        raise PairError(f"the {side} is not mono")
    if samples.size == 0:
        raise PairError(f"the {side} is empty")
    if not np.isfinite(samples).all():
        raise PairError(f"the {side} has samples that are not finite")
    if rate_hz != RATE_HZ:
        samples = np.asarray(resample(samples.astype(np.float32), rate_hz, RATE_HZ), np.float64)
    voiced = frame_levels(samples)
    if voiced.max() < SILENCE_LEVEL:
        raise PairError(f"the {side} is silent")
    active = np.flatnonzero(voiced >= voiced.max() * 10 ** (TRIM_DB / 20))
    if active.size * HOP_SAMPLES < MIN_VOICED_SECONDS * RATE_HZ:
        seconds = active.size * HOP_SAMPLES / RATE_HZ
        raise PairError(
            f"the {side} has {seconds:.2f} s of voice, less than {MIN_VOICED_SECONDS} s"
        )
    # Whole hops, so that silence in front does not shift the frames against the sound.
    first = max(0, int(active[0]) - _TRIM_MARGIN_HOPS) * HOP_SAMPLES
    last = min(samples.size, (int(active[-1]) + _TRIM_MARGIN_HOPS) * HOP_SAMPLES)
    return samples[first:last]


def frame_levels(wave: Wave) -> Wave:
    """Root mean square of 25 ms around every fifth millisecond, (1 + n // 80,)."""
    half = _TRIM_WINDOW_SAMPLES // 2
    energy = np.concatenate([[0.0], np.cumsum(wave**2)])
    centres = np.arange(0, wave.size + 1, HOP_SAMPLES)
    low = np.maximum(centres - half, 0)
    high = np.minimum(centres + half, wave.size)
    total: Wave = np.sqrt(np.maximum(energy[high] - energy[low], 0.0) / _TRIM_WINDOW_SAMPLES)
    return total
