"""What counts as speech in a recording, given what its detector hears and how noisy it is.

In a quiet room every silence is a pause. Noise makes pauses look longer and words shorter than they
are, so the noisier a recording, the longer a silence must be to be believed; unless it is needed
to keep a clip within the maximum length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kamerton.data.cuts import hann_mean, runs, speech_mask
from kamerton.data.noise import MAX_SNR_DB, NoiseMeter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from kamerton.data.cuts import CutLimits
    from kamerton.data.hearing import SourceAnalysis

# Below this SNR noise begins to hide weak sounds, and at the lower end pauses must be longer by
# the factor, and speech is taken to be wider, than in a quiet room.
_QUIET_ROOM_DB, _NOISY_ROOM_DB = 22.0, 10.0
_NOISY_PAUSE_FACTOR = 1.6
_NOISY_GROW_FRAMES = 4
_SPEECH = 0.5
# A word may end in a plosive, and its release, after a silence, is what noise hides best: within
# this reach of speech less is needed to be heard as one, in the noisiest rooms this score.
_RELEASE_FRAMES = 22
_RELEASE_SCORE = 0.2
# Music hides the middle of pauses from the network: what it still sees of one, as a share of the
# shortest pause, and the score to fall below, where nothing longer keeps a clip within the limit.
_GLIMPSES = ((0.67, 0.5), (0.53, 0.6), (0.4, 0.75))
_MUCH_DISTRUST = 0.5
# Where energy alone hears no pause for longer than a clip may be, music is likely: then what is
# near the bottom of the level's range counts as one.
_LEVEL_WINDOW_FRAMES = 15
_LEVEL_QUANTILES = (0.02, 0.8)
_LEVEL_SHARE = 0.25
_LEVEL_RANGE_DB = 6.0
_LEVEL_PAUSE = 0.8
_LEVEL_GROW_FRAMES = 3


def find_speech(
    analysis: SourceAnalysis, limits: CutLimits
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The scores to place cuts by, and where there is speech, (T,) each."""
    scores, pause = analysis.scores, limits.min_pause_frames
    plain = bold = speech_mask(scores, pause)
    noisy = _noisiness(analysis.levels.power, bold)
    caution = max(noisy, analysis.distrust)
    mask = bold
    if noisy > 0.0 and analysis.distrust <= _MUCH_DISTRUST:
        enough = _SPEECH - noisy * (_SPEECH - _RELEASE_SCORE)
        scores = _with_releases(scores, analysis.energy_scores, enough)
        bold = speech_mask(scores, pause)
    if caution > 0.0:
        grow = round(caution * _NOISY_GROW_FRAMES)
        longer = round(pause * (1.0 + caution * (_NOISY_PAUSE_FACTOR - 1.0)))
        mask = speech_mask(scores, longer, grow)
        _replace_long(mask, (speech_mask(scores, pause, grow), bold, plain), limits)
    if analysis.distrust > _MUCH_DISTRUST:
        glimpses = (
            speech_mask(scores, max(2, round(share * pause)), threshold=threshold)
            for share, threshold in _GLIMPSES
        )
        _replace_long(mask, glimpses, limits)
    if analysis.detector == "energy":
        return _by_level(scores, mask, analysis.band_level_db, limits)
    return scores, mask


def _with_releases(
    scores: NDArray[np.float32], energy: NDArray[np.float32], enough: float
) -> NDArray[np.float32]:
    """The scores, with speech reaching up to the last weak sound right behind it."""
    scores = scores.copy()
    _, ends = runs(energy >= _SPEECH)
    for end in ends.tolist():
        weak = np.flatnonzero(energy[end : end + _RELEASE_FRAMES] >= enough)
        if len(weak):
            reach = slice(end, end + int(weak[-1]) + 1)
            scores[reach] = np.maximum(scores[reach], _SPEECH)
    return scores


def _noisiness(power: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """0 for a quiet room to 1 for one whose noise hides weak sounds."""
    snr_db = NoiseMeter(power, mask).snr_db(0, len(mask))
    below = _QUIET_ROOM_DB - (MAX_SNR_DB if snr_db is None else snr_db)
    return min(1.0, max(0.0, below / (_QUIET_ROOM_DB - _NOISY_ROOM_DB)))


def _replace_long(
    mask: NDArray[np.bool_], bolder: Iterable[NDArray[np.bool_]], limits: CutLimits
) -> None:
    """Look for pauses with ever less caution in stretches that are longer than a clip may be."""
    for other in bolder:
        for start, end in zip(*runs(mask), strict=True):
            if end - start > limits.max_frames:
                mask[start:end] = other[start:end]


def _by_level(
    scores: NDArray[np.float32],
    mask: NDArray[np.bool_],
    level_db: NDArray[np.float32],
    limits: CutLimits,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Look for pauses by level in stretches that are longer than a clip may be."""
    long = [
        (start, end)
        for start, end in zip(*runs(mask), strict=True)
        if end - start > limits.max_frames
    ]
    if not long:
        return scores, mask
    scores, mask = scores.copy(), mask.copy()
    smooth = hann_mean(level_db, _LEVEL_WINDOW_FRAMES)
    pause = max(2, round(_LEVEL_PAUSE * limits.min_pause_frames))
    for start, end in long:
        level = smooth[start:end]
        low, high = np.quantile(level, _LEVEL_QUANTILES)
        if high - low < _LEVEL_RANGE_DB:
            continue
        share = ((level - low) / (high - low)).astype(np.float32)
        scores[start:end] = np.clip(share, 0.0, 1.0)
        mask[start:end] = speech_mask(share, pause, _LEVEL_GROW_FRAMES, _LEVEL_SHARE)
    return scores, mask
