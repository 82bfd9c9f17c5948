"""Russian numbers as they are read: the case and gender that the words around them ask for."""

import re

from kamerton.text.numbers import MAX_WORD_DIGITS, cardinal, decimal, ordinal, spell_digits
from kamerton.text.russian_words import CURRENCIES, ENDINGS, MONTHS, SCALES, UNITS

LANGUAGE = "ru"
NUMBER = r"[0-9]+(?:,[0-9]+)?"
_YEAR_DIGITS = 4
_MONTHS_A_YEAR, _DAYS_A_MONTH, _HOURS_A_DAY, _MINUTES = 12, 31, 24, 60

# After these a number stands in the genitive.
_WITH_GENITIVE = (
    "от|до|из|около|более|менее|больше|меньше|свыше|порядка|после|старше|младше|с(?= [0-9]+ до)"
)
_GENITIVE = rf"(?:(?<![а-яё])({_WITH_GENITIVE}) +)?"
_NO_NOUNS = {
    "или", "если", "они", "чтобы", "почти", "при", "мы", "вы", "ты", "бы", "ли", "ни",
}  # fmt: skip
_FRACTIONS = {"2": "вторая|вторых", "3": "третья|третьих", "4": "четвёртая|четвёртых"}


def join_groups(text: str) -> str:
    """Write thousands together: "1 000 000"."""
    return re.sub(
        r"(?<![0-9])[0-9]{1,3}(?: [0-9]{3})+(?![0-9])", lambda m: m[0].replace(" ", ""), text
    )


def money(text: str) -> str:
    """Signs of currencies behind the amount, and roubles with their copecks apart."""
    text = re.sub(
        rf"([{CURRENCIES}]) ?({NUMBER}(?: (?:тыс|млн|млрд)(?![а-яё])\.?)?)", r"\2 \1", text
    )
    return re.sub(
        r"(?<![0-9,])([0-9]+),([0-9]{2}) ?(?:руб(?![а-яё])(\.?)|₽)", r"\1 руб \2 коп\3", text
    )


def telephones(text: str) -> str:
    """The last seven digits in three numbers."""
    return re.sub(r"(?<![0-9-])([0-9]{3})-([0-9]{2})-([0-9]{2})(?![0-9-])", r"\1 \2 \3", text)


def _year_words(digits: str, case: str) -> str:
    words = ordinal(digits, LANGUAGE, case=case)
    return words.removeprefix("одна ") if words.startswith("одна тысяча ") else words


def dates(text: str) -> str:
    """Days of months; a date after a word is when something happened: the genitive."""

    def numeric(match: re.Match[str]) -> str:
        days, months = int(match[2]), int(match[3])
        if not (1 <= days <= _DAYS_A_MONTH and 1 <= months <= _MONTHS_A_YEAR):
            return match[0]
        now = match[1] is None or match[1].lower() in ("сегодня", "завтра", "вчера", "это")
        day = ordinal(str(days), LANGUAGE, gender="n", case="n" if now else "g")
        end = "." if match[5] and match.end() == len(match.string) else " "
        before = f"{match[1]} " if match[1] else ""
        return f"{before} {day} {MONTHS[months - 1]} {_year_words(match[4], 'g')} года{end}"

    text = re.sub(
        r"(?:([а-яё]+) )?(?<![0-9.])([0-9]{1,2})\.([0-9]{2})\.([0-9]{4})(?![0-9])"
        r"(?: ?г(\.)| года)?",
        numeric,
        text,
        flags=re.IGNORECASE,
    )
    return re.sub(
        rf"(?<![0-9.,])([0-9]{{1,2}}) ({'|'.join(MONTHS)})\b",
        lambda m: f" {ordinal(str(int(m[1])), LANGUAGE, case='g', gender='n')} {m[2]}",
        text,
        flags=re.IGNORECASE,
    )


