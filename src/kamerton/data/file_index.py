"""Which files are known by their contents, so that those that did not change are not opened.

A file is the same if its place, size, times and inode are. A file system tells time in steps, so a
file that was written just before it was looked at may be written again without a trace; such files
are looked at again, as git does.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, Self

from kamerton.core.errors import PipelineError
from kamerton.core.files import read_json, sha256_path, write_text

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_FORMAT_VERSION = 2
_RACY_NANOSECONDS = 2_000_000_000  # the coarsest time of a file system in use is that of FAT
_NAME_DIGITS = 16


@dataclass(frozen=True, slots=True)
class FileState:
    """What the system tells about a file without opening it."""

    size_bytes: int
    modified_ns: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """The state now.

        Raises:
            OSError: the system does not tell.
        """
        status = os.stat(path)
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file that was read: its state then, the hash of its bytes, and the seconds it claims.

    ``looked_ns`` is when its state was taken, before it was read; ``for_ffmpeg`` whether libsndfile
    could not open it.
    """

    state: FileState
    looked_ns: int
    sha256: str
    seconds: float
    for_ffmpeg: bool = False

    @property
    def is_certain(self) -> bool:
        """Whether no later write can have left the state as it is."""
        last = max(self.state.modified_ns, self.state.changed_ns)
        return last + _RACY_NANOSECONDS <= self.looked_ns


def now_ns() -> int:
    """The time as files have it."""
    return time.time_ns()


class FileIndex:
    """What is known of the files of one folder, by name; kept in a cache.

    Several processes may use one index: each adds what it learns to what is there. If two write at
    the same instant the work of one is forgotten, and done again by the next.
    """

    def __init__(self, cache: Path | None, folder: Path) -> None:
        place = sha256_path(os.path.realpath(folder))[:_NAME_DIGITS]
        self._path = None if cache is None else cache / "files" / f"{place}.json"
        self._known = self._read()
        self._new: dict[str, KnownFile] = {}

    def find(self, name: str, state: FileState) -> KnownFile | None:
        """The file of that name, if it is as it was."""
        known = self._new.get(name) or self._known.get(name)
        return known if known is not None and known.state == state else None

    def add(self, name: str, known: KnownFile) -> None:
        """Remember a file that was read, until `save` keeps it for good."""
        self._new[name] = known

    def save(self, present: Collection[str]) -> None:
        """Keep what was added; forget files that are not among ``present``."""
        certain = {name: known for name, known in self._new.items() if known.is_certain}
        gone = self._known.keys() - set(present)
        if self._path is None or not (certain or gone):
            return
        # What others have learnt since comes first, ours is newer where both have it.
        merged = self._read() | certain
        rows = {
            name: [*astuple(known.state), *astuple(known)[1:]]
            for name, known in sorted(merged.items())
            if name not in gone
        }
        self._known = merged
        text = ",\n".join(f"{_json(name)}:{_json(row)}" for name, row in rows.items())
        with contextlib.suppress(OSError):  # a cache that is read-only is still a cache
            write_text(
                self._path, f'{{"format_version":{_FORMAT_VERSION},"files":{{\n{text}\n}}}}\n'
            )

    def _read(self) -> dict[str, KnownFile]:
        """What is on disk; nothing where it is missing or damaged, since it can be made again."""
        if self._path is None or not self._path.exists():
            return {}
        try:
            values = read_json(self._path, produced_by="segment")
            if values["format_version"] != _FORMAT_VERSION:
                return {}
            return {str(name): _known(row) for name, row in values["files"].items()}
        except (PipelineError, OSError, KeyError, TypeError, ValueError, AttributeError):
            return {}


def _known(row: list[Any]) -> KnownFile:
    size, modified, changed, inode, looked, digest, seconds, for_ffmpeg = row
    state = FileState(int(size), int(modified), int(changed), int(inode))
    return KnownFile(state, int(looked), str(digest), float(seconds), bool(for_ffmpeg))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
