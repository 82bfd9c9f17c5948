"""What weights mean: the network they belong to, the mels it makes and the symbols it reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from kamerton.core.errors import ParamsError

_SHOWN_DIFFERENCES = 6


@dataclass(frozen=True, slots=True)
class Meaning:
    """Kept beside weights, so that they are never read as something else.

    Attributes:
        architecture: Of the network, as ``Architecture.to_dict`` gives it.
        audio: How its mels are made.
        symbols: Characters in the order of their numbers.
        speakers: Names in the order of their numbers.
    """

    architecture: Mapping[str, Any]
    audio: Mapping[str, Any]
    symbols: tuple[str, ...]
    speakers: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a checkpoint holds them."""
        return {
            "architecture": dict(self.architecture),
            "audio": dict(self.audio),
            "symbols": list(self.symbols),
            "speakers": list(self.speakers),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Undo ``to_dict``; raises KeyError or TypeError for anything else."""
        return cls(
            dict(values["architecture"]), dict(values["audio"]), tuple(values["symbols"]),
            tuple(values["speakers"]),
        )  # fmt: skip

    def require_equal(self, asked: Meaning, path: Path) -> None:
        """Refuse weights of another network, other mels or other symbols.

        How much of the network is dropped in training may change in the middle of a run.

        Raises:
            ParamsError: every value that differs is named, with what it was and what is asked.
        """
        found = changes(self.to_dict(), asked.to_dict())
        refuse(path, [change for change in found if not is_dropout(change[0])])


def is_dropout(name: str) -> bool:
    """Whether a value of an architecture is a share that is dropped, which shapes no weight."""
    return name.endswith("_dropout")


def refuse(path: Path, found: list[tuple[str, Any, Any]]) -> None:
    """Raise ParamsError if weights at ``path`` differ from what is asked; name how."""
    if not found:
        return
    named = [f"{name} ({_short(old)}, asked {_short(new)})" for name, old, new in found]
    more = len(named) - _SHOWN_DIFFERENCES
    shown = named[:_SHOWN_DIFFERENCES] + ([f"and {more} more"] if more > 0 else [])
    raise ParamsError(
        f"{path} holds weights made with another value of: {', '.join(shown)}.",
        hint="give the parameters it was trained with, or do without it",
    )


def _short(value: Any) -> str:
    return f"{len(value)} of them" if isinstance(value, list | tuple) else str(value)


def changes(
    before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Dotted names with both values, where two nested mappings differ; absent counts as None."""
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from changes(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key}", old, new
