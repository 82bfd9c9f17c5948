"""What is wrong with a dataset folder: all of it, not only the first thing.

The quick check reads the tables and compares them with each other, the card and the sizes of the
shards; the deep one also reads and decodes every clip.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kamerton.core.errors import PipelineError
from kamerton.core.files import read_json
from kamerton.core.progress import Progress, silent
from kamerton.data.card import content_sha256
from kamerton.data.manifest import (
    CARD_FILE,
    CARD_KEYS,
    MANIFEST_FILE,
    METADATA_FILE,
    REJECTED_FILE,
    SHARDS_FOLDER,
    SPLITS,
    Dataset,
    Row,
    ljspeech_line,
)
from kamerton.text.normalise import bare_words

_LENGTH_TOLERANCE_SECONDS = 1e-3
_HOURS_TOLERANCE = 1e-5
_SECONDS_AN_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Findings:
    """What a check found: figures of the dataset, and every problem in words with its place."""

    clips: int
    hours: float
    content_sha256: str
    deep: bool
    problems: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "clips": self.clips,
            "hours": self.hours,
            "content_sha256": self.content_sha256,
            "sound": "read and decoded" if self.deep else "sizes only (--deep reads all of it)",
            "state": "damaged" if self.problems else "valid",
            "problems": list(self.problems),
        }


def check_dataset(path: Path, *, deep: bool = False, on_progress: Progress = silent) -> Findings:
    """Look for everything that is wrong with the dataset at ``path``.

    Raises:
        InputMissingError: there is no dataset.
        InputCorruptError: its card is no JSON.
    """
    card = read_json(path / CARD_FILE, produced_by="dataset")
    rows, problems = _read_rows(path / MANIFEST_FILE)
    problems += [f"{CARD_FILE} has no {key!r}" for key in CARD_KEYS if key not in card]
    problems += _against_card(rows, card)
    problems += _repeated(rows)
    problems += _leaks(rows)
    problems += _tables(path, rows)
    problems += _shards(path / SHARDS_FOLDER, rows)
    if deep:
        problems += _sounds(Dataset(path, card, tuple(rows)), on_progress)
    return Findings(len(rows), _hours(rows), content_sha256(rows), deep, tuple(problems))


def _hours(rows: Iterable[Row]) -> float:
    return round(sum(row.duration_seconds for row in rows) / _SECONDS_AN_HOUR, 6)


def _read_rows(manifest: Path) -> tuple[list[Row], list[str]]:
    """The rows that can be read, and what is wrong with the others."""
    rows, problems = [], []
    for number, line in enumerate(_lines(manifest), start=1):
        where = f"{manifest.name}:{number}"
        try:
            rows.append(Row.from_dict(json.loads(line), where))
        except PipelineError as error:
            problems.append(error.message)
        except (ValueError, AttributeError) as error:
            problems.append(f"{where}: is no JSON object ({error})")
    return rows, problems


def _lines(path: Path) -> list[str]:
    """Lines of a table; of one that cannot be read, none: the card then counts other rows."""
    try:
        return [line for line in path.read_text("utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError):
        return []


def _against_card(rows: Sequence[Row], card: Mapping[str, Any]) -> Iterator[str]:
    counted = {"clips": len(rows), "content_sha256": content_sha256(rows)}
    for name, value in counted.items():
        if name in card and card[name] != value:
            yield f"{MANIFEST_FILE} has {name} {value}, {CARD_FILE} says {card[name]}"
    hours = card.get("hours")
    if isinstance(hours, int | float) and abs(hours - _hours(rows)) > _HOURS_TOLERANCE:
        yield f"{MANIFEST_FILE} has {_hours(rows)} hours, {CARD_FILE} says {hours}"
    symbols = frozenset(card.get("symbols", ()))
    for row in rows:
        if unknown := sorted(set(row.model_text) - symbols):
            yield f"clip {row.id}: text has symbols that {CARD_FILE} does not list: {unknown}"
        if row.sample_rate_hz != card.get("sample_rate_hz", row.sample_rate_hz):
            yield f"clip {row.id}: is at {row.sample_rate_hz} Hz, unlike {CARD_FILE}"
    for split in SPLITS:
        if not any(row.split == split for row in rows):
            yield f"the split {split} is empty"


def _repeated(rows: Iterable[Row]) -> Iterator[str]:
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            yield f"clip {row.id}: stands twice in {MANIFEST_FILE}"
        seen.add(row.id)


def _leaks(rows: Iterable[Row]) -> Iterator[str]:
    """Words or sound that one split knows from another."""
    homes: dict[tuple[str, str], Row] = {}
    for row in rows:
        for kind, value in (("words", bare_words(row.text)), ("sound", row.audio_sha256)):
            first = homes.setdefault((kind, value), row)
            if first.split != row.split:
                yield (
                    f"clip {row.id} of {row.split}: the same {kind} as clip {first.id} "
                    f"of {first.split}"
                )


def _tables(path: Path, rows: Sequence[Row]) -> Iterator[str]:
    """The files that repeat the manifest in another form."""
    by_id = {row.id: row.as_dict() for row in rows}
    for split in SPLITS:
        told = [_parsed(line) for line in _lines(path / f"{split}.jsonl")]
        if told != [by_id[row.id] for row in rows if row.split == split]:
            yield f"{split}.jsonl does not hold the rows of {MANIFEST_FILE} with that split"
    if _lines(path / METADATA_FILE) != [ljspeech_line(row).rstrip("\n") for row in rows]:
        yield f"{METADATA_FILE} does not hold the texts of {MANIFEST_FILE}"
    if not (path / REJECTED_FILE).is_file():
        yield f"{REJECTED_FILE} is not there"
    elif not all(isinstance(_parsed(line), dict) for line in _lines(path / REJECTED_FILE)):
        yield f"{REJECTED_FILE} has a line that is no JSON object"


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _shards(folder: Path, rows: Iterable[Row]) -> Iterator[str]:
    """Shards that are not there, too short, unknown, or shared by clips that overlap."""
    by_shard: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_shard[row.shard].append(row)
    present = {item.name for item in folder.iterdir()} if folder.is_dir() else set()
    for name in sorted(present - by_shard.keys()):
        yield f"{SHARDS_FOLDER}/{name}: no clip is in it"
    for name, members in sorted(by_shard.items()):
        if name not in present:
            yield f"{SHARDS_FOLDER}/{name}: is not there ({len(members)} clips are in it)"
            continue
        end = 0
        for row in sorted(members, key=lambda row: (row.offset_bytes, row.id)):
            if row.offset_bytes < end:
                yield f"clip {row.id}: its place in {name} overlaps another's"
            end = max(end, row.offset_bytes + row.size_bytes)
        if (folder / name).stat().st_size < end:
            yield f"{SHARDS_FOLDER}/{name}: ends before its last clip does"


def _sounds(dataset: Dataset, on_progress: Progress) -> Iterator[str]:
    rows = dataset.rows()
    for done, row in enumerate(rows):
        on_progress(done, len(rows), row.shard)
        try:
            payload = dataset.audio_bytes(row)
            if hashlib.sha256(payload).hexdigest() != row.audio_sha256:
                yield f"clip {row.id}: its sound is not the one that the manifest has the hash of"
                continue
            wave, rate_hz = dataset.audio(row)
        except PipelineError as error:
            yield f"clip {row.id}: {error.message}"
            continue
        if rate_hz != row.sample_rate_hz:
            yield f"clip {row.id}: its sound is at {rate_hz} Hz, not {row.sample_rate_hz}"
        seconds = len(wave) / rate_hz
        if abs(seconds - row.duration_seconds) > _LENGTH_TOLERANCE_SECONDS:
            yield f"clip {row.id}: lasts {seconds:.3f} s, not {row.duration_seconds:.3f}"
    on_progress(len(rows), len(rows))
