"""A deep check of a dataset: every row, every sound, the card's sums and hash."""

import hashlib
from pathlib import Path
from typing import Any

from kamerton.core.errors import InputCorruptError
from kamerton.data.manifest import MANIFEST_FILE, SPLITS, Dataset, Row
from kamerton.data.packing import content_sha256

_REMAKE = "make the dataset again: `kamerton dataset --force`, or `dvc checkout` to restore it"
_LENGTH_TOLERANCE_SECONDS = 0.01


def _check_row(dataset: Dataset, row: Row, symbols: frozenset[str]) -> None:
    where = f"{dataset.path} (clip {row.id})"
    if hashlib.sha256(dataset.audio_bytes(row)).hexdigest() != row.audio_sha256:
        raise InputCorruptError(
            where, problem="sound is not the one that the manifest has the hash of", hint=_REMAKE
        )
    wave, rate_hz = dataset.audio(row)
    if rate_hz != row.sample_rate_hz:
        problem = f"sound is at {rate_hz} Hz, the manifest says {row.sample_rate_hz}"
        raise InputCorruptError(where, problem=problem, hint=_REMAKE)
    seconds = len(wave) / rate_hz
    if abs(seconds - row.duration_seconds) > _LENGTH_TOLERANCE_SECONDS:
        problem = f"sound is {seconds:.3f} s long, the manifest says {row.duration_seconds:.3f}"
        raise InputCorruptError(where, problem=problem, hint=_REMAKE)
    if unknown := set(row.text) - symbols:
        problem = f"text has symbols that the card does not list: {sorted(unknown)}"
        raise InputCorruptError(where, problem=problem, hint=_REMAKE)


def _check_leaks(dataset: Dataset) -> None:
    homes: dict[str, str] = {}
    for row in dataset.rows():
        if homes.setdefault(row.text, row.split) != row.split:
            problem = f"the text of clip {row.id} stands in {homes[row.text]} and in {row.split}"
            raise InputCorruptError(dataset.path, problem=problem, hint=_REMAKE)


def validate_dataset(path: Path) -> dict[str, Any]:
    """Read everything; what comes back says how much was found right.

    Raises:
        InputMissingError: there is no dataset, or a shard is gone.
        InputCorruptError: the first thing that is wrong, with its place.
    """
    dataset = Dataset.open(path)
    rows = dataset.rows()
    symbols = frozenset(dataset.card["symbols"])
    for row in rows:
        _check_row(dataset, row, symbols)
    if len({row.id for row in rows}) != len(rows):
        raise InputCorruptError(path, problem="two rows have one id", hint=_REMAKE)
    _check_leaks(dataset)
    if content_sha256(rows) != dataset.card["content_sha256"]:
        problem = "its rows do not give the content hash that the card states"
        raise InputCorruptError(path / MANIFEST_FILE, problem=problem, hint=_REMAKE)
    seconds = sum(row.duration_seconds for row in rows)
    return {
        "clips": len(rows),
        "hours": round(seconds / 3600, 4),
        **{split: len(dataset.rows(split)) for split in SPLITS},
        "content_sha256": dataset.card["content_sha256"],
        "state": "valid",
    }
