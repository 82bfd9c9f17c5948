"""Write a dataset folder: shards, tables and card, all of it determined by its content."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kamerton.audio.flac import FlacHeader
from kamerton.config.schema import DatasetParams, Params
from kamerton.core.errors import InputCorruptError
from kamerton.core.files import write_json, write_jsonl, write_text
from kamerton.core.progress import Progress, silent
from kamerton.data.card import make_card, readme
from kamerton.data.joining import Entry, Rejection
from kamerton.data.manifest import (
    CARD_FILE,
    MANIFEST_FILE,
    METADATA_FILE,
    README_FILE,
    REJECTED_FILE,
    SHARDS_FOLDER,
    SPLITS,
    Row,
    Split,
    ljspeech_line,
)
from kamerton.data.recordings import speaker_of
from kamerton.data.shards import Member, Placement, plan_shards, write_shard
from kamerton.data.split import SplitItem, split_clips
from kamerton.data.tables import Clip, read_clip_file

_REMAKE = "make them again: `kamerton segment --force`"
_LENGTH_TOLERANCE_SECONDS = 1e-3


def write_dataset(
    folder: Path,
    clips: Path,
    entries: Sequence[Entry],
    rejections: Sequence[Rejection],
    params: Params,
    on_progress: Progress = silent,
) -> tuple[list[Row], dict[str, Any]]:
    """Fill the empty ``folder``; return the rows of the manifest and the card.

    Raises:
        InputCorruptError: a clip's sound is gone or not what its row says, or rates differ.
        InputEmptyError: too little is left to be split in three.
    """
    splits = split_clips([_split_item(e, params.dataset) for e in entries], params.dataset)
    packed = _Packing(clips, folder / SHARDS_FOLDER, params.dataset).copy(entries, on_progress)
    rows = [_row(entry, packed[entry.clip.id], splits[entry.clip.id], params) for entry in entries]
    write_jsonl(folder / MANIFEST_FILE, [row.as_dict() for row in rows])
    for split in SPLITS:
        write_jsonl(
            folder / f"{split}.jsonl", [row.as_dict() for row in rows if row.split == split]
        )
    write_jsonl(folder / REJECTED_FILE, [rejection.as_dict() for rejection in rejections])
    write_text(folder / METADATA_FILE, "".join(ljspeech_line(row) for row in rows))
    card = make_card(rows, rejections, params)
    write_json(folder / CARD_FILE, card)
    write_text(folder / README_FILE, readme(card, rows, rejections, params))
    return rows, card


def _split_item(entry: Entry, params: DatasetParams) -> SplitItem:
    clip = entry.clip
    start_seconds = clip.start_sample / clip.sample_rate_hz
    sound = str(clip.pcm_sha256)
    speaker = speaker_of(clip.source, params)
    return SplitItem(clip.id, speaker, clip.source, start_seconds, entry.text, sound)


@dataclass(frozen=True, slots=True)
class _Packed:
    """Where a clip's sound is now, and what its header says of it."""

    placement: Placement
    header: FlacHeader


class _Packing:
    """Copies clips into shards, one at a time, looking at the header of each."""

    def __init__(self, clips: Path, shards: Path, params: DatasetParams) -> None:
        self._clips, self._shards, self._params = clips, shards, params
        self._headers: dict[str, FlacHeader] = {}

    def copy(self, entries: Sequence[Entry], on_progress: Progress) -> dict[str, _Packed]:
        """Copy all of them; by id."""
        by_member = {f"{entry.clip.id}.flac": entry.clip for entry in entries}
        members = [
            Member(name, str(clip.audio_sha256), clip.source_sha256, clip.start_sample)
            for name, clip in by_member.items()
        ]
        packed: dict[str, _Packed] = {}
        plan = plan_shards(self._params.speaker, members, per_shard=self._params.clips_per_shard)
        for shard in plan:
            on_progress(len(packed), len(entries), shard.name)
            placements = write_shard(
                self._shards, shard, lambda member: self._read(by_member[member.name])
            )
            for name, placement in placements.items():
                clip_id = by_member[name].id
                packed[clip_id] = _Packed(placement, self._headers[clip_id])
        on_progress(len(entries), len(entries))
        self._check_rates()
        return packed

    def _read(self, clip: Clip) -> bytes:
        payload = read_clip_file(self._clips, clip)
        where = f"{self._clips / str(clip.file)} (clip {clip.id})"
        try:
            header = FlacHeader.parse(payload)
        except ValueError as error:
            problem = f"cannot be decoded ({error})"
            raise InputCorruptError(where, problem=problem, hint=_REMAKE) from error
        if header.channels != 1:
            problem = f"has {header.channels} channels"
            raise InputCorruptError(where, problem=problem, hint=_REMAKE)
        if abs(header.seconds - clip.duration_seconds) > _LENGTH_TOLERANCE_SECONDS:
            problem = f"is {header.seconds:.3f} s long, its row says {clip.duration_seconds:.3f}"
            raise InputCorruptError(where, problem=problem, hint=_REMAKE)
        self._headers[clip.id] = header
        return payload

    def _check_rates(self) -> None:
        rates = sorted({header.rate_hz for header in self._headers.values()})
        if len(rates) > 1:
            problem = f"holds clips of different rates ({', '.join(map(str, rates))} Hz)"
            raise InputCorruptError(self._clips, problem=problem, hint=_REMAKE)


def _row(entry: Entry, packed: _Packed, split: Split, params: Params) -> Row:
    clip, placement = entry.clip, packed.placement
    return Row(
        id=clip.id,
        shard=placement.shard,
        offset_bytes=placement.offset_bytes,
        size_bytes=placement.size_bytes,
        audio_sha256=str(clip.audio_sha256),
        duration_seconds=round(packed.header.seconds, 6),
        sample_rate_hz=packed.header.rate_hz,
        text_raw=entry.transcript.text,
        text=entry.text,
        language=params.text.language,
        speaker=speaker_of(clip.source, params.dataset),
        split=split,
        source=clip.source,
        source_sha256=clip.source_sha256,
        source_rate_hz=clip.sample_rate_hz,
        start_sample=clip.start_sample,
        end_sample=clip.end_sample,
        snr_db=clip.snr_db,
        clipped_share=clip.clipped_share,
        avg_logprob=entry.transcript.avg_logprob,
        phonemes=entry.phonemes,
        text_origin=entry.transcript.origin,
    )
