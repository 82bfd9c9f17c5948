"""Samples that wait on disk between two looks at a recording, so that it is decoded once."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from typing import IO, TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_SPARE_BYTES = 1 << 30  # what is written beside it needs room too
_CHECK_SAMPLES = 1 << 24  # a minute of work between two looks at the free space, 64 MB


class SampleStore(contextlib.AbstractContextManager["SampleStore"]):
    """A stream of samples in an unlinked temporary file: gone with the process, whatever happens.

    A convenience only: where the disk is short of room the store gives up, and is then not
    ``complete``.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.complete = True
        self.samples = 0
        self._file: IO[bytes] | None = None
        self._checked = 0
        try:
            self._folder = str(folder or tempfile.gettempdir())
            # Unbuffered: blocks are large.
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
            self._require_room()
        except OSError:
            self._give_up()

    def append(self, block: NDArray[np.float32]) -> None:
        """Write the next samples, or give up."""
        if self._file is None:
            return
        try:
            if self.samples + len(block) > self._checked:
                self._require_room()
            data = np.ascontiguousarray(block).view(np.uint8).data
            while data:
                data = data[self._file.write(data) :]
        except OSError:
            self._give_up()
        self.samples += len(block)

    def read(self, start: int, end: int) -> NDArray[np.float32]:
        """The samples [start, end), as they were appended; all must be there."""
        if self._file is None or end > self.samples:
            raise ValueError("the store does not hold these samples")
        wave = np.empty(end - start, dtype=np.float32)
        self._file.seek(start * wave.itemsize)
        view, filled = wave.view(np.uint8).data, 0
        while filled < wave.nbytes:
            filled += self._file.readinto(view[filled:])  # type: ignore[attr-defined]
        return wave

    def clear(self) -> None:
        """Forget all samples and begin again, if the store has not given up."""
        self.samples = self._checked = 0
        if self._file is not None:
            self._file.seek(0)
            self._file.truncate()

    def _require_room(self) -> None:
        if shutil.disk_usage(self._folder).free < _SPARE_BYTES:
            raise OSError("the disk is nearly full")
        self._checked = self.samples + _CHECK_SAMPLES

    def _give_up(self) -> None:
        self.complete = False
        self.close()

    def close(self) -> None:
        """Free the disk."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
