"""What several machines made of parts of the recordings, joined to what one would have made."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kamerton.core.errors import InputCorruptError, InputEmptyError, InputMissingError, UsageError
from kamerton.core.files import read_jsonl
from kamerton.data.clips_folder import (
    SHARD,
    SOURCES_FILE,
    ClipsFolder,
    duplicate_row,
    in_order,
    place_tar,
)
from kamerton.data.sharding import parse_part
from kamerton.data.tables import KEPT, read_clips, read_transcripts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_SHA256 = re.compile(r"[0-9a-f]{64}")
_REMAKE = "cut that part again: `kamerton segment --shard I/N --force`"
_SOURCE_KINDS: Mapping[str, tuple[type, ...]] = {
    "source": (str,),
    "source_sha256": (str, type(None)),
    "status": (str,),
    "reasons": (list,),
    "duration_seconds": (int, float, type(None)),
    "speech_seconds": (int, float, type(None)),
}


@dataclass(frozen=True, slots=True)
class _Claim:
    """What one part says of a recording."""

    part: Path
    row: dict[str, Any]
    clips: tuple[dict[str, Any], ...]

    @property
    def is_duplicate(self) -> bool:
        """Whether it was left out for another one with the same bytes."""
        return str(next(iter(self.row["reasons"]), "")).startswith("duplicate:")


def merge_clips(parts: Sequence[Path], folder: Path) -> ClipsFolder:
    """Join the clips folders of shards in the empty ``folder``.

    Of recordings with the same bytes the first by name is kept, as if all had been cut together.

    Raises:
        InputMissingError, InputCorruptError: a part is not there, damaged, or contradicts another.
        UsageError: they were cut with other parameters or another version, or a part is missing.
        InputEmptyError: none of them read a recording.
    """
    tables = [_read(part) for part in parts]
    origin = _common_origin(parts, tables)
    sources: list[dict[str, Any]] = []
    clips: list[dict[str, Any]] = []
    names: dict[str, str] = {}  # hash of a recording: the first one that has it
    for name, claim in sorted(_claims(parts, tables).items()):
        digest = claim.row["source_sha256"]
        if digest is not None and digest in names:
            sources.append(duplicate_row(name, digest, names[digest]))
            continue
        if claim.is_duplicate:
            problem = f"leaves {name} out for another recording that no part has"
            raise InputCorruptError(claim.part, problem=problem, hint=_REMAKE)
        if digest is not None:
            names[digest] = name
        sources.append(claim.row)
        clips += claim.clips
        _place(claim, folder)
    if not any(row["status"] == "read" for row in sources):
        hint = "see the reasons in the parts' sources.jsonl, or add recordings"
        named = ", ".join(str(part) for part in parts)
        raise InputEmptyError(named, wanted="recording that was read", hint=hint)
    texts = dict.fromkeys(text for table in tables for text in table.texts)
    merged = ClipsFolder(sources, clips, in_order(texts), origin)
    merged.write(folder)
    return merged


def _read(part: Path) -> ClipsFolder:
    read_clips(part)  # which names the line when a row is wrong
    tables = ClipsFolder.read(part)
    for number, row in enumerate(tables.sources, start=1):
        for column, kinds in _SOURCE_KINDS.items():
            if not isinstance(row.get(column, ...), kinds):
                problem = f"{column} is {row.get(column)!r:.80}"
                where = f"{part / SOURCES_FILE}:{number}"
                raise InputCorruptError(where, problem=problem, hint=_REMAKE)
        digest = row["source_sha256"]
        if digest is not None and not _SHA256.fullmatch(digest):  # files are named by it
            where = f"{part / SOURCES_FILE}:{number}"
            problem = f"source_sha256 is {digest!r:.80}"
            raise InputCorruptError(where, problem=problem, hint=_REMAKE)
    return tables


def _common_origin(parts: Sequence[Path], tables: Sequence[ClipsFolder]) -> dict[str, Any]:
    """The segment.json that all parts share, without their shares and with all their problems."""
    common = _without(tables[0].origin)
    for part, table in zip(parts, tables, strict=True):
        other = _without(table.origin)
        if other != common:
            differing = ", ".join(sorted(_differences(common, other)))
            raise UsageError(
                f"{part} was not cut as {parts[0]} was: {differing}.",
                hint="cut all parts with one params.yaml, one version and one detector",
            )
    shares = [table.origin[SHARD] for table in tables if SHARD in table.origin]
    _require_all(shares)
    problems = (problem for table in tables for problem in table.origin["text_problems"])
    return common | {"text_problems": list(dict.fromkeys(problems))}


def _without(origin: Mapping[str, Any]) -> dict[str, Any]:
    return {name: origin[name] for name in origin if name not in (SHARD, "text_problems")}


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterable[str]:
    for name in one.keys() | other.keys():
        mine, theirs = one.get(name), other.get(name)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            outer = "segment" if name == "parameters" else name
            yield from (f"{outer}.{inner}" for inner in _differences(mine, theirs))
        elif mine != theirs:
            yield f"{name} ({mine!s:.40} and {theirs!s:.40})"


def _require_all(shares: Iterable[str]) -> None:
    """Refuse to join some of the parts of a whole: the rest would be missed by nobody."""
    parts = [parse_part(share) for share in shares]
    counts = {part.count for part in parts}
    if len(counts) > 1:
        said = " and ".join(str(count) for count in sorted(counts))
        raise UsageError(f"The parts are of {said}.", hint="cut all with the same N of --shard I/N")
    for count in counts:
        missing = sorted(set(range(count)) - {part.index for part in parts})
        if missing:
            said = ", ".join(f"{index}/{count}" for index in missing)
            raise UsageError(
                f"Parts are missing: {said}.",
                hint="name them too, each with --clips; those of no recordings as well",
            )


def _claims(parts: Sequence[Path], tables: Sequence[ClipsFolder]) -> dict[str, _Claim]:
    """What is said of each recording, by name; parts may overlap but must agree."""
    claims: dict[str, _Claim] = {}
    for part, table in zip(parts, tables, strict=True):
        clips: dict[str, list[dict[str, Any]]] = {}
        for row in table.clips:
            clips.setdefault(row["source"], []).append(row)
        for row in table.sources:
            name = row["source"]
            claim = _Claim(part, row, tuple(clips.get(name, ())))
            known = claims.setdefault(name, claim)
            if known.row["source_sha256"] != row["source_sha256"]:
                raise _contradiction(known, claim, name, "are of different bytes")
            if known.is_duplicate:
                claims[name] = claim
            elif not claim.is_duplicate and (known.row, known.clips) != (row, claim.clips):
                raise _contradiction(known, claim, name, "were cut differently")
    return claims


def _contradiction(one: _Claim, other: _Claim, name: str, problem: str) -> InputCorruptError:
    return InputCorruptError(
        other.part, problem=f"{name} in it and in {one.part} {problem}", hint=_REMAKE
    )


def _place(claim: _Claim, folder: Path) -> None:
    file = next((row["file"] for row in claim.clips if row["file"] is not None), None)
    if file is None:
        return
    tar = claim.part / file
    if not tar.is_file():
        raise InputMissingError(tar, produced_by="segment", hint=_REMAKE)
    place_tar(tar, folder, str(claim.row["source_sha256"]))


def merge_transcripts(parts: Sequence[Path], clips: Path) -> list[dict[str, Any]]:
    """Join the transcripts of shards: the rows that transcribing the merged ``clips`` would give.

    Raises:
        InputMissingError, InputCorruptError: an input is missing, damaged, or contradicts another.
        UsageError: a clip has no transcript; a part was probably forgotten.
    """
    rows: dict[str, dict[str, Any]] = {}
    for part in parts:
        read_transcripts(part)  # which names the line when a row is wrong
        for row in read_jsonl(part, produced_by="transcribe"):
            if rows.setdefault(row["id"], row) != row:
                problem = f"says something else of clip {row['id']} than another part"
                hint = "transcribe all parts with one params.yaml and one version"
                raise InputCorruptError(part, problem=problem, hint=hint)
    kept = [clip.id for clip in read_clips(clips) if clip.status == KEPT]
    missing = [clip_id for clip_id in kept if clip_id not in rows]
    if missing:
        raise UsageError(
            f"{len(missing)} of {len(kept)} clips of {clips} have no transcript in these parts, "
            f"the first is {missing[0]}.",
            hint="name the transcripts of all parts, each with --transcripts",
        )
    return [rows[clip_id] for clip_id in kept]
