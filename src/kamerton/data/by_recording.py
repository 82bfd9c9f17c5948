"""The measures of a dataset recording by recording: where its weak spots come from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kamerton.data.analysis import ClipQuality, dataset_quality
from kamerton.data.measures import ClipMeasures


@dataclass(frozen=True, slots=True)
class RecordingMeasures:
    """One recording, as far as its clips are in the dataset.

    Decibels, hertz and LUFS are medians over clips, ``clipped_share`` is the mean by duration; None
    where nothing was measured. The loudness is that of the clips, after levelling.
    """

    source: str
    clips: tuple[ClipMeasures, ...]
    seconds: float
    snr_db: float | None
    clipped_share: float | None
    bandwidth_hz: float
    loudness_lufs: float | None
    f0_hz: float | None
    quality: ClipQuality


def by_recording(clips: Sequence[ClipMeasures]) -> list[RecordingMeasures]:
    """Each recording of the clips, in order of name."""
    groups: dict[str, list[ClipMeasures]] = {}
    for clip in clips:
        groups.setdefault(clip.row.source, []).append(clip)
    return [_recording(source, groups[source]) for source in sorted(groups)]


def _recording(source: str, clips: list[ClipMeasures]) -> RecordingMeasures:
    seconds = [clip.row.duration_seconds for clip in clips]
    told = [clip for clip in clips if clip.clipped_share is not None]
    told_seconds = sum(clip.row.duration_seconds for clip in told)
    clipped = sum((clip.clipped_share or 0.0) * clip.row.duration_seconds for clip in told)
    pitch = np.concatenate([clip.f0_hz for clip in clips])
    return RecordingMeasures(
        source=source,
        clips=tuple(clips),
        seconds=float(sum(seconds)),
        snr_db=_median([clip.snr_db for clip in clips]),
        clipped_share=clipped / told_seconds if told_seconds else None,
        bandwidth_hz=float(np.median([clip.bandwidth_hz for clip in clips])),
        loudness_lufs=_median([clip.loudness_lufs for clip in clips]),
        f0_hz=float(np.median(pitch)) if len(pitch) else None,
        quality=dataset_quality(clips),
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
