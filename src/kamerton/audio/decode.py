"""Streaming decoding of any recording to mono, in constant memory.

libsndfile reads what it can; ffmpeg, where it is installed, reads the rest. A file that cannot be
read raises `AudioReadError` with a reason for the report; one that is broken gives what is
readable, silence where a piece in its middle is not, and says so in `AudioStream.problems`.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

import numpy as np

from kamerton.audio.clipping import ClippingMeter
from kamerton.audio.ffmpeg import ffmpeg_is_installed, open_ffmpeg
from kamerton.audio.formats import BLOCK_SAMPLES, PASSING, AudioFormat, AudioReadError, Opened
from kamerton.audio.libsndfile import open_libsndfile
from kamerton.audio.signatures import HEAD_BYTES, sniff

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from kamerton.audio.formats import Block

__all__ = ["BLOCK_SAMPLES", "AudioFormat", "AudioReadError", "AudioStream", "open_audio", "probe"]

MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 768_000
_INT16_SCALE = np.float32(1.0 / 32768.0)
# A mix this far below its channels is what is left of a voice that they hold in opposite phase.
_CANCELLED_POWER = 0.2  # 7 dB; two channels that have nothing in common lose 3
# Float files may exceed 1.0, and some hold integers unscaled; beyond this it is not sound.
_MAX_AMPLITUDE = 1e6
_CHANGED = "changed_while_reading"


class AudioStream:
    """A recording being decoded once, from beginning to end.

    Attributes:
        format: rate and channels of the source.
        frames: sample frames given out so far.
        repaired: NaN, infinite or absurdly large samples that were replaced by silence.
        problems: what is wrong with the file, as ``reason: detail``; whole at the end.
        clipping: where the sound stays at its top.
        gaps: stretches [start, end) of frames that are not the recording's own sound; an empty
            one at the end stands for what is missing behind it.
    """

    def __init__(self, opened: Opened, channel: int | None = None) -> None:
        self.format = opened.format
        self._channel = channel
        # Sums and sums of squares: of each channel, and of their mix.
        self._sums = np.zeros((2, opened.format.channels + 1))
        self.frames = 0
        self.repaired = 0
        self.problems = opened.remarks
        self.clipping = ClippingMeter(opened.format.rate_hz)
        self.gaps = opened.gaps
        self._raw = opened.blocks

    @property
    def damage(self) -> str | None:
        """The first problem, or None; known at the end."""
        return self.problems[0] if self.problems else None

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield mono blocks of at most `BLOCK_SAMPLES`; they are yours to change."""
        broken = None
        try:
            for block in self._raw:
                mono = self._downmix(block)
                self.frames += len(mono)
                self.clipping.feed(mono)
                yield mono
        except AudioReadError as error:
            if error.reason in PASSING:
                raise
            broken = error
        if self.gaps:
            self.problems.append(self._about_gaps())
        declared = self.format.declared_frames
        missing = declared is not None and self.frames < declared
        if broken is not None:
            self.problems.append(f"{broken}; {self._share_read()} could be read")
        elif missing and not self.problems:
            self.problems.append(f"truncated: {self._share_read()} are there")
        if broken is not None or missing or "truncated" in "".join(self.problems):
            self.gaps.append((self.frames, self.frames))

    def _share_read(self) -> str:
        whole = self.format.declared_frames
        read = f"{self.frames / self.format.rate_hz:.2f} s"
        return read if whole is None else f"{read} of {whole / self.format.rate_hz:.2f} s"

    def _about_gaps(self) -> str:
        lost = sum(end - start for start, end in self.gaps) / self.format.rate_hz
        first = self.gaps[0][0] / self.format.rate_hz
        places = "one place" if len(self.gaps) == 1 else f"{len(self.gaps)} places"
        return (
            f"broken_data: {lost:.2f} s in {places}, the first at {first:.2f} s, could not be read "
            "and became silence"
        )

    def cancelled(self) -> int | None:
        """The loudest channel, if the mix of all has lost most of what they hold; else None.

        Known at the end of a pass that mixed. A constant that the channels share does not count.
        """
        if self.format.channels == 1 or self._channel is not None or not self.frames:
            return None
        sums, squares = self._sums / self.frames
        *channels, mix = (squares - sums**2).tolist()
        if mix >= _CANCELLED_POWER * sum(channels) / len(channels):
            return None
        return int(np.argmax(channels))

    def _downmix(self, block: Block) -> NDArray[np.float32]:
        """(frames, channels) to (frames,), with what is no sound made silent."""
        scale = np.float32(1.0)
        if block.dtype == np.int16:
            scale = _INT16_SCALE
        else:
            # The comparison is False for NaN as well.
            sound = np.abs(block) <= _MAX_AMPLITUDE
            if not sound.all():
                self.repaired += int(block.size - np.count_nonzero(sound))
                block = np.where(sound, block, np.float32(0.0))
        if block.shape[1] == 1 or self._channel is not None:
            mono: NDArray[np.float32] = block[:, self._channel or 0].astype(np.float32)
            mono *= scale
            return mono
        columns = block.T.astype(np.float32, order="C")
        columns *= scale
        mono = columns[0] + columns[1]
        for column in columns[2:]:
            mono += column
        mono *= np.float32(1.0 / len(columns))
        for index, column in enumerate((*columns, mono)):
            self._sums[0, index] += column.sum(dtype=np.float64)
            self._sums[1, index] += float(column @ column)
        return mono


