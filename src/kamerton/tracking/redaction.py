"""Keep secrets out of everything that is written down."""

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"

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
