"""Ways to spoil a text file, as disks, networks, editors and spreadsheets do, and worse ones."""

# ruff: noqa: E501

import codecs
from collections.abc import Callable
from random import Random

Mutation = Callable[[bytes, Random], bytes]

LONG = 1 << 17
NASTY = [
    b"NaN", b"Infinity", b"-Infinity", b"-1", b"-0.0", b"0", b"1e999", b"1e308", b"-1e308", b"5e-324",
    b"9" * 40, b"9" * 400, b"9" * 5000, b"1" + b"0" * 400 + b".5", b"0x10", b"1_000", b"1,5", b"\xd9\xa3",
    b"null", b"true", b"false", b"[]", b"{}", b'""', b'"', b'"""', b"'", b"''=", b"\\", b"\\u0000", b"\\ud800",
    b"\\udfff\\ud800", b"\x00", b"\x1a", b"\x7f", b"\xff", b"\xfe\xff", b"\xc0\x80", b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80", b"\xe2\x80\xa8", b"\xc2\x85", b"\xe2\x80\xae", b"\xef\xbb\xbf", b"\xef\xbf\xbf", b"\xcc\x81" * 30,
    b"-->", b" --> ", b"<", b"<<", b"</", b"<i>", b"{\\", b"&#0;", b"&#" + b"9" * 5000 + b";", b"&#xD800;", b"&#99999999;", b"&lt", b"[", b"[[",
    b"99:99:99,999", b"00:00:00,000", b"999999:59:59.999999999", b":", b"::", b",,", b";", b"\t", b"|", b"||", b",\"",
    b"../../etc/passwd", b"/", b"..", b".", b"a" * 300, b"=1+1", b"@", b"sep=,", b"sep=", b"yes", b"no", b"WEBVTT", b"NOTE",
]  # fmt: skip
ENCODINGS = (
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-32",
    "utf-8-sig",
    "latin-1",
    "cp1251",
    "utf-7",
)


def flip_bits(data: bytes, random: Random) -> bytes:
    spoilt = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        if spoilt:
            spoilt[random.randrange(len(spoilt))] ^= 1 << random.randrange(8)
    return bytes(spoilt)


def truncate(data: bytes, random: Random) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] if random.random() < 0.7 else data[at:]


def remove_piece(data: bytes, random: Random) -> bytes:
    start = random.randrange(len(data) + 1)
    return data[:start] + data[start + random.choice((1, 2, 5, 40)) :]


def repeat_piece(data: bytes, random: Random) -> bytes:
    start = random.randrange(len(data) + 1)
    end = start + random.choice((1, 3, 20, 200))
    return data[:end] + data[start:end] * random.choice((1, 2, 10)) + data[end:]


def insert_nasty(data: bytes, random: Random) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.choice(NASTY) + data[at:]


def replace_value(data: bytes, random: Random) -> bytes:
    """Put something nasty for a run of letters and digits: a number, a word, a key."""
    at = random.randrange(len(data) + 1)
    start = end = at
    while start and chr(data[start - 1]) in _WORD:
        start -= 1
    while end < len(data) and chr(data[end]) in _WORD:
        end += 1
    return data[:start] + random.choice(NASTY) + data[end:]


_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def shuffle_lines(data: bytes, random: Random) -> bytes:
    lines = data.splitlines(keepends=True)
    if len(lines) < 2:
        return data + data
    one, other = random.randrange(len(lines)), random.randrange(len(lines))
    if random.random() < 0.5:
        lines[one], lines[other] = lines[other], lines[one]
    elif random.random() < 0.5:
        lines.insert(one, lines[other])
    else:
        del lines[one]
    return b"".join(lines)


def change_ends(data: bytes, random: Random) -> bytes:
    return data.replace(
        b"\n", random.choice((b"\r\n", b"\r", b"\n\n", b"\x0b", b"", b" ", b"\x00"))
    )


def change_encoding(data: bytes, random: Random) -> bytes:
    text = data.decode("utf-8", "replace")
    return text.encode(random.choice(ENCODINGS), "replace")


def change_separator(data: bytes, random: Random) -> bytes:
    marks = (b",", b";", b"\t", b"|", b":", b'"', b"'", b" ", b".")
    return data.replace(random.choice(marks), random.choice(marks))


def add_mark(data: bytes, random: Random) -> bytes:
    marks = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE)
    return random.choice(marks) + data


def noise(_data: bytes, random: Random) -> bytes:
    return random.randbytes(random.randrange(200))


def deep(data: bytes, random: Random) -> bytes:
    """Nesting far beyond what a stack holds."""
    count = random.choice((100, 2000, 50000))
    opening, closing = random.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"<", b">"), (b"(", b")")))
    at = random.randrange(len(data) + 1)
    nest = opening * count + (b"1" + closing * count if random.random() < 0.5 else b"")
    return nest if random.random() < 0.3 else data[:at] + nest + data[at:]


def long_line(data: bytes, random: Random) -> bytes:
    at = random.randrange(len(data) + 1)
    piece = random.choice(
        (b"a", b" ", b'"', b",", b"1", b"<", b"[", b"\xd0\xb6", b"-", b":", b"a ", b'"\n')
    )
    return data[:at] + piece * (LONG // len(piece)) + data[at:]


# Common ones come often; what takes long to read is rare.
MUTATIONS: list[tuple[Mutation, int]] = [
    (flip_bits, 120), (truncate, 60), (remove_piece, 80), (repeat_piece, 60), (insert_nasty, 200),
    (replace_value, 240), (shuffle_lines, 80), (change_ends, 30), (change_encoding, 30), (change_separator, 50),
    (add_mark, 15), (noise, 10), (deep, 3), (long_line, 3),
]  # fmt: skip
_FUNCTIONS = [function for function, _ in MUTATIONS]
_WEIGHTS = [weight for _, weight in MUTATIONS]


def mutate(data: bytes, random: Random) -> bytes:
    """Spoil a file once or a few times."""
    for function in random.choices(_FUNCTIONS, _WEIGHTS, k=random.choice((1, 1, 1, 2, 3))):
        data = function(data, random)
    return data
