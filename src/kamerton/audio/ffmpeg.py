"""Decoding by ffmpeg, where it is installed, of what libsndfile does not know."""

from __future__ import annotations

import contextlib
import re
import shutil
import struct
import subprocess
import tempfile
from typing import IO, TYPE_CHECKING

import numpy as np

from kamerton.audio.formats import BLOCK_SAMPLES, AudioFormat, AudioReadError, Opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kamerton.audio.formats import Block

_AU_HEADER = struct.Struct(">4s5I")
_AU_FLOAT32 = 6
_SAID_BYTES = 4096
_KILLED_EXIT_CODE = 137  # of a program that a shell started
_VERSION_SECONDS = 10.0
# "[aac @ 0x56415c2b1c00] ", as each line may begin; the addresses differ between runs.
_SPEAKER = re.compile(r"^(\[[^]]*\]\s*)+")


def ffmpeg_is_installed() -> bool:
    """Whether there is a program of that name."""
    return shutil.which("ffmpeg") is not None


def ffmpeg_version() -> str:
    """The line in which it tells its version; "none" where it is not installed."""
    if not ffmpeg_is_installed():
        return "none"
    try:
        told = subprocess.run(
            ["ffmpeg", "-version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_VERSION_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    first = told.stdout.decode("utf-8", errors="replace").partition("\n")[0]
    return first.partition(" Copyright")[0].strip() or "unknown"


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
def open_ffmpeg(path: Path) -> Iterator[Opened]:
    """Decode a file with ffmpeg; AU is used because its header can be read from a pipe.

    Raises:
        AudioReadError: ``not_audio``, with what ffmpeg says; ``decoder_killed`` or
            ``not_readable`` where that says nothing of the file.
    """
    with contextlib.ExitStack() as stack:
        # Its remarks go to a file: a pipe that nobody empties could fill up and stop the decoder.
        try:
            remarks = stack.enter_context(tempfile.TemporaryFile())
            process = stack.enter_context(
                subprocess.Popen(ffmpeg_command(path), stdout=subprocess.PIPE, stderr=remarks)
            )
        except OSError as error:
            raise AudioReadError("not_readable", f"ffmpeg: {error.strerror or error}") from error
        stack.callback(process.kill)
        assert process.stdout is not None
        header = process.stdout.read(_AU_HEADER.size)
        if len(header) < _AU_HEADER.size:
            _require_own_end(process.wait())
            words = f" ({said})" if (said := _said(remarks, path)) else ""
            raise AudioReadError("not_audio", f"neither libsndfile nor ffmpeg can read it{words}")
        magic, offset, _size, encoding, rate_hz, channels = _AU_HEADER.unpack(header)
        if magic != b".snd" or encoding != _AU_FLOAT32 or channels < 1:
            raise AudioReadError("not_audio", "unexpected answer from ffmpeg")
        process.stdout.read(offset - _AU_HEADER.size)
        opened = Opened(AudioFormat(rate_hz, channels, None, "FFMPEG"))
        opened.blocks = _blocks(process, path, remarks, opened)
        yield opened


def _blocks(
    process: subprocess.Popen[bytes], path: Path, remarks: IO[bytes], opened: Opened
) -> Iterator[Block]:
    assert process.stdout is not None
    channels = opened.format.channels
    frame_bytes = 4 * channels
    while data := process.stdout.read(max(1, BLOCK_SAMPLES // channels) * frame_bytes):
        whole = len(data) - len(data) % frame_bytes
        samples = np.frombuffer(data[:whole], dtype=">f4").astype(np.float32)
        yield samples.reshape(-1, channels)
    code, said = process.wait(), _said(remarks, path)
    _require_own_end(code)
    if code != 0:
        raise AudioReadError("broken_data", said or f"ffmpeg ended with code {code}")
    if said:  # it goes on behind what it cannot read, and is content
        opened.remarks.append(f"broken_data: {said}")


def _require_own_end(code: int) -> None:
    """Refuse to judge a file by a process that was killed, as for its memory."""
    if code < 0 or code == _KILLED_EXIT_CODE:
        raise AudioReadError("decoder_killed", f"ffmpeg ended with code {code}; run again")


def _said(remarks: IO[bytes], path: Path) -> str:
    """The first thing that ffmpeg complained of, without names that differ between machines."""
    remarks.seek(0)
    for line in remarks.read(_SAID_BYTES).decode("utf-8", errors="replace").splitlines():
        text = _SPEAKER.sub("", line).replace(str(path), path.name).strip()
        if text:
            return text
    return ""