@contextlib.contextmanager
def open_audio(path: Path, channel: int | None = None) -> Iterator[AudioStream]:
    """Open a recording for one pass of decoding, as the mix of its channels or one of them.

    Raises:
        AudioReadError: it is not a file, not readable, empty, or not audio.
    """
    before = _require_file(path)
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(open_libsndfile(path))
        except AudioReadError as error:
            if error.reason != "not_audio":
                raise
            opened = stack.enter_context(_open_otherwise(path, error))
        rate_hz = opened.format.rate_hz
        if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
            raise AudioReadError("implausible_sample_rate", f"{rate_hz} Hz")
        opened.blocks = _while_unchanged(path, before, opened.blocks)
        yield AudioStream(opened, channel)


def _open_otherwise(
    path: Path, refusal: AudioReadError
) -> contextlib.AbstractContextManager[Opened]:
    """Try ffmpeg on what libsndfile refuses, unless it is surely no sound."""
    try:
        with path.open("rb") as file:
            kind = sniff(file.read(HEAD_BYTES))
    except OSError as error:
        raise AudioReadError("not_readable", error.strerror or "") from error
    if kind is not None and not kind.for_ffmpeg:
        raise AudioReadError("not_audio", f"it is {kind.name}") from refusal
    if ffmpeg_is_installed():
        return open_ffmpeg(path)
    if kind is not None:
        detail = f"it is {kind.name}; install ffmpeg, or convert it to wav or flac"
        raise AudioReadError("needs_ffmpeg", detail) from refusal
    raise refusal


def _while_unchanged(
    path: Path, before: os.stat_result, blocks: Iterator[Block]
) -> Iterator[Block]:
    """The blocks; a file that was written to meanwhile is no recording yet."""
    yield from blocks
    try:
        now = os.stat(path)
    except OSError as error:
        raise AudioReadError(_CHANGED, "it is no longer there") from error
    if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise AudioReadError(_CHANGED, "something is still writing to it; run again when it ends")


def probe(path: Path) -> AudioFormat:
    """Read a recording's header.

    Raises:
        AudioReadError: as `open_audio`.
    """
    with open_audio(path) as stream:
        return stream.format


def _require_file(path: Path) -> os.stat_result:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        reason = "broken_link" if path.is_symlink() else "not_found"
        raise AudioReadError(reason) from error
    except OSError as error:  # a loop of links, a folder that may not be entered
        raise AudioReadError("not_readable", error.strerror or "") from error
    if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for ever
        raise AudioReadError("not_a_file")
    if status.st_size == 0:
        raise AudioReadError("empty_file")
    if not os.access(path, os.R_OK):
        raise AudioReadError("not_readable", "permission denied")
    return status
