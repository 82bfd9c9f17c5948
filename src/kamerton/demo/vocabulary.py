"""What the demo's voice may say: 48 words, and sentences that nobody can guess.

Every word is one token of Whisper's English tokenizer (with the space before it), so that the toy
recogniser needs one output per word, and no two sound alike. Sentences follow varied patterns or
no pattern at all: a recogniser must listen and a synthesiser must read, because neither can
know what comes next.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

# fmt: off
WORD_CLASSES: Final = {
    "D": ("every", "several", "another"),
    "A": ("small", "green", "yellow", "happy", "broken", "quiet", "golden", "ancient", "purple"),
    "N": ("river", "window", "garden", "teacher", "captain", "mountain", "doctor", "horse",
          "village", "kitchen", "paper", "music", "bridge"),
    "V": ("carries", "follows", "paints", "visits", "remembers", "watches", "opens", "builds"),
    "B": ("slowly", "often", "tomorrow", "today", "together", "outside", "always"),
    "P": ("behind", "under", "near", "against", "without", "above", "across", "between"),
}
WORDS: Final = tuple(sorted(word for words in WORD_CLASSES.values() for word in words))

# One letter per word: determiner, adjective, noun, verb, adverb (B), preposition.
PATTERNS: Final = (
    "DANVN", "DNVAN", "ANVDN", "NVDANB", "BDNVN", "BANVAN", "DNBVAN", "PDNANV", "DNPANV",
    "NPNVAN", "ANVPDN", "DANVBPN", "BDANVPN", "ANBV", "DNVN", "NVPAN", "DANPNVB", "PANDNV",
)
# fmt: on
FREE_ORDER_SHARE: Final = 0.4
SHORTEST, LONGEST = 4, 7  # words


def sentences(
    random: np.random.Generator, *, part: str, shortest: int = SHORTEST, longest: int = LONGEST
) -> Iterator[str]:
    """An endless stream of different sentences; lower case, no punctuation.

    Args:
        random: where the choices come from.
        part: ``corpus`` or ``training``. A sentence belongs to one of them by its hash, so the
            recogniser is never examined on a sentence that it was trained on.
        shortest: fewest words; below four only in free order.
        longest: most words; above seven only in free order.
    """
    if part not in _PARTS:
        raise ValueError(f"part must be one of {', '.join(_PARTS)}; got {part!r}")
    seen: set[str] = set()
    patterns = [p for p in PATTERNS if shortest <= len(p) <= longest]
    while True:
        if not patterns or random.random() < FREE_ORDER_SHARE:
            words = _free_order(random, int(random.integers(shortest, longest + 1)))
        else:
            words = _by_pattern(random, patterns[int(random.integers(len(patterns)))])
        text = " ".join(words)
        if text not in seen and part_of(text) == part:
            seen.add(text)
            yield text


_PARTS: Final = ("corpus", "training")


def part_of(text: str) -> str:
    """Which of the two disjoint halves of all sentences ``text`` falls into."""
    return _PARTS[hashlib.blake2b(text.encode(), digest_size=1).digest()[0] % len(_PARTS)]


def _by_pattern(random: np.random.Generator, pattern: str) -> list[str]:
    words: list[str] = []
    for letter in pattern:
        choices = [word for word in WORD_CLASSES[letter] if word not in words]
        words.append(choices[int(random.integers(len(choices)))])
    return words


def _free_order(random: np.random.Generator, count: int) -> list[str]:
    return [WORDS[int(i)] for i in random.permutation(len(WORDS))[:count]]
