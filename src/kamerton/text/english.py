"""English: abbreviations, signs and numbers in words."""

import importlib
import re

from kamerton.core.errors import ToolMissingError
from kamerton.text import roman
from kamerton.text.numbers import MAX_WORD_DIGITS, cardinal, ordinal, spell_digits, year

LANGUAGE = "en"

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July",
    "August", "September", "October", "November", "December",
)  # fmt: skip
_ANY_MONTH = "|".join(MONTHS)

# Written with a stop; the stop stays when it also ends the sentence.
_TITLES = {
    "mr": "mister", "mrs": "missus", "ms": "miz", "messrs": "messieurs", "dr": "doctor",
    "prof": "professor", "rev": "reverend", "hon": "honorable", "gen": "general",
    "col": "colonel", "capt": "captain", "lt": "lieutenant", "sgt": "sergeant", "gov": "governor",
    "sen": "senator", "jr": "junior", "sr": "senior", "vs": "versus", "etc": "et cetera",
    "approx": "approximately", "dept": "department", "est": "established", "inc": "incorporated",
    "ltd": "limited", "ave": "avenue", "blvd": "boulevard", "rd": "road",
}  # fmt: skip
_PHRASES = {"e.g": "for example", "i.e": "that is", "a.m": "a m", "p.m": "p m", "ph.d": "p h d"}
_BEFORE_NUMBERS = {
    "no": "number", "nos": "numbers", "vol": "volume", "fig": "figure", "figs": "figures",
    "ch": "chapter", "p": "page", "pp": "pages",
}  # fmt: skip
_BEFORE_NAMES = {"St": "saint", "Mt": "mount", "Ft": "fort"}

_UNITS = {
    "km/h": ("kilometer per hour", "kilometers per hour"),
    "mph": ("mile per hour", "miles per hour"),
    "m/s": ("meter per second", "meters per second"),
    "km": ("kilometer", "kilometers"), "cm": ("centimeter", "centimeters"),
    "mm": ("millimeter", "millimeters"), "m": ("meter", "meters"),
    "kg": ("kilogram", "kilograms"), "mg": ("milligram", "milligrams"), "g": ("gram", "grams"),
    "lbs": ("pound", "pounds"), "lb": ("pound", "pounds"), "oz": ("ounce", "ounces"),
    "ft": ("foot", "feet"), "in": ("inch", "inches"), "ml": ("milliliter", "milliliters"),
    "kHz": ("kilohertz", "kilohertz"), "MHz": ("megahertz", "megahertz"),
    "GHz": ("gigahertz", "gigahertz"), "Hz": ("hertz", "hertz"),
    "TB": ("terabyte", "terabytes"), "GB": ("gigabyte", "gigabytes"),
    "MB": ("megabyte", "megabytes"), "kW": ("kilowatt", "kilowatts"),
    "ms": ("millisecond", "milliseconds"), "min": ("minute", "minutes"),
    "°C": ("degree celsius", "degrees celsius"),
    "°F": ("degree fahrenheit", "degrees fahrenheit"),
}  # fmt: skip
_NEEDS_STOP = {"in"}  # an ordinary word as well: a unit only where a stop follows ("5 in.")
_POWERS = {"²": "square ", "³": "cubic ", None: ""}

_CURRENCY = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "₽": ("ruble", "rubles", "kopeck", "kopecks"),
}
_SCALES = {
    "k": "thousand", "K": "thousand", "m": "million", "M": "million", "mn": "million",
    "bn": "billion", "b": "billion", "B": "billion", "tn": "trillion",
}  # fmt: skip
_SIGNS = {
    "%": "percent", "&": "and", "+": "plus", "=": "equals", "@": "at", "#": "number",
    "№": "number", "°": "degrees", "²": "squared", "³": "cubed", "×": "times",
    "÷": "divided by", "±": "plus or minus",
}  # fmt: skip

