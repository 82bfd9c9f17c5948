"""The symbols a voice reads, and their numbers.

A table holds the characters only; padding and end-of-text have fixed numbers of their own, so that
0 is always padding whatever the language.
"""

import unicodedata
from collections.abc import Iterable, Sequence

from kamerton.config.schema import TextParams
from kamerton.core.errors import PipelineError
from kamerton.text.phonemes import IPA

PAD = 0
EOS = 1
FIRST_SYMBOL = 2

PUNCTUATION = " !\"'(),-.:;?"
ENGLISH_LETTERS = "abcdefghijklmnopqrstuvwxyz"
RUSSIAN_LETTERS = "абвгдежзийклмнопрстуфхцчшщъыьэюяё"

_LETTERS = {"en": ENGLISH_LETTERS, "ru": RUSSIAN_LETTERS}


class UnknownSymbolError(PipelineError):
    """A text holds characters that this voice has never been given."""

    exit_code = 1


def alphabet(
    language: str, *, lowercase: bool = True, digits: bool = False
) -> tuple[str, ...] | None:
    """All characters that normalised text of ``language`` can hold, in order of code point.

    It is the same for every dataset of the language, so that a model trained on one version can go
    on with the next. None for languages whose letters are taken from the texts instead.
    """
    letters = _LETTERS.get(language)
    if letters is None:
        return None
    cased = letters if lowercase else letters + letters.upper()
    return tuple(sorted({*cased, *PUNCTUATION, *("0123456789" if digits else "")}))


class SymbolTable:
    """Numbers characters; ``len(table)`` counts PAD and EOS too, so it is an embedding's rows."""

    def __init__(self, symbols: Sequence[str]) -> None:
        """Take the characters in the order of their numbers.

        Raises:
            ValueError: an entry is not a single character, or stands twice.
        """
        self.symbols = tuple(symbols)
        wrong = [symbol for symbol in self.symbols if len(symbol) != 1]
        if wrong:
            raise ValueError(f"symbols must be single characters, not {wrong[0]!r}")
        self._ids = {symbol: FIRST_SYMBOL + index for index, symbol in enumerate(self.symbols)}
        if len(self._ids) != len(self.symbols):
            raise ValueError("a symbol stands twice in the table")

    @classmethod
    def for_params(cls, params: TextParams, texts: Iterable[str]) -> "SymbolTable":
        """Make the table of the language's alphabet and whatever ``texts`` hold beyond it.

        Where the voice reads phonemes, the alphabet is the International Phonetic one.
        """
        digits = not params.expand_numbers
        known = alphabet(params.language, lowercase=params.lowercase, digits=digits) or ()
        if params.phonemes != "none":
            known = tuple(PUNCTUATION + IPA)
        return cls(sorted({*known, *set().union(*texts)}))

    def __len__(self) -> int:
        return FIRST_SYMBOL + len(self.symbols)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SymbolTable) and self.symbols == other.symbols

    def __hash__(self) -> int:
        return hash(self.symbols)

    def unknown(self, text: str) -> list[str]:
        """Characters of ``text`` that have no number, each once, in order of appearance."""
        return [char for char in dict.fromkeys(text) if char not in self._ids]

    def encode(self, text: str) -> list[int]:
        """Numbers of the characters, then EOS.

        Raises:
            UnknownSymbolError: a character is not in the table; ``without_unknown`` drops those.
        """
        unknown = self.unknown(text)
        if unknown:
            named = ", ".join(f"{char!r} ({unicodedata.name(char, 'unnamed')})" for char in unknown)
            raise UnknownSymbolError(
                f"the text {text!r} holds symbols this voice does not know: {named}",
                hint="normalise the text first, or write it without them",
            )
        return [self._ids[char] for char in text] + [EOS]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the numbers, up to the first EOS; padding is skipped."""
        characters = []
        for number in ids:
            if number == EOS:
                break
            if number != PAD:
                characters.append(self.symbols[number - FIRST_SYMBOL])
        return "".join(characters)
