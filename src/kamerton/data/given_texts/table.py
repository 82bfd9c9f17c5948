"""clips/texts.jsonl: the texts that people gave, as the transcribe stage reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kamerton.core.errors import InputCorruptError
from kamerton.core.files import is_storable, read_jsonl, write_jsonl
from kamerton.data.given_texts.model import KINDS, GivenText

TEXTS_FILE = "texts.jsonl"

_TEXT, _TIME = (str,), (int, float, type(None))
_FIELDS: Mapping[str, tuple[type, ...]] = {
    "kind": _TEXT,
    "source": (str, type(None)),
    "id": (str, type(None)),
    "start_seconds": _TIME,
    "end_seconds": _TIME,
    "text": _TEXT,
    "where": _TEXT,
}
_HINT = "make it again: `kamerton segment --force`"


def write_texts(path: Path, texts: Iterable[GivenText]) -> None:
    """Write one JSON object per text, in the order given."""
    write_jsonl(path, (asdict(text) for text in texts))


def read_texts(path: Path) -> list[GivenText]:
    """Every given text, in order; none where there is no such file.

    Raises:
        InputCorruptError: a row is wrong; its line is named.
    """
    if not path.exists():
        return []
    rows = read_jsonl(path, produced_by="segment")
    return [take_text(row, f"{path}:{number}") for number, row in enumerate(rows, start=1)]


def take_text(row: Mapping[str, Any], where: str) -> GivenText:
    """One row as a given text.

    Raises:
        InputCorruptError: a value is missing or cannot be; ``where`` names the line.
    """
    taken: dict[str, Any] = {}
    for name, kinds in _FIELDS.items():
        if name not in row:
            raise InputCorruptError(where, problem=f"has no {name!r}", hint=_HINT)
        value = row[name]
        if isinstance(value, bool) or not isinstance(value, kinds) or not is_storable(value):
            raise InputCorruptError(where, problem=f"{name} is {value!r:.80}", hint=_HINT)
        taken[name] = value
    text = GivenText(**taken)
    if problem := _contradicts_itself(text):
        raise InputCorruptError(where, problem=problem, hint=_HINT)
    return text


def _contradicts_itself(text: GivenText) -> str | None:
    """What is wrong with a row whose values have the right types."""
    start, end = text.start_seconds, text.end_seconds
    timed = start is not None and end is not None
    if text.kind not in KINDS:
        return f"kind is {text.kind!r:.80}"
    if (start is None) != (end is None):
        return "has one of start_seconds and end_seconds, not both"
    if start is not None and end is not None and not 0.0 <= start < end:
        return "ends before it begins"
    if text.kind == "correction":
        named = text.id is not None or (text.source is not None and timed)
        return None if named else "names no clip"
    fits = text.source is not None and text.id is None and bool(text.text)
    return None if fits and timed == (text.kind == "subtitle") else f"is no {text.kind}"
