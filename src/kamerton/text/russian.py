"""Russian: abbreviations, signs and numbers in words.

Case follows the few contexts that show it in writing (years, dates, endings as in "5-го"); a
number elsewhere stands in the nominative, for which the masculine is chosen unless the unit after
it is known to be feminine.
"""

import re

from kamerton.text.numbers import MAX_WORD_DIGITS, cardinal, decimal, ordinal, spell_digits

LANGUAGE = "ru"

MONTHS = (
    "января", "февраля", "марта", "апреля", "мая", "июня", "июля",
    "августа", "сентября", "октября", "ноября", "декабря",
)  # fmt: skip

_PHRASES = (
    (r"и ?т\. ?д\.", "и так далее"),
    (r"и ?т\. ?п\.", "и тому подобное"),
    (r"и ?др\.", "и другие"),
    (r"и ?пр\.", "и прочее"),
    (r"т\. ?е\.", "то есть"),
    (r"т\. ?к\.", "так как"),
    (r"т\. ?н\.", "так называемый"),
    (r"до ?н\. ?э\.", "до нашей эры"),
    (r"н\. ?э\.", "нашей эры"),
    (r"ул\.", "улица"),
    (r"пр-т\.?", "проспект"),
    (r"пл\.", "площадь"),
    (r"им\.", "имени"),
    (r"проф\.", "профессор"),
    (r"акад\.", "академик"),
    (r"(?<![0-9] )см\.", "смотри"),  # after a number: centimetres
    (r"напр\.", "например"),
    (r"гр\.", "гражданин"),
    (r"(?<![0-9] )стр\.", "страница"),
)

# one, two to four, five and more; gender of "один", "два" before it
_UNITS = {
    "тыс": ("тысяча", "тысячи", "тысяч", "f"),
    "млн": ("миллион", "миллиона", "миллионов", "m"),
    "млрд": ("миллиард", "миллиарда", "миллиардов", "m"),
    "руб": ("рубль", "рубля", "рублей", "m"),
    "коп": ("копейка", "копейки", "копеек", "f"),
    "км/ч": ("километр в час", "километра в час", "километров в час", "m"),
    "км": ("километр", "километра", "километров", "m"),
    "см": ("сантиметр", "сантиметра", "сантиметров", "m"),
    "мм": ("миллиметр", "миллиметра", "миллиметров", "m"),
    "кг": ("килограмм", "килограмма", "килограммов", "m"),
    "мг": ("миллиграмм", "миллиграмма", "миллиграммов", "m"),
    "мл": ("миллилитр", "миллилитра", "миллилитров", "m"),
    "кв. м": ("квадратный метр", "квадратных метра", "квадратных метров", "m"),
    "мин": ("минута", "минуты", "минут", "f"),
    "сек": ("секунда", "секунды", "секунд", "f"),
    "час": ("час", "часа", "часов", "m"),
    "стр": ("страница", "страницы", "страниц", "f"),
    "чел": ("человек", "человека", "человек", "m"),
    "м": ("метр", "метра", "метров", "m"),
    "г": ("грамм", "грамма", "граммов", "m"),
    "л": ("литр", "литра", "литров", "m"),
    "ч": ("час", "часа", "часов", "m"),
    "т": ("тонна", "тонны", "тонн", "f"),
    "%": ("процент", "процента", "процентов", "m"),
    "°": ("градус", "градуса", "градусов", "m"),
    "$": ("доллар", "доллара", "долларов", "m"),
    "€": ("евро", "евро", "евро", "m"),
    "£": ("фунт", "фунта", "фунтов", "m"),
    "₽": ("рубль", "рубля", "рублей", "m"),
}
_SCALES = {"тыс", "млн", "млрд"}
_SIGNS = {
    "%": "процентов", "&": "и", "+": "плюс", "=": "равно", "@": "собака", "#": "номер",
    "№": "номер", "°": "градусов", "$": "долларов", "€": "евро", "£": "фунтов", "₽": "рублей",
    "²": "в квадрате", "³": "в кубе",
}  # fmt: skip