# A numeral after one of these is a plain number, after a sovereign's name an ordinal.
_COUNTED = (
    "Act|Appendix|Article|Book|Bowl|Chapter|Class|Episode|Figure|Level|Part|Phase|Scene|Section|"
    "Stage|Table|Title|Type|Volume|War"
)
_SOVEREIGNS = (
    "Alexander|Alfonso|Benedict|Catherine|Charles|Clement|Edward|Elizabeth|Ferdinand|Francis|"
    "Frederick|George|Gregory|Gustav|Henry|Innocent|Ivan|James|John|Leo|Leopold|Louis|Mary|"
    "Napoleon|Nicholas|Otto|Paul|Peter|Philip|Pius|Ptolemy|Ramesses|Richard|Urban|Wilhelm|William"
)

_DOMAINS = "com|org|net|edu|gov|info|io|uk|de|ru|eu"
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_JOINT = "\ue000"  # a hyphen between a word and a number, which stays one when the number is read
_FIRST_SPOKEN_YEAR, _LAST_SPOKEN_YEAR = 1100, 2099
_HOURS_A_DAY, _HOURS_A_HALF_DAY, _MINUTES = 24, 12, 60
_DAYS_A_MONTH = 31
_SPOKEN_DENOMINATORS = {*range(2, 11), 12, 16, 100}


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
    text = _addresses(text)
    if abbreviations:
        text = _initials(text)
    if numbers:
        text = _roman(text)
        text = re.sub(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", "", text)  # 1,000,000
        text = re.sub(r"(?<=[A-Za-z])-(?=[0-9])|(?<=[0-9])-(?=[A-Za-z])", _JOINT, text)
        text = _currency(text)
        text = _telephones(text)
        text = _dates(text)
        text = _times(text)
        text = _fractions(text)
        text = _ordinals(text)
    if abbreviations:
        text = _acronyms(_units(_abbreviations(text)))
    if numbers:
        text = re.sub(r"([0-9][.,;:!?]?)(?=[A-Za-z])", r"\1 ", text)
        text = _numbers(text)
        text = re.sub(f" *{_JOINT} *", "-", text)
    text = re.sub(r"[$€£₽]", lambda match: f" {_CURRENCY[match[0]][1]} ", text)
    return re.sub(r"[%&+=@#№°²³×÷±]", lambda match: f" {_SIGNS[match[0]]} ", text)


def _addresses(text: str) -> str:
    """Web addresses as they are read out."""
    text = re.sub(r"(?:https?:/{1,2})(?=[A-Za-z0-9])", "", text, flags=re.IGNORECASE)
    text = re.sub(r"(?<![A-Za-z])www\.(?=[A-Za-z0-9])", "w w w dot ", text, flags=re.IGNORECASE)
    domain = rf"(?=(?:[a-z0-9-]+\.)*(?:{_DOMAINS})(?![A-Za-z0-9]))"
    text = re.sub(rf"(?<=[A-Za-z0-9])\.{domain}", " dot ", text)
    return re.sub(rf"(?<= dot )((?:{_DOMAINS}))/(?=[A-Za-z0-9])", r"\1 slash ", text)


def _initials(text: str) -> str:
    """Letters with stops, two or more of them, as letters: "U.S.", "J. R. R. Tolkien"."""

    def spell(match: re.Match[str]) -> str:
        letters = " ".join(re.findall(r"[A-Z]", match[0]))
        return letters + ("." if match.end() == len(match.string) else " ")

    return re.sub(r"(?<![A-Za-z0-9.])(?:[A-Z]\. ?){2,}", spell, text)


def _roman(text: str) -> str:
    """Numerals where the word before says that they are some; "I" only before a stop."""

    def say(match: re.Match[str]) -> str:
        number = str(roman.value(match[3]))
        if match[1]:
            return f"{match[1]} {cardinal(number, LANGUAGE)}"
        return f"{match[2]} the {ordinal(number, LANGUAGE)}"

    words = rf"\b(?:({_COUNTED})|({_SOVEREIGNS}))"
    return re.sub(
        rf"{words} ({roman.PATTERN})(?![A-Za-z0-9'-])(?:(?<! I)|(?=[.,;:!?)]|$| of ))", say, text
    )


def _abbreviations(text: str) -> str:
    def word(match: re.Match[str]) -> str:
        said = (_TITLES | _PHRASES)[match[1].lower()]
        said = said.capitalize() if match[1][0].isupper() else said
        return said + ("." if match.end() == len(text) else " ")

    names = "|".join(re.escape(name) for name in (*_PHRASES, *_TITLES))
    text = re.sub(rf"(?<![A-Za-z0-9])({names})\.", word, text, flags=re.IGNORECASE)
    text = re.sub(
        r"(?<![A-Za-z0-9])(St|Mt|Ft)\.(?= [A-Z])", lambda match: _BEFORE_NAMES[match[1]], text
    )
    text = re.sub(r"(?<![A-Za-z0-9])st\.(?=$)", "street.", text, flags=re.IGNORECASE)
    text = re.sub(r"(?<![A-Za-z0-9])st\.", "street ", text, flags=re.IGNORECASE)
    numbered = "|".join(sorted(_BEFORE_NUMBERS, key=len, reverse=True))
    return re.sub(
        rf"(?<![A-Za-z0-9])({numbered})\. ?(?=[0-9])",
        lambda match: f"{_BEFORE_NUMBERS[match[1].lower()]} ",
        text,
        flags=re.IGNORECASE,
    )


def _acronyms(text: str) -> str:
    """Capitals without a vowel are letters: "BBC", but not in a text that is all capitals."""
    if not re.search(r"[a-z]", text):
        return text

    def spell(match: re.Match[str]) -> str:
        word = match[0]
        if word.lower() in _TITLES or re.fullmatch(roman.PATTERN, word):
            return word
        return " ".join(word)

    return re.sub(r"(?<![A-Za-z0-9])[B-DF-HJ-NP-TV-XZ]{2,5}(?![A-Za-z])", spell, text)


def _currency(text: str) -> str:
    def amount(match: re.Match[str]) -> str:
        one, many, cent, cents = _CURRENCY[match[1]]
        whole, fraction = match[2], match[3]
        if scale := match[4] or _SCALES.get(match[5] or ""):
            value = f"{whole}.{fraction}" if fraction else whole
            return f" {_read_number(value)} {scale} {many} "
        said = f" {cardinal(whole, LANGUAGE)} {one if whole == '1' else many} "
        if not fraction or not int(fraction):
            return said
        if len(fraction) != 2:
            return f" {_read_number(f'{whole}.{fraction}')} {many} "
        number = str(int(fraction))
        small = f"{cardinal(number, LANGUAGE)} {cent if number == '1' else cents} "
        return f" {small}" if whole == "0" else f"{said}and {small}"

    text = re.sub(rf"(?<![$€£₽0-9.])({_NUMBER}) ?([$€£₽])(?! ?[0-9])", r"\2\1", text)
    scales = "|".join(sorted(_SCALES, key=len, reverse=True))
    pattern = (
        r"([$€£₽]) ?([0-9]+)(?:\.([0-9]+))?"
        rf"(?: (thousand|million|billion|trillion)\b|({scales})\b)?"
    )
    return re.sub(pattern, amount, text)


def _telephones(text: str) -> str:
    """Digit by digit where the form, or the word before a short one, shows what it is."""

    def digits(match: re.Match[str]) -> str:
        return f"{match[1] or ''} {spell_digits(match[2], LANGUAGE)} "

    far = r"()((?<![0-9-])(?:\+?[0-9]{1,3}[ -])?(?:\([0-9]{3}\) ?|[0-9]{3}[ -])[0-9]{3}-[0-9]{4})"
    near = r"\b((?:call|dial|phone|text|tel\.|fax)) ([0-9]{3}-[0-9]{4})"
    for form in (far, near):
        text = re.sub(rf"{form}(?![0-9-])", digits, text, flags=re.IGNORECASE)
    return text


def _dates(text: str) -> str:
    def date(match: re.Match[str], years: int, months: int, days: int) -> str:
        month, day = int(match[months]), int(match[days])
        if not (1 <= month <= len(MONTHS) and 1 <= day <= _DAYS_A_MONTH):
            return match[0]
        said = f"{MONTHS[month - 1]} {ordinal(str(day), LANGUAGE)}"
        return f" {said} {_read_year(match[years])} "

    text = re.sub(
        r"(?<![0-9-])([0-9]{4})-([0-9]{2})-([0-9]{2})(?![0-9-])", lambda m: date(m, 1, 2, 3), text
    )
    text = re.sub(
        r"(?<![0-9/])([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})(?![0-9/])",
        lambda m: date(m, 3, 1, 2),
        text,
    )
    text = re.sub(
        r"\b(Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Oct|Nov|Dec)t?\.? (?=[0-9])",
        lambda match: f"{next(month for month in MONTHS if month.startswith(match[1]))} ",
        text,
    )
    text = re.sub(
        rf"\b([Tt]he )?(?<![0-9:.,])([0-9]{{1,2}})(?:st|nd|rd|th)?(?: of)? ({_ANY_MONTH})\b",
        lambda m: f"{m[1] or 'the '}{ordinal(m[2], LANGUAGE)} of {m[3]}",
        text,
    )
    return re.sub(
        rf"\b({_ANY_MONTH}) ([0-9]{{1,2}})(?:st|nd|rd|th)?\b(?!:)",
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


def _fractions(text: str) -> str:
    def say(match: re.Match[str]) -> str:
        whole, part, parts = match[1], match[2], match[3]
        if int(parts) not in _SPOKEN_DENOMINATORS or not 0 < int(part) < int(parts):
            return match[0]
        one = {"2": "half", "4": "quarter"}.get(parts) or ordinal(parts, LANGUAGE)
        name = one if part == "1" else f"{one}s"
        if not whole:
            return f" {cardinal(part, LANGUAGE)} {name} "
        count = "a" if part == "1" else cardinal(part, LANGUAGE)
        return f" {cardinal(whole, LANGUAGE)} and {count} {name} "

    return re.sub(r"(?<![0-9/.])(?:([0-9]+) )?([0-9]{1,3})/([0-9]{1,3})(?![0-9/])", say, text)


def _units(text: str) -> str:
    def measure(match: re.Match[str]) -> str:
        number, unit, power, stop = match.groups()
        if unit in _NEEDS_STOP and not stop:
            return match[0]
        one, many = _UNITS[unit]
        end = "." if stop and match.end() == len(text) else ""
        return f"{number} {_POWERS[power]}{one if number == '1' else many}{end}"

    text = re.sub(r"(?<=[0-9]) ?° ?(?=[CF]\b)", " °", text)
    names = "|".join(re.escape(name) for name in sorted(_UNITS, key=len, reverse=True))
    return re.sub(rf"({_NUMBER}) ?({names})([²³])?(?![A-Za-z])(\.?)", measure, text)


def _ordinals(text: str) -> str:
    text = re.sub(r"([0-9]{3}0)'?s\b", lambda m: f" {_plural(_read_year(m[1]))} ", text)
    text = re.sub(
        r"(?<![0-9.'])'?([2-9]0)'?s\b", lambda m: f" {_plural(cardinal(m[1], LANGUAGE))} ", text
    )
    return re.sub(r"([0-9]+)(?:st|nd|rd|th)\b", lambda m: f" {ordinal(m[1], LANGUAGE)} ", text)


def _numbers(text: str) -> str:
    text = re.sub(
        r"[0-9]+(?:\.[0-9]+){2,}", lambda m: m[0].replace(".", " point "), text
    )  # versions, addresses
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
