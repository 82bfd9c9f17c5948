"""Write a dataset folder: shards, tables and card, all of it determined by its content."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kamerton.config.schema import DatasetParams, Params
from kamerton.core.files import sha256_json, write_json, write_jsonl, write_text
from kamerton.data.joining import Entry, Rejection
from kamerton.data.manifest import CARD_FILE, MANIFEST_FILE, SHARDS_FOLDER, SPLITS, Row, Split
from kamerton.data.shards import Placement, write_shards
from kamerton.data.split import SplitItem, split_clips
from kamerton.data.tables import read_clip_file
from kamerton.text.symbols import SymbolTable

FORMAT_VERSION = 1
REJECTED_FILE = "rejected.jsonl"
METADATA_FILE = "metadata.csv"
_SECONDS_AN_HOUR = 3600.0


def write_dataset(
    folder: Path,
    clips: Path,
    entries: Sequence[Entry],
    rejections: Sequence[Rejection],
    params: Params,
) -> tuple[list[Row], dict[str, Any]]:
    """Fill the empty ``folder``; return the rows of the manifest and the card."""
    splits = split_clips([_split_item(e, params.dataset) for e in entries], params.dataset)
    placements = write_shards(
        folder / SHARDS_FOLDER,
        params.dataset.speaker,
        _members(clips, entries),
        per_shard=params.dataset.clips_per_shard,
    )
    rows = [
        _row(entry, placement, splits[entry.clip.id], params)
        for entry, placement in zip(entries, placements, strict=True)
    ]
    write_jsonl(folder / MANIFEST_FILE, [row.as_dict() for row in rows])
    for split in SPLITS:
        write_jsonl(
            folder / f"{split}.jsonl", [row.as_dict() for row in rows if row.split == split]
        )
    write_jsonl(folder / REJECTED_FILE, [rejection.as_dict() for rejection in rejections])
    write_text(folder / METADATA_FILE, "".join(_ljspeech_line(row) for row in rows))
    card = make_card(rows, rejections, params)
    write_json(folder / CARD_FILE, card)
    return rows, card


def _split_item(entry: Entry, params: DatasetParams) -> SplitItem:
    clip = entry.clip
    start_seconds = clip.start_sample / clip.sample_rate_hz
    return SplitItem(clip.id, params.speaker, clip.source, start_seconds, entry.text)


def _members(clips: Path, entries: Iterable[Entry]) -> Iterator[tuple[str, bytes]]:
    for entry in entries:
        yield f"{entry.clip.id}.flac", read_clip_file(clips, entry.clip)


def _row(entry: Entry, placement: Placement, split: Split, params: Params) -> Row:
    clip = entry.clip
    return Row(
        id=clip.id,
        shard=placement.shard,
        offset_bytes=placement.offset_bytes,
        size_bytes=placement.size_bytes,
        audio_sha256=entry.audio_sha256,
        duration_seconds=entry.duration_seconds,
        sample_rate_hz=entry.rate_hz,
        text_raw=entry.transcript.text,
        text=entry.text,
        language=params.text.language,
        speaker=params.dataset.speaker,
        split=split,
        source=clip.source,
        source_sha256=clip.source_sha256,
        source_rate_hz=clip.sample_rate_hz,
        start_sample=clip.start_sample,
        end_sample=clip.end_sample,
        snr_db=clip.snr_db,
        avg_logprob=entry.transcript.avg_logprob,
    )


def _ljspeech_line(row: Row) -> str:
    """``id|raw|normalised``; the form knows no escapes, so a bar inside a text becomes a space."""
    fields = [row.id, row.text_raw, row.text]
    return "|".join(" ".join(field.replace("|", " ").split()) for field in fields) + "\n"


def content_sha256(rows: Iterable[Row]) -> str:
    """Hash of what a model can learn from: ids, texts, splits and sound, in any order."""
    return sha256_json(sorted([row.id, row.text, row.split, row.audio_sha256] for row in rows))


def make_card(
    rows: Sequence[Row], rejections: Iterable[Rejection], params: Params
) -> dict[str, Any]:
    """What one wants to know of a dataset without reading its rows."""
    reasons = Counter(reason for rejection in rejections for reason in rejection.reasons)
    return {
        "format_version": FORMAT_VERSION,
        "name": params.dataset.name,
        "content_sha256": content_sha256(rows),
        "language": params.text.language,
        "speaker": params.dataset.speaker,
        "sample_rate_hz": rows[0].sample_rate_hz,
        "clips": len(rows),
        "hours": _hours(rows),
        "splits": {
            split: {"clips": len(members), "hours": _hours(members)}
            for split, members in _by_split(rows).items()
        },
        "split_rule": params.dataset.model_dump(
            include={"split_seed", "block_seconds", "test_fraction", "val_fraction"}
        ),
        "symbols": list(SymbolTable.for_params(params.text, (row.text for row in rows)).symbols),
        "text": params.text.model_dump(),
        "rejected": dict(sorted(reasons.items())),
    }


def _by_split(rows: Iterable[Row]) -> Mapping[Split, list[Row]]:
    rows = list(rows)
    return {split: [row for row in rows if row.split == split] for split in SPLITS}


def _hours(rows: Iterable[Row]) -> float:
    return round(sum(row.duration_seconds for row in rows) / _SECONDS_AN_HOUR, 6)
