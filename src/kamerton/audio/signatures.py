"""What a file is, by its first bytes: for messages, and to know whether ffmpeg may help."""

from __future__ import annotations

import re
from dataclasses import dataclass

HEAD_BYTES = 4096
_MIN_BYTES = 16
_MIN_TEXT_SHARE = 0.97


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file; ``for_ffmpeg`` if it may hold sound that libsndfile cannot read."""

    name: str
    for_ffmpeg: bool = False


# Offset, bytes, what it is. The first that fits counts.
_SIGNATURES = (
    (4, b"ftyp", Kind("an MP4 file (m4a, mp4, mov)", for_ffmpeg=True)),
    (0, b"\x1aE\xdf\xa3", Kind("a Matroska or WebM file", for_ffmpeg=True)),
    (0, b"0&\xb2u\x8ef\xcf\x11", Kind("a Windows Media file (wma, wmv)", for_ffmpeg=True)),
    (0, b"#!AMR", Kind("an AMR voice memo", for_ffmpeg=True)),
    (0, b"MAC ", Kind("a Monkey's Audio file", for_ffmpeg=True)),
    (0, b"wvpk", Kind("a WavPack file", for_ffmpeg=True)),
    (0, b"MPCK", Kind("a Musepack file", for_ffmpeg=True)),
    (0, b"MP+", Kind("a Musepack file", for_ffmpeg=True)),
    (0, b"TTA1", Kind("a True Audio file", for_ffmpeg=True)),
    (0, b"DSD ", Kind("a DSF file", for_ffmpeg=True)),
    (0, b"FRM8", Kind("a DSDIFF file", for_ffmpeg=True)),
    (0, b"FLV\x01", Kind("a Flash video", for_ffmpeg=True)),
    (0, b".RMF", Kind("a RealMedia file", for_ffmpeg=True)),
    (0, b"\xff\xf1", Kind("an AAC stream", for_ffmpeg=True)),
    (0, b"\xff\xf9", Kind("an AAC stream", for_ffmpeg=True)),
    (0, b"\x0bw", Kind("an AC-3 stream", for_ffmpeg=True)),
    (0, b"\0\0\x01\xba", Kind("an MPEG video", for_ffmpeg=True)),
    (8, b"AVI ", Kind("an AVI video", for_ffmpeg=True)),
    (0, b"PK\x03\x04", Kind("a ZIP archive: unpack it first")),
    (0, b"7z\xbc\xaf'\x1c", Kind("a 7-Zip archive: unpack it first")),
    (0, b"Rar!", Kind("a RAR archive: unpack it first")),
    (0, b"\x1f\x8b", Kind("a gzip archive: unpack it first")),
    (0, b"%PDF", Kind("a PDF document")),
    (0, b"\xff\xd8\xff", Kind("a JPEG picture")),
    (0, b"\x89PNG", Kind("a PNG picture")),
    (0, b"GIF8", Kind("a GIF picture")),
    (0, b"\xd0\xcf\x11\xe0", Kind("a Microsoft document or database")),
    (0, b"SQLite format 3", Kind("an SQLite database")),
    (0, b"\x7fELF", Kind("a program")),
    (0, b"MZ", Kind("a program")),
    (0, b"version https://git-lfs", Kind("a Git LFS pointer: fetch the file with `git lfs pull`")),
    (0, b"#EXTM3U", Kind("a playlist")),
)  # fmt: skip
_HTML = re.compile(rb"\s*(<!doctype html|<html|<head)", re.IGNORECASE)


def sniff(head: bytes) -> Kind | None:
    """Tell what a file is from its first `HEAD_BYTES`; None if they look like nothing known."""
    for offset, magic, kind in _SIGNATURES:
        if head[offset : offset + len(magic)] == magic:
            return kind
    if len(head) < _MIN_BYTES:
        return Kind(f"cut off after {len(head)} bytes")
    if _HTML.match(head):
        return Kind("a web page: the download failed?")
    if not head.strip(b"\0"):
        return Kind("nothing but zero bytes: a copy or download that broke off?")
    if _is_text(head):
        return Kind("text")
    return None


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    printable = sum(byte >= 0x20 or byte in b"\t\n\r" for byte in head)
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # else only its last letter is cut in two
            return False
    return printable >= _MIN_TEXT_SHARE * len(head)
