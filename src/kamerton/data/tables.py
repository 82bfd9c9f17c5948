"""Readers of clips.jsonl and transcripts.jsonl that name the line when something is wrong."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from kamerton.core.errors import InputCorruptError, InputMissingError
from kamerton.core.files import is_storable, read_jsonl

CLIPS_FILE, AUDIO_FOLDER = "clips.jsonl", "audio"
KEPT, REJECTED = "kept", "rejected"
CORRECTED = "corrected"  # origin of a text that a person wrote for one clip


@dataclass(frozen=True, slots=True)
class Clip:
    """A row of clips.jsonl.

    Positions count samples of the source at its own rate ``sample_rate_hz``. The sound is a FLAC
    file of ``size_bytes`` that begins at ``offset_bytes`` of the tar ``file``; its hashes are those
    of that FLAC file and of its samples as little-endian 32-bit integers. All five are None for a
    clip that was rejected when it was cut. ``clipped_share`` is that of its samples at the top of
    the recording, None where the table does not tell.
    """

    id: str
    file: str | None
    offset_bytes: int | None
    size_bytes: int | None
    audio_sha256: str | None
    pcm_sha256: str | None
    source: str
    source_sha256: str
    start_sample: int
    end_sample: int
    sample_rate_hz: int
    duration_seconds: float
    snr_db: float | None
    clipped_share: float | None
    status: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Transcript:
    """A row of transcripts.jsonl, as far as the dataset needs it."""

    id: str
    text: str
    language: str
    avg_logprob: float | None
    origin: str
    status: str
    reasons: tuple[str, ...]


_NUMBER = (int, float)
_CLIP_KINDS: Mapping[str, tuple[type, ...]] = {
    "id": (str,),
    "file": (str, type(None)),
    "offset_bytes": (int, type(None)),
    "size_bytes": (int, type(None)),
    "audio_sha256": (str, type(None)),
    "pcm_sha256": (str, type(None)),
    "source": (str,),
    "source_sha256": (str,),
    "start_sample": (int,),
    "end_sample": (int,),
    "sample_rate_hz": (int,),
    "duration_seconds": _NUMBER,
    "snr_db": (*_NUMBER, type(None)),
    "clipped_share": (*_NUMBER, type(None)),
    "status": (str,),
    "reasons": (list,),
}
_TRANSCRIPT_KINDS: Mapping[str, tuple[type, ...]] = {
    "id": (str,),
    "text": (str,),
    "language": (str,),
    "avg_logprob": (*_NUMBER, type(None)),
    "origin": (str,),
    "status": (str,),
    "reasons": (list,),
}


def read_clips(clips: Path) -> list[Clip]:
    """Every clip of the folder, kept or rejected, in order of source and position.

    Raises:
        InputMissingError: the folder or its table does not exist.
        InputCorruptError: a row is wrong (its line is named), or a clip stands twice.
    """
    if not clips.is_dir():
        raise InputMissingError(clips, produced_by="segment")
    table = clips / CLIPS_FILE
    rows = [
        Clip(**_take({"clipped_share": None} | row, _CLIP_KINDS, where, "segment"))
        for where, row in _lines(table, "segment")
    ]
    for number, clip in enumerate(rows, start=1):
        if problem := _problem(clip):
            raise _corrupt(f"{table}:{number}", problem, "segment")
    _refuse_twins([clip.id for clip in rows], table, "segment")
    return sorted(rows, key=lambda clip: (clip.source, clip.start_sample, clip.id))


def read_transcripts(transcripts: Path) -> dict[str, Transcript]:
    """Every transcript by the id of its clip.

    Raises:
        InputMissingError: there is no such file.
        InputCorruptError: a row is wrong (its line is named), or a clip has two transcripts.
    """
    rows = [
        Transcript(**_take(row, _TRANSCRIPT_KINDS, where, "transcribe"))
        for where, row in _lines(transcripts, "transcribe")
    ]
    _refuse_twins([row.id for row in rows], transcripts, "transcribe")
    return {row.id: row for row in rows}


def _problem(clip: Clip) -> str | None:
    """What is wrong with a row whose values have the right types."""
    ordered = 0 <= clip.start_sample <= clip.end_sample and clip.duration_seconds >= 0.0
    if clip.sample_rate_hz <= 0 or not ordered:
        return "holds positions that no clip can have"
    if clip.file is None:
        return "is kept but names no file" if clip.status == KEPT else None
    if not _is_inside(clip.file):
        return f"names {clip.file!r}, which is outside of the folder"
    if None in (clip.offset_bytes, clip.size_bytes, clip.audio_sha256, clip.pcm_sha256):
        return "names a file but not where in it the clip is, or not its hashes"
    if min(clip.offset_bytes or 0, clip.size_bytes or 0) < 0:
        return "holds a place that no clip can have in a file"
    return None


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return path.parent.as_posix() == AUDIO_FOLDER and path.name not in ("", ".", "..")


def read_clip_file(clips: Path, clip: Clip) -> bytes:
    """The FLAC file of a clip that was kept.

    Raises:
        InputCorruptError: the table names it but it is not there, or is not what it was.
    """
    assert clip.file is not None  # read_clips refuses kept clips without one
    assert clip.offset_bytes is not None
    assert clip.size_bytes is not None
    where = f"{clips / CLIPS_FILE} (clip {clip.id})"
    end = clip.offset_bytes + clip.size_bytes
    try:
        with (clips / clip.file).open("rb") as file:
            whole = end <= file.seek(0, os.SEEK_END)
            file.seek(clip.offset_bytes if whole else 0)
            payload = file.read(clip.size_bytes) if whole else b""
    except OSError as error:
        problem = f"names {clip.file}, which cannot be read ({error.strerror})"
        raise _corrupt(where, problem, "segment") from error
    if not whole:
        raise _corrupt(where, f"names {clip.file}, which ends before byte {end}", "segment")
    if hashlib.sha256(payload).hexdigest() != clip.audio_sha256:
        problem = f"names {clip.file}, which holds something else at byte {clip.offset_bytes}"
        raise _corrupt(where, problem, "segment")
    return payload


def _lines(path: Path, stage: str) -> list[tuple[str, dict[str, Any]]]:
    rows = read_jsonl(path, produced_by=stage)
    return [(f"{path}:{number}", row) for number, row in enumerate(rows, start=1)]


def _take(
    row: Mapping[str, Any], kinds: Mapping[str, tuple[type, ...]], where: str, stage: str
) -> dict[str, Any]:
    taken: dict[str, Any] = {}
    for name, allowed in kinds.items():
        if name not in row:
            raise _corrupt(where, f"has no {name!r}", stage)
        value = row[name]
        if isinstance(value, bool) or not isinstance(value, allowed) or not is_storable(value):
            raise _corrupt(where, f"{name} is {value!r}", stage)
        taken[name] = tuple(str(item) for item in value) if isinstance(value, list) else value
    if taken["status"] not in (KEPT, REJECTED):
        raise _corrupt(where, f"status is {taken['status']!r}", stage)
    return taken


def _refuse_twins(ids: list[str], path: Path, stage: str) -> None:
    seen: set[str] = set()
    for number, clip_id in enumerate(ids, start=1):
        if clip_id in seen:
            raise _corrupt(f"{path}:{number}", f"repeats the clip {clip_id}", stage)
        seen.add(clip_id)


def _corrupt(where: str, problem: str, stage: str) -> InputCorruptError:
    return InputCorruptError(
        where, problem=problem, hint=f"make it again: `kamerton {stage} --force`"
    )
