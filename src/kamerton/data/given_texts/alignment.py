"""A human text of a whole recording, distributed over the clips that were cut from it.

What was recognised in the clips only leads the way: its words are aligned with those of the human
text, and each clip gets the human words that stand opposite to its own.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from kamerton.data.given_texts.word_alignment import align_words

MAX_WORD_ERROR = 0.4

# More human words than this between two clips were not spoken in either: a heading, a passage that
# was left out, or what a rejected clip says.
_MOST_MISSED_AT_EDGE = 3
# Scripts without spaces: each character is a word.
_WIDE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Japanese, Chinese
)
_UNIT = re.compile(rf"[{_WIDE}][\u0e31\u0e34-\u0e3a\u0e47-\u0e4e]*[^\s\w]*|[^\s{_WIDE}\-‐‑‒–—―/…]+")
_FULL_STOPS, _STOPS = ".!?…。！？", ",;:–—、，；："
_CLOSING = "\"'”’»)]}›"


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a text: its characters as compared, and the piece of the text that it takes up.

    The pieces of all words, in order, are the whole text.
    """

    key: str
    start: int
    end: int


def align_text(
    text: str, recognised: Sequence[str | None], *, max_word_error: float = MAX_WORD_ERROR
) -> list[str | None]:
    """The piece of ``text`` that each clip says; None where the two disagree too much.

    ``recognised`` are the clips' recognised texts in order of position, None for a clip that nobody
    listened to. Pieces keep the text's own letters and punctuation, follow each other in its order
    and never overlap; passages that no clip says are in none of them. A clip gets None if its word
    error rate against its piece is above ``max_word_error``, so that recognition stays.
    """
    words = split_words(text)
    heard = [[word.key for word in split_words(answer or "")] for answer in recognised]
    owners = [clip for clip, keys in enumerate(heard) for _ in keys]
    flat = [key for keys in heard for key in keys]
    partner = align_words([word.key for word in words], flat)
    spans = _spans(words, text, partner, owners, len(heard))
    pieces: list[str | None] = []
    first = 0
    for keys, span in zip(heard, spans, strict=True):
        paired = partner[first : first + len(keys)]
        first += len(keys)
        if span is None or _errors(words, keys, paired, span) > max_word_error * len(span):
            pieces.append(None)
        else:
            pieces.append(" ".join(text[words[span[0]].start : words[span[-1]].end].split()))
    return pieces


def split_words(text: str) -> list[Word]:
    """The words of a text, each with the punctuation and spaces around it."""
    found: list[tuple[str, int, int]] = []
    for match in _UNIT.finditer(text):
        if key := _key(match[0]):
            found.append((key, match.start(), match.end()))
    limits = [0]
    for (_, _, end), (_, start, _) in itertools.pairwise(found):
        gap = text[end:start]
        space = max((at for at, char in enumerate(gap) if char.isspace()), default=len(gap) - 1)
        limits.append(end + space + 1)
    limits.append(len(text))
    return [Word(key, limits[at], limits[at + 1]) for at, (key, _, _) in enumerate(found)]


def _key(unit: str) -> str:
    folded = unicodedata.normalize("NFKC", unit).casefold()
    return "".join(
        char for char in folded if char.isalnum() or unicodedata.category(char)[0] == "M"
    )


def _spans(
    words: Sequence[Word], text: str, partner: Sequence[int], owners: Sequence[int], clips: int
) -> list[range | None]:
    """Words of each clip: from the first to the last one heard, and what was missed at its edges.

    Few words that were heard in neither of two neighbours belong to one of them. Where a clip of
    unknown words lies between, they are its own.
    """
    spans: list[range | None] = [None] * clips
    for word, clip in zip(partner, owners, strict=True):
        if word >= 0:
            span = spans[clip]
            spans[clip] = range(span.start if span else word, word + 1)
    for after in range(clips + 1):
        left = spans[after - 1] if after else range(0)
        right = spans[after] if after < clips else range(len(words), len(words))
        if left is None or right is None:
            continue
        if not 0 < right.start - left.stop <= _MOST_MISSED_AT_EDGE:
            continue
        middle = left.stop if not after else right.start
        if 0 < after < clips:
            middle = _divide(words, text, left.stop, right.start)
        if after:
            spans[after - 1] = range(left.start, middle)
        if after < clips:
            spans[after] = range(middle, right.stop)
    return spans


def _divide(words: Sequence[Word], text: str, begin: int, end: int) -> int:
    """Where to divide the words [begin, end), which the recogniser missed, between two clips.

    Clips are cut at pauses, and where readers pause stands a stop: the strongest, the last of
    equals.
    """
    strengths = [_stop(words[at - 1], text) for at in range(begin, end + 1)]
    return begin + max(range(len(strengths)), key=lambda at: (strengths[at], at))


def _stop(word: Word, text: str) -> int:
    tail = text[word.start : word.end].rstrip().rstrip(_CLOSING)
    return 2 if tail.endswith(tuple(_FULL_STOPS)) else 1 if tail.endswith(tuple(_STOPS)) else 0


def _errors(words: Sequence[Word], keys: Sequence[str], paired: Sequence[int], span: range) -> int:
    """Words to substitute, insert and delete to come from the piece to what was heard."""
    matched = sum(word >= 0 for word in paired)
    same = sum(word >= 0 and words[word].key == key for key, word in zip(keys, paired, strict=True))
    inserted, deleted = len(keys) - matched, len(span) - matched
    return matched - same + inserted + deleted
