"""What is told: one event of a run, as plain data, and how it reads."""

from __future__ import annotations

import numbers
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

MAX_FILE_BYTES: Final = 50 * 1000**2  # what Telegram takes of a document
_MAX_VALUE_CHARS: Final = 300
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_STEP_OF_NAME = re.compile(r"-(\d{8,})$")


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest file of a kind in a folder, looked for when it is sent.

    Names end with the step in eight digits, as the run directory has them.
    """

    folder: Path
    pattern: str

    def read(self) -> Attached | None:
        """The file, or None where there is none that can be read or sent."""
        try:
            newest = max(self.folder.glob(self.pattern), key=_step_and_name, default=None)
            if newest is None or newest.stat().st_size > MAX_FILE_BYTES:
                return None
            return Attached(newest.name, newest.read_bytes(), _step_and_name(newest)[0])
        except OSError:  # removed in between, or a disk in trouble
            return None


def _step_and_name(path: Path) -> tuple[int, str]:
    match = _STEP_OF_NAME.search(path.stem)
    return (int(match[1]) if match else -1), path.name


@dataclass(frozen=True, slots=True)
class Attached:
    """A file's name and contents, and the step it shows (-1: its name tells none)."""

    name: str
    data: bytes
    step: int = -1

    @property
    def caption(self) -> str:
        """One line on what it is."""
        return f"{self.name}, of step {self.step}" if self.step >= 0 else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One event.

    Attributes:
        kind: A word, one of ``tracking.alerts.events`` or another.
        text: A sentence.
        run: The run's name.
        step: Steps made; None outside training.
        total: The budget.
        fields: Figures.
        files: What to send with it.
        time: Unix seconds.
        repeats: How many events it stands for besides the first, which was told before.
    """

    kind: str
    text: str
    run: str = ""
    step: int | None = None
    total: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Newest, ...] = ()
    time: float = 0.0
    repeats: int = 0

    @property
    def title(self) -> str:
        """Its first line."""
        return plain(f"{self.kind}: {self.text}")

    def body(self) -> str:
        """The lines below the title: the run, where it stands, and its figures."""
        lines = [f"run {self.run}"] if self.run else []
        if self.step is not None:
            lines.append(_place(self.step, self.total))
        lines += [f"{name} {shown(value)}" for name, value in self.fields.items()]
        return plain("\n".join(lines))


def _place(step: int, total: int | None) -> str:
    return f"step {step} of {total} ({step / total:.0%})" if total else f"step {step}"


def shown(value: Any) -> str:
    """A figure as a person wants it: four digits of what is not whole."""
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return f"{float(value):.4g}"
    text = str(value)
    return text if len(text) <= _MAX_VALUE_CHARS else text[: _MAX_VALUE_CHARS - 1] + "…"


def plain(text: str) -> str:
    """``text`` without control characters and lone surrogates, which no service takes."""
    return _CONTROL.sub(" ", text).encode("utf-8", "replace").decode("utf-8")


def one_line(text: str) -> str:
    """The same without line ends: what a record says cannot move a terminal or fake a log line."""
    return " ".join(plain(text).splitlines())


def shortened(text: str, limit: int) -> str:
    """``text``, cut to ``limit`` UTF-16 units (as Telegram counts) with a sign that it was."""
    if utf16_units(text) <= limit:
        return text
    units = text.encode("utf-16-le")[: 2 * (limit - 1)]
    return units.decode("utf-16-le", "ignore").rstrip() + "…"  # half a pair at the cut falls away


def utf16_units(text: str) -> int:
    """Length of ``text`` in UTF-16 units."""
    return len(text.encode("utf-16-le")) // 2
