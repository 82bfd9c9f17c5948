"""A folder of finished work, addressed by what went into it: what is unchanged is not redone.

An entry is a folder named by the hash of everything that its content depends on. It appears whole
or not at all, so a process may be killed at any instant and several may share one cache, also on a
network disk. Entries are never changed; those that nobody used for long may go at any time.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
from typing import TYPE_CHECKING

from kamerton.core.errors import UsageError
from kamerton.core.files import (
    is_being_written,
    publish_folder,
    remove_path,
    remove_tree,
    temporary_folder,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_KEY = re.compile(r"[0-9a-f]{16,128}")
_KIND = re.compile(r"[a-z][a-z0-9-]*")
_SECONDS_A_DAY = 86_400.0
_SECONDS_IN_USE = 3_600.0


class WorkCache:
    """Finished work below one folder: ``<folder>/<kind>/<first two digits>/<key>/``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self, kind: str, key: str) -> Path:
        """Where an entry is, or would be."""
        if not _KIND.fullmatch(kind) or not _KEY.fullmatch(key):
            raise ValueError(f"{kind}/{key} is no place in a cache")
        return self.folder / kind / key[:2] / key

    def find(self, kind: str, key: str) -> Path | None:
        """The folder of a finished entry, or None; finding it counts as use."""
        place = self.place(kind, key)
        if not place.is_dir():
            return None
        with contextlib.suppress(OSError):  # a cache that is read-only is still a cache
            os.utime(place)
        return place

    def discard(self, kind: str, key: str) -> None:
        """Remove an entry that turned out not to be whole: a disk was full, or somebody wrote."""
        with contextlib.suppress(FileNotFoundError):
            remove_tree(self.place(kind, key))

    @contextlib.contextmanager
    def make(self, kind: str, key: str) -> Iterator[Path]:
        """Yield an empty folder that becomes the entry when the block ends well.

        Where another process was faster its entry stays, being the same; read it with `find`.

        Raises:
            UsageError: the cache cannot be written to.
        """
        place = self.place(kind, key)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            folder = temporary_folder(place)
        except OSError as error:
            raise UsageError(
                f"{self.folder}: the work cache cannot be written to ({error.strerror}).",
                hint="name a folder that can be written to: --cache FOLDER or KAMERTON_CACHE",
            ) from error
        try:
            yield folder
            with contextlib.suppress(FileExistsError):
                publish_folder(folder, place)
        finally:
            remove_path(folder)

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Entries and bytes by kind."""
        found: dict[str, tuple[int, int]] = {}
        for place in self._entries():
            count, size = found.get(place.parent.parent.name, (0, 0))
            more = _size(place)
            found[place.parent.parent.name] = (count + 1, size + more)
        return found

    def prune(self, unused_days: float) -> int:
        """Remove entries that were not used for so many days; return how many.

        What killed processes left half-made goes too, once it is as old as that. What was used
        within the last hour stays: a run that found it may not have linked it yet.
        """
        limit = time.time() - max(unused_days * _SECONDS_A_DAY, _SECONDS_IN_USE)
        old = [place for place in self._entries() if _last_used(place) <= limit]
        for place in old:
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                remove_tree(place)
        for leftover in self.folder.glob("*/??/.*"):
            if _last_used(leftover) <= limit and not is_being_written(leftover):
                remove_path(leftover)
        return len(old)

    def _entries(self) -> list[Path]:
        return [place for place in sorted(self.folder.glob("*/??/*")) if _KEY.fullmatch(place.name)]


def _size(place: Path) -> int:
    """Bytes below a folder; what others remove meanwhile does not count."""
    size = 0
    for folder, _, names in os.walk(place):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.stat(os.path.join(folder, name)).st_size
    return size


def _last_used(place: Path) -> float:
    """When it was used, as seconds since 1970; now where it is gone."""
    try:
        return place.stat().st_mtime
    except FileNotFoundError:
        return math.inf
