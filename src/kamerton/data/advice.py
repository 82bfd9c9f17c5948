"""What to drop or record again, and what it would change: scored anew without it, not guessed."""

from collections.abc import Sequence
from dataclasses import dataclass

from kamerton.config.schema import AnalyzeParams
from kamerton.data.analysis import (
    PROBLEMS,
    ClipQuality,
    clip_quality,
    complexity_of,
    dataset_quality,
    measure_voice,
    measured_share,
)
from kamerton.data.by_recording import RecordingMeasures, by_recording
from kamerton.data.epoch_rule import Complexity, recommend
from kamerton.data.measures import ClipMeasures

_SECONDS_AN_HOUR, _SECONDS_A_MINUTE = 3600.0, 60.0
_LEAST_GAIN = 0.005  # of the score; less is not worth the trouble
_MOST_LOST_SHARE = 1.0 / 3.0  # of the dataset, by all advice together


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a dataset comes to."""

    hours: float
    quality: float
    epochs: int


@dataclass(frozen=True, slots=True)
class Advice:
    """One recording, or single clips of any, that the dataset would be better without.

    ``source`` is None for single clips. Each piece of advice takes it that those before it were
    followed: ``before`` is the dataset then, ``without`` what is left, and ``again`` what it would
    be if this were recorded as well as the rest.
    """

    source: str | None
    clip_ids: tuple[str, ...]
    seconds: float
    quality: ClipQuality
    snr_db: float | None
    before: Outlook
    without: Outlook
    again: Outlook

    @property
    def problems(self) -> tuple[str, ...]:
        """What is weak about it; the weakest component at least."""
        known = {n: v for n, v in self.quality.components.items() if v is not None}
        return self.quality.problems or tuple(sorted(known, key=lambda name: known[name])[:1])

    @property
    def text(self) -> str:
        """The advice as a sentence."""
        before, without, again = self.before, self.without, self.again
        what = f"{self.source!r}" if self.source is not None else f"{len(self.clip_ids)} clips"
        why = " and ".join(PROBLEMS[name].partition(":")[0] for name in self.problems)
        snr = "" if self.snr_db is None else f", SNR {self.snr_db:.0f} dB"
        epochs = f"epochs {before.epochs} → {without.epochs}"
        if before.epochs == without.epochs:
            epochs = f"{before.epochs} epochs still"
        return (
            f"drop {what} ({_length(self.seconds)}{snr}; {why}): quality {before.quality:.2f} → "
            f"{without.quality:.2f}, leaves {_length(without.hours * _SECONDS_AN_HOUR)}, {epochs}; "
            f"recorded again as well as the rest: {again.quality:.2f} with all "
            f"{_length(again.hours * _SECONDS_AN_HOUR)}, {again.epochs} epochs"
        )


def _length(seconds: float) -> str:
    if seconds < _SECONDS_A_MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * _SECONDS_AN_HOUR:
        return f"{seconds / _SECONDS_A_MINUTE:.1f} min"
    return f"{seconds / _SECONDS_AN_HOUR:.1f} h"


def advise(clips: Sequence[ClipMeasures], params: AnalyzeParams) -> list[Advice]:
    """Recordings, then single clips of those that stay, the most rewarding first.

    Only what gains `AnalyzeParams.drop_gain` of quality per share of the speech that is lost is
    named, and never more than a third of the dataset.
    """
    advice: list[Advice] = []
    left = list(clips)
    may_go = _MOST_LOST_SHARE * _seconds(clips)
    while (weakest := _weakest_recording(left, may_go, params)) is not None:
        advice.append(_without(weakest.clips, left, params, source=weakest.source))
        may_go -= weakest.seconds
        gone = {clip.row.id for clip in weakest.clips}
        left = [clip for clip in left if clip.row.id not in gone]
    if weak := _weak_clips(left, may_go, params):
        advice.append(_without(weak, left, params, source=None))
    return advice


def _seconds(clips: Sequence[ClipMeasures]) -> float:
    return sum(clip.row.duration_seconds for clip in clips)


def _gain(seconds: float, quality: float, all_seconds: float, all_quality: float) -> float:
    """How much the mean rises when a part of it is left out."""
    return (all_quality - quality) * seconds / (all_seconds - seconds)


def _weakest_recording(
    clips: Sequence[ClipMeasures], may_go: float, params: AnalyzeParams
) -> RecordingMeasures | None:
    """The recording without which the score rises most, if that is worth it."""
    seconds, quality = _seconds(clips), dataset_quality(clips).score
    best, best_gain = None, _LEAST_GAIN
    for recording in by_recording(clips):
        if recording.seconds > may_go:
            continue
        gain = _gain(recording.seconds, recording.quality.score, seconds, quality)
        if gain > best_gain and gain * seconds >= params.drop_gain * recording.seconds:
            best, best_gain = recording, gain
    return best


def _weak_clips(
    clips: Sequence[ClipMeasures], may_go: float, params: AnalyzeParams
) -> list[ClipMeasures]:
    """Clips so far below the others that they are worth dropping; none if that gains little."""
    seconds, quality = _seconds(clips), dataset_quality(clips).score
    chosen, lost, lost_quality = [], 0.0, 0.0
    for score, clip in sorted(
        ((clip_quality(clip).score, clip) for clip in clips), key=lambda p: (p[0], p[1].row.id)
    ):
        if quality - score < params.drop_gain or lost + clip.row.duration_seconds > may_go:
            break
        chosen.append(clip)
        lost += clip.row.duration_seconds
        lost_quality += score * clip.row.duration_seconds
    if not chosen or _gain(lost, lost_quality / lost, seconds, quality) < _LEAST_GAIN:
        return []
    return chosen


def _without(
    part: Sequence[ClipMeasures],
    clips: Sequence[ClipMeasures],
    params: AnalyzeParams,
    *,
    source: str | None,
) -> Advice:
    gone = {clip.row.id for clip in part}
    rest = [clip for clip in clips if clip.row.id not in gone]
    complexity = complexity_of(measure_voice(clips), params)
    rest_quality = dataset_quality(rest).score
    snrs = sorted(clip.snr_db for clip in part if clip.snr_db is not None)
    return Advice(
        source=source,
        clip_ids=tuple(sorted(gone)),
        seconds=_seconds(part),
        quality=dataset_quality(part),
        snr_db=snrs[len(snrs) // 2] if snrs else None,
        before=_outlook(clips, dataset_quality(clips).score, complexity, params),
        without=_outlook(rest, rest_quality, complexity_of(measure_voice(rest), params), params),
        again=_outlook(clips, rest_quality, complexity, params),
    )


def _outlook(
    clips: Sequence[ClipMeasures], quality: float, complexity: Complexity, params: AnalyzeParams
) -> Outlook:
    hours = _seconds(clips) / _SECONDS_AN_HOUR
    advice = recommend(hours, quality, complexity, params, measured_share(clips))
    return Outlook(hours=hours, quality=quality, epochs=advice.recommended_epochs)
