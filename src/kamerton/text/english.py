"""English: abbreviations, signs and numbers in words."""

import importlib
import re

from kamerton.core.errors import ToolMissingError
from kamerton.text.numbers import MAX_WORD_DIGITS, cardinal, ordinal, spell_digits, year

LANGUAGE = "en"

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July",
    "August", "September", "October", "November", "December",
)  # fmt: skip

# Written with a stop; the stop stays when it also ends the sentence.
_TITLES = {
    "mr": "mister", "mrs": "missus", "ms": "miz", "messrs": "messieurs", "dr": "doctor",
    "prof": "professor", "rev": "reverend", "hon": "honorable", "gen": "general",
    "col": "colonel", "capt": "captain", "lt": "lieutenant", "sgt": "sergeant", "gov": "governor",
    "sen": "senator", "jr": "junior", "sr": "senior", "vs": "versus", "etc": "et cetera",
    "approx": "approximately", "dept": "department", "est": "established", "inc": "incorporated",
    "ltd": "limited", "ave": "avenue", "blvd": "boulevard",
}  # fmt: skip
_PHRASES = {"e.g": "for example", "i.e": "that is", "a.m": "a m", "p.m": "p m"}

_UNITS = {
    "km/h": ("kilometer per hour", "kilometers per hour"),
    "mph": ("mile per hour", "miles per hour"),
    "km": ("kilometer", "kilometers"), "cm": ("centimeter", "centimeters"),
    "mm": ("millimeter", "millimeters"), "m": ("meter", "meters"),
    "kg": ("kilogram", "kilograms"), "mg": ("milligram", "milligrams"), "g": ("gram", "grams"),
    "lbs": ("pound", "pounds"), "lb": ("pound", "pounds"), "oz": ("ounce", "ounces"),
    "ft": ("foot", "feet"), "in": ("inch", "inches"), "ml": ("milliliter", "milliliters"),
    "kHz": ("kilohertz", "kilohertz"), "Hz": ("hertz", "hertz"),
    "GB": ("gigabyte", "gigabytes"), "MB": ("megabyte", "megabytes"),
    "ms": ("millisecond", "milliseconds"), "min": ("minute", "minutes"),
}  # fmt: skip
# Ordinary words as well, so they count as units only where a stop follows ("5 in.").
_NEEDS_STOP = {"in", "m", "g"}

_CURRENCY = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "₽": ("ruble", "rubles", "kopeck", "kopecks"),
}
_SIGNS = {
    "%": "percent", "&": "and", "+": "plus", "=": "equals", "@": "at", "#": "number",
    "№": "number", "°": "degrees", "²": "squared", "³": "cubed",
}  # fmt: skip

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_FIRST_SPOKEN_YEAR, _LAST_SPOKEN_YEAR = 1100, 2099
_HOURS_A_DAY, _HOURS_A_HALF_DAY, _MINUTES = 24, 12, 60
_DAYS_A_MONTH = 31


def transliterate(letter: str) -> str:
    """The nearest English letters: accents go, other scripts are spelled out."""
    if letter.isascii():
        return letter
    try:
        unidecode = importlib.import_module("unidecode").unidecode
    except ImportError as error:
        raise ToolMissingError("unidecode", extra="text") from error
    return "".join(char for char in str(unidecode(letter)) if char.isalpha() or char == "'")