# Written ending after a hyphen -> grammar of the ordinal.
_ENDINGS: dict[str, dict[str, object]] = {
    "ый": {}, "й": {}, "ой": {},
    "я": {"gender": "f"}, "ая": {"gender": "f"},
    "е": {"gender": "n"}, "ое": {"gender": "n"},
    "го": {"case": "g"}, "ого": {"case": "g"},
    "му": {"case": "d"}, "ому": {"case": "d"},
    "м": {"case": "p"}, "ом": {"case": "p"}, "ым": {"case": "i"},
    "ю": {"case": "a", "gender": "f"}, "ую": {"case": "a", "gender": "f"},
    "х": {"case": "g", "plural": True}, "ых": {"case": "g", "plural": True},
    "ми": {"case": "i", "plural": True}, "ыми": {"case": "i", "plural": True},
}  # fmt: skip

_LATIN_PAIRS = {
    "shch": "щ", "sh": "ш", "ch": "ч", "zh": "ж", "th": "т", "ph": "ф", "ck": "к", "oo": "у",
    "ee": "и", "ya": "я", "yu": "ю", "yo": "ё", "ts": "ц", "qu": "кв",
}  # fmt: skip
_LATIN_LETTERS = dict(zip("abcdefghijklmnopqrstuvwxyz", "абкдефгхижклмнопкрстувв*из", strict=True))
_LATIN_LETTERS["x"] = "кс"

_NUMBER = r"[0-9]+(?:,[0-9]+)?"
_YEAR_DIGITS = 4
_MONTHS_A_YEAR, _DAYS_A_MONTH, _HOURS_A_DAY, _MINUTES = 12, 31, 24, 60


def transliterate(letter: str) -> str:
    """Leave Russian and Latin letters (``expand`` spells those out); bring others to Latin."""
    if letter.isascii() or letter.lower() in "абвгдежзийклмнопрстуфхцчшщъыьэюяё":
        return letter
    from kamerton.text.english import transliterate as to_latin

    return to_latin(letter)


def expand(text: str, *, numbers: bool, abbreviations: bool) -> str:
    """Put signs and foreign letters, and if asked for numbers and abbreviations, into words."""
    text = re.sub(r"[A-Za-z]+", lambda match: _from_latin(match[0]), text)
    text = re.sub(r"([0-9][.,;:!?]?)(?=[а-яё])", r"\1 ", text, flags=re.IGNORECASE)
    if abbreviations:
        text = _abbreviations(text)
    if numbers:
        text = re.sub(r"(?<![0-9])[0-9]{1,3}(?: [0-9]{3})+(?![0-9])", _join_groups, text)
        text = re.sub(r"([$€£₽]) ?([0-9]+(?:,[0-9]+)?)", r"\2 \1", text)
        text = _dates(text)
        text = _years(text)
        text = _times(text)
        text = _ordinals(text)
        text = re.sub(r"(?<=[0-9]) ?- ?(?=[0-9])", " - ", text)
        text = re.sub(r"(?:(?<=^)|(?<= ))-(?=[0-9])", "минус ", text)
    if abbreviations:
        text = _units(text, numbers=numbers)
    if numbers:
        text = re.sub(_NUMBER, lambda match: f" {_read_number(match[0], 'm')} ", text)
    return re.sub(r"[%&+=@#№°²³$€£₽]", lambda match: f" {_SIGNS[match[0]]} ", text)


def _join_groups(match: re.Match[str]) -> str:
    return match[0].replace(" ", "")


def _abbreviations(text: str) -> str:
    for pattern, words in _PHRASES:

        def say(match: re.Match[str], words: str = words) -> str:
            return words + ("." if match.end() == len(match.string) else " ")

        guarded = rf"(?<![а-яёa-z0-9]){pattern}"
        text = re.sub(guarded, say, text, flags=re.IGNORECASE)
    return text


def _year_words(digits: str, case: str) -> str:
    words = ordinal(digits, LANGUAGE, case=case)
    return words.removeprefix("одна ") if words.startswith("одна тысяча ") else words


def _dates(text: str) -> str:
    def numeric(match: re.Match[str]) -> str:
        days, months = int(match[1]), int(match[2])
        if not (1 <= days <= _DAYS_A_MONTH and 1 <= months <= _MONTHS_A_YEAR):
            return match[0]
        day = ordinal(str(days), LANGUAGE, gender="n")
        return f" {day} {MONTHS[months - 1]} {_year_words(match[3], 'g')} года "

    text = re.sub(
        r"(?<![0-9.])([0-9]{1,2})\.([0-9]{2})\.([0-9]{4})(?![0-9])(?: ?г\.| года)?", numeric, text
    )
    return re.sub(
        rf"(?<![0-9.,])([0-9]{{1,2}}) ({'|'.join(MONTHS)})\b",
        lambda m: f" {ordinal(str(int(m[1])), LANGUAGE, case='g', gender='n')} {m[2]}",
        text,
        flags=re.IGNORECASE,
    )


