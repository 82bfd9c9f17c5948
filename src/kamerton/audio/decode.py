"""Streaming decoding of any recording to mono, in constant memory.

libsndfile reads what it can; ffmpeg, where it is installed, reads the rest. A file that cannot be
read raises `AudioReadError` with a reason for the report; one that breaks off halfway gives what
was readable and says so in `AudioStream.damage`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import struct
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

BLOCK_SAMPLES = 1 << 15  # 0.7 s of mono at 44.1 kHz: fast, and little when a block is lost
MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 768_000
# Float files may exceed 1.0, and some hold integers unscaled; beyond this it is not sound.
_MAX_AMPLITUDE = 1e6
# Sizes written by programs that stream to a pipe and never learn the length.
_UNKNOWN_DATA_BYTES = 0x7FFF_0000
_AU_HEADER = struct.Struct(">4s5I")
_AU_FLOAT32 = 6


class AudioReadError(Exception):
    """A file that is not usable audio.

    Attributes:
        reason: a short code, stable enough to count by (``not_audio``, ``empty_file``, ...).
        detail: what the decoder said.
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


class AudioStream:
    """A recording being decoded once, from beginning to end.

    Attributes:
        format: rate and channels of the source.
        frames: sample frames given out so far.
        repaired: NaN, infinite or absurdly large samples that were replaced by silence.
        damage: why decoding ended early, or None.
    """

    def __init__(self, audio_format: AudioFormat, raw: Iterator[NDArray[np.float32]]) -> None:
        self.format = audio_format
        self.frames = 0
        self.repaired = 0
        self.damage: str | None = None
        self._raw = raw

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield mono blocks of at most `BLOCK_SAMPLES`; they are yours to change."""
        try:
            for block in self._raw:
                mono = self._downmix(block)
                self.frames += len(mono)
                yield mono
        except AudioReadError as error:
            self.damage = str(error)
        declared = self.format.declared_frames
        if self.damage is None and declared is not None and self.frames < declared:
            self.damage = f"truncated: {self.frames} of {declared} samples"

    def _downmix(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """(frames, channels) to (frames,), with what is no sound made silent."""
        # The comparison is False for NaN as well.
        sound = np.abs(block) <= _MAX_AMPLITUDE
        if not sound.all():
            self.repaired += int(block.size - np.count_nonzero(sound))
            block = np.where(sound, block, np.float32(0.0))
        if block.shape[1] == 1:
            return np.ascontiguousarray(block[:, 0])
        return np.asarray(block.mean(axis=1, dtype=np.float32))


@contextlib.contextmanager
def open_audio(path: Path) -> Iterator[AudioStream]:
    """Open a recording for one pass of decoding.

    Raises:
        AudioReadError: it is not a file, not readable, empty, or not audio.
    """
    _require_file(path)
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(_open_libsndfile(path))
        except AudioReadError as error:
            if error.reason != "not_audio" or shutil.which("ffmpeg") is None:
                raise
            stream = stack.enter_context(_open_ffmpeg(path))
        rate_hz = stream.format.rate_hz
        if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
            raise AudioReadError("implausible_sample_rate", f"{rate_hz} Hz")
        yield stream


def probe(path: Path) -> AudioFormat:
    """Read a recording's header.

    Raises:
        AudioReadError: as `open_audio`.
    """
    with open_audio(path) as stream:
        return stream.format


def _require_file(path: Path) -> None:
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


@contextlib.contextmanager
def _open_libsndfile(path: Path) -> Iterator[AudioStream]:
    import soundfile

    try:
        with _silenced():
            file = soundfile.SoundFile(os.fsencode(path))
    except (soundfile.SoundFileError, OSError, ValueError, TypeError) as error:
        raise AudioReadError("not_audio", _said(error)) from error
    with file:
        if file.channels < 1:
            raise AudioReadError("not_audio", "no channels")
        yield AudioStream(
            AudioFormat(
                rate_hz=file.samplerate,
                channels=file.channels,
                declared_frames=_declared_frames(file),
                container=file.format,
            ),
            _libsndfile_blocks(file),
        )


def _declared_frames(file: Any) -> int | None:
    """The length that the header promises, which libsndfile hides for a truncated WAV file."""
    match = re.search(r"^data\s*: (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    if match is None:
        return int(file.frames) if file.seekable() else None
    promised, present = int(match[1]), int(match[2])
    if promised >= _UNKNOWN_DATA_BYTES or present == 0 or promised < present:
        return None
    return int(file.frames) * promised // present


def _libsndfile_blocks(file: Any) -> Iterator[NDArray[np.float32]]:
    import soundfile

    chatty = file.format in ("MP3", "MPEG")
    frames = max(1, BLOCK_SAMPLES // file.channels)
    while True:
        try:
            with _silenced() if chatty else contextlib.nullcontext():
                block = file.read(frames, dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, OSError) as error:
            raise AudioReadError("broken_data", _said(error)) from error
        if not len(block):
            return
        yield block


def ffmpeg_command(path: Path) -> list[str]:
    """The program and arguments that decode a file to a float AU stream on stdout.

    The input is named with its protocol, and only local ones are allowed: otherwise a name such
    as ``concat:...``, or a playlist inside a recording, could make ffmpeg read something else.
    """
    return [
        *("ffmpeg", "-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe"),
        *("-i", f"file:{path}", "-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"),
    ]


@contextlib.contextmanager
def _open_ffmpeg(path: Path) -> Iterator[AudioStream]:
    """Decode with ffmpeg; AU is used because its header can be read from a pipe."""
    # stderr goes to the void: read from a pipe, it could fill up and stop the decoder.
    with subprocess.Popen(
        ffmpeg_command(path), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stdout is not None
            header = process.stdout.read(_AU_HEADER.size)
            if len(header) < _AU_HEADER.size:
                raise AudioReadError("not_audio", "neither libsndfile nor ffmpeg can read it")
            magic, offset, _size, encoding, rate_hz, channels = _AU_HEADER.unpack(header)
            if magic != b".snd" or encoding != _AU_FLOAT32 or channels < 1:
                raise AudioReadError("not_audio", "unexpected answer from ffmpeg")
            process.stdout.read(offset - _AU_HEADER.size)
            audio_format = AudioFormat(rate_hz, channels, None, "FFMPEG")
            yield AudioStream(audio_format, _ffmpeg_blocks(process, channels))
        finally:
            process.kill()


def _ffmpeg_blocks(
    process: subprocess.Popen[bytes], channels: int
) -> Iterator[NDArray[np.float32]]:
    assert process.stdout is not None
    frame_bytes = 4 * channels
    while data := process.stdout.read(max(1, BLOCK_SAMPLES // channels) * frame_bytes):
        whole = len(data) - len(data) % frame_bytes
        samples = np.frombuffer(data[:whole], dtype=">f4").astype(np.float32)
        yield samples.reshape(-1, channels)
    if process.wait() != 0:
        raise AudioReadError("broken_data", f"ffmpeg ended with code {process.returncode}")


def _said(error: Exception) -> str:
    """The decoder's own words, without the path, which differs between machines."""
    text = str(getattr(error, "error_string", "") or type(error).__name__)
    return text.strip().splitlines()[0]


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
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
