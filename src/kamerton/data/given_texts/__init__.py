"""Texts that people put beside recordings: corrections, subtitles, transcripts.

The segment stage reads them (`read_given_texts`) and writes them to clips/texts.jsonl
(`write_texts`); the transcribe stage reads that table (`read_texts`), finds the clip of each text
(`match_given`), and distributes texts of whole recordings once it has listened (`align_given`).
"""

from kamerton.data.given_texts.alignment import align_text
from kamerton.data.given_texts.matching import (
    NOTES,
    ClipText,
    Matched,
    align_given,
    match_given,
)
from kamerton.data.given_texts.model import (
    KINDS,
    PROBLEMS,
    GivenText,
    Kind,
    TextProblem,
    whole_text_sources,
)
from kamerton.data.given_texts.reading import read_given_texts
from kamerton.data.given_texts.table import TEXTS_FILE, read_texts, write_texts

__all__ = [
    "KINDS",
    "NOTES",
    "PROBLEMS",
    "TEXTS_FILE",
    "ClipText",
    "GivenText",
    "Kind",
    "Matched",
    "TextProblem",
    "align_given",
    "align_text",
    "match_given",
    "read_given_texts",
    "read_texts",
    "whole_text_sources",
    "write_texts",
]
