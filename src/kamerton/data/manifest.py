"""The dataset as its readers see it: a card, one row per clip, and the sound behind each row."""

import io
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from kamerton.core.errors import InputCorruptError, InputMissingError, ToolMissingError
from kamerton.core.files import is_storable, read_json, read_jsonl
from kamerton.data.shards import Placement, read_member

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

CARD_FILE = "dataset.json"
README_FILE = "README.md"
MANIFEST_FILE = "manifest.jsonl"
REJECTED_FILE = "rejected.jsonl"
METADATA_FILE = "metadata.csv"
SHARDS_FOLDER = "shards"

_REMAKE = "make the dataset again: `kamerton dataset --force`"
CARD_KEYS = (
    "clips", "content_sha256", "hours", "language", "name", "sample_rate_hz", "speaker", "splits",
    "symbols", "text",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One clip of the dataset.

    ``start_sample`` and ``end_sample`` (exclusive) count samples of ``source`` at its own rate
    ``source_rate_hz``; ``offset_bytes`` and ``size_bytes`` are those of the FLAC in ``shard``.
    ``clipped_share`` is that of the recording's samples at its top.
    ``text`` is normalised ``text_raw``, ``phonemes`` how it is said where the voice reads those;
    ``text_origin`` is who wrote it: "recognised", "given" beside the recording, or "corrected".
    """

    id: str
    shard: str
    offset_bytes: int
    size_bytes: int
    audio_sha256: str
    duration_seconds: float
    sample_rate_hz: int
    text_raw: str
    text: str
    language: str
    speaker: str
    split: Split
    source: str
    source_sha256: str
    source_rate_hz: int
    start_sample: int
    end_sample: int
    snr_db: float | None
    avg_logprob: float | None
    phonemes: str | None = None
    clipped_share: float | None = None
    text_origin: str = "recognised"

    @property
    def model_text(self) -> str:
        """What the voice reads, symbol by symbol: the phonemes, or else the text."""
        return self.text if self.phonemes is None else self.phonemes

    def as_dict(self) -> dict[str, Any]:
        """The row as it stands in manifest.jsonl."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> Self:
        """Read a manifest row; keys that it does not know are passed over.

        Raises:
            InputCorruptError: a value is missing or of another type; ``where`` names the line.
        """
        taken: dict[str, Any] = {}
        for name, kinds in _KINDS.items():
            value = values.get(name, _DEFAULTS.get(name, _ABSENT))
            if value is _ABSENT:
                raise InputCorruptError(where, problem=f"has no {name!r}", hint=_REMAKE)
            if isinstance(value, bool) or not isinstance(value, kinds) or not is_storable(value):
                raise InputCorruptError(where, problem=f"{name} is {value!r}", hint=_REMAKE)
            taken[name] = value
        if taken["split"] not in SPLITS:
            raise InputCorruptError(where, problem=f"split is {taken['split']!r}", hint=_REMAKE)
        return cls(**taken)


_ABSENT = object()
_TYPES: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (int, float),
    float | None: (int, float, type(None)),
    str | None: (str, type(None)),
    Split: (str,),
}
_DEFAULTS = {field.name: field.default for field in fields(Row) if field.default is not MISSING}
_KINDS = {field.name: _TYPES[field.type] for field in fields(Row)}


def ljspeech_line(row: Row) -> str:
    """``id|raw|normalised``; the form knows no escapes, so a bar inside a text becomes a space."""
    fields = [row.id, row.text_raw, row.text]
    return "|".join(" ".join(field.replace("|", " ").split()) for field in fields) + "\n"


class Dataset:
    """A dataset folder opened for reading; cheap to pickle, holds no open file."""

    def __init__(self, path: Path, card: dict[str, Any], rows: tuple[Row, ...]) -> None:
        self.path = path
        self.card = card
        self._rows = rows

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the card and the manifest of the dataset at ``path``.

        Raises:
            InputMissingError: there is no dataset.
            InputCorruptError: the card or a row is not what it should be; the line is named.
        """
        if not path.is_dir():
            raise InputMissingError(path, produced_by="dataset")
        card = read_json(path / CARD_FILE, produced_by="dataset")
        for key in CARD_KEYS:
            if key not in card:
                raise InputCorruptError(path / CARD_FILE, problem=f"has no {key!r}", hint=_REMAKE)
        manifest = path / MANIFEST_FILE
        rows = tuple(
            Row.from_dict(values, f"{manifest}:{number}")
            for number, values in enumerate(read_jsonl(manifest, produced_by="dataset"), start=1)
        )
        if len(rows) != card["clips"]:
            problem = f"has {len(rows)} rows where the card counts {card['clips']} clips"
            raise InputCorruptError(manifest, problem=problem, hint=_REMAKE)
        return cls(path, card, rows)

    def rows(self, split: Split | None = None) -> list[Row]:
        """The clips of one split, or all, in the order of the manifest."""
        return [row for row in self._rows if split is None or row.split == split]

    def audio(self, row: Row) -> tuple[NDArray[np.float32], int]:
        """The sound of a row: mono in [-1, 1], and its rate in Hz.

        Raises:
            InputMissingError: the shard is not there.
            InputCorruptError: what the row points at is no FLAC of one channel.
        """
        payload = self.audio_bytes(row)
        where = f"{self.path / SHARDS_FOLDER / row.shard} (clip {row.id})"
        wave, rate_hz = decode_flac(payload, where)
        return wave, rate_hz

    def audio_bytes(self, row: Row) -> bytes:
        """The FLAC file of a row, undecoded."""
        placement = Placement(row.shard, row.offset_bytes, row.size_bytes)
        return read_member(self.path / SHARDS_FOLDER, placement)


def decode_flac(
    payload: bytes, where: str, *, written_by: str = "dataset"
) -> tuple[NDArray[np.float32], int]:
    """A FLAC file in memory as (mono float32 wave, rate in Hz).

    Raises:
        InputCorruptError: it cannot be decoded or is not mono; ``where`` names it, and the stage
            that wrote it is the advice.
    """
    try:
        import soundfile
    except ImportError as error:
        raise ToolMissingError("soundfile", extra="audio") from error
    hint = f"make it again: `kamerton {written_by} --force`"
    try:
        wave, rate_hz = soundfile.read(io.BytesIO(payload), dtype="float32")
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise InputCorruptError(where, problem=f"cannot be decoded ({error})", hint=hint) from error
    if wave.ndim != 1:
        raise InputCorruptError(where, problem=f"has {wave.shape[1]} channels", hint=hint)
    return wave, int(rate_hz)
