"""Which files of a folder are recordings, and what they are called."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from kamerton.config.schema import DatasetParams

# Notes, transcripts and corrections that may lie beside recordings.
SIDECAR_SUFFIXES = frozenset(
    {".csv", ".dvc", ".html", ".json", ".jsonl", ".lab", ".md", ".srt"}
    | {".textgrid", ".tsv", ".txt", ".vtt", ".yaml", ".yml"}
)


@dataclass(frozen=True, slots=True)
class Recording:
    """A file, and its name relative to the folder, in POSIX form and valid UTF-8."""

    path: Path
    name: str


def find_recordings(folder: Path) -> list[Recording]:
    """Every file that is meant to be sound, in order of name.

    Nested folders and symbolic links are followed, each real folder once. Hidden files and files
    with a `SIDECAR_SUFFIXES` ending are no recordings; everything else is, also what turns out
    not to be readable, so that it is reported and not overlooked.
    """
    return [file for file in find_files(folder) if not is_sidecar(file.path)]


def is_sidecar(path: Path) -> bool:
    """Whether a file lies beside recordings and is none itself."""
    return path.suffix.lower() in SIDECAR_SUFFIXES


def find_files(folder: Path) -> list[Recording]:
    """Every file that is not hidden, recording or not, in order of name."""
    found: list[Recording] = []
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link to a folder above or beside
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith("."):
                path = Path(parent, name)
                found.append(Recording(path, _printable(path.relative_to(folder).as_posix())))
    return sorted(found, key=lambda recording: recording.name)


def speaker_of(source: str, params: DatasetParams) -> str:
    """Who speaks in a recording, given its name relative to the recordings."""
    folder, below, _ = source.partition("/")
    return folder if below and params.speaker_by_folder else params.speaker


def _printable(name: str) -> str:
    """The name with bytes that are not UTF-8 written as escapes, so that JSON can hold it."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")
