"""A text of a whole recording shared out over its clips."""

import itertools
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.data.given_texts import word_alignment
from kamerton.data.given_texts.alignment import align_text, split_words
from kamerton.data.given_texts.word_alignment import GAP_COST, OPEN_COST, align_words, pair_costs

WORDS = st.lists(st.sampled_from(["a", "b", "ab", "abc", "x"]), max_size=6)
PIECES = st.lists(
    st.lists(
        st.text("abcdé'", min_size=1, max_size=6).filter(lambda word: word.strip("'")),
        min_size=1,
        max_size=6,
    ),
    min_size=1,
    max_size=6,
)


def cost_of(human, heard, partner):
    """Cost of an alignment, computed from its definition: gaps pay once to open."""
    costs = pair_costs(human, heard)
    total, at, bt = 0, 0, 0
    ends = [(partner[b], b) for b in range(len(heard)) if partner[b] >= 0]
    for a, b in [*ends, (len(human), len(heard))]:
        for gap in (a - at, b - bt):
            total += OPEN_COST + GAP_COST * gap if gap else 0
        if b < len(heard):
            total += int(costs[a, b])
        at, bt = a + 1, b + 1
    return total


def all_alignments(human, heard):
    """Every way to pair words in order."""
    for count in range(min(human, heard) + 1):
        for left in itertools.combinations(range(human), count):
            for right in itertools.combinations(range(heard), count):
                partner = [-1] * heard
                for a, b in zip(left, right, strict=True):
                    partner[b] = a
                yield partner


@given(WORDS, WORDS)
def test_small_inputs_are_aligned_at_the_least_cost_of_all(human, heard):
    best = min(cost_of(human, heard, way) for way in all_alignments(len(human), len(heard)))
    assert cost_of(human, heard, align_words(human, heard)) == best


@given(PIECES)
def test_perfect_recognition_returns_exactly_the_pieces(pieces):
    texts = [" ".join(words) for words in pieces]
    assert align_text(" ".join(texts), texts) == texts


@given(PIECES, st.data())
def test_pieces_never_repeat_or_reorder_words(pieces, data):
    words = [word for piece in pieces for word in piece]
    marked = " ".join(f"{word}," for word in words)
    heard = data.draw(st.lists(st.none() | st.lists(st.sampled_from(words)).map(" ".join)))
    got = align_text(marked, heard, max_word_error=data.draw(st.floats(0, 3)))
    assert len(got) == len(heard)
    assert all(piece is None for piece, answer in zip(got, heard, strict=True) if not answer)
    told = [word for piece in got if piece for word in piece.split()]
    rest = iter(marked.split())
    assert all(word in rest for word in told)  # a subsequence


@given(st.text(max_size=60))
def test_words_divide_a_text_without_loss(text):
    words = split_words(text)
    if words:
        assert "".join(text[word.start : word.end] for word in words) == text
    assert all(word.key for word in words)


def test_punctuation_and_case_are_those_of_the_person():
    text = "\"Well-known,\" he said — then\nleft… (It's 5 o'clock.) Привет, МИР!"
    heard = ["well known he said", "then left its five oclock", "привет мир"]
    assert align_text(text, heard) == [
        '"Well-known," he said —',
        "then left… (It's 5 o'clock.)",
        "Привет, МИР!",
    ]


def test_scripts_without_spaces():
    text = "今天天气很好。我们去公园吧！"
    assert align_text(text, ["今天天气很好", "我们去公园把"]) == [
        "今天天气很好。",
        "我们去公园吧！",
    ]


def test_what_was_never_read_is_in_no_piece():
    text = "One two three four. This long heading was never read by anyone. Five six seven eight."
    got = align_text(text, ["one two three four", "five six seven eight"])
    assert got == ["One two three four.", "Five six seven eight."]


def test_what_is_not_in_the_text_stays_recognised():
    got = align_text("One two three four.", ["one two three four", "sorry can I say that again"])
    assert got == ["One two three four.", None]


def test_a_word_missed_at_a_cut_goes_to_its_sentence():
    text = "I saw the cat. Then it ran away from us."
    assert align_text(text, ["I saw the", "then it ran away from us"])[0] == "I saw the cat."
    assert (
        align_text(text, ["I saw the cat", "it ran away from us"])[1] == "Then it ran away from us."
    )


def test_words_beside_a_clip_that_nobody_heard_are_its_own():
    text = "I saw the cat. Yes! It ran away from us."
    assert align_text(text, ["i saw the cat", None, "it ran away from us"]) == [
        "I saw the cat.",
        None,
        "It ran away from us.",
    ]


def test_too_much_disagreement_leaves_recognition():
    text = "one two three four five six seven eight nine ten"
    heard = ["one two x four y", "six seven eight nine ten"]
    assert align_text(text, heard, max_word_error=0.4) == [
        "one two three four five",
        "six seven eight nine ten",
    ]
    assert align_text(text, heard, max_word_error=0.39)[0] is None


def spoken(words, rng, error):
    """What a recogniser that errs in ``error`` of the words makes of them."""
    out = []
    for word in words:
        fate = rng.random()
        if fate >= error:
            out.append(word)
        elif fate < 0.7 * error:
            out.append(f"w{rng.randrange(3000)}")
        elif fate < 0.85 * error:
            out += [word, f"w{rng.randrange(3000)}"]
    return out


@pytest.mark.parametrize(("error", "right"), [(0.0, 1.0), (0.1, 0.93), (0.3, 0.62)])
def test_a_long_recording_with_a_bad_recogniser(error, right):
    """Passages are missing on either side, and nothing is put where it does not belong."""
    rng = random.Random(7)
    text, heard, truth = [], [], []
    for part in range(1500):
        words = [f"w{int(3000 * rng.random() ** 2)}" for _ in range(rng.randint(5, 15))]
        if part % 50 == 10:  # written, never read
            text += words
        elif part % 50 == 30:  # read, not written
            heard.append(" ".join(words))
            truth.append(None)
        else:
            text += words
            heard.append(" ".join(spoken(words, rng, error)))
            truth.append(" ".join(words))
    started = time.process_time()
    got = align_text(" ".join(text), heard)
    assert time.process_time() - started < 10.0
    assert all(piece is None for piece, wanted in zip(got, truth, strict=True) if wanted is None)
    wanted = [(piece, words) for piece, words in zip(got, truth, strict=True) if words]
    assert sum(piece == words for piece, words in wanted) >= right * len(wanted)
    strays = [
        len(set(piece.split()) ^ set(words.split())) for piece, words in wanted if piece is not None
    ]
    assert sum(strays) <= 0.02 * len(text)  # words next to a cut, on its wrong side


def test_anchors_find_what_the_whole_table_finds(monkeypatch):
    rng = random.Random(3)
    human = [f"w{rng.randrange(400)}" for _ in range(900)]
    heard = spoken(human, rng, 0.2)
    exact = align_words(human, heard)
    monkeypatch.setattr(word_alignment, "_EXACT_CELLS", 2000)
    quick = align_words(human, heard)
    assert sum(a == b for a, b in zip(exact, quick, strict=True)) >= 0.98 * len(heard)
    assert cost_of(human, heard, quick) <= 1.01 * cost_of(human, heard, exact)


def test_texts_that_have_nothing_in_common_are_given_up(monkeypatch):
    monkeypatch.setattr(word_alignment, "_EXACT_CELLS", 100)
    monkeypatch.setattr(word_alignment, "_MOST_CELLS", 100)
    assert align_words(["a"] * 50, ["b"] * 50) == [-1] * 50
