"""Parts of a folder of recordings for several machines, drawn by name."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from kamerton.core.errors import UsageError

_FORM = re.compile(r"([0-9]{1,6})/([0-9]{1,6})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Part:
    """Part ``index`` of ``count``, counted from 0."""

    index: int
    count: int

    def has(self, name: str) -> bool:
        """Whether a recording of that name belongs to it; to exactly one of all parts it does."""
        digest = hashlib.sha256(name.encode()).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index


def parse_part(text: str | None) -> Part:
    """``"0/3"`` as the first of three parts; None is everything.

    Raises:
        UsageError: it is nothing of the kind.
    """
    if text is None:
        return Part(0, 1)
    found = _FORM.fullmatch(text.strip())
    if found is None or not int(found[1]) < int(found[2]):
        hint = "write I/N with I from 0 to N-1: of three machines the first does --shard 0/3"
        raise UsageError(f"{text!r} is not a part of the recordings.", hint=hint)
    return Part(int(found[1]), int(found[2]))
