"""metadata.csv as LJSpeech has it: ``id|text|normalised``, without quotes or header.

Two columns do; where there is a third that resembles the second, it is taken, since a person wrote
out there what is spoken. One that does not is about something else, such as the speaker.
A header (``audio_file|text|speaker_name`` and the like) is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kamerton.data.given_texts.decoding import TextError, decode_text, has_words, shorten, tidy
from kamerton.data.given_texts.model import TextProblem

MAX_PROBLEMS = 100

_HEADER_NAMES = frozenset({"id", "file", "file_name", "filename", "audio_file", "wav", "path"})
_TEXT_NAMES = ("normalised", "normalized", "normalized_text", "text", "transcript", "transcription")
_MOST_COLUMNS = 3
_ALIKE_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class MetadataRow:
    """The text of a recording, which is named by its stem or its path."""

    line: int
    id: str
    text: str


def parse_metadata(data: bytes, where: str) -> tuple[list[MetadataRow], list[TextProblem]]:
    """Every line with an id and a text, and what is wrong with others."""
    try:
        lines = decode_text(data).split("\n")
    except TextError as error:
        return [], [TextProblem(where, error.reason, error.detail)]
    rows: list[MetadataRow] = []
    problems: list[TextProblem] = []
    column: int | None = None
    first = True
    third = _third_is_text(lines)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if len(problems) >= MAX_PROBLEMS:
            problems.append(TextProblem(f"{where}:{number}", "more_problems"))
            break
        cells = [tidy(cell) for cell in line.split("|")]
        if first and cells[0].lower() in _HEADER_NAMES:
            column = _text_column(cells)
        elif (text := _text(cells, column, third=third)) is None or not cells[0]:
            problems.append(TextProblem(f"{where}:{number}", "bad_line", shorten(line)))
        elif not has_words(text):
            problems.append(TextProblem(f"{where}:{number}", "no_text", shorten(cells[0])))
        else:
            rows.append(MetadataRow(number, cells[0], text))
        first = False
    if not rows and not problems:
        problems.append(TextProblem(where, "no_text", "no line in it"))
    return rows, problems


def _text_column(header: list[str]) -> int | None:
    names = [name.lower() for name in header]
    return next((names.index(name) for name in _TEXT_NAMES if name in names), None)


def _text(cells: list[str], column: int | None, *, third: bool) -> str | None:
    """The spoken text of a line; None where it has no such column."""
    if column is not None:
        return cells[column] if column < len(cells) else None
    if not 2 <= len(cells) <= _MOST_COLUMNS:
        return None
    return cells[2] if third and len(cells) == _MOST_COLUMNS and has_words(cells[2]) else cells[1]


def _third_is_text(lines: Iterable[str]) -> bool:
    """Whether most third columns say about what the second does, and not the same everywhere."""
    cells = [[tidy(cell) for cell in line.split("|")] for line in lines]
    pairs = [(row[1], row[2]) for row in cells if len(row) == _MOST_COLUMNS and has_words(row[2])]
    alike = sum(_resembles(spoken, written) for written, spoken in pairs)
    written, spoken = ({pair[column] for pair in pairs} for column in (0, 1))
    return 2 * alike >= len(pairs) and 2 * len(spoken) > len(written)


def _resembles(one: str, other: str) -> bool:
    """Whether they share half of their words, or are of about the same length."""
    words = [set(text.lower().split()) for text in (one, other)]
    shared = len(words[0] & words[1]) >= _ALIKE_SHARE * min(map(len, words))
    lengths = sorted((len(one), len(other)))
    return shared or lengths[0] >= _ALIKE_SHARE * lengths[1]
