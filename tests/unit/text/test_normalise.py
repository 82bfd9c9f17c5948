import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.config.schema import TextParams
from kamerton.core.errors import ToolMissingError
from kamerton.text.normalise import normalise, normalise_for
from kamerton.text.symbols import SymbolTable, alphabet

ENGLISH = [
    ("Hello,  World!", "hello, world!"),
    ("Mr. Smith paid $5.20.", "mister smith paid five dollars and twenty cents."),
    ("It cost $1 or £2.01 or €3", "it cost one dollar or two pounds and one penny or three euros"),
    ("$3 million", "three million dollars"),
    ("at 10:30 a.m.", "at ten thirty a m."),
    ("at 9:05 PM, at 7pm, at 8:00", "at nine oh five p m, at seven p m, at eight o'clock"),
    ("on 2026-11-20", "on november twentieth twenty twenty-six"),
    ("on March 3, 1905", "on march third, nineteen oh-five"),
    ("1,234,567 people", "one million two hundred and thirty-four thousand five hundred and sixty-seven people"),  # noqa: E501
    ("3.14 and 0.05", "three point one four and zero point zero five"),
    ("the 1990s, the 21st", "the nineteen nineties, the twenty-first"),
    ("pages 5-10, -3 and - 4", "pages five to ten, minus three and - four"),
    ("50% of A&B", "fifty percent of a and b"),
    ("5 km/h, 1 kg, 7 ft.", "five kilometers per hour, one kilogram, seven feet."),
    ("St. John, Main St.", "saint john, main street."),
    ("no. 7? No.", "number seven? no."),
    ("e.g. this, i.e. that, etc.", "for example this, that is that, et cetera."),
    ("Café “naïve” – ‘quoted’…", "cafe \"naive\" - 'quoted'..."),
    ("007 calls 12345678901234567890", "zero zero seven calls one two three four five six seven eight nine zero one two three four five six seven eight nine zero"),  # noqa: E501
    ("B2B", "b two b"),
    ("wait , what ?!  Really!!!", "wait, what? really!"),
    ("  ... -- hello", "hello"),
    ("Ｆｕｌｌ　ｗｉｄｔｈ　５", "full width five"),
    ("soft\u00adhyphen zero\u200bwidth", "softhyphen zerowidth"),
    ("*-_,. !", ""),
    ("", ""),
]  # fmt: skip
RUSSIAN = [
    ("Привет,  Мир!", "привет, мир!"),
    ("В 1999 г. и т. д.", "в тысяча девятьсот девяносто девятом году и так далее."),
    ("до 2005 года", "до две тысячи пятого года"),
    ("20.11.2026", "двадцатое ноября две тысячи двадцать шестого года"),
    ("25 декабря", "двадцать пятого декабря"),
    ("5-го и 2-я", "пятого и вторая"),
    ("21 мин., 2 мин., 5 мин.", "двадцать одна минута, две минуты, пять минут."),
    ("2 тыс. руб. и", "две тысячи рублей и"),
    ("5%, 21%, 3,5%", "пять процентов, двадцать один процент, три целых пять десятых процента"),
    ("1 000 000 км/ч", "один миллион километров в час"),
    ("$5 и 1 ₽", "пять долларов и один рубль"),
    ("в 10:05", "в десять ноль пять"),
    ("-7°", "минус семь градусов"),
    ("№ 3, т.е. третий", "номер три, то есть третий"),
    ("за́мок и Ёж", "замок и ёж"),
    ("и\u0306од", "йод"),
    ("Windows", "виндовс"),
]


@pytest.mark.parametrize(("written", "spoken"), ENGLISH)
def test_english(written, spoken):
    assert normalise(written, "en") == spoken


@pytest.mark.parametrize(("written", "spoken"), RUSSIAN)
def test_russian(written, spoken):
    assert normalise(written, "ru") == spoken


def test_other_languages_keep_their_letters_and_read_numbers():
    assert normalise("Größe: 25 km?", "de") == "größe: fünfundzwanzig km?"
    assert normalise("ภาษา ๕", "xx") == "ภาษา 5", "no words for numbers: the digits stay"


@pytest.mark.parametrize(
    ("changed", "spoken"),
    [
        ({"lowercase": False}, "Doctor No has five dogs"),
        ({"expand_numbers": False}, "doctor no has 5 dogs"),
        ({"expand_abbreviations": False}, "dr. no has five dogs"),
    ],
)
def test_every_option_of_the_section_changes_the_text(changed, spoken):
    assert normalise_for("Dr. No has 5 dogs", TextParams(**changed)) == spoken


FRAGMENTS = st.sampled_from(
    [
        "mr",
        "st",
        "no",
        "e.g",
        "etc",
        ".",
        ",",
        "-",
        " ",
        "5",
        "10:30",
        "$",
        "%",
        "km",
        "1990s",
        "é",
        "г",
        "т",
        "руб",
        "и т. д.",
        "№",
        "’",
        "—",
        "Sh",
        "ß",
        "½",
        "٣",
        "\u0301",
        "?",
        "!",
        '"',
        "(",
        "3,5",
        "2026-11-20",
        "20.11.2026",
        "-го",
        "am",
        "XX",
        "Пётр I",
        " век",
        " в. ",
        "Henry VIII",
        "1/2",
        "½",
        "www.a.com/b",
        "@",
        "U.S.",
        "BBC",
        "СССР",
        "° C",
        "м²",
        "km²",
        "× 3",
        "10-летний",
        "до 5 ",
        "2 книги",
        "(555) 123-4567",
        "123-45-67",
        "г-н",
        "в г. М",
        "'90s",
        "July 4",
        "4 July",
        "3/14/2025",
        "90-е",
        "1941-1945 гг.",
        "3:2",
        "руб.",
        "3,50 ",
        "$0.99",
        "5k",
        "2.0.1",
        "th",
        "ﬁ",
        "ǅ",
        "1 000",
    ]
)
TEXTS = st.one_of(st.text(max_size=40), st.lists(FRAGMENTS, max_size=12).map("".join))


@given(TEXTS, st.sampled_from(["en", "ru"]), st.booleans(), st.booleans(), st.booleans())
def test_only_known_symbols_remain(text, language, lowercase, numbers, abbreviations):
    spoken = normalise(
        text,
        language,
        lowercase=lowercase,
        expand_numbers=numbers,
        expand_abbreviations=abbreviations,
    )
    known = alphabet(language, lowercase=lowercase, digits=not numbers)
    assert not SymbolTable(known).unknown(spoken)
    assert not re.search(r"  |^ | $", spoken)


@given(TEXTS, st.sampled_from(["en", "ru", "de"]))
def test_normalising_twice_changes_nothing(text, language):
    once = normalise(text, language)
    assert normalise(once, language) == once


@given(st.integers(0, 10**18), st.sampled_from(["en", "ru"]))
def test_every_whole_number_has_words(number, language):
    spoken = normalise(f"a {number} b" if language == "en" else f"а {number} б", language)
    assert not re.search(r"[0-9]", spoken)
    assert len(spoken.split()) > 2


def test_only_text_with_numbers_needs_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "num2words", None)
    assert normalise("no digits", "en") == "no digits"
    with pytest.raises(ToolMissingError, match="num2words") as caught:
        normalise("1 digit", "en")
    assert "kamerton[text]" in caught.value.hint