def years(text: str) -> str:
    """Years and spans of years, where the word "год" or its abbreviation shows them."""
    text = re.sub(
        r"(?<![а-яё])с ([0-9]{4}) по ([0-9]{4})(?![0-9])",
        lambda m: f"с {_year_words(m[1], 'g')} по {_year_words(m[2], 'n')}",
        text,
        flags=re.IGNORECASE,
    )
    text = re.sub(
        r"(?<![0-9.,])([0-9]{4}) ?- ?([0-9]{4}) ?(годов|годах|годы|гг)(?![а-яё])(\.?)", _span, text
    )
    forms = {"год": "n", "года": "g", "году": "p", "годом": "i", "годы": "n"}
    in_it = re.compile(r"(?:^|[^а-яё])(?:в|во|о|об|при) $", re.IGNORECASE)
    towards = re.compile(r"(?:^|[^а-яё])(?:к|по) $", re.IGNORECASE)

    def with_year(match: re.Match[str]) -> str:
        word, before = match[2], match.string[: match.start()]
        if word == "г":
            word = "году" if in_it.search(before) else "года"
        case = "d" if word == "году" and towards.search(before) else forms[word]
        end = "." if match[3] and match.end() == len(match.string) else ""
        return f"{_year_words(match[1], case)} {word}{end}"

    return re.sub(
        r"(?<![0-9.,])([0-9]{4}) ?(года|году|годом|год|г)(?![а-яё0-9])(\.?)", with_year, text
    )


def _span(match: re.Match[str]) -> str:
    first, last, word, stop = match.groups()
    if word == "гг":
        inside = re.search(r"(?:^|[^а-яё])(?:в|во) $", match.string[: match.start()], re.IGNORECASE)
        word = "годах" if inside else "годы"
    case = {"годов": "g", "годах": "p", "годы": "n"}[word]
    end = "." if stop and match.end() == len(match.string) else ""
    return f"{_year_words(first, case)} - {_year_words(last, case)} {word}{end}"


def times(text: str) -> str:
    """Clock times; after "с", "до" and their like in the genitive. Then scores: "3:2"."""

    def clock(match: re.Match[str]) -> str:
        before, hours, minutes = match[1], int(match[2]), int(match[3])
        if hours >= _HOURS_A_DAY or minutes >= _MINUTES:
            return match[0]
        case = "g" if before else "n"
        said = cardinal(str(hours), LANGUAGE, case=case)
        rest = "ноль" if minutes == 0 else cardinal(str(minutes), LANGUAGE, case=case)
        zero = " ноль" if minutes < 10 else ""
        return f"{before or ''} {said}{zero} {rest} "

    text = re.sub(
        r"(?:(?<![а-яё])(с|до|от|после|около) )?(?<![0-9:])([0-9]{1,2}):([0-9]{2})(?![0-9:])",
        clock,
        text,
        flags=re.IGNORECASE,
    )
    return re.sub(r"(?<![0-9:])([0-9]{1,3}):([0-9]{1,3})(?![0-9:])", r"\1 \2", text)


def fractions(text: str) -> str:
    """Halves to tenths."""

    def say(match: re.Match[str]) -> str:
        part, parts = match[1], match[2]
        if not (2 <= int(parts) <= 10 and 0 < int(part) < int(parts)):
            return match[0]
        one, many = _FRACTIONS.get(parts, "|").split("|")
        one = one or ordinal(parts, LANGUAGE, gender="f")
        many = many or ordinal(parts, LANGUAGE, case="g", plural=True)
        return f" {cardinal(part, LANGUAGE, gender='f')} {one if part == '1' else many} "

    return re.sub(r"(?<![0-9/,.])([0-9])/([0-9]{1,2})(?![0-9/])", say, text)


def ordinals(text: str) -> str:
    """Numbers with an ending ("5-го"), or with the rest of a word behind ("10-летний")."""
    text = re.sub(
        r"(?<![0-9])([0-9]*[2-90]0)-е(?= (?:годы|гг)|[.,;:!?)\"]|$)",
        lambda m: f" {ordinal(m[1], LANGUAGE, plural=True)} ",
        text,
    )
    endings = "|".join(sorted(ENDINGS, key=len, reverse=True))
    text = re.sub(
        rf"([0-9]+)-({endings})(?![а-яё])",
        lambda match: f" {ordinal(match[1], LANGUAGE, **ENDINGS[match[2]])} ",
        text,
    )
    return re.sub(r"(?<![0-9-])([1-9][0-9]{0,2})-([а-яё]{4,})", _compound, text)


