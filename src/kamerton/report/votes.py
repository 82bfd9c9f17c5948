"""A stop decision in words, and the table of its votes.

Decisions come as the plain fields of a run's event "decision": one look for every page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from kamerton.report.page import Page

Fields = Mapping[str, Any]

HEADERS: Final = ("voter", "group", "score", "confidence", "why")
SCALE: Final = "1 stop, -1 go on, 0 no opinion; a score counts as much as its confidence says"
_STATUS_WORDS: Final = {
    "not_converged": "has not converged", "converging": "is converging",
    "converged": "has converged", "diverging": "is diverging", "stalled": "is stalled",
}  # fmt: skip


def decision_words(step: int | None, fields: Fields) -> str:
    """What was decided at one evaluation and why, in two sentences."""
    status = str(fields.get("status"))
    said = _STATUS_WORDS.get(status, status.replace("_", " "))
    risk = fields.get("overfitting")
    words = f"After step {step} the run {said}; the risk of overfitting is {risk}."
    reason = str(fields.get("reason") or "")
    if fields.get("stop"):
        cause = str(fields.get("cause")).replace("_", " ")
        return f"{words} It ends here, cause: {cause}. {_sentence(reason)}".rstrip()
    return f"{words} It may go on. {_sentence(reason)}".rstrip()


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if not text or text.endswith(".") else f"{text}."


def add_votes(page: Page, fields: Fields, caption: str) -> None:
    """The table of one decision: who said what, with what weight, and why."""
    rows = vote_rows(fields)
    if rows:
        page.table(HEADERS, rows, f"{caption}: {SCALE}")


def vote_rows(fields: Fields) -> list[tuple[Any, ...]]:
    """One row per voter, the weightiest opinions first."""
    votes: Sequence[Fields] = fields.get("votes") or ()
    ranked = sorted(votes, key=lambda vote: -abs(_weight(vote)))
    return [
        (
            _plain(vote.get("voter")),
            _plain(vote.get("group") or "informs only"),
            vote.get("score"),
            vote.get("confidence"),
            str(vote.get("reason") or ""),
        )
        for vote in ranked
    ]


def _weight(vote: Fields) -> float:
    found = [vote.get("score"), vote.get("confidence")]
    known = [float(item) for item in found if isinstance(item, int | float)]
    return known[0] * known[1] if len(known) == 2 else 0.0


def _plain(name: object) -> str:
    return str(name).replace("_", " ")
