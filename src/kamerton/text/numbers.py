"""Numbers in words, by num2words, with the corners it does not cover."""

import importlib
from typing import Any

from kamerton.core.errors import ToolMissingError

# Beyond this a number is read digit by digit: nobody says "sextillion", and the libraries end.
MAX_WORD_DIGITS = 15


def _num2words() -> Any:
    try:
        return importlib.import_module("num2words")
    except ImportError as error:
        raise ToolMissingError("num2words", extra="text") from error


def speaks(language: str) -> bool:
    """Whether numbers can be put in words in ``language``."""
    return language in _num2words().CONVERTER_CLASSES


def spell_digits(digits: str, language: str) -> str:
    """One word per digit; other characters are passed over."""
    return " ".join(cardinal(digit, language) for digit in digits if digit.isdigit())


def cardinal(digits: str, language: str, **grammar: Any) -> str:
    """A whole number in words; long ones and those with leading zeros are read by digits."""
    if len(digits) > MAX_WORD_DIGITS or (len(digits) > 1 and digits[0] == "0"):
        return spell_digits(digits, language)
    return _words(int(digits), language, "cardinal", **grammar)


def ordinal(digits: str, language: str, **grammar: Any) -> str:
    """Which one in a row, in words; long ones are read by digits."""
    if len(digits) > MAX_WORD_DIGITS:
        return spell_digits(digits, language)
    return _words(int(digits), language, "ordinal", **grammar)


def year(digits: str, language: str) -> str:
    """A year as it is said where that differs from the number ("nineteen oh-five")."""
    return _words(int(digits), language, "year")


def decimal(whole: str, fraction: str, language: str) -> str:
    """A decimal number in words; fractions too long for the library are read by digits."""
    if len(whole) > MAX_WORD_DIGITS or len(fraction) > MAX_WORD_DIGITS:
        return f"{spell_digits(whole, language)} {spell_digits(fraction, language)}"
    return _words(f"{int(whole)}.{fraction}", language, "cardinal")


def _words(value: int | str, language: str, form: str, **grammar: Any) -> str:
    said = _num2words().num2words(value, lang=language, to=form, **grammar)
    return str(said).replace(",", "")
