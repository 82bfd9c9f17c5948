"""How good a dataset is, and how hard its voice is to learn.

Weights and limits are this project's own, from measurements on known noise and on public corpora;
they come from no paper, so every component is published beside the score.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kamerton.config.schema import AnalyzeParams
from kamerton.data.epoch_rule import Complexity
from kamerton.data.measures import ClipMeasures

_QUIET_DB, _SNR_RANGE_DB = 10.0, 30.0
_WORST_CLIPPED_SHARE = 0.002
_TELEPHONE_HZ, _WIDE_HZ = 3400.0, 0.9 * 11025.0
_WORST_LOGPROB, _LOGPROB_RANGE = -1.0, 0.8
_WEAK = 0.5  # a component below this is named as the clip's problem

_SHORTEST_FOR_TEMPO_SECONDS = 2.0
_PITCH_SD_SHARE = 4.0 / 14.0  # SD of 4 semitones goes with a range of 14
_LIVELY_PITCH_SD = 4.0
_LIVELY_LEVEL_RANGE_DB = 26.0  # a calm public reader (LJ Speech) has 24
_LIVELY_LEVEL_SD_DB = 3.0
_LIVELY_MEAN_PITCH_SD = 2.5
_SIGNS_OF_EMOTION = 2
_REFERENCE_HZ = 100.0
_CLIPS_TO_SUSPECT = 20
_UNSURE_LOGPROB, _CLEAN_SNR_DB = -0.6, 20.0

PROBLEMS: Mapping[str, str] = {
    "noise": "noisy: record it again in a quieter room, or nearer to the microphone",
    "clipping": "clipped: record it again with less gain",
    "bandwidth": "narrow band: a telephone, a codec or an old microphone; record it again",
    "confidence": "the recogniser is unsure: listen, then correct the text or drop it",
}


def _clamp(value: float) -> float:
    return min(1.0, max(0.0, value))


def _noise(clip: ClipMeasures) -> float | None:
    return None if clip.snr_db is None else _clamp((clip.snr_db - _QUIET_DB) / _SNR_RANGE_DB)


def _clipping(clip: ClipMeasures) -> float | None:
    share = clip.clipped_share
    return None if share is None else 1.0 - _clamp(share / _WORST_CLIPPED_SHARE)


def _bandwidth(clip: ClipMeasures) -> float | None:
    wide = min(0.9 * clip.row.sample_rate_hz / 2, _WIDE_HZ)
    return _clamp((clip.bandwidth_hz - _TELEPHONE_HZ) / (wide - _TELEPHONE_HZ))


def _confidence(clip: ClipMeasures) -> float | None:
    logprob = clip.row.avg_logprob
    return None if logprob is None else _clamp((logprob - _WORST_LOGPROB) / _LOGPROB_RANGE)


# Name -> (weight, how good a clip is at it, 0 to 1, or None where it was not measured).
COMPONENTS: Mapping[str, tuple[float, Callable[[ClipMeasures], float | None]]] = {
    "noise": (0.45, _noise),
    "clipping": (0.20, _clipping),
    "bandwidth": (0.20, _bandwidth),
    "confidence": (0.15, _confidence),
}


@dataclass(frozen=True, slots=True)
class ClipQuality:
    """Quality of a clip in [0, 1] and what it is made of; missing components are None."""

    score: float
    components: Mapping[str, float | None]

    @property
    def problems(self) -> tuple[str, ...]:
        """Names of the weak components, the weakest first."""
        weak = [(v, n) for n, v in self.components.items() if v is not None and v < _WEAK]
        return tuple(name for _, name in sorted(weak))


def clip_quality(clip: ClipMeasures) -> ClipQuality:
    """Weighted mean of the components that were measured."""
    values = {name: measure(clip) for name, (_, measure) in COMPONENTS.items()}
    measured = {name: value for name, value in values.items() if value is not None}
    weight = sum(COMPONENTS[name][0] for name in measured)
    score = sum(COMPONENTS[name][0] * value for name, value in measured.items()) / weight
    return ClipQuality(score, values)


def dataset_quality(clips: Sequence[ClipMeasures]) -> ClipQuality:
    """Means over all clips, by duration."""
    qualities = [clip_quality(clip) for clip in clips]
    seconds = np.array([clip.row.duration_seconds for clip in clips])
    components: dict[str, float | None] = {}
    for name in COMPONENTS:
        values = [quality.components[name] for quality in qualities]
        known = np.array([value is not None for value in values])
        numbers = np.array([value or 0.0 for value in values])
        components[name] = (
            float(np.average(numbers[known], weights=seconds[known])) if known.any() else None
        )
    score = float(np.average([quality.score for quality in qualities], weights=seconds))
    return ClipQuality(score, components)


def measured_share(clips: Sequence[ClipMeasures]) -> float:
    """Share of the sound of which noise, clipping and bandwidth are all known.

    The recogniser's confidence does not count: texts that a person wrote have none.
    """
    seconds = sum(clip.row.duration_seconds for clip in clips)
    whole = (c for c in clips if c.snr_db is not None and c.clipped_share is not None)
    return sum(clip.row.duration_seconds for clip in whole) / seconds if seconds else 0.0


@dataclass(frozen=True, slots=True)
class VoiceMeasures:
    """Measures of the whole voice; None where there was too little to measure.

    Pitch is in semitones about the median, over voiced frames; outermost 5 % at each side are
    left out of range and deviation, so that octave errors of the tracker do not count.
    """

    median_f0_hz: float | None
    pitch_range_semitones: float | None
    pitch_sd_semitones: float | None
    pitch_sd_between_clips: float | None
    tempo_cv: float | None
    level_range_db: float | None
    level_sd_between_clips_db: float | None


def measure_voice(clips: Sequence[ClipMeasures]) -> VoiceMeasures:
    """Put the measures of all clips together."""
    semitones = _semitones(np.concatenate([clip.f0_hz for clip in clips]))
    low, median, high = np.quantile(semitones, [0.05, 0.5, 0.95]) if len(semitones) else (0, 0, 0)
    trimmed = semitones[(semitones >= low) & (semitones <= high)]
    tempos = [
        clip.characters_per_second
        for clip in clips
        if clip.characters_per_second and clip.row.duration_seconds >= _SHORTEST_FOR_TEMPO_SECONDS
    ]
    levels = np.concatenate([clip.speech_levels_db for clip in clips])
    level_bounds = np.quantile(levels, [0.10, 0.95])
    known = bool(len(semitones))
    tempo_sd = _deviation(tempos)
    return VoiceMeasures(
        median_f0_hz=_REFERENCE_HZ * 2.0 ** (float(median) / 12.0) if known else None,
        pitch_range_semitones=float(high - low) if known else None,
        pitch_sd_semitones=float(trimmed.std()) if known else None,
        pitch_sd_between_clips=_deviation([_mean_pitch(c) for c in clips if len(c.f0_hz)]),
        tempo_cv=None if tempo_sd is None else tempo_sd / float(np.mean(tempos)),
        level_range_db=float(level_bounds[1] - level_bounds[0]),
        level_sd_between_clips_db=_deviation([float(c.speech_levels_db.mean()) for c in clips]),
    )


def _semitones(f0_hz: NDArray[np.float32]) -> NDArray[np.float64]:
    return 12.0 * np.log2(f0_hz.astype(np.float64) / _REFERENCE_HZ)


def _mean_pitch(clip: ClipMeasures) -> float:
    return float(_semitones(clip.f0_hz).mean())


def _deviation(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def complexity_of(voice: VoiceMeasures, params: AnalyzeParams) -> Complexity:
    """What makes the voice harder to learn.

    Emotion is a proxy: two of four signs of lively reading. An accent cannot be told from sound
    alone, so it counts only if the parameters say that there is one (see `accent_evidence`).
    """
    signs = [
        _above(voice.pitch_sd_semitones, _LIVELY_PITCH_SD),
        _above(voice.level_range_db, _LIVELY_LEVEL_RANGE_DB),
        _above(voice.level_sd_between_clips_db, _LIVELY_LEVEL_SD_DB),
        _above(voice.pitch_sd_between_clips, _LIVELY_MEAN_PITCH_SD),
    ]
    wide = params.wide_pitch_semitones
    return Complexity(
        accent=params.accent,
        emotion=sum(signs) >= _SIGNS_OF_EMOTION,
        tempo=_above(voice.tempo_cv, params.variable_tempo_cv),
        pitch=_above(voice.pitch_range_semitones, wide)
        or _above(voice.pitch_sd_semitones, wide * _PITCH_SD_SHARE),
    )


def _above(value: float | None, limit: float) -> bool:
    return value is not None and value > limit


AccentEvidence = Literal["stated", "suspected", "unknown"]


def accent_evidence(clips: Sequence[ClipMeasures], params: AnalyzeParams) -> AccentEvidence:
    """What is known of an accent.

    It is suspected where the recogniser is unsure of most clips though they are clean. That has
    other causes as well (another language, a weak recogniser), so it changes no number.
    """
    if params.accent:
        return "stated"
    logprobs = [clip.row.avg_logprob for clip in clips if clip.row.avg_logprob is not None]
    snrs = [clip.snr_db for clip in clips if clip.snr_db is not None]
    if min(len(logprobs), len(snrs)) < _CLIPS_TO_SUSPECT:
        return "unknown"
    unsure = float(np.median(logprobs)) < _UNSURE_LOGPROB
    return "suspected" if unsure and float(np.median(snrs)) >= _CLEAN_SNR_DB else "unknown"


def worst_clips(
    clips: Sequence[ClipMeasures], count: int
) -> list[tuple[ClipMeasures, ClipQuality]]:
    """The clips of lowest quality, the worst first; equal ones in order of id."""
    judged = [(clip, clip_quality(clip)) for clip in clips]
    return sorted(judged, key=lambda pair: (pair[1].score, pair[0].row.id))[:count]
