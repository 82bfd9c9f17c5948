import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.config.schema import TextParams
from kamerton.text.symbols import (
    EOS,
    FIRST_SYMBOL,
    PAD,
    SymbolTable,
    UnknownSymbolError,
    alphabet,
)


@given(st.text(max_size=30))
def test_decode_undoes_encode(text):
    table = SymbolTable(sorted(set(text)))
    ids = table.encode(text)
    assert ids[-1] == EOS
    assert PAD not in ids
    assert max(ids) < len(table)
    assert table.decode([*ids, PAD, PAD]) == text


@given(st.lists(st.text(max_size=10)))
def test_the_table_does_not_depend_on_the_order_of_texts(texts):
    params = TextParams()
    tables = [SymbolTable.for_params(params, given) for given in (texts, reversed(texts))]
    assert tables[0] == tables[1]
    assert not set().union(*texts) - set(tables[0].symbols)


def test_numbers_begin_after_padding_and_end():
    table = SymbolTable(["a", "b"])
    assert table.encode("ba") == [FIRST_SYMBOL + 1, FIRST_SYMBOL, EOS]
    assert len(table) == 4


def test_unknown_characters_are_named_not_dropped():
    table = SymbolTable("ab")
    with pytest.raises(UnknownSymbolError, match="CYRILLIC SMALL LETTER A"):
        table.encode("aаb")
    assert table.unknown("zazb!") == ["z", "!"]


@pytest.mark.parametrize("symbols", [["ab"], [""], ["a", "a"]])
def test_a_table_refuses_what_cannot_be_numbered(symbols):
    with pytest.raises(ValueError, match="symbol"):
        SymbolTable(symbols)


def test_alphabets_follow_the_parameters():
    assert "ё" in alphabet("ru")
    assert "A" not in alphabet("en")
    assert "A" in alphabet("en", lowercase=False)
    assert "7" in alphabet("en", digits=True)
    assert alphabet("fi") is None


def test_a_language_keeps_its_table_whatever_the_texts():
    params = TextParams(language="en")
    assert SymbolTable.for_params(params, ["abc"]) == SymbolTable.for_params(params, ["xyz"])
    assert "ä" in SymbolTable.for_params(TextParams(language="fi"), ["ä"]).symbols
