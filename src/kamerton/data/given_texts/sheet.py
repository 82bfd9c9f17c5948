"""The sheet in which a person corrects what was recognised: a corrections.csv, filled in.

It can be saved beside the recordings as it is. Lines that nobody touched say nothing (see
`corrections`), and corrections made earlier are in it again, accepted, so that a new sheet may
replace the old one.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kamerton.data.given_texts.corrections import escape_cell
from kamerton.data.tables import KEPT, Clip

Choice = Literal["doubtful", "all"]
SHEET_COLUMNS = (
    "id", "source", "start_seconds", "end_seconds",
    "text", "accept", "recognised", "avg_logprob", "reasons",
)  # fmt: skip
_CORRECTED = "corrected"
_BOM = "\ufeff"  # without it spreadsheets take UTF-8 for another encoding


@dataclass(frozen=True, slots=True)
class SheetRow:
    """A clip to be listened to; ``accepted`` is a text of a person, which counts as it stands."""

    clip: Clip
    text: str
    avg_logprob: float | None
    reasons: tuple[str, ...]
    accepted: bool

    @property
    def cells(self) -> tuple[str, ...]:
        """The values of `SHEET_COLUMNS`."""
        start, end = (
            f"{sample / self.clip.sample_rate_hz:.3f}"
            for sample in (self.clip.start_sample, self.clip.end_sample)
        )
        text, logprob = escape_cell(self.text), self.avg_logprob
        return (
            self.clip.id,
            escape_cell(self.clip.source),
            start,
            end,
            text,
            "yes" if self.accepted else "",
            text,
            "" if logprob is None else f"{logprob:.3f}",
            " ".join(self.reasons),
        )


def choose_rows(
    clips: Sequence[Clip],
    transcripts: Mapping[str, Mapping[str, Any]],
    *,
    only: Choice,
    below: float,
    limit: int | None,
) -> list[SheetRow]:
    """Clips to listen to, those refused first and the least sure before others.

    Args:
        clips: all of the folder; those rejected when they were cut have no sound to listen to.
        transcripts: rows of transcripts.jsonl by id of the clip.
        only: ``doubtful`` leaves out clips that were kept with a mean log probability of ``below``
            or more and of which no given text disagrees with what was heard.
        below: natural logarithm.
        limit: at most so many; earlier corrections come after them and do not count.
    """
    new: list[SheetRow] = []
    earlier: list[SheetRow] = []
    for clip in clips:
        row = transcripts.get(clip.id)
        if clip.status != KEPT or row is None:
            continue
        logprob = row.get("avg_logprob")
        note = row.get("note")
        reasons = (*row["reasons"], *([note] if note else []))
        if row.get("origin") == _CORRECTED:
            earlier.append(SheetRow(clip, row["text"], logprob, reasons, accepted=True))
        elif only == "all" or reasons or (logprob is not None and logprob < below):
            new.append(SheetRow(clip, row["text"], logprob, reasons, accepted=False))
    new.sort(key=lambda row: (transcripts[row.clip.id]["status"] == KEPT, *_order(row)))
    return new[:limit] + sorted(earlier, key=_order)


def _order(row: SheetRow) -> tuple[float, str, int]:
    sureness = -math.inf if row.avg_logprob is None else row.avg_logprob
    return sureness, row.clip.source, row.clip.start_sample


def render_sheet(rows: Sequence[SheetRow]) -> str:
    """The sheet as CSV, with the mark by which spreadsheets know UTF-8."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(SHEET_COLUMNS)
    writer.writerows(row.cells for row in rows)
    return _BOM + buffer.getvalue()
