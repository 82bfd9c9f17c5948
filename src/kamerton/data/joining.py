"""Clips and their transcripts brought together, and sorted into what stays and what goes."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kamerton.config.schema import DatasetParams, TextParams
from kamerton.core.errors import InputCorruptError
from kamerton.core.progress import Progress, silent
from kamerton.data.filters import Candidate, judge_dataset
from kamerton.data.manifest import decode_flac
from kamerton.data.tables import KEPT, Clip, Transcript, read_clip_file
from kamerton.text.normalise import normalise_for

_INT16_SCALE = 32768.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A clip with its transcript; the text is normalised, hashes are of samples and of the file."""

    clip: Clip
    transcript: Transcript
    text: str
    duration_seconds: float
    rate_hz: int
    pcm_sha256: str
    audio_sha256: str


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why something did not become training data, and which stage said so."""

    id: str
    by: str
    reasons: tuple[str, ...]
    source: str | None = None
    start_seconds: float | None = None
    duration_seconds: float | None = None
    text: str | None = None
    avg_logprob: float | None = None
    duplicate_of: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The row of rejected.jsonl."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return values | {"reasons": list(self.reasons)}


def join(
    folder: Path,
    clips: Iterable[Clip],
    transcripts: Mapping[str, Transcript],
    params: TextParams,
    on_progress: Progress = silent,
) -> tuple[list[Entry], list[Rejection]]:
    """Pair every clip with its transcript, read its sound, normalise its text.

    Clips that an earlier stage refused, and those without a transcript, are rejected with that
    reason; so is a transcript without a clip.

    Raises:
        InputCorruptError: a clip's file is missing or cannot be decoded, or clips differ in rate.
    """
    clips = list(clips)
    entries: list[Entry] = []
    rejections: list[Rejection] = []
    for done, clip in enumerate(clips):
        on_progress(done, len(clips), clip.source)
        transcript = transcripts.get(clip.id)
        if rejection := _refused_earlier(clip, transcript):
            rejections.append(rejection)
        elif transcript is not None:
            entries.append(_entry(folder, clip, transcript, params))
    on_progress(len(clips), len(clips))
    known = {clip.id for clip in clips}
    rejections += [
        Rejection(row.id, "dataset", ("no_clip",), text=row.text)
        for row in sorted(transcripts.values(), key=lambda row: row.id)
        if row.id not in known
    ]
    rates = {entry.rate_hz for entry in entries}
    if len(rates) > 1:
        problem = f"holds clips of different rates ({', '.join(map(str, sorted(rates)))} Hz)"
        raise InputCorruptError(folder, problem=problem, hint="run `kamerton segment --force`")
    return entries, rejections


def _refused_earlier(clip: Clip, transcript: Transcript | None) -> Rejection | None:
    if clip.status != KEPT:
        return _rejection(clip, "segment", clip.reasons)
    if transcript is None:
        return _rejection(clip, "dataset", ("no_transcript",))
    if transcript.status != KEPT:
        told = _rejection(clip, "transcribe", transcript.reasons)
        return replace(told, text=transcript.text, avg_logprob=transcript.avg_logprob)
    return None


def _rejection(clip: Clip, by: str, reasons: Iterable[str]) -> Rejection:
    return Rejection(
        id=clip.id,
        by=by,
        reasons=tuple(reasons),
        source=clip.source,
        start_seconds=round(clip.start_sample / clip.sample_rate_hz, 3),
        duration_seconds=clip.duration_seconds,
    )


def _entry(folder: Path, clip: Clip, transcript: Transcript, params: TextParams) -> Entry:
    payload = read_clip_file(folder, clip)
    wave, rate_hz = decode_flac(payload, str(folder / str(clip.file)), written_by="segment")
    pcm = np.rint(wave * _INT16_SCALE).astype("<i4")
    return Entry(
        clip=clip,
        transcript=transcript,
        text=normalise_for(transcript.text, params),
        duration_seconds=round(len(wave) / rate_hz, 6),
        rate_hz=rate_hz,
        pcm_sha256=hashlib.sha256(pcm.tobytes()).hexdigest(),
        audio_sha256=hashlib.sha256(payload).hexdigest(),
    )


def sift(entries: Iterable[Entry], params: DatasetParams) -> tuple[list[Entry], list[Rejection]]:
    """Separate entries that stay from those that the dataset's own rules refuse."""
    entries = list(entries)
    candidates = [
        Candidate(entry.clip.id, entry.text, entry.duration_seconds, entry.pcm_sha256)
        for entry in entries
    ]
    verdicts = judge_dataset(candidates, params)
    rejections = []
    for entry in entries:
        if entry.clip.id in verdicts:
            reasons, twin = verdicts[entry.clip.id]
            told = _rejection(entry.clip, "dataset", reasons)
            rejections.append(
                replace(
                    told,
                    text=entry.transcript.text,
                    avg_logprob=entry.transcript.avg_logprob,
                    duplicate_of=twin,
                )
            )
    return [entry for entry in entries if entry.clip.id not in verdicts], rejections
