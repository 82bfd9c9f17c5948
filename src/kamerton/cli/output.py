"""What commands print: results to stdout, narration to stderr, errors with their fix."""

import json
import os
import sys
from collections.abc import Iterable
from typing import Any

from kamerton.core.errors import PipelineError


def _colour() -> bool:
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ


def _paint(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if _colour() else text


def narrate(text: str) -> None:
    """A line for a person, on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """A machine-readable result, on stdout."""
    print(json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True, default=str))


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values in two columns, on stdout."""
    rows = list(pairs)
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")


def print_error(error: PipelineError) -> None:
    """What happened, then the fix."""
    narrate(f"{_paint('error:', '1;31')} {error.message}")
    narrate(f"{_paint('fix:', '1;36')}   {error.hint}")
