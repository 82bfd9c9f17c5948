"""Russian: abbreviations, signs and numbers in words.

Cases and genders follow what shows them in writing: endings as in "5-го", prepositions, the noun
beside a number, known abbreviations. Where nothing does, a number stands in the nominative.
"""

import re

from kamerton.text import roman, russian_numbers
from kamerton.text.numbers import ordinal
from kamerton.text.russian_numbers import LANGUAGE
from kamerton.text.russian_words import (
    ACRONYMS,
    BEFORE_NUMBERS,
    DECLENSIONS,
    DEGREES,
    LATIN_LETTERS,
    LATIN_PAIRS,
    LETTERS,
    NUMBERED,
    PHRASES,
    SIGNS,
    SOVEREIGNS,
)

_NUMERAL = rf"(?<![A-Za-zА-Яа-яЁё0-9])({roman.PATTERN})(?![A-Za-z0-9])"
# Ending of an adjective behind a numeral -> grammar: "II мировая".
_ADJECTIVES = {
    "ая": ("f", "n"), "ой": ("f", "g"), "ую": ("f", "a"), "ый": ("m", "n"), "ий": ("m", "n"),
    "ого": ("m", "g"), "ом": ("m", "p"), "ое": ("n", "n"),
}  # fmt: skip


def transliterate(letter: str) -> str:
    """Leave Russian and Latin letters (``expand`` spells those out); bring others to Latin."""
    if letter.isascii() or letter.lower() in "абвгдежзийклмнопрстуфхцчшщъыьэюяё":
        return letter
    from kamerton.text.english import transliterate as to_latin

    return to_latin(letter)


def expand(text: str, *, numbers: bool, abbreviations: bool) -> str:
    """Put signs and foreign letters, and if asked for numbers and abbreviations, into words."""
    text = re.sub(r"° ?([CСF])(?![A-Za-zА-Яа-яЁё])", lambda match: DEGREES[match[1]], text)
    if numbers:
        text = _roman(text)
    if abbreviations:
        text = _acronyms(text)
    text = re.sub(r"[A-Za-z]+", lambda match: _from_latin(match[0]), text)
    text = re.sub(r"([0-9][.,;:!?]?)(?=[а-яё])", r"\1 ", text, flags=re.IGNORECASE)
    if abbreviations:
        text = _abbreviations(text)
    if numbers:
        for rule in (
            russian_numbers.join_groups,
            russian_numbers.money,
            russian_numbers.telephones,
            russian_numbers.dates,
            russian_numbers.years,
            russian_numbers.times,
            russian_numbers.fractions,
            russian_numbers.ordinals,
            russian_numbers.spans,
        ):
            text = rule(text)
    if abbreviations:
        text = russian_numbers.units(text, numbers=numbers)
    if numbers:
        text = russian_numbers.rest(text)
    return re.sub(f"[{re.escape(''.join(SIGNS))}]", lambda match: f" {SIGNS[match[0]]} ", text)


def _roman(text: str) -> str:
    """Numerals of sovereigns, centuries and chapters, which agree with the word beside them."""
    text = re.sub(  # ХХ is as often written with Russian letters
        r"(?<![А-Яа-яЁё])[ХX][ХXVI]*(?= (?:век|столети|вв?\.))",
        lambda match: match[0].replace("Х", "X"),
        text,
    )
    for name, (gender, cases) in DECLENSIONS.items():
        stems = "|".join(filter(None, (SOVEREIGNS.get(name, ""), NUMBERED.get(name, ""))))
        endings = "|".join(sorted(cases, key=len, reverse=True))
        noun = rf"(?<![А-Яа-яЁё])((?i:{stems}))({endings})(?![А-Яа-яЁё])"

        def behind(
            match: re.Match[str], gender: str = gender, cases: dict[str, str] = cases
        ) -> str:
            grammar = (gender, cases[match[2].lower()])
            return f"{match[1]}{match[2]} {_ordinal(match[3], *grammar)}"

        def before(
            match: re.Match[str], gender: str = gender, cases: dict[str, str] = cases
        ) -> str:
            grammar = (gender, cases[match[4].lower()])
            first = f"{_ordinal(match[1], *grammar)} - " if match[1] else ""
            return f"{first}{_ordinal(match[2], *grammar)} {match[3]}{match[4]}"

        text = re.sub(rf"{noun} {_NUMERAL}", behind, text)
        text = re.sub(rf"(?:{_NUMERAL} ?- ?)?{_NUMERAL} {noun}", before, text)
    text = re.sub(rf"{_NUMERAL} в\.", _century, text)
    adjectives = "|".join(sorted(_ADJECTIVES, key=len, reverse=True))
    return re.sub(
        rf"{_NUMERAL} ([а-яё]{{3,}})({adjectives})(?![а-яё])",
        lambda m: f"{_ordinal(m[1], *_ADJECTIVES[m[3]])} {m[2]}{m[3]}",
        text,
    )


