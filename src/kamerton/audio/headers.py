"""Lengths in headers that are wrong: recorders that crashed, files beyond 4 GB, broken copies."""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

# Sizes written by programs that stream to a pipe and never learn the length.
_UNKNOWN_BYTES = 0x7FFF_0000
_LARGEST = 0xFFFF_FFFF
_MAX_FRAMES = 1 << 62  # libsndfile says so where it does not know
_MAX_CHUNKS = 1000
_UNTOLD_BYTES = 1024  # less than this after the sound is not worth a word
_PADDING_BYTES = 1 << 16
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")
# What libsndfile remarks on a cut AIFF or RF64 file.
_TOLD_FRAMES = re.compile(r"(?:read from 'COMM' chunk \(|value from 'ds64' chunk of )(\d+)")
_CHUNK_NAME = re.compile(rb"[A-Za-z0-9_ ]{4}")


@dataclass(frozen=True, slots=True)
class Repair:
    """Bytes that a header should have at ``place``, and the length that it promised.

    ``share`` is what is there of what was promised, above 1 where there is more.
    """

    place: int
    patch: bytes
    share: float
    remark: str | None


class PatchedFile(io.FileIO):
    """A file, read as if the repair had been made."""

    def __init__(self, path: Path, repair: Repair) -> None:
        super().__init__(path)
        self._repair = repair

    def readinto(self, buffer: Any) -> int:
        """Read as a file does, then lay the patch over what it covers."""
        start = self.tell()
        count = super().readinto(buffer) or 0
        place, patch = self._repair.place, self._repair.patch
        first, last = max(start, place), min(start + count, place + len(patch))
        if first < last:
            view = memoryview(buffer).cast("B")
            view[first - start : last - start] = patch[first - place : last - place]
        return count


def length_repair(path: Path) -> Repair | None:
    """What to mend in the header of a WAV or CAF file so that all its sound is read."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            return _wav_repair(file, size)
        if head[:4] == b"caff":
            return _caf_repair(file, size)
    return None


def _wav_repair(file: BinaryIO, size: int) -> Repair | None:
    """Sound that goes on after the end of the data chunk is read too.

    That is how it looks when a recorder crashed before, or between, its writing the length, and
    when the length has outgrown its 32 bits.
    """
    place = 12
    for _ in range(_MAX_CHUNKS):
        file.seek(place)
        header = file.read(8)
        if len(header) < 8:
            return None
        name, length = struct.unpack("<4sI", header)
        if name == b"data":
            break
        place += 8 + length + length % 2
    else:
        return None
    begin, end = place + 8, place + 8 + length + length % 2
    if length >= _UNKNOWN_BYTES or size - end < _UNTOLD_BYTES or _is_tail(file, end, size):
        return None
    present = size - begin
    return Repair(
        place=place + 4,
        patch=struct.pack("<I", min(present, _LARGEST)),
        share=1.0,
        remark=f"wrong_length: the header tells of {length} bytes of sound, {present} are there "
        "and were read",
    )


def _is_tail(file: BinaryIO, place: int, size: int) -> bool:
    """Whether what lies behind the sound is notes, tags or padding, and no sound."""
    file.seek(place)
    head = file.read(_PADDING_BYTES)
    if head.startswith(_TAGS) or (size - place < _PADDING_BYTES and not head.strip(b"\0")):
        return True
    while place + 8 <= size:
        file.seek(place)
        name, length = struct.unpack("<4sI", file.read(8))
        if not _CHUNK_NAME.fullmatch(name) or place + 8 + length > size + 1:
            return False
        place += 8 + length + length % 2
    return True


def _caf_repair(file: BinaryIO, size: int) -> Repair | None:
    """Let libsndfile, which refuses a CAF file shorter than it says, read what is there."""
    place = 8
    for _ in range(_MAX_CHUNKS):
        file.seek(place)
        header = file.read(12)
        if len(header) < 12:
            return None
        name, length = struct.unpack(">4sq", header)
        if name == b"data":
            break
        place += 12 + max(0, length)
    else:
        return None
    present = size - place - 12
    if length <= present or present <= 0:
        return None
    return Repair(place + 4, struct.pack(">q", present), present / length, None)


def declared_frames(file: Any, repair: Repair | None) -> int | None:
    """The length that a header promises, which libsndfile hides if the file is shorter.

    Args:
        file: a `soundfile.SoundFile`.
        repair: how its header was mended, if it was.
    """
    frames, log = int(file.frames), str(file.extra_info)
    if not 0 <= frames < _MAX_FRAMES:
        return None
    if repair is not None:
        return round(frames / repair.share)
    if match := _TOLD_FRAMES.search(log):
        return max(int(match[1]), frames)
    # WAV and AU, then W64, whose sizes count a header that hardly matters.
    match = re.search(r"^(?:data|\s*Data Size)\s*: (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if match is None and file.format == "W64":
        match = re.search(r"^riff : (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if match is None:
        return frames if file.seekable() else None
    promised, present = int(match[1]), int(match[2])
    if promised >= _UNKNOWN_BYTES or present == 0 or promised < present:
        return None
    return frames * promised // present


def lacks_its_end(file: Any) -> bool:
    """Whether an Ogg stream has no page marked as its last, so that some are missing."""
    return "lacks an end-of-stream bit" in file.extra_info
