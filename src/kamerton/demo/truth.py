"""What was really said in the demo's recordings, and when."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from kamerton.core.errors import InputCorruptError
from kamerton.core.files import read_jsonl, write_jsonl

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

TRUTH_FILE: Final = "truth.jsonl"


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """A word and its time in the decoded recording."""

    word: str
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True, slots=True)
class TrueSentence:
    """A sentence in the recording ``source`` (posix path relative to the recordings' folder)."""

    source: str
    start_seconds: float
    end_seconds: float
    text: str
    words: tuple[SpokenWord, ...]

    @property
    def seconds(self) -> float:
        """Length of the sentence."""
        return self.end_seconds - self.start_seconds


def write_truth(folder: Path, sentences: Iterable[TrueSentence]) -> None:
    """Write ``truth.jsonl`` into ``folder``."""
    write_jsonl(folder / TRUTH_FILE, (asdict(sentence) for sentence in sentences))


def read_truth(folder: Path) -> list[TrueSentence]:
    """Read ``truth.jsonl`` from ``folder``.

    Raises:
        InputMissingError: the corpus was not made.
        InputCorruptError: a row is not a sentence.
    """
    path = folder / TRUTH_FILE
    return [
        _sentence(row, f"{path}:{number}")
        for number, row in enumerate(read_jsonl(path, produced_by="demo"), start=1)
    ]


def _sentence(row: dict[str, Any], where: str) -> TrueSentence:
    try:
        words = tuple(SpokenWord(**word) for word in row["words"])
        return TrueSentence(**{**row, "words": words})
    except (KeyError, TypeError) as error:
        raise InputCorruptError(
            where,
            problem=f"is not a sentence with its words ({error})",
            hint="make it again: `kamerton demo --force`",
        ) from error
