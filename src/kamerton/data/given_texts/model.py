"""What people may say about recordings in files beside them, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["correction", "subtitle", "text", "metadata"]
KINDS: tuple[Kind, ...] = ("correction", "subtitle", "text", "metadata")

# What each reason means, for reports.
PROBLEMS: Mapping[str, str] = {
    "not_readable": "the system refuses to give the file",
    "too_large": "larger than any text about recordings",
    "not_text": "neither UTF-8 nor UTF-16 text",
    "no_text": "there is no word in it",
    "no_header": "the first line does not name the columns",
    "bad_line": "a line that cannot be read",
    "bad_time": "times that no clip can have",
    "bad_accept": "the column accept holds something else than yes or no",
    "no_clip_named": "a line says neither id nor source and times",
    "no_recording": "there is no recording of that name",
    "several_recordings": "more than one recording has that name",
    "contradiction": "two different texts for the same piece of speech",
    "correction_unused": "a correction that fits no clip",
    "correction_of_rejected": "a correction of a clip that was rejected when it was cut",
    "more_problems": "the rest of the file was left out",
}


@dataclass(frozen=True, slots=True)
class GivenText:
    """What a person wrote about a recording, or about a piece of one.

    ``source`` is the recording's name, relative to the recordings folder; None only for a
    correction that names its clip by ``id`` alone. Times are None for a text of the whole
    recording (kinds ``text`` and ``metadata``) and may be None where an ``id`` is given. An empty
    ``text`` is a correction that drops the clip. ``where`` names the file, relative to the
    recordings folder, and the line: ``sub/corrections.csv:12``.
    """

    kind: Kind
    source: str | None
    id: str | None
    start_seconds: float | None
    end_seconds: float | None
    text: str
    where: str


@dataclass(frozen=True, slots=True)
class TextProblem:
    """Something in a sidecar that was left out; ``reason`` is a key of `PROBLEMS`."""

    where: str
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


def whole_text_sources(texts: Iterable[GivenText]) -> frozenset[str]:
    """Recordings that have a text as a whole and no subtitles.

    Those that are short enough are best left in one clip, which then needs no recognition.
    """
    listed = list(texts)
    timed = {text.source for text in listed if text.kind == "subtitle"}
    whole = {text.source for text in listed if text.kind in ("text", "metadata")}
    return frozenset(source for source in whole - timed if source is not None)
