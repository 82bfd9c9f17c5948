"""Marks along a growing text file, by which a later reader tells how much of it is still there.

A run that resumes replaces its log by the log's beginning, an operator rotates one, an editor or a
synchronising tool copies one. Names, sizes and file numbers can stay the same through all of that;
the contents cannot. Each mark holds the checksum of all bytes before it, and the lowest step
between it and the mark before, so that the first mark that does not fit says which steps are void.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import BinaryIO, Final, NamedTuple

_TAIL_BYTES: Final = 256
_PER_OCTAVE: Final = 2
_NEAREST_BYTES: Final = 128
_BLOCK_BYTES: Final = 1 << 20


class Mark(NamedTuple):
    """A place at the end of a line."""

    offset: int
    checksum: int  # crc32 of all bytes before it
    low: int | None  # lowest step since the mark before; None where there is none


def extend(
    marks: Sequence[Mark], data: bytes, ends: Sequence[int], steps: Sequence[int | None]
) -> list[Mark]:
    """``marks`` and those of ``data``, which begins at the last of them.

    Args:
        marks: Ascending.
        data: Whole lines.
        ends: Where in ``data`` each line ends.
        steps: The step of each line.
    """
    checksum, start = (marks[-1].checksum, marks[-1].offset) if marks else (0, 0)
    found, before, first = list(marks), 0, 0
    for index in _cuts(ends):
        checksum = zlib.crc32(data[before : ends[index]], checksum)
        here = [step for step in steps[first : index + 1] if step is not None]
        found.append(Mark(start + ends[index], checksum, min(here, default=None)))
        before, first = ends[index], index + 1
    return thin(found)


def _cuts(ends: Sequence[int]) -> list[int]:
    """Lines to put a mark behind: dense towards the end, where most that is undone lies."""
    if not ends:
        return []
    cuts, index, distance = [len(ends) - 1], len(ends) - 1, _NEAREST_BYTES
    while index > 0:
        index -= 1
        if ends[-1] - ends[index] >= distance:
            cuts.append(index)
            distance = int((ends[-1] - ends[index]) * 2 ** (1 / _PER_OCTAVE)) + 1
    return cuts[::-1]


def thin(marks: Sequence[Mark]) -> list[Mark]:
    """Few of many marks, in number as the logarithm of the file's size."""
    kept: list[Mark] = []
    low: int | None = None
    octave = None
    end = marks[-1].offset if marks else 0
    for mark in marks:
        low = lowest(low, mark.low)
        distance = max(1.0, (end - mark.offset) / _NEAREST_BYTES)
        mine = -1 if mark is marks[-1] else int(_PER_OCTAVE * math.log2(distance))
        if mine != octave:
            kept.append(mark._replace(low=low))
            octave, low = mine, None
    return kept


def lowest(one: int | None, other: int | None) -> int | None:
    """The lower of two steps that may be missing."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def still_valid(file: BinaryIO, marks: Sequence[Mark]) -> int:
    """How many of the marks fit the file, counted from its beginning."""
    file.seek(0)
    checksum = at = 0
    for count, mark in enumerate(marks):
        while at < mark.offset:
            block = file.read(min(_BLOCK_BYTES, mark.offset - at))
            if not block:
                return count
            checksum = zlib.crc32(block, checksum)
            at += len(block)
        if checksum != mark.checksum:
            return count
    return len(marks)


def tail_of(file: BinaryIO, offset: int) -> list[int]:
    """Length and checksum of the bytes before ``offset``, to see later whether they changed."""
    length = min(offset, _TAIL_BYTES)
    file.seek(offset - length)
    return [length, zlib.crc32(file.read(length))]


def tail_fits(file: BinaryIO, offset: int, tail: Sequence[int]) -> bool:
    """Whether the bytes before ``offset`` are those that ``tail`` was made of."""
    return tail_of(file, offset) == list(tail)


def line_checksum(file: BinaryIO) -> int:
    """Checksum of the first line, or of as much of it as tells files apart."""
    file.seek(0)
    return zlib.crc32(file.readline(_TAIL_BYTES * 16))
