"""Whole audio files in and out: short clips, test signals, spoken answers."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from kamerton.audio.decode import AudioReadError, open_audio
from kamerton.core.errors import InputCorruptError, InputMissingError
from kamerton.core.files import write_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_INT16_SCALE = 32768.0  # so that reading int16 back as float gives exactly what was rounded


def read_audio(path: Path) -> tuple[NDArray[np.float32], int]:
    """Read a whole file as (mono samples, rate in Hz).

    Raises:
        InputMissingError: there is no such file.
        InputCorruptError: it is not audio, or breaks off halfway.
    """
    hint = "replace the file, or make it again with the stage that wrote it"
    try:
        with open_audio(path) as stream:
            blocks = list(stream.blocks())
    except AudioReadError as error:
        if error.reason in ("not_found", "broken_link"):
            raise InputMissingError(path, produced_by="you") from error
        problem = f"is not readable audio ({error})"
        raise InputCorruptError(path, problem=problem, hint=hint) from error
    if stream.damage is not None:
        raise InputCorruptError(path, problem=f"is damaged ({stream.damage})", hint=hint)
    wave = np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)
    return wave, stream.format.rate_hz


def to_int16(wave: NDArray[np.floating]) -> NDArray[np.int16]:
    """Round to 16 bits, limiting what is louder than full scale.

    Raises:
        ValueError: a sample is NaN or infinite.
    """
    if not np.isfinite(wave).all():
        raise ValueError("the wave holds samples that are not finite")
    scaled = np.rint(wave * _INT16_SCALE)
    return np.asarray(np.clip(scaled, -_INT16_SCALE, _INT16_SCALE - 1.0), dtype=np.int16)


def encode_flac(wave: NDArray[np.floating], rate_hz: int) -> bytes:
    """A mono wave as 16-bit FLAC; equal samples give equal bytes."""
    return _encode(wave, rate_hz, "FLAC")


def encode_wav(wave: NDArray[np.floating], rate_hz: int) -> bytes:
    """A mono wave as a 16-bit WAV file; equal samples give equal bytes."""
    return _encode(wave, rate_hz, "WAV")


def write_flac(path: Path, wave: NDArray[np.floating], rate_hz: int) -> None:
    """Write a mono wave as 16-bit FLAC.

    Not atomic, since clips are written by the thousand: write into a folder that is.
    """
    path.write_bytes(encode_flac(wave, rate_hz))


def write_wav(path: Path, wave: NDArray[np.floating], rate_hz: int) -> None:
    """Write a mono wave as a 16-bit WAV file, atomically."""
    write_bytes(path, encode_wav(wave, rate_hz))


def _encode(wave: NDArray[np.floating], rate_hz: int, container: str) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, to_int16(wave), rate_hz, format=container, subtype="PCM_16")
    return buffer.getvalue()
