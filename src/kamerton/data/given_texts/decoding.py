"""Bytes of a text file to text, whatever editor wrote it."""

from __future__ import annotations

import codecs
import re
import unicodedata

MAX_BYTES = 64 << 20

_LONGEST_REPORTED = 60
_SAMPLE_BYTES = 4096
# Cc but for tab and line ends; the byte-order mark in the middle, and what has no shape at all.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\u200b\u2060\ufffe\uffff]")
_LINE_ENDS = re.compile("\r\n|\r|\x85|\u2028|\u2029")


class TextError(ValueError):
    """A file that is no text, or not the text it should be; ``reason`` is a key of `PROBLEMS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def decode_text(data: bytes) -> str:
    r"""The text of a file, lines ending in ``\n``, without marks and controls.

    UTF-8 and UTF-16 are told apart by the byte-order mark, and without one by the zero bytes that
    every text with spaces and line ends has in UTF-16. Other encodings are refused: to guess would
    put wrong letters into training data without a word.

    Raises:
        TextError: ``too_large`` or ``not_text``.
    """
    if len(data) > MAX_BYTES:
        raise TextError("too_large", f"{len(data) >> 20} MB, at most {MAX_BYTES >> 20}")
    encoding = _encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        detail = f"byte {error.start} is not {encoding.upper()}; save it as UTF-8"
        raise TextError("not_text", detail) from error
    return _CONTROLS.sub("", _LINE_ENDS.sub("\n", text))


def _encoding(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    sample = data[:_SAMPLE_BYTES]
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if max(even, odd) * 20 > len(sample) and min(even, odd) * 4 < max(even, odd):
        return "utf-16-le" if odd > even else "utf-16-be"
    return "utf-8-sig"


def tidy(text: str) -> str:
    """One line, composed letters, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def shorten(text: str) -> str:
    """The beginning of a text, as a message can hold it."""
    line = tidy(text)
    return line if len(line) <= _LONGEST_REPORTED else f"{line[:_LONGEST_REPORTED]}…"


def has_words(text: str) -> bool:
    """Whether anything in it can be spoken."""
    return any(char.isalnum() for char in text)