_COMPOUND_PARTS = {"одного": "одно", "ста": "сто", "девяноста": "девяносто"}


def _compound(match: re.Match[str]) -> str:
    parts = cardinal(match[1], LANGUAGE, case="g").split()
    return f" {''.join(_COMPOUND_PARTS.get(part, part) for part in parts)}{match[2]}"


def _form(number: str, forms: tuple[str, str, str, str], *, genitive: bool) -> str:
    """The form of a noun that follows a number; after a fraction it is the genitive singular."""
    if "," in number:
        return forms[1]
    last, tens = int(number[-1]), int(number[-2:])
    if last == 1 and tens != 11:
        return forms[1 if genitive else 0]
    if last in (2, 3, 4) and tens not in (12, 13, 14):
        return forms[2 if genitive else 1]
    return forms[2]


def spans(text: str) -> str:
    """Hyphens between numbers apart from them, and those before one as a minus."""
    text = re.sub(r"(?<=[0-9]) ?- ?(?=[0-9])", " - ", text)
    return re.sub(r"(?:(?<=^)|(?<= ))-(?=[0-9])", "минус ", text)


def units(text: str, *, numbers: bool) -> str:
    """Abbreviated units behind numbers; thousands and millions of a currency too."""
    names = "|".join(re.escape(name) for name in sorted(UNITS, key=len, reverse=True))
    pattern = re.compile(
        rf"{_GENITIVE}({NUMBER}) ?({names})(?![а-яёА-ЯЁ²³])(\.?)(?: ?([{CURRENCIES}]|руб)\.?)?",
        re.IGNORECASE,
    )

    def measure(match: re.Match[str]) -> str:
        before, number, unit, stop, currency = match.groups()
        unit = unit.lower()
        if unit == "г" and len(number) == _YEAR_DIGITS:  # a year, where numbers stay digits
            return f"{before or ''} {number} года"
        forms, genitive = UNITS[unit], before is not None
        case = "g" if genitive else "n"
        amount = read_number(number, forms[3], case) if numbers else number
        said = f"{before or ''} {amount} {_form(number, forms, genitive=genitive)}"
        if currency and unit in SCALES:  # "5 млн руб.": thousands and millions of roubles
            said += f" {UNITS[currency.lower()][2]}"
        elif currency:
            said += f" {currency}"
        abbreviated = stop and unit not in "%°\ue001\ue002" + CURRENCIES
        ends = match.end() == len(match.string)
        return f" {said}{'.' if stop and (ends or not abbreviated) else ' '}"

    return pattern.sub(measure, text)


def rest(text: str) -> str:
    """What is left of numbers, in the case and gender that their neighbours show."""

    def say(match: re.Match[str]) -> str:
        before, number, after = match[1], match[2], match[3] or ""
        gender, case = ("m", "g") if before else _agreement(number, after)
        return f"{before or ''} {read_number(number, gender, case)} "

    return re.sub(rf"{_GENITIVE}({NUMBER})(?: *(?= ([а-яё]+)))?", say, text, flags=re.IGNORECASE)


def _agreement(number: str, noun: str) -> tuple[str, str]:
    """Gender and case of "один" and "два" by the ending of the noun behind."""
    last, tens = number[-1], number[-2:]
    word = noun.lower()
    if "," in number or not word or word in _NO_NOUNS:
        return "m", "n"
    if last == "1" and tens != "11":
        if word.endswith(("у", "ю")):
            return "f", "a"
        if word.endswith(("а", "я")):
            return "f", "n"
        return ("n" if word.endswith(("о", "е")) and len(word) > 2 else "m"), "n"
    feminine = last == "2" and tens != "12" and word.endswith(("и", "ы")) and len(word) > 2
    return ("f" if feminine else "m"), "n"


def read_number(number: str, gender: str, case: str = "n") -> str:
    """A whole or decimal number in words; decimals stand in the nominative."""
    whole, _, fraction = number.partition(",")
    if fraction:
        return decimal(whole, fraction, LANGUAGE)
    if len(whole) > MAX_WORD_DIGITS:
        return spell_digits(whole, LANGUAGE)
    return cardinal(whole, LANGUAGE, gender=gender, case=case)