def _years(text: str) -> str:
    forms = {"год": "n", "года": "g", "году": "p", "годом": "i", "годы": "n"}
    preposition = re.compile(r"(?:^|[^а-яё])(в|во|о|об|при) $", re.IGNORECASE)

    def with_year(match: re.Match[str]) -> str:
        word = match[2]
        if word == "г":
            word = "году" if preposition.search(match.string[: match.start()]) else "года"
        end = "." if match[3] and match.end() == len(match.string) else ""
        return f"{_year_words(match[1], forms[word])} {word}{end}"

    return re.sub(
        r"(?<![0-9.,])([0-9]{4}) ?(года|году|годом|год|г)(?![а-яё0-9])(\.?)", with_year, text
    )


def _times(text: str) -> str:
    def clock(match: re.Match[str]) -> str:
        hours, minutes = int(match[1]), int(match[2])
        if hours >= _HOURS_A_DAY or minutes >= _MINUTES:
            return match[0]
        said = cardinal(str(hours), LANGUAGE)
        zero = " ноль" if minutes < 10 else ""
        return f" {said}{zero} {cardinal(str(minutes), LANGUAGE)} "

    return re.sub(r"(?<![0-9:])([0-9]{1,2}):([0-9]{2})(?![0-9:])", clock, text)


def _ordinals(text: str) -> str:
    endings = "|".join(sorted(_ENDINGS, key=len, reverse=True))
    return re.sub(
        rf"([0-9]+)-({endings})(?![а-яё])",
        lambda match: f" {ordinal(match[1], LANGUAGE, **_ENDINGS[match[2]])} ",
        text,
    )


def _form(number: str, forms: tuple[str, str, str, str]) -> str:
    """The form of a noun that follows a number; after a fraction it is the genitive singular."""
    if "," in number:
        return forms[1]
    last, tens = int(number[-1]), int(number[-2:])
    if last == 1 and tens != 11:
        return forms[0]
    if last in (2, 3, 4) and tens not in (12, 13, 14):
        return forms[1]
    return forms[2]


def _units(text: str, *, numbers: bool) -> str:
    names = "|".join(re.escape(name) for name in sorted(_UNITS, key=len, reverse=True))
    pattern = re.compile(rf"({_NUMBER}) ?({names})(?![а-яёА-ЯЁ])(\.?)(?: ?([$€£₽]|руб)\.?)?")

    def measure(match: re.Match[str]) -> str:
        number, unit, stop, currency = match.groups()
        if unit == "г" and len(number) == _YEAR_DIGITS:  # a year, where numbers stay digits
            return f"{number} года"
        forms = _UNITS[unit]
        amount = _read_number(number, forms[3]) if numbers else number
        said = f"{amount} {_form(number, forms)}"
        if currency and unit in _SCALES:  # "5 млн руб.": thousands and millions of roubles
            said += f" {_UNITS[currency][2]}"
        elif currency:
            said += f" {currency}"
        abbreviated = stop and unit not in "%°$€£₽"
        ends = match.end() == len(match.string)
        return f" {said}{'.' if stop and (ends or not abbreviated) else ' '}"

    return pattern.sub(measure, text)


def _read_number(number: str, gender: str) -> str:
    whole, _, fraction = number.partition(",")
    if fraction:
        return decimal(whole, fraction, LANGUAGE)
    if len(whole) > MAX_WORD_DIGITS:
        return spell_digits(whole, LANGUAGE)
    return cardinal(whole, LANGUAGE, gender=gender)


def _from_latin(word: str) -> str:
    """Spell a foreign word with Russian letters, roughly as it sounds."""
    lower, said, place = word.lower(), "", 0
    while place < len(lower):
        for size in (4, 2, 1):
            piece = lower[place : place + size]
            letters = (_LATIN_LETTERS if size == 1 else _LATIN_PAIRS).get(piece)
            if letters is not None and len(piece) == size:
                said += letters
                place += size
                break
    return said
