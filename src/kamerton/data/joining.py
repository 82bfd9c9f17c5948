"""Clips and their transcripts brought together, and sorted into what stays and what goes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from kamerton.config.schema import DatasetParams, TextParams
from kamerton.data.duplicates import Candidate, Picture, SoundsAlike, picture, same_recording
from kamerton.data.filters import judge_dataset
from kamerton.data.manifest import decode_flac
from kamerton.data.recordings import speaker_of
from kamerton.data.tables import CORRECTED, KEPT, Clip, Transcript, read_clip_file
from kamerton.text.normalise import normalise_for
from kamerton.text.phonemes import pronounce

_PICTURES_KEPT = 256


@dataclass(frozen=True, slots=True)
class Entry:
    """A clip with its transcript, and its text normalised."""

    clip: Clip
    transcript: Transcript
    text: str
    phonemes: str | None = None


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
    clips: Sequence[Clip], transcripts: Mapping[str, Transcript], params: TextParams
) -> tuple[list[Entry], list[Rejection]]:
    """Pair every clip with its transcript and normalise its text; no sound is read.

    Clips that an earlier stage refused, and those without a transcript, are rejected with that
    reason; so is a transcript without a clip.
    """
    entries: list[Entry] = []
    rejections: list[Rejection] = []
    for clip in clips:
        transcript = transcripts.get(clip.id)
        if rejection := _refused_earlier(clip, transcript):
            rejections.append(rejection)
        elif transcript is not None:
            entries.append(Entry(clip, transcript, normalise_for(transcript.text, params)))
    known = {clip.id for clip in clips}
    rejections += [
        Rejection(row.id, "dataset", ("no_clip",), text=row.text)
        for row in sorted(transcripts.values(), key=lambda row: row.id)
        if row.id not in known
    ]
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


def sift(
    entries: Iterable[Entry], params: DatasetParams, sounds_alike: SoundsAlike
) -> tuple[list[Entry], list[Rejection]]:
    """Separate entries that stay from those that the dataset's own rules refuse."""
    entries = list(entries)
    candidates = [
        Candidate(
            entry.clip.id,
            entry.text,
            entry.clip.duration_seconds,
            str(entry.clip.pcm_sha256),
            corrected=entry.transcript.origin == CORRECTED,
            speaker=speaker_of(entry.clip.source, params),
        )
        for entry in entries
    ]
    verdicts = judge_dataset(candidates, params, sounds_alike)
    rejections = [
        _refused_now(entry, *verdicts[entry.clip.id])
        for entry in entries
        if entry.clip.id in verdicts
    ]
    return [entry for entry in entries if entry.clip.id not in verdicts], rejections


def listener(folder: Path, clips: Iterable[Clip]) -> SoundsAlike:
    """What tells whether two clips of ``folder``, given by their ids, are one recording.

    Clips are decoded when they are asked about; the pictures of a few hundred are kept.
    """
    by_id = {clip.id: clip for clip in clips}

    @lru_cache(maxsize=_PICTURES_KEPT)
    def look(clip_id: str) -> Picture:
        clip = by_id[clip_id]
        where = f"{folder / str(clip.file)} (clip {clip.id})"
        return picture(*decode_flac(read_clip_file(folder, clip), where, written_by="segment"))

    return lambda one, other: same_recording(look(one), look(other))


def with_phonemes(
    entries: Sequence[Entry], params: TextParams
) -> tuple[list[Entry], list[Rejection]]:
    """Add to each entry how its text is said, where ``text.phonemes`` asks for it.

    Entries of which nothing is said are refused.
    """
    spoken = pronounce([entry.text for entry in entries], params)
    said = [replace(entry, phonemes=word) for entry, word in zip(entries, spoken, strict=True)]
    silent_ones = [entry for entry in said if entry.phonemes is not None and _is_mute(entry)]
    refused = {entry.clip.id for entry in silent_ones}
    rejections = [_refused_now(entry, ["no_spoken_text"], None) for entry in silent_ones]
    return [entry for entry in said if entry.clip.id not in refused], rejections


def _is_mute(entry: Entry) -> bool:
    return not any(char.isalpha() for char in entry.phonemes or "")


def _refused_now(entry: Entry, reasons: Iterable[str], twin: str | None) -> Rejection:
    return replace(
        _rejection(entry.clip, "dataset", reasons),
        text=entry.transcript.text,
        avg_logprob=entry.transcript.avg_logprob,
        duplicate_of=twin,
    )
