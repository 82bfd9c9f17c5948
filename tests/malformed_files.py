"""Writers of broken and odd sound files, byte by byte where no library would write them."""

import functools
import io
import os
import struct
import zlib

import numpy as np
import soundfile

from tests.recordings import bursts

RATE_HZ = 16_000
SECONDS = 5.0
SPANS = ((0.5, 2.3), (3.0, 4.6))
_VOICES = 9  # more would only take longer to make


@functools.lru_cache(maxsize=64)
def speech(number, rate_hz=RATE_HZ):
    """Five seconds with two utterances, over faint noise; no two numbers give the same samples."""
    wave = bursts(SPANS, SECONDS, rate_hz, seed=100 * (number % _VOICES))
    noise = np.random.default_rng(number).standard_normal(len(wave)).astype(np.float32)
    return wave + np.float32(3e-4) * noise


@functools.lru_cache(maxsize=256)
def encoded(number, container, subtype=None, rate_hz=RATE_HZ):
    """`speech` as the bytes of a whole and healthy file."""
    return encode(speech(number, rate_hz), container, subtype, rate_hz)


def encode(wave, container, subtype=None, rate_hz=RATE_HZ):
    """Any wave, (T,) or (T, channels), as the bytes of a file."""
    buffer = io.BytesIO()
    channels = wave.shape[1] if wave.ndim > 1 else 1
    with soundfile.SoundFile(
        buffer, "w", rate_hz, channels, subtype=subtype, format=container
    ) as file:
        for start in range(0, len(wave), 4096):  # libvorbis overflows the stack on large ones
            file.write(wave[start : start + 4096])
    return buffer.getvalue()


def chunk(name, payload, size=None):
    """A chunk of a RIFF file; ``size`` is what it claims to hold."""
    claimed = len(payload) if size is None else size
    return name + struct.pack("<I", claimed) + payload + bytes(len(payload) % 2)


def wav(
    number,
    *,
    codec=1,
    channels=1,
    rate_hz=RATE_HZ,
    bits=16,
    align=None,
    data_size=None,
    riff_size=None,
    fmt=True,
    before=b"",
    after=b"",
):
    """A WAV file of `speech` whose header says whatever it is told to say."""
    samples = (speech(number) * 32767).astype("<i2").tobytes()
    align = channels * bits // 8 if align is None else align
    header = struct.pack(
        "<HHIIHH", codec, channels, rate_hz, rate_hz * align % 2**32, align % 2**16, bits
    )
    body = b"WAVE" + (chunk(b"fmt ", header) if fmt else b"") + before
    body += chunk(b"data", samples, data_size) + after
    return b"RIFF" + struct.pack("<I", len(body) if riff_size is None else riff_size) + body


def wav_with_data_first(number):
    samples = (speech(number) * 32767).astype("<i2").tobytes()
    header = struct.pack("<HHIIHH", 1, 1, RATE_HZ, 2 * RATE_HZ, 2, 16)
    body = b"WAVE" + chunk(b"data", samples) + chunk(b"fmt ", header)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def ima_adpcm(number, samples_per_block):
    """An IMA ADPCM file whose header tells other samples per block than its blocks hold."""
    data = bytearray(encoded(number, "WAV", "IMA_ADPCM"))
    place = data.index(b"fmt ") + 8 + 18
    data[place : place + 2] = struct.pack("<H", samples_per_block)
    return bytes(data)


def flac_with(number, damage):
    """A FLAC file with some of its bytes changed by ``damage(bytearray)``."""
    whole = np.concatenate([speech(number + 100 * part) for part in range(5)])
    data = bytearray(encode(whole, "FLAC"))
    damage(data)
    return bytes(data)


def break_frames(data, share=0.5, size=300):
    """Overwrite a stretch in the middle with noise, as a bad disk does."""
    place = int(share * len(data))
    data[place : place + size] = np.random.default_rng(7).bytes(size)


def break_md5(data):
    """The checksum over the whole sound lies in bytes 26 to 42 of the file."""
    data[26:42] = bytes(range(16))


def flac_of_unknown_length(number):
    """A stream that was never closed: no length and no checksum in its header."""
    data = bytearray(encoded(number, "FLAC"))
    data[21] &= 0xF0  # the last 36 bits before the checksum count samples
    data[22:42] = bytes(20)
    return bytes(data)


def ogg_pages(data):
    """The pages of an Ogg file."""
    starts, place = [], data.find(b"OggS")
    while place >= 0:
        starts.append(place)
        place = data.find(b"OggS", place + 4)
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


def ogg_without_pages(number, keep):
    """An Ogg file of which only the pages that ``keep(index, count)`` are left."""
    pages = ogg_pages(encode(np.tile(speech(number), 4), "OGG", "VORBIS"))
    return b"".join(page for index, page in enumerate(pages) if keep(index, len(pages)))


def id3_tag(size=600):
    """An ID3v2 tag with one picture of nothing in it."""
    frame = b"APIC" + struct.pack(">I", size) + b"\0\0" + bytes(size)
    length = len(frame)
    safe = bytes((length >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\x00\x00" + safe + frame


def box(name, payload):
    return struct.pack(">I", len(payload) + 8) + name + payload


def mp4(brand=b"M4A "):
    """The skeleton of an MP4 file: enough to be told by, nothing to be decoded."""
    kind = box(b"ftyp", brand + bytes(4) + b"mp42isom")
    return kind + box(b"moov", box(b"mvhd", bytes(100))) + box(b"mdat", bytes(2000))


def png():
    def part(name, payload):
        return struct.pack(">I", len(payload)) + name + payload + bytes(4)

    pixels = zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", bytes(13)) + part(b"IDAT", pixels)


def noise_bytes(size, seed):
    return np.random.default_rng(seed).bytes(size)


def put(data):
    """A writer of these bytes."""
    return lambda path: path.write_bytes(data() if callable(data) else data)


def put_wave(wave, container="WAV", subtype=None, rate_hz=RATE_HZ):
    """A writer of this sound; ``wave`` may be a function that makes it."""

    def write(path):
        made = wave() if callable(wave) else wave
        path.write_bytes(encode(np.asarray(made), container, subtype, rate_hz))

    return write


def put_fifo(path):
    os.mkfifo(path)


def put_without_permission(path):
    path.write_bytes(encoded(1, "WAV"))
    path.chmod(0)