def _ordinal(numeral: str, gender: str, case: str) -> str:
    return ordinal(str(roman.value(numeral)), LANGUAGE, gender=gender, case=case)


def _century(match: re.Match[str]) -> str:
    inside = re.search(r"(?:^|[^а-яё])(?:в|во) $", match.string[: match.start()], re.IGNORECASE)
    word, case = ("веке", "p") if inside else ("века", "g")
    end = "." if match.end() == len(match.string) else ""
    return f"{_ordinal(match[1], 'm', case)} {word}{end}"


def _acronyms(text: str) -> str:
    """Capitals without a vowel by the names of the letters; not in a text that is all capitals."""
    if not re.search(r"[а-яё]", text):
        return text
    known = "|".join(ACRONYMS)

    def spell(match: re.Match[str]) -> str:
        return ACRONYMS.get(match[0]) or " ".join(LETTERS[letter] for letter in match[0])

    letters = "".join(LETTERS)
    return re.sub(rf"(?<![А-Яа-яЁё-])(?:{known}|[{letters}]{{2,6}})(?![А-Яа-яЁё-])", spell, text)


def _abbreviations(text: str) -> str:
    for pattern, words in PHRASES:

        def say(match: re.Match[str], words: str = words) -> str:
            return words + ("." if match.end() == len(match.string) else " ")

        guarded = rf"(?<![а-яёa-z0-9]){pattern}"
        text = re.sub(guarded, say, text, flags=re.IGNORECASE)
    for short, full in (("г-н", "господин"), ("г-ж", "госпож"), ("д-р", "доктор")):
        ending = r"([а-яё]{1,2})" if short == "г-ж" else r"([а-яё]{0,2})"
        text = re.sub(
            rf"(?<![а-яё0-9-]){short}{ending}(?![а-яё-])", rf"{full}\1", text, flags=re.IGNORECASE
        )
    text = re.sub(
        r"(?:(?<=^)|(?<=[^0-9] ))(?:(?<![А-Яа-яЁё])([А-Яа-яЁё]{1,5}) )?г\. ?(?=[А-ЯЁ])",
        _city,
        text,
    )
    names = "|".join(sorted(BEFORE_NUMBERS, key=len, reverse=True))
    return re.sub(
        rf"(?<![а-яё])(?:(в|во|на) )?(?<![а-яё0-9])({names})\. ?(?=[0-9])",
        lambda m: f"{m[1] or ''} {BEFORE_NUMBERS[m[2].lower()][1 if m[1] else 0]} ",
        text,
        flags=re.IGNORECASE,
    )


_CITIES = {
    **dict.fromkeys(("в", "во", "о"), "городе"), **dict.fromkeys(("к", "по"), "городу"),
    **dict.fromkeys(("из", "от", "до", "около", "у"), "города"),
}  # fmt: skip


def _city(match: re.Match[str]) -> str:
    before = match[1] or ""
    return f"{before} {_CITIES.get(before.lower(), 'город')} "


def _from_latin(word: str) -> str:
    """Spell a foreign word with Russian letters, roughly as it sounds."""
    lower, said, place = word.lower(), "", 0
    while place < len(lower):
        for size in (4, 2, 1):
            piece = lower[place : place + size]
            letters = (LATIN_LETTERS if size == 1 else LATIN_PAIRS).get(piece)
            if letters is not None and len(piece) == size:
                said += letters
                place += size
                break
    return said
