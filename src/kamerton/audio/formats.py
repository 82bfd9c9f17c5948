"""What decoders agree on: the format of a recording, its blocks, and why one cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Block: TypeAlias = NDArray[np.float32] | NDArray[np.int16]

# Reasons that say nothing of the bytes: another day the file may be readable.
PASSING = frozenset(
    {
        *("not_found", "broken_link", "not_readable", "not_a_file", "empty_file"),
        *("changed_while_reading", "decoder_killed"),
    }
)
BLOCK_SAMPLES = 1 << 15  # 0.7 s of mono at 44.1 kHz: fast, and little when a block is lost


class AudioReadError(Exception):
    """A file that is not usable audio.

    Attributes:
        reason: a short code, stable enough to count by (``not_audio``, ``empty_file``, ...).
        detail: what is wrong, for people.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """What the header says; ``declared_frames`` is None where it does not say how long it is."""

    rate_hz: int
    channels: int
    declared_frames: int | None
    container: str


@dataclass(slots=True)
class Opened:
    """A file that a decoder has opened.

    Attributes:
        format: what the header says.
        blocks: the sound, (frames, channels) each; read once. An `AudioReadError` in the middle
            means that the rest is lost.
        gaps: stretches [start, end) of frames that could not be read and are silence instead;
            grows while blocks are read.
        remarks: what else is wrong, as ``reason: detail``; grows while blocks are read.
    """

    format: AudioFormat
    blocks: Iterator[Block] = field(default_factory=lambda: iter(()))
    gaps: list[tuple[int, int]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def decoder_words(error: BaseException) -> str:
    """The decoder's own words, without the path, which differs between machines."""
    text = str(getattr(error, "error_string", "") or type(error).__name__)
    if text.startswith("File does not exist"):  # what libsndfile says of a strange MP3 file
        return "no known format of sound"
    if "nternal error" in text:  # ... and of rates and sizes that cannot be
        return "its header makes no sense"
    return text.strip().splitlines()[0].removeprefix("Error : ").rstrip(".")