def expand(text: str, *, numbers: bool, abbreviations: bool) -> str:
    """Put signs, and if asked for numbers and abbreviations, into words."""
    if numbers:
        text = re.sub(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", "", text)  # 1,000,000
        text = _currency(text)
        text = _dates(text)
        text = _times(text)
        text = _ordinals(text)
        text = re.sub(r"([0-9][.,;:!?]?)(?=[A-Za-z])", r"\1 ", text)
    if abbreviations:
        text = _units(_abbreviations(text))
    if numbers:
        text = _numbers(text)
    text = re.sub(r"[$€£₽]", lambda match: f" {_CURRENCY[match[0]][1]} ", text)
    return re.sub(r"[%&+=@#№°²³]", lambda match: f" {_SIGNS[match[0]]} ", text)


def _abbreviations(text: str) -> str:
    def word(match: re.Match[str]) -> str:
        said = (_TITLES | _PHRASES)[match[1].lower()]
        said = said.capitalize() if match[1][0].isupper() else said
        return said + ("." if match.end() == len(text) else " ")

    names = "|".join(re.escape(name) for name in (*_PHRASES, *_TITLES))
    text = re.sub(rf"(?<![A-Za-z0-9])({names})\.", word, text, flags=re.IGNORECASE)
    text = re.sub(r"(?<![A-Za-z0-9])St\.(?= [A-Z])", "saint", text)
    text = re.sub(r"(?<![A-Za-z0-9])st\.(?=$)", "street.", text, flags=re.IGNORECASE)
    text = re.sub(r"(?<![A-Za-z0-9])st\.", "street ", text, flags=re.IGNORECASE)
    return re.sub(r"(?<![A-Za-z0-9])no\. ?(?=[0-9])", "number ", text, flags=re.IGNORECASE)


def _currency(text: str) -> str:
    def amount(match: re.Match[str]) -> str:
        one, many, cent, cents = _CURRENCY[match[1]]
        whole, fraction, scale = match[2], match[3], match[4]
        if scale:
            value = f"{whole}.{fraction}" if fraction else whole
            return f" {_read_number(value)} {scale} {many} "
        said = f" {cardinal(whole, LANGUAGE)} {one if whole == '1' else many} "
        if not fraction or not int(fraction):
            return said
        if len(fraction) != 2:
            return f" {_read_number(f'{whole}.{fraction}')} {many} "
        number = str(int(fraction))
        return said + f"and {cardinal(number, LANGUAGE)} {cent if number == '1' else cents} "

    pattern = r"([$€£₽]) ?([0-9]+)(?:\.([0-9]+))?(?: (thousand|million|billion|trillion)\b)?"
    return re.sub(pattern, amount, text)


def _dates(text: str) -> str:
    def date(match: re.Match[str]) -> str:
        months, days = int(match[2]), int(match[3])
        if not (1 <= months <= len(MONTHS) and 1 <= days <= _DAYS_A_MONTH):
            return match[0]
        return f" {MONTHS[months - 1]} {ordinal(str(days), LANGUAGE)} {_read_year(match[1])} "

    text = re.sub(r"(?<![0-9-])([0-9]{4})-([0-9]{2})-([0-9]{2})(?![0-9-])", date, text)
    names = "|".join(MONTHS)
    return re.sub(
        rf"\b({names}) ([0-9]{{1,2}})(?:st|nd|rd|th)?\b(?!:)",
        lambda match: f"{match[1]} {ordinal(match[2], LANGUAGE)}",
        text,
    )


def _times(text: str) -> str:
    def clock(match: re.Match[str]) -> str:
        hours, minutes, half = int(match[1]), int(match[2]), match[3]
        if hours >= _HOURS_A_DAY or minutes >= _MINUTES:
            return match[0]
        said = cardinal(str(hours), LANGUAGE)
        if minutes:
            said += (" oh " if minutes < 10 else " ") + cardinal(str(minutes), LANGUAGE)
        elif not half:
            said += " o'clock" if 1 <= hours <= _HOURS_A_HALF_DAY else " hundred"
        return f" {said}{f' {half[0]} m' if half else ''} "

    pattern = r"(?<![0-9:])([0-9]{1,2}):([0-9]{2})(?![0-9:])(?: ?([ap]) ?m\b)?"
    text = re.sub(pattern, clock, text, flags=re.IGNORECASE)
    return re.sub(
        r"(?<![0-9:.])([0-9]{1,2}) ?([ap])m\b",
        lambda match: f" {cardinal(str(int(match[1])), LANGUAGE)} {match[2]} m ",
        text,
        flags=re.IGNORECASE,
    )


def _units(text: str) -> str:
    def measure(match: re.Match[str]) -> str:
        unit = match[2]
        if unit in _NEEDS_STOP and not match[3]:
            return match[0]
        one, many = _UNITS[unit]
        end = "." if match[3] and match.end() == len(text) else ""
        return f"{match[1]} {one if match[1] == '1' else many}{end}"

    names = "|".join(re.escape(name) for name in sorted(_UNITS, key=len, reverse=True))
    return re.sub(rf"({_NUMBER}) ?({names})(?![A-Za-z])(\.?)", measure, text)


def _ordinals(text: str) -> str:
    text = re.sub(r"([0-9]{3}0)'?s\b", lambda m: f" {_plural(_read_year(m[1]))} ", text)
    return re.sub(r"([0-9]+)(?:st|nd|rd|th)\b", lambda m: f" {ordinal(m[1], LANGUAGE)} ", text)


def _numbers(text: str) -> str:
    text = re.sub(r"(?<=[0-9]) ?- ?(?=[0-9])", " to ", text)
    text = re.sub(r"(?:(?<=^)|(?<= ))-(?=[0-9])", "minus ", text)
    return re.sub(_NUMBER, lambda match: f" {_read_number(match[0])} ", text)


def _plural(words: str) -> str:
    return words[:-1] + "ies" if words.endswith("y") else words + "s"


def _read_year(digits: str) -> str:
    if _FIRST_SPOKEN_YEAR <= int(digits) <= _LAST_SPOKEN_YEAR:
        return year(digits, LANGUAGE)
    return cardinal(digits, LANGUAGE)


def _read_number(number: str) -> str:
    whole, _, fraction = number.partition(".")
    if fraction:
        if len(whole) > MAX_WORD_DIGITS:
            return f"{spell_digits(whole, LANGUAGE)} point {spell_digits(fraction, LANGUAGE)}"
        said = cardinal(str(int(whole)), LANGUAGE)
        return f"{said} point {spell_digits(fraction, LANGUAGE)}"
    return _read_year(whole) if len(whole) == 4 else cardinal(whole, LANGUAGE)
