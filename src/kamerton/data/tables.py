"""Readers of clips.jsonl and transcripts.jsonl that name the line when something is wrong."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from kamerton.core.errors import InputCorruptError, InputMissingError
from kamerton.core.files import read_jsonl

CLIPS_FILE = "clips.jsonl"
KEPT, REJECTED = "kept", "rejected"


@dataclass(frozen=True, slots=True)
class Clip:
    """A row of clips.jsonl; ``file`` is None for a clip that was rejected when it was cut.

    Positions count samples of the source at its own rate ``sample_rate_hz``.
    """

    id: str
    file: str | None
    source: str
    source_sha256: str
    start_sample: int
    end_sample: int
    sample_rate_hz: int
    duration_seconds: float
    snr_db: float | None
    status: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Transcript:
    """A row of transcripts.jsonl, as far as the dataset needs it."""

    id: str
    text: str
    language: str
    avg_logprob: float | None
    status: str
    reasons: tuple[str, ...]


_NUMBER = (int, float)
_CLIP_KINDS: Mapping[str, tuple[type, ...]] = {
    "id": (str,),
    "file": (str, type(None)),
    "source": (str,),
    "source_sha256": (str,),
    "start_sample": (int,),
    "end_sample": (int,),
    "sample_rate_hz": (int,),
    "duration_seconds": _NUMBER,
    "snr_db": (*_NUMBER, type(None)),
    "status": (str,),
    "reasons": (list,),
}
_TRANSCRIPT_KINDS: Mapping[str, tuple[type, ...]] = {
    "id": (str,),
    "text": (str,),
    "language": (str,),
    "avg_logprob": (*_NUMBER, type(None)),
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
        Clip(**_take(row, _CLIP_KINDS, where, "segment")) for where, row in _lines(table, "segment")
    ]
    for number, clip in enumerate(rows, start=1):
        ordered = 0 <= clip.start_sample <= clip.end_sample and clip.duration_seconds >= 0.0
        if clip.sample_rate_hz <= 0 or not ordered:
            raise _corrupt(f"{table}:{number}", "holds positions that no clip can have", "segment")
        if clip.status == KEPT and clip.file is None:
            raise _corrupt(f"{table}:{number}", "is kept but names no file", "segment")
        if clip.file is not None and not _is_inside(clip.file):
            problem = f"names {clip.file!r}, which is outside of the folder"
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


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def read_clip_file(clips: Path, clip: Clip) -> bytes:
    """The FLAC file of a clip that was kept.

    Raises:
        InputCorruptError: the table names it but it is not there.
    """
    assert clip.file is not None  # read_clips refuses kept clips without one
    try:
        return (clips / clip.file).read_bytes()
    except OSError as error:
        problem = f"names {clip.file}, which cannot be read ({error.strerror})"
        raise _corrupt(f"{clips / CLIPS_FILE} (clip {clip.id})", problem, "segment") from error


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
        if isinstance(value, bool) or not isinstance(value, allowed) or not _is_sound(value):
            raise _corrupt(where, f"{name} is {value!r}", stage)
        taken[name] = tuple(str(item) for item in value) if isinstance(value, list) else value
    if taken["status"] not in (KEPT, REJECTED):
        raise _corrupt(where, f"status is {taken['status']!r}", stage)
    return taken


def _is_sound(value: Any) -> bool:
    """Whether a number is finite and a text can be written as UTF-8."""
    if isinstance(value, str):
        return not any("\ud800" <= char <= "\udfff" for char in value)
    return not isinstance(value, float) or math.isfinite(value)


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
