"""Written text to the characters that are spoken.

The steps run in an order that makes the result stable (normalising twice changes nothing): first
every character is brought into the language's alphabet, digits and a few signs; then numbers,
signs and abbreviations become words; last, what is still outside the alphabet is dropped.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kamerton.config.schema import TextParams
from kamerton.text import english, russian
from kamerton.text.numbers import cardinal, decimal, speaks
from kamerton.text.symbols import PUNCTUATION, alphabet

_SAME_AS = str.maketrans(
    {
        **dict.fromkeys("“”„‟«»″〝〞＂", '"'),
        **dict.fromkeys("‘’‚‛ʼ′`´＇", "'"),
        **dict.fromkeys("‐‑‒–—―−⁃﹣－", "-"),
        **dict.fromkeys("[{<⟨‹", "("),
        **dict.fromkeys("]}>⟩›", ")"),
        "…": "...",
        "¡": "",
        "¿": "",
        "⁄": "/",
    }
)
_KEPT_THROUGH_NFKC = "№²³°€£₽"
_SIGNS = "$€£₽%&+=@#№°²³/*^×÷±"
_PUNCTUATION = frozenset(PUNCTUATION) - {" "}


def normalise(
    text: str,
    language: str,
    *,
    lowercase: bool = True,
    expand_numbers: bool = True,
    expand_abbreviations: bool = True,
) -> str:
    """Bring a text into the form a voice is trained on and speaks.

    For languages with an alphabet (``en``, ``ru``) every character of the result is in it; digits
    belong to it only when numbers are not expanded. For other languages letters stay as they are,
    and only numbers, signs and spaces are handled.
    """
    rules = _RULES.get(language)
    cleaned = _tidy(_clean(text, rules.transliterate if rules else None))
    if rules:
        spoken = rules.expand(cleaned, numbers=expand_numbers, abbreviations=expand_abbreviations)
    else:
        spoken = _expand_plain_numbers(cleaned, language) if expand_numbers else cleaned
    if lowercase:
        spoken = spoken.lower()
    known = alphabet(language, lowercase=lowercase, digits=not expand_numbers)
    return _tidy(_keep_known(unicodedata.normalize("NFC", spoken), known), final=True)


def normalise_for(text: str, params: TextParams) -> str:
    """``normalise`` as the ``text`` section of the parameters asks for it."""
    return normalise(text, **params.model_dump(exclude={"phonemes"}))


def bare_words(text: str) -> str:
    """Letters and digits in lower case, one space between words: two readings agree in these.

    Stops are set by recognisers as they please.
    """
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


class _Expand(Protocol):
    def __call__(self, text: str, *, numbers: bool, abbreviations: bool) -> str: ...


@dataclass(frozen=True, slots=True)
class _Rules:
    """What one language brings: its letters for those of other scripts, words for signs."""

    transliterate: Callable[[str], str]
    expand: _Expand


_RULES = {
    "en": _Rules(english.transliterate, english.expand),
    "ru": _Rules(russian.transliterate, russian.expand),
}


def _clean(text: str, transliterate: Callable[[str], str] | None) -> str:
    """Unify the many forms of one character; drop what has no sound."""
    composed = unicodedata.normalize("NFC", text).translate(_SAME_AS)
    characters = []
    for char in composed:
        if char in _KEPT_THROUGH_NFKC:
            characters.append(char)
            continue
        if unicodedata.decomposition(char).startswith("<fraction>"):  # "2½" is not 21 halves
            characters.append(" ")
        for part in unicodedata.normalize("NFKC", char).translate(_SAME_AS):
            characters.append(_clean_character(part, transliterate))
    return unicodedata.normalize("NFC", "".join(characters))


def _clean_character(char: str, transliterate: Callable[[str], str] | None) -> str:
    if char in _PUNCTUATION or char in _SIGNS:
        return char
    category = unicodedata.category(char)
    if category == "Nd":
        return str(unicodedata.digit(char))
    if category[0] == "L":
        return transliterate(char) if transliterate else char
    if category[0] == "M":  # marks that NFC could not join: stress signs, decorations
        return "" if transliterate else char
    if category in ("Cf", "Cn", "Co", "Cs"):  # invisible: soft hyphens, joiners, byte-order marks
        return ""
    return " "


def _expand_plain_numbers(text: str, language: str) -> str:
    if not re.search(r"[0-9]", text) or not speaks(language):
        return text
    decimals = r"([0-9]+)[.,]([0-9]+)"
    text = re.sub(decimals, lambda match: f" {decimal(match[1], match[2], language)} ", text)
    return re.sub(r"[0-9]+", lambda match: f" {cardinal(match[0], language)} ", text)


def _keep_known(text: str, known: tuple[str, ...] | None) -> str:
    if known is not None:
        return "".join(char if char in known else " " for char in text)
    return "".join(char if char not in _SIGNS else " " for char in text)


_PAUSES = re.compile(r"[ .,;:!?-]+")
_ELLIPSIS_DOTS = 3


def _tidy(text: str, *, final: bool = False) -> str:
    """Reduce every run of spaces and stops to one stop; no text begins with one.

    Before words are put for numbers and abbreviations (``final`` false) a minus stays, and so does
    a stop that may belong to an abbreviation.
    """
    text = " ".join(text.split())
    if not any(char.isalnum() or char in _SIGNS for char in text):
        return ""

    def reduce(match: re.Match[str]) -> str:
        run, following = match[0], text[match.end() : match.end() + 1]
        if match.start() == 0:
            return "-" if run.endswith("-") and not final else ""
        reduced = _reduce_run(run)
        if final:
            return reduced if following else reduced.rstrip(" -")
        if run.endswith(" -") and following.isdigit() and not reduced.endswith("-"):
            return reduced + "-"
        abbreviation = "." if re.match(r"\. ?[,;:!?]", run) and reduced[0] != "." else ""
        return abbreviation + reduced

    return _PAUSES.sub(reduce, text)


def _reduce_run(run: str) -> str:
    """The one stop that a run of them amounts to, with the space around it that the run had."""
    space = " " if " " in run else ""
    if run.count(".") >= _ELLIPSIS_DOTS:
        return "..." + space
    for stop in "?!":
        if stop in run:
            return stop + space
    if match := re.search(r"\. ?([,;:])", run):  # a stop before a comma belongs to the word
        return match[1] + space
    for stop in ".;:,":
        if stop in run:
            return stop + space
    if "-" in run:
        return (" " if run[0] == " " else "") + "-" + (" " if run[-1] == " " else "")
    return " "
