import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.core.errors import UsageError
from kamerton.data.sharding import Part, parse_part


@given(st.text(max_size=40), st.integers(1, 50))
def test_each_name_belongs_to_exactly_one_part(name, count):
    assert sum(Part(index, count).has(name) for index in range(count)) == 1


def test_parts_are_of_similar_size():
    names = [f"tape {number}.wav" for number in range(3000)]
    sizes = [sum(Part(index, 3).has(name) for name in names) for index in range(3)]
    assert sum(sizes) == 3000
    assert max(sizes) - min(sizes) < 200


def test_a_part_does_not_depend_on_the_machine():
    assert [Part(0, 2).has(f"{letter}.wav") for letter in "abcdefgh"] == [
        *(True, False, False, True, False, True, False, True)
    ]


def test_everything_is_one_part():
    assert parse_part(None) == Part(0, 1)
    assert parse_part("0/1").has("any")
    assert parse_part(" 2/3 ") == Part(2, 3)


@pytest.mark.parametrize(
    "text", ["", "1", "3/3", "1/0", "0/0", "-1/3", "1/2/3", "a/b", "1.0/2", "٣/٤", "0/9999999"]
)
def test_what_is_no_part_is_refused(text):
    with pytest.raises(UsageError, match="is not a part") as caught:
        parse_part(text)
    assert "--shard 0/3" in caught.value.hint
