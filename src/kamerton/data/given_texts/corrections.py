"""corrections.csv: what a person heard where the recogniser erred.

The first line names the columns, in any order: ``text``, and ``id`` or ``source`` with
``start_seconds`` and ``end_seconds``. Commas, semicolons and tabs separate, as spreadsheets write
them; a decimal comma is understood. In a sheet that has the column ``recognised``, a line whose
text is the recognised one says nothing, unless its column ``accept`` says yes: a person who saved
the sheet half way has not vouched for the rest.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kamerton.data.given_texts.decoding import TextError, decode_text, shorten, tidy
from kamerton.data.given_texts.model import TextProblem

COLUMNS = ("id", "source", "start_seconds", "end_seconds", "text")
SEPARATORS = ",;\t"
MAX_PROBLEMS = 100

_KNOWN = frozenset({*COLUMNS, "accept", "recognised"})
_YES = frozenset({"yes", "y", "true", "1", "x", "ok", "да"})
_NO = frozenset({"", "no", "n", "false", "0", "нет"})
_FORMULA = ("=", "+", "-", "@")


@dataclass(frozen=True, slots=True)
class CorrectionRow:
    """A line that counts; ``source`` is as written, relative to the file's folder or the root."""

    line: int
    id: str | None
    source: str | None
    start_seconds: float | None
    end_seconds: float | None
    text: str


def escape_cell(value: str) -> str:
    """A text that no spreadsheet takes for a formula; `unescape_cell` undoes it."""
    # A reader leaves out the spaces before it.
    return f"'{value}" if value.lstrip().startswith(("'", *_FORMULA)) else value


def unescape_cell(value: str) -> str:
    """The text that `escape_cell` was given, or that was typed."""
    escaped = value.startswith("'") and value[1:].lstrip().startswith(("'", *_FORMULA))
    return value[1:] if escaped else value


def parse_corrections(data: bytes, where: str) -> tuple[list[CorrectionRow], list[TextProblem]]:
    """Every line of a corrections.csv that says something, and what is wrong with the others.

    Quoted cells may hold line ends; a line that cannot be read costs that line only.
    """
    try:
        text = decode_text(data)
        header, separator, first = _header(text)
    except TextError as error:
        return [], [TextProblem(where, error.reason, error.detail)]
    rows: list[CorrectionRow] = []
    problems: list[TextProblem] = []
    for number, cells in _records(text, separator, first):
        if len(problems) >= MAX_PROBLEMS:
            problems.append(TextProblem(f"{where}:{number}", "more_problems"))
            break
        try:
            row = _row(number, header, cells)
        except TextError as error:
            problems.append(TextProblem(f"{where}:{number}", error.reason, error.detail))
        else:
            rows += [row] if row else []
    return rows, problems


def _header(text: str) -> tuple[list[str], str, int]:
    """Names of the columns, the separator, and the number of lines before the first row."""
    lines = text.split("\n")
    separators = SEPARATORS
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if line[:4].lower() == "sep=" and len(line.rstrip()) <= 5:  # a spreadsheet's own mark
            separators = line[4:5] or "\t"
            continue
        best = max(separators, key=lambda mark: len(_KNOWN & set(_names(line, mark))))
        names = _names(line, best)
        located = "id" in names or {"source", "start_seconds", "end_seconds"} <= set(names)
        if "text" not in names or not located:
            raise TextError("no_header", f"found {shorten(line)!r}, wanted {','.join(COLUMNS)}")
        if twice := sorted({name for name in names if name in _KNOWN and names.count(name) > 1}):
            raise TextError("no_header", f"the column {twice[0]} stands twice")
        return names, best, number
    raise TextError("no_text", "the file is empty")


def _names(line: str, separator: str) -> list[str]:
    return [name.strip().strip('"').strip().lower() for name in line.split(separator)]


def _records(text: str, separator: str, skip: int) -> Iterator[tuple[int, list[str] | TextError]]:
    """Number of its first line, and the cells, of every record after ``skip`` lines.

    After a record that is no CSV, reading starts again at the line after its first.
    """
    lines = text.split("\n")
    start = skip
    while start < len(lines):
        reader = csv.reader(
            (f"{line}\n" for line in lines[start:]), delimiter=separator, strict=True
        )
        read = 0
        try:
            for cells in reader:
                if cells and any(cell.strip() for cell in cells):
                    yield start + read + 1, cells
                read = reader.line_num
            return
        except csv.Error as error:
            yield start + read + 1, TextError("bad_line", str(error))
            start += read + 1


def _row(number: int, header: list[str], cells: list[str] | TextError) -> CorrectionRow | None:
    if isinstance(cells, TextError):
        raise cells
    if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
        detail = f"{len(cells)} cells for {len(header)} columns: put the text in double quotes"
        raise TextError("bad_line", detail)
    values = {name: cell.strip() for name, cell in zip(header, cells, strict=False)}
    if "text" not in values:
        raise TextError("bad_line", f"{len(cells)} cells for {len(header)} columns")
    text = tidy(unescape_cell(values["text"]))
    if not _counts(values, text):
        return None
    clip, source = values.get("id") or None, unescape_cell(values.get("source", "")) or None
    times = _times(values, required=clip is None and source is not None)
    if clip is None and (source is None or times is None):
        raise TextError("no_clip_named", f"text {shorten(text)!r}")
    start, end = times or (None, None)
    return CorrectionRow(number, clip, source, start, end, text)


def _counts(values: Mapping[str, str], text: str) -> bool:
    """Whether a person changed or accepted the line."""
    accept = values.get("accept", "").casefold()
    if accept not in _YES | _NO:
        raise TextError("bad_accept", shorten(accept))
    if "recognised" not in values or accept in _YES:
        return True
    return text != tidy(unescape_cell(values["recognised"]))


def _times(values: Mapping[str, str], *, required: bool) -> tuple[float, float] | None:
    cells = values.get("start_seconds", ""), values.get("end_seconds", "")
    if not all(cells) and not required:
        return None
    start, end = (_seconds(cell) for cell in cells)
    if start is not None and end is not None and 0.0 <= start < end:
        return start, end
    if not required:  # the id is enough
        return None
    raise TextError("bad_time", shorten(" to ".join(cells)))


def _seconds(cell: str) -> float | None:
    try:
        value = float(cell.replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
