"""A value that does not tell itself by accident."""

from __future__ import annotations

from typing import NoReturn

from kamerton.tracking.redaction import MASK


class Secret:
    """Text that is neither printed, formatted nor pickled; ``reveal`` is the one way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text; keep it out of names that live longer than a call."""
        return self._value

    def __repr__(self) -> str:
        return MASK

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written to files or queues")
