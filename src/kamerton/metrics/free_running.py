"""What is wrong with one sentence read aloud, from its frames and its attention alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

PREMATURE_SHARE = 0.9  # of the recording's length, and of the text
SILENT_DB = 40.0  # below the loudest frame of the recording
_DECIBELS = 20.0 / math.log(10.0)  # per neper of amplitude


def ended_early(attention: NDArray[Any], frames: int, recorded_frames: int) -> bool:
    """Whether the voice stopped before its text was read.

    It did when it took less than nine tenths of the recording's time, or when the symbol it
    listened to last, as the mean of that step's weights, lies before nine tenths of the text. The
    last symbol is the end of the text, which need not be listened to.

    Args:
        attention: (T, N), the padding cut off.
        frames: What was spoken.
        recorded_frames: What somebody spoke.
    """
    symbols = attention.shape[1]
    read = float(attention[-1] @ np.arange(1, symbols + 1))
    return (
        frames < PREMATURE_SHARE * recorded_frames
        or read < min(PREMATURE_SHARE * symbols, symbols - 1) - 1e-4  # rounding of the weights
    )


def mel_variance_ratio(spoken: NDArray[Any], recorded: NDArray[Any]) -> float:
    """Variance over time of log-mels (C, F), summed over the channels, spoken to recorded.

    Averaged, blurred frames have too little of it, and noise too much: 0.5 to 2 is healthy.
    """
    with np.errstate(all="ignore"):  # a model that diverged speaks NaN
        recorded_variance = float(np.var(recorded, axis=1, dtype=np.float64).sum())
        ratio = float(np.var(spoken, axis=1, dtype=np.float64).sum()) / max(recorded_variance, 1e-9)
    return ratio


def silence_share(mel: NDArray[Any], recorded: NDArray[Any]) -> float:
    """Share of the frames of log-mel amplitudes (C, F) that are 40 dB below the recording's peak.

    The recording's peak, not its own: what is all silence is all silent.
    """
    return float((_level_db(mel) < _level_db(recorded).max() - SILENT_DB).mean())


def _level_db(mel: NDArray[Any]) -> NDArray[np.float64]:
    """Power of every frame of natural-log amplitudes (C, F), in dB."""
    with np.errstate(all="ignore"):  # a model that diverged speaks NaN
        level: NDArray[np.float64] = np.logaddexp.reduce(2.0 * mel.astype(np.float64), axis=0)
    return level * (_DECIBELS / 2.0)
