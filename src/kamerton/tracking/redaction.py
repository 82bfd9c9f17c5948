"""Keep secrets out of everything that is written down."""

import base64
import html
import json
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

MASK = "***"
_MIN_BASE64_CHARS = 5  # fewer turn up by chance
_MIN_SECRET_CHARS = 8

_WORDS = r"(?:password|passwd|secret|token|api[_-]?key|access[_-]?key|credential)"
_SECRET_NAME = re.compile(rf"(?i)(^|[._-]){_WORDS}s?($|[._-])")
_REFERENCE = re.compile(r"^\$\{\w+\}$")  # ${VARIABLE} names a secret without telling it
_URL_LOGIN = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/@\s]+@")
_BOT_TOKEN = re.compile(r"\b\d{8,}:[\w-]{30,}")
# name=value, name: value, and --name value
_NAMED_VALUE = re.compile(
    rf"(?i)(?P<name>(?:[\w.-]*{_WORDS}[\w-]*\s*[=:]\s*)|(?:--[\w.-]*{_WORDS}[\w-]*\s+))"
    r"(?P<value>[^\s'\"]+)"
)


def redact_text(text: str) -> str:
    """``text`` with logins in URLs, bot tokens and values of secret-sounding names masked."""
    text = _URL_LOGIN.sub(rf"\g<scheme>{MASK}@", text)
    text = _BOT_TOKEN.sub(MASK, text)
    return _NAMED_VALUE.sub(_mask_value, text)


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
        found = {form for secret in secrets if secret for form in _forms(secret)}
        # A form that contains another must be tried before it, or its rest would stay.
        longest_first = sorted(found, key=lambda form: (-len(form), form))
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if found else None

    def __repr__(self) -> str:
        return "Masker()"

    def __call__(self, text: str) -> str:
        """``text`` without them, and without what looks like a secret."""
        return redact_text(self._pattern.sub(MASK, text) if self._pattern else text)


def _forms(secret: str) -> Iterator[str]:
    yield secret
    for quoted in (
        urllib.parse.quote(secret), urllib.parse.quote(secret, safe=""),
        urllib.parse.quote_plus(secret),
    ):  # fmt: skip
        yield quoted
        yield re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), quoted)
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]
    yield html.escape(secret)
    yield html.escape(secret, quote=False)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(3):  # bytes before it in its group of three
            yield from _base64_core(encode(b"\0" * before + secret.encode()), before, secret)


def _base64_core(encoded: bytes, before: int, secret: str) -> Iterator[str]:
    """The signs that only the secret decides: six bits each, from its first bit to its last."""
    first, last = -(-8 * before // 6), 8 * (before + len(secret.encode())) // 6
    core = encoded[first:last].decode("ascii")
    if len(core) >= _MIN_BASE64_CHARS:
        yield core


def secrets_of(environ: Mapping[str, str]) -> list[str]:
    """Values of variables whose names sound like a secret; short ones are words of their own."""
    return [
        value.strip()
        for name, value in environ.items()
        if _SECRET_NAME.search(name) and len(value.strip()) >= _MIN_SECRET_CHARS
    ]
