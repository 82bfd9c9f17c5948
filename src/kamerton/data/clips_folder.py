"""The folder that the segment stage writes: tables, and one tar of clips for each recording."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kamerton.core.errors import InputCorruptError
from kamerton.core.files import read_json, read_jsonl, write_json, write_jsonl
from kamerton.data.given_texts import TEXTS_FILE, GivenText, TextProblem, read_texts, write_texts
from kamerton.data.tables import AUDIO_FOLDER, CLIPS_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from kamerton.data.work import Origin, Refusal, Result

SOURCES_FILE, ORIGIN_FILE = "sources.jsonl", "segment.json"
FORMAT_VERSION = 1
SHARD = "shard"  # only in the segment.json of a part, so that merging misses none
_NAME_DIGITS = 16


@dataclass(frozen=True, slots=True)
class ClipsFolder:
    """What its tables hold: rows of sources.jsonl in order of name, of clips.jsonl in that order.

    ``origin`` is segment.json: what all results depend on, and what was wrong with given texts.
    """

    sources: Sequence[dict[str, Any]]
    clips: Sequence[dict[str, Any]]
    texts: Sequence[GivenText]
    origin: Mapping[str, Any]

    def write(self, folder: Path) -> None:
        """Write the tables; the tars are linked beside them one by one."""
        write_jsonl(folder / CLIPS_FILE, self.clips)
        write_jsonl(folder / SOURCES_FILE, self.sources)
        write_texts(folder / TEXTS_FILE, self.texts)
        write_json(folder / ORIGIN_FILE, self.origin)

    @classmethod
    def read(cls, folder: Path) -> ClipsFolder:
        """What `write` wrote.

        Raises:
            InputMissingError, InputCorruptError: a table is not there, or damaged.
        """
        return cls(
            sources=read_jsonl(folder / SOURCES_FILE, produced_by="segment"),
            clips=read_jsonl(folder / CLIPS_FILE, produced_by="segment"),
            texts=read_texts(folder / TEXTS_FILE),
            origin=read_json(folder / ORIGIN_FILE, produced_by="segment"),
        )


def origin_values(
    origin: Origin, problems: Iterable[TextProblem], shard: str | None
) -> dict[str, Any]:
    """The content of segment.json; all but the shard is the same for every part of a whole."""
    return {
        **({} if shard is None else {SHARD: shard}),
        "format_version": FORMAT_VERSION,
        "code_sha256": origin.code_sha256,
        "detector": origin.detector,
        "parameters": origin.parameters(),
        "versions": dict(origin.versions),
        "text_problems": [str(problem) for problem in problems],
    }


def source_row(name: str, sha256: str | None, outcome: Result | Refusal) -> dict[str, Any]:
    """A row of sources.jsonl."""
    values = getattr(outcome, "source", None)
    return {"source": name, "source_sha256": sha256} | (values or _skipped(str(outcome)))


def _skipped(reason: str) -> dict[str, Any]:
    return {
        "sample_rate_hz": None,
        "channels": None,
        "duration_seconds": None,
        "speech_seconds": None,
        "status": "skipped",
        "reasons": [reason],
        "loudness_lufs": None,
        "gain_db": None,
        "detector": None,
    }


def duplicate_row(name: str, sha256: str, first: str) -> dict[str, Any]:
    """The row of a recording with the bytes of another one, whose name comes first."""
    return {"source": name, "source_sha256": sha256} | _skipped(f"duplicate: same bytes as {first}")


def clip_rows(name: str, sha256: str, clips: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of clips.jsonl from those of a result, which know neither names nor folders."""
    return [
        {
            "id": clip["id"],
            "file": None if clip["audio_sha256"] is None else tar_name(sha256),
            **{key: clip[key] for key in _PLACE_COLUMNS},
            "source": name,
            "source_sha256": sha256,
            **{key: value for key, value in clip.items() if key not in _LEADING_COLUMNS},
        }
        for clip in clips
    ]


_PLACE_COLUMNS = ("offset_bytes", "size_bytes", "audio_sha256", "pcm_sha256")
_LEADING_COLUMNS = frozenset({"id", *_PLACE_COLUMNS})


def tar_name(sha256: str) -> str:
    """Where the clips of a recording are, relative to the folder."""
    return f"{AUDIO_FOLDER}/{sha256[:_NAME_DIGITS]}.tar"


def in_order(texts: Iterable[GivenText]) -> list[GivenText]:
    """Texts by file and line, as one machine writes them whatever part of them another one read.

    Lines of one recording's own file keep their order; only tables speak of many recordings.
    """

    def place(text: GivenText) -> tuple[str, int, str, str, str]:
        file, _, line = text.where.rpartition(":")
        rest = (text.source or "", text.kind, text.id or "")
        if not file or not line.isdecimal():
            return text.where, 0, *rest
        return file, int(line) if text.kind in ("correction", "metadata") else 0, *rest

    return sorted(texts, key=place)


def place_tar(tar: Path, folder: Path, sha256: str) -> None:
    """Give a recording's clips their place in the folder, without copying where links work.

    Raises:
        InputCorruptError: another recording has that place; hashes that begin alike are no chance.
    """
    target = folder / tar_name(sha256)
    if target.exists():
        raise InputCorruptError(target, problem="is there already", hint="report this as a bug")
    try:
        os.link(tar, target)
    except FileNotFoundError as error:
        raise InputCorruptError(
            tar, problem="vanished while it was used", hint="run the same command again"
        ) from error
    except OSError:  # another file system, or one without links
        shutil.copyfile(tar, target)
