"""Word and character errors against counts made by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.metrics.intelligibility import compare_words, scoring_text, word_errors

# said, heard, (substitutions, deletions, insertions)
BY_HAND = [
    ("the red fox", "the red fox", (0, 0, 0)),
    ("the red fox", "the rod fox", (1, 0, 0)),
    ("the red fox", "the fox", (0, 1, 0)),
    ("the red fox", "the the red fox", (0, 0, 1)),
    ("the red fox", "", (0, 3, 0)),
    ("one two three four", "two three five four six", (0, 1, 2)),
]


@pytest.mark.parametrize(("said", "heard", "counts"), BY_HAND)
def test_one_sentence(said, heard, counts):
    found = word_errors([said], [heard])
    assert found.errors == sum(counts)
    assert (found.substitutions, found.deletions, found.insertions) == counts
    assert found.wer == pytest.approx(sum(counts) / len(said.split()))


def test_the_rate_is_of_the_corpus_and_not_the_mean_of_the_sentences():
    found = word_errors(["a b c d e f g h", "x y"], ["a b c d e f g h", "z z"])
    assert found.wer == pytest.approx(2 / 10)
    assert found.words == 10


def test_characters_are_counted_with_the_spaces_between_words():
    found = word_errors(["ab cd"], ["ab cx"])
    assert (found.character_errors, found.characters) == (1, 5)
    assert found.cer == pytest.approx(1 / 5)


def test_more_heard_than_said_is_above_one():
    assert word_errors(["yes"], ["no no no"]).wer == pytest.approx(3.0)


def test_case_punctuation_and_quotes_do_not_count():
    assert word_errors(["Don’t stop, Mr. Fox!"], ["don't stop mr fox"]).errors == 0


def test_a_sentence_without_words_counts_what_was_heard():
    assert word_errors(["...", "a b"], ["x", "a b"]).errors == 1
    assert word_errors([""], ["x y"]).wer == 2.0


def test_different_numbers_of_sentences_are_refused():
    with pytest.raises(ValueError, match="2 references for 1"):
        word_errors(["a", "b"], ["a"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello,  World!", "hello world"),
        ("it's 'quoted'", "it's quoted"),
        ("Straße — Ёлка", "strasse ёлка"),
        ("snake_case 42", "snake case 42"),
        ("", ""),
    ],
)
def test_scoring_text(text, expected):
    assert scoring_text(text) == expected


@given(st.text(max_size=40))
def test_scoring_text_is_stable(text):
    assert scoring_text(scoring_text(text)) == scoring_text(text)


words = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=8).map(" ".join)


@given(said=words, heard=words)
def test_the_way_from_one_to_the_other_has_as_many_steps_as_errors(said, heard):
    changes = compare_words(said, heard)
    assert " ".join(change.said for change in changes if change.said) == said
    assert " ".join(change.heard for change in changes if change.heard) == heard
    steps = sum(change.kind != "equal" for change in changes)
    assert steps == word_errors([said], [heard]).errors == edits(said.split(), heard.split())


def edits(left, right):
    """Levenshtein distance, by the definition."""
    if not left or not right:
        return len(left) + len(right)
    table = list(range(len(right) + 1))
    for i, one in enumerate(left, start=1):
        row = [i]
        for j, other in enumerate(right, start=1):
            row.append(min(table[j] + 1, row[-1] + 1, table[j - 1] + (one != other)))
        table = row
    return table[-1]
