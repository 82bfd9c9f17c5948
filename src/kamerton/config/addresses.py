"""Addresses in parameters: what must not stand in them, for parameters are written down."""

import re
from typing import Final
from urllib.parse import parse_qsl, urlsplit

# What a name holds that stands for a secret; tracking.redaction masks the values of such names.
SECRET_WORDS: Final = r"(?:password|passwd|secret|token|api[_-]?key|access[_-]?key|credential)"
_SECRET_KEY: Final = re.compile(rf"(?i){SECRET_WORDS}|^pwd$")


def require_no_credentials(url: str, instead: str) -> None:
    """Pass for a URL that tells no secret; the URL is not repeated in what is raised.

    Args:
        url: The address.
        instead: Where credentials belong.

    Raises:
        ValueError: it is no URL, or has a login or a secret in its query.
    """
    if "@" in url:
        raise ValueError(f"a URL must not carry credentials; {instead}")
    try:
        query = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    except ValueError:
        raise ValueError("this is no valid URL") from None
    for name, _ in query:
        if _SECRET_KEY.search(name):
            raise ValueError(f"a URL must not carry credentials ({name}); {instead}")
