"""Decoding by libsndfile, and reading on behind what is broken."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kamerton.audio.formats import (
    BLOCK_SAMPLES,
    PASSING,
    AudioFormat,
    AudioReadError,
    Opened,
    decoder_words,
)
from kamerton.audio.headers import (
    PatchedFile,
    Repair,
    declared_frames,
    lacks_its_end,
    length_repair,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kamerton.audio.formats import Block

# Up to a broken place the sound is read in ever smaller portions, so that little of it is lost.
_PORTIONS = (4096, 512, 64, 8, 1)
_STEP_FRAMES = 1024  # how exactly the end of a gap is sought ...
_EXACT_STEPS = 64  # ... near its beginning; further on the steps grow
_GROWING_STEPS = 30
_MAX_GAPS = 100
_SYSTEM_ERROR = 2  # of libsndfile: too many open files, a disk that fails


@contextlib.contextmanager
def open_libsndfile(path: Path) -> Iterator[Opened]:
    """Open a file with libsndfile.

    Raises:
        AudioReadError: ``not_audio``, libsndfile does not know it; ``not_readable``.
    """
    try:
        repair = length_repair(path)
    except OSError as error:
        raise AudioReadError("not_readable", error.strerror or "") from error
    with _open(path, repair) as file:
        if file.format == "RAW":  # taken for sound only because of its name
            raise AudioReadError("not_audio", "has no header that tells its rate and format")
        opened = Opened(
            AudioFormat(
                rate_hz=file.samplerate,
                channels=file.channels,
                declared_frames=declared_frames(file, repair),
                container=file.format,
            )
        )
        if repair is not None and repair.remark:
            opened.remarks.append(repair.remark)
        if file.format == "OGG" and lacks_its_end(file):
            opened.remarks.append("truncated: the stream has no end mark")
        opened.blocks = _Reader(path, repair, file, opened).blocks()
        yield opened


@contextlib.contextmanager
def _open(path: Path, repair: Repair | None) -> Iterator[Any]:
    import soundfile

    with contextlib.ExitStack() as stack:
        source: Any = os.fsencode(path)
        if repair is not None:
            source = stack.enter_context(PatchedFile(path, repair))
        try:
            with silenced():
                file = stack.enter_context(soundfile.SoundFile(source))
        except (soundfile.SoundFileError, OSError, ValueError, TypeError) as error:
            raise _refusal(error, "not_audio") from error
        yield file


def _refusal(error: Exception, reason: str) -> AudioReadError:
    """What an error says of the file, unless it is the system that failed and not the file."""
    if isinstance(error, OSError):
        return AudioReadError("not_readable", error.strerror or "")
    if getattr(error, "code", None) == _SYSTEM_ERROR:
        return AudioReadError("not_readable", decoder_words(error))
    return AudioReadError(reason, decoder_words(error))


@dataclass(slots=True)
class _Reader:
    """Reads a file from beginning to end; what cannot be read becomes silence of its length."""

    path: Path
    repair: Repair | None
    file: Any
    opened: Opened
    position: int = 0
    ended: bool = False
    _rest: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def blocks(self) -> Iterator[Block]:
        """The sound, in order."""
        portion = max(1, BLOCK_SAMPLES // self.file.channels)
        with self._rest:
            while not self.ended:
                try:
                    block = self._read(portion)
                except AudioReadError as error:
                    if error.reason in PASSING:
                        raise
                    yield from self._rescue(error)
                    continue
                if not len(block):
                    break
                yield self._given(block)

    def _given(self, block: Block) -> Block:
        self.position += len(block)
        return block

    def _read(self, frames: int) -> Block:
        import soundfile

        # Integers are read as they are: faster, and they cannot be NaN.
        dtype = "int16" if self.file.subtype == "PCM_16" else "float32"
        chatty = self.file.format in ("MP3", "MPEG")
        try:
            with silenced() if chatty else contextlib.nullcontext():
                block: Block = self.file.read(frames, dtype=dtype, always_2d=True)
        except (soundfile.SoundFileError, OSError) as error:
            raise _refusal(error, "broken_data") from error
        return block

    def _rescue(self, error: AudioReadError) -> Iterator[Block]:
        """Read what is left before a broken place, then jump over it."""
        for portion in _PORTIONS:
            while self._reopen(self.position) and (block := self._try(portion)) is not None:
                if not len(block):
                    return
                yield self._given(block)
        resumed = self._behind_gap() if len(self.opened.gaps) < _MAX_GAPS else None
        if resumed is None:
            if self.opened.format.declared_frames is None and "seek" in error.detail:
                self.ended = True  # a FLAC file of unknown length: this is how its end looks
                return
            raise error
        self.opened.gaps.append((self.position, resumed))
        while self.position < resumed:
            size = min(BLOCK_SAMPLES, resumed - self.position)
            yield self._given(np.zeros((size, self.opened.format.channels), dtype=np.float32))
        self._reopen(resumed)

    def _behind_gap(self) -> int | None:
        """The next position from which the file can be read, or None."""
        step, place = _STEP_FRAMES, self.position
        end = self.opened.format.declared_frames
        for attempt in range(_EXACT_STEPS + _GROWING_STEPS):
            place += step
            if attempt >= _EXACT_STEPS:
                step *= 2
            if end is not None and place >= end:
                return None
            if self._reopen(place):
                block = self._try(_STEP_FRAMES)
                if block is not None and len(block):
                    return place
        return None

    def _try(self, frames: int) -> Block | None:
        try:
            return self._read(frames)
        except AudioReadError:
            return None

    def _reopen(self, position: int) -> bool:
        """Open the file anew at a position: after an error libsndfile gives nothing more."""
        import soundfile

        self._rest.close()
        try:
            self.file = self._rest.enter_context(_open(self.path, self.repair))
            self.file.seek(position)
        except (AudioReadError, soundfile.SoundFileError, OSError):
            return False
        return True


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Keep libmpg123's remarks, which it writes past Python, from tearing up the terminal.

    What matters among them comes back as an exception.
    """
    try:
        kept = os.dup(2)
    except OSError:  # no standard error at all
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
