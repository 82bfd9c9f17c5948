"""Keep secrets out of everything that is written down."""

import base64
import html
import json
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kamerton.config.addresses import SECRET_WORDS

MASK = "***"
_MIN_BASE64_CHARS = 5  # fewer turn up by chance
_MIN_SECRET_CHARS = 8

_SECRET_NAME = re.compile(rf"(?i)(^|[._-]){SECRET_WORDS}s?($|[._-])")
_REFERENCE = re.compile(r"^\$\{\w+\}$")  # ${VARIABLE} names a secret without telling it
_URL_LOGIN = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,20}://)[^/@\s]+@")
_WORD = re.compile(r'[^\s"]+')
_BOT_TOKEN = re.compile(r"\b\d{8,}:[\w-]{30,}")
# name=value, name: value (also with quotes), and --name value. A word is looked through once, from
# its first sign on and without going back, or a long one would take the square of its length.
_NAMED_VALUE = re.compile(
    rf"(?i)(?<![\w.-])(?P<name>(?=[\w.-]*?{SECRET_WORDS})[\w.-]++['\"]?\s*+[=:]\s*+['\"]?"
    rf"|(?=--[\w.-]*?{SECRET_WORDS})--[\w.-]++\s++['\"]?)"
    r"(?P<value>[^\s'\"]+)"
)


def redact_text(text: str) -> str:
    """``text`` with logins in URLs, bot tokens and values of secret-sounding names masked."""
    text = _URL_LOGIN.sub(rf"\g<scheme>{MASK}@", text)
    text = _WORD.sub(_mask_login, text)
    text = _BOT_TOKEN.sub(MASK, text)
    return _NAMED_VALUE.sub(_mask_value, text)


def _mask_login(match: re.Match[str]) -> str:
    """A word with what stands between its first :// and its last @ masked.

    Passwords that are not quoted as URLs ask for it may hold a slash and an @ themselves.
    """
    word = match[0]
    begin, end = word.find("://"), word.rfind("@")
    return f"{word[: begin + 3]}{MASK}{word[end:]}" if -1 < begin < end else word


def _mask_value(match: re.Match[str]) -> str:
    value = match["value"]
    return match["name"] + (value if _REFERENCE.match(value) else MASK)


def redact(value: Any, name: str = "") -> Any:
    """A copy of nested parameters with secrets masked, by their names and by their looks."""
    if isinstance(value, Mapping):
        return {key: redact(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item, name) for item in value]
    if isinstance(value, str):
        if _SECRET_NAME.search(name) and not _REFERENCE.match(value):
            return MASK
        return redact_text(value)
    return value


class Masker:
    """Masks secrets that are known, in every form in which they may turn up in a text.

    Those are: as they are, quoted for URLs, for JSON, for HTML and by ``repr``, and in base64,
    also where something stands before them (as the user does in a login).
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        """Know ``secrets``; empty ones are none."""
        # One that contains another must be tried before it, or its rest would stay.
        known = sorted({secret for secret in secrets if secret}, key=lambda s: (-len(s), s))
        forms = [_however_quoted(secret) for secret in known]
        forms += [re.escape(core) for secret in known for core in _base64_cores(secret)]
        self._pattern = re.compile("|".join(forms)) if forms else None

    def __repr__(self) -> str:
        return "Masker()"

    def __call__(self, text: str) -> str:
        """``text`` without them, and without what looks like a secret."""
        return redact_text(self._pattern.sub(MASK, text) if self._pattern else text)


def _however_quoted(secret: str) -> str:
    """A pattern of the secret with each of its signs quoted in any way, or not."""
    return "".join(_sign_pattern(sign) for sign in secret)


def _sign_pattern(sign: str) -> str:
    in_bytes = sign.encode("utf-8", "surrogateescape")
    percent = "".join(f"%{_hex(byte >> 4)}{_hex(byte & 15)}" for byte in in_bytes)
    others = {
        sign, f"\\{sign}", html.escape(sign), html.escape(sign, quote=False), repr(sign)[1:-1],
        json.dumps(sign)[1:-1], json.dumps(sign, ensure_ascii=False)[1:-1],
        urllib.parse.quote_plus(in_bytes), urllib.parse.quote(in_bytes),
    }  # fmt: skip
    quoted = sorted(others, key=lambda form: (-len(form), form))
    # Each sign of a text is looked at first: all of the alternatives at each would take too long.
    first = "".join(sorted({re.escape(form[0]) for form in (*others, "%")}))
    return f"(?=[{first}])(?:{'|'.join(map(re.escape, quoted))}|{percent})"


def _hex(digit: int) -> str:
    return f"[{digit:x}{digit:X}]" if digit > 9 else str(digit)


def _base64_cores(secret: str) -> Iterator[str]:
    """What the secret alone decides of every text in base64 that it is a part of."""
    in_bytes = secret.encode("utf-8", "surrogateescape")
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(3):  # bytes before it in its group of three
            encoded = encode(b"\0" * before + in_bytes).decode("ascii")
            # Six bits a sign, from the first that is all its own to the last.
            core = encoded[-(-8 * before // 6) : 8 * (before + len(in_bytes)) // 6]
            if len(core) >= _MIN_BASE64_CHARS:
                yield core


def secrets_of(environ: Mapping[str, str]) -> list[str]:
    """Values of variables whose names sound like a secret; short ones are words of their own."""
    return [
        value.strip()
        for name, value in environ.items()
        if _SECRET_NAME.search(name) and len(value.strip()) >= _MIN_SECRET_CHARS
    ]
