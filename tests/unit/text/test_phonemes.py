"""Phonemes, by a stand-in that speaks espeak-ng's protocol and, where it is there, by itself."""

import re
import shutil
import stat
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kamerton.config.schema import TextParams
from kamerton.core.errors import PipelineError, ToolMissingError
from kamerton.text import phonemes
from kamerton.text.normalise import normalise_for
from kamerton.text.phonemes import pronounce
from kamerton.text.symbols import SymbolTable

ENGLISH = TextParams(phonemes="espeak")
RUSSIAN = TextParams(phonemes="espeak", language="ru")

# Says every word in Greek capitals; breaks long lines, as the real one does; writes down its calls.
STAND_IN = """#!{python}
import sys
arguments = sys.argv[1:]
with open({calls!r}, "a") as calls:
    calls.write(" ".join(arguments) + "\\n")
if "--version" in arguments:
    print("eSpeak NG text-to-speech: 9.9  Data at: /nowhere")
    raise SystemExit
voice = arguments[arguments.index("-v") + 1]
if voice not in ("en-us", "ru"):
    sys.stderr.write("Error: The specified espeak-ng voice does not exist.\\n")
    raise SystemExit(1)
for line in sys.stdin.buffer.read().decode().splitlines():
    said = "(en)" + "".join(chr(945 + ord(c) % 20) if c.isalpha() else c for c in line) + "(ru)"
    for start in range(0, max(1, len(said)), 400):
        print(said[start:start + 400])
"""


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.setattr(phonemes, "_known", {})


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    calls = tmp_path / "calls.txt"
    program = tmp_path / "espeak-ng"
    program.write_text(STAND_IN.format(python=sys.executable, calls=str(calls)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return calls


def greek(text):
    return "".join(chr(945 + ord(char) % 20) if char.isalpha() else char for char in text)


def test_letters_need_no_program(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert pronounce(["hello", "a"], TextParams()) == [None, None]


def test_the_program_is_asked_once_for_all_clauses(stand_in):
    texts = ["hello, world!", "world - (hello) twenty-six", "", "hello"]
    assert pronounce(texts, ENGLISH) == [
        f"{greek('hello')}, {greek('world')}!",
        f"{greek('world')} - ({greek('hello')}) {greek('twenty-six')}",
        "",
        greek("hello"),
    ]
    assert pronounce(["world, hello."], ENGLISH) == [f"{greek('world')}, {greek('hello')}."]
    assert stand_in.read_text() == "-q --ipa -b 1 -v en-us\n"


def test_quotation_marks_are_silent_and_split_no_clause(stand_in):
    assert pronounce(['the "apple" fell'], ENGLISH) == [greek("the apple fell")]


def test_long_clauses_are_broken_between_words_and_joined_again(stand_in):
    text = " ".join(f"word{chr(97 + n % 26)}" for n in range(200))
    assert pronounce([text], ENGLISH) == [greek(text)]


def test_a_line_that_the_program_breaks_itself_is_joined_again(stand_in):
    text = "x" * 900
    (said,) = pronounce([f"{text}, hello"], ENGLISH)
    assert said.replace(" ", "") == greek(f"{text},hello")
    assert pronounce(["hello"], ENGLISH) == [greek("hello")]


def test_languages_have_the_programs_names(stand_in):
    pronounce(["да"], RUSSIAN)
    assert stand_in.read_text().endswith("-v ru\n")


def test_an_unknown_language_is_said(stand_in):
    with pytest.raises(PipelineError, match="voice does not exist") as caught:
        pronounce(["a"], TextParams(phonemes="espeak", language="xx"))
    assert "--voices" in caught.value.hint


def test_a_missing_program_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissingError, match="espeak-ng is not installed") as caught:
        pronounce(["a"], ENGLISH)
    assert "text.phonemes: none" in caught.value.hint


def test_the_version_is_known(stand_in):
    assert phonemes.program_version() == "9.9"


PIECES = st.sampled_from(
    ["hello", "world", "it's", "twenty-six", ", ", ". ", " - ", "... ", "! ", " (", ") ", '"', " "]
)


@settings(max_examples=15)
@given(texts=st.lists(st.lists(PIECES, max_size=8).map("".join), max_size=6))
def test_stops_stay_and_words_are_said(tmp_path_factory, texts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phonemes, "_ask", lambda lines, voice: [greek(line) for line in lines])
        patch.setattr(phonemes, "_known", {})
        normal = [normalise_for(text, ENGLISH) for text in texts]
        said = pronounce(normal, ENGLISH)
        assert said == [greek(text.replace('"', "")).strip() for text in normal]
        # Whatever else is said with it.
        patch.setattr(phonemes, "_known", {})
        assert [pronounce([text], ENGLISH)[0] for text in normal] == said


def test_the_table_of_phonemes_is_one_for_all_datasets():
    assert SymbolTable.for_params(ENGLISH, ["ab"]) == SymbolTable.for_params(RUSSIAN, ["ʲ!"])
    assert "ə" in SymbolTable.for_params(ENGLISH, []).symbols


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_the_real_program():
    texts = ['hello, world! the "apple" - it fell (twice).', "read the x-ray", "the dog " * 90]
    said = pronounce(texts, ENGLISH)
    assert said[0] == "həlˈoʊ, wˈɜːld! ðɪ ˈæpəl - ɪt fˈɛl (twˈaɪs)."
    assert said[2].split() == ["ðə", "dˈɑːɡ"] * 90
    assert pronounce(["привет, мир!"], RUSSIAN) == ["prʲivʲˈet, mʲˈir!"]
    table = SymbolTable.for_params(ENGLISH, [])
    assert not [table.unknown(text) for text in said if table.unknown(text)]
    phonemes._known.clear()
    assert [pronounce([text], ENGLISH)[0] for text in texts] == said
    assert re.fullmatch(r"[0-9.]+(-dev)?", phonemes.program_version())
