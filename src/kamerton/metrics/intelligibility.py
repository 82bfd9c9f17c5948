"""Word and character error rates of what a recogniser heard against what was said."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kamerton.core.errors import ToolMissingError

WER_DEFINITION = "wer/1: corpus level, sum of word errors over sum of reference words"
CER_DEFINITION = "cer/1: corpus level, sum of character errors over sum of reference characters"
SCORING_DEFINITION = "text/1: NFKC, casefold, letters, digits and inner apostrophes, single spaces"


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Errors over a whole set of sentences, not the mean over sentences.

    Attributes:
        wer: Word errors per reference word; above 1 when more was heard than said.
        cer: Character errors per reference character.
        substitutions: Words heard as another.
        deletions: Words said and not heard.
        insertions: Words heard and not said.
        words: Reference words.
        character_errors: Character errors in all.
        characters: Reference characters, spaces included.
    """

    wer: float
    cer: float
    substitutions: int
    deletions: int
    insertions: int
    words: int
    character_errors: int
    characters: int

    @property
    def errors(self) -> int:
        """Word errors of all three kinds."""
        return self.substitutions + self.deletions + self.insertions


@dataclass(frozen=True, slots=True)
class WordChange:
    """One step from what was said to what was heard; an absent word is empty."""

    kind: Literal["equal", "substitute", "delete", "insert"]
    said: str
    heard: str


def scoring_text(text: str) -> str:
    """The form in which texts are compared (``SCORING_DEFINITION``); applied to both sides."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    words = re.findall(r"[^\W_]+(?:'[^\W_]+)*", folded)
    return " ".join(words)


def word_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> WordErrors:
    """Compare sentences pair by pair.

    A sentence without reference words counts every heard word as an insertion; when no sentence
    has any, the rates are the bare numbers of errors.

    Raises:
        ValueError: the lengths differ.
        ToolMissingError: jiwer is not installed.
    """
    if len(reference) != len(hypothesis):
        raise ValueError(f"{len(reference)} references for {len(hypothesis)} hypotheses")
    said = [scoring_text(text) for text in reference]
    heard = [scoring_text(text) for text in hypothesis]
    words = sum(len(text.split()) for text in said)
    engine = _jiwer()
    found, letters = (
        engine.process_words(said, heard),
        engine.process_characters(said, heard),
    )
    errors = found.substitutions + found.deletions + found.insertions
    character_errors = letters.substitutions + letters.deletions + letters.insertions
    characters = sum(len(text) for text in said)
    return WordErrors(
        wer=errors / max(words, 1),
        cer=character_errors / max(characters, 1),
        substitutions=found.substitutions,
        deletions=found.deletions,
        insertions=found.insertions,
        words=words,
        character_errors=character_errors,
        characters=characters,
    )


def compare_words(reference: str, hypothesis: str) -> list[WordChange]:
    """The cheapest way from one sentence to the other, word by word, in order."""
    said, heard = scoring_text(reference).split(), scoring_text(hypothesis).split()
    changes: list[WordChange] = []
    for chunk in _jiwer().process_words(" ".join(said), " ".join(heard)).alignments[0]:
        left = said[chunk.ref_start_idx : chunk.ref_end_idx]
        right = heard[chunk.hyp_start_idx : chunk.hyp_end_idx]
        if chunk.type in ("equal", "substitute"):
            kind: Literal["equal", "substitute"] = chunk.type
            pairs = zip(left, right, strict=True)
            changes += [WordChange(kind, one, other) for one, other in pairs]
        changes += [WordChange("delete", word, "") for word in left if chunk.type == "delete"]
        changes += [WordChange("insert", "", word) for word in right if chunk.type == "insert"]
    return changes


def _jiwer() -> Any:
    try:
        import jiwer
    except ImportError as error:
        raise ToolMissingError("jiwer", extra="eval") from error
    return jiwer
