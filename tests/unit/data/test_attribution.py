import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.data.attribution import (
    REDO_REASONS,
    TimedText,
    WindowAnswer,
    attribute,
    compression_ratio,
    odd_confidences,
    odd_tempos,
)
from kamerton.data.recognisers.tokens import read_tokens
from kamerton.data.windows import lay

PLACES = lay([4.0, 5.0, 6.0])  # 0..4, 4.5..9.5, 10..16
EOT, FIRST = 100, 200


def said(start, end, text="some ordinary words of speech", sure=-0.2):
    return TimedText(start, end, text, (sure,) * 4)


def answer(*texts, ended=True):
    return WindowAnswer(tuple(texts), 0.1, ended)


GOOD = (said(0.0, 4.0, "the first clip says this"), said(4.5, 9.5), said(10.0, 16.0))


def reasons(*texts, **options):
    return [share.redo for share in attribute(PLACES, answer(*texts, **options))]


def test_each_clip_gets_its_own_words_and_figures():
    texts = [
        said(0.0, 1.9, "the first clip"),
        TimedText(2.0, 4.3, "says this  much", (-0.5, -0.7)),
        *GOOD[1:],
    ]
    first, second, _ = attribute(PLACES, answer(*texts))
    assert first.text == "the first clip says this much"
    assert first.avg_logprob == pytest.approx((4 * -0.2 - 1.2) / 6, abs=1e-5)
    assert first.compression_ratio == compression_ratio(first.text)
    assert (first.redo, second.redo) == (None, None)
    assert second.avg_logprob == pytest.approx(-0.2)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (GOOD, [None, None, None]),
        ((said(0.0, 4.7), *GOOD[1:]), [None, None, None]),  # reaches 0.2 s over: within tolerance
        ((said(0.0, 5.0), *GOOD[1:]), ["straddles", "straddles", None]),
        ((said(0.0, 16.0),), ["straddles"] * 3),
        ((GOOD[0], GOOD[2]), [None, "no_text", None]),
        ((GOOD[0],), [None, "not_reached", "not_reached"]),
        ((), ["not_reached"] * 3),
        ((*GOOD, said(17.0, 20.0)), [None, None, "stray"]),
        ((*GOOD, said(4.1, 4.2)), ["stray", None, None]),
        ((*GOOD, said(45.0, 60.0)), [None, None, "stray"]),  # outside of the window
        (
            (said(0.0, 4.0, "half \N{REPLACEMENT CHARACTER}"), *GOOD[1:]),
            ["broken_text", None, None],
        ),
        ((said(0.0, 4.0, sure=-0.9), *GOOD[1:]), ["unsure", None, None]),
        ((said(0.0, 4.0, "la la " * 19), *GOOD[1:]), ["repetitive", None, None]),
        ((said(0.0, 1.5), *GOOD[1:]), ["partly_heard", None, None]),
        ((said(0.0, 4.0, "hm"), *GOOD[1:]), ["odd_tempo", None, None]),
        ((said(0.0, 4.0, "".join(map(chr, range(97, 230)))), *GOOD[1:]), ["odd_tempo", None, None]),
    ],
)
def test_what_is_not_clear_is_heard_again(texts, expected):
    assert reasons(*texts) == expected
    assert set(expected) - {None} <= set(REDO_REASONS)


def test_a_few_made_up_words_in_a_row_make_an_answer_unsure():
    rare = TimedText(0.0, 4.0, "a good answer with one rare name", (-0.01,) * 20 + (-4.0, -1.5))
    tail = TimedText(0.0, 4.0, "a good answer with a made up tail", (-0.01,) * 20 + (-1.6,) * 4)
    assert reasons(rare, *GOOD[1:]) == [None] * 3
    assert reasons(tail, *GOOD[1:]) == ["unsure", None, None]


@given(st.lists(st.floats(5.0, 25.0), max_size=40))
def test_tempos_are_compared_with_those_of_the_recording(tempos):
    odd = odd_tempos(tempos)
    if len(tempos) < 8:
        assert odd == set()
        return
    first, middle, third = np.quantile(tempos, [0.25, 0.5, 0.75])
    for at, tempo in enumerate(tempos):
        if abs(tempo / middle - 1) < 0.099:
            assert at not in odd
        if not 0.499 * middle <= tempo <= 1.601 * middle:
            assert at in odd
        if first - 1.499 * (third - first) <= tempo <= third + 1.499 * (third - first):
            assert at not in odd or not 0.5 * middle <= tempo <= 1.6 * middle


def test_a_word_lost_shows_in_the_tempo_of_an_even_reader_only():
    even = [14.0, 14.5, 15.0, 14.7, 14.2, 14.9, 15.1, 14.4]
    lively = [11.0, 18.0, 15.0, 9.0, 20.0, 13.0, 17.0, 14.4]
    assert odd_tempos([*even, 12.0]) == {8}
    assert odd_tempos([*lively, 12.0]) == set()


def test_confidence_is_compared_with_that_of_the_recording():
    calm = [-0.002, -0.004, -0.001, -0.003, -0.005, -0.002, -0.003, -0.004]
    assert odd_confidences([*calm, -0.2]) == {8}
    assert odd_confidences([*calm, -0.019]) == set()  # hardly less sure of a word
    assert odd_confidences([100 * value for value in (*calm, -0.007)]) == set()
    assert odd_confidences([*calm[:6], -0.2]) == set()  # too few to compare


def test_an_answer_without_an_end_is_fine_only_where_the_decoder_stopped_by_itself():
    assert reasons(*GOOD[:2], said(10.0, None)) == [None, None, None]
    assert reasons(*GOOD[:2], said(10.0, None), ended=False) == [None, None, "cut_off"]
    assert reasons(GOOD[0], said(4.5, None)) == [None, "straddles", "straddles"]


@given(
    st.lists(st.floats(0.1, 12.0), min_size=1, max_size=8),
    st.lists(
        st.tuples(st.floats(-5, 40), st.none() | st.floats(-5, 40), st.text(max_size=30)),
        max_size=8,
    ),
    st.booleans(),
)
def test_any_answer_is_dealt_out_without_loss_or_error(seconds, texts, ended):
    places = lay(seconds)
    timed = [TimedText(start, end, text, (-0.1,)) for start, end, text in texts]
    shares = attribute(places, answer(*timed, ended=ended))
    assert len(shares) == len(places)
    for share in shares:
        assert share.redo is None or share.redo in REDO_REASONS
        if share.redo is None:
            assert share.text
            assert share.avg_logprob is not None
            assert share.compression_ratio is not None
    kept = " ".join(share.text for share in shares).split()
    offered = " ".join(text for _, _, text in texts).split()
    assert all(kept.count(word) <= offered.count(word) for word in kept)
    if all(share.redo is None for share in shares):
        assert sorted(kept) == sorted(offered)


def test_an_exact_answer_comes_back_as_it_was():
    texts = ["eins zwei drei vier", "five six seven eight", "семь восемь девять"]
    exact = [
        TimedText(place.start_seconds, place.end_seconds, text, (-0.01,))
        for place, text in zip(PLACES, texts, strict=True)
    ]
    assert [share.text for share in attribute(PLACES, answer(*exact))] == texts


def decode(tokens):
    return bytes(tokens).decode("utf-8", errors="replace")


def read(tokens):
    return read_tokens(
        tokens,
        [-float(k) for k in range(len(tokens))],
        first_timestamp=FIRST,
        end_of_text=EOT,
        decode=decode,
    )


def test_tokens_become_timed_texts():
    a, b = ord("a"), ord("b")
    texts = read([FIRST, a, b, FIRST + 50, FIRST + 75, b, FIRST + 100])
    assert texts == (
        TimedText(0.0, 1.0, "ab", (-1.0, -2.0)),
        TimedText(1.5, 2.0, "b", (-5.0,)),
    )


def test_timestamps_may_be_missing_at_either_end():
    a = ord("a")
    assert read([a, FIRST + 50]) == (TimedText(0.0, 1.0, "a", (-0.0,)),)
    assert read([FIRST + 50, a]) == (TimedText(1.0, None, "a", (-1.0,)),)
    assert read([]) == ()
    assert read([FIRST, FIRST + 10]) == ()


def test_other_special_tokens_are_no_text():
    assert read([FIRST, EOT + 3, ord("a"), FIRST + 50])[0].text == "a"


def test_half_a_letter_is_seen():
    first, second = "я".encode()
    texts = read_tokens(
        [first, 900, second, 910],
        [0.0] * 4,
        first_timestamp=850,
        end_of_text=256,
        decode=decode,
    )
    assert all("\N{REPLACEMENT CHARACTER}" in text.text for text in texts)


@given(st.lists(st.integers(0, 300), max_size=40))
def test_any_tokens_can_be_read(tokens):
    texts = read_tokens(
        tokens, [-0.5] * len(tokens), first_timestamp=FIRST, end_of_text=EOT, decode=decode
    )
    spoken = sum(token < EOT for token in tokens)
    assert sum(len(text.logprobs) for text in texts) <= spoken
    assert all(text.text.strip() == text.text != "" for text in texts)
    assert all(text.end_seconds is None for text in texts[:-1]) is (len(texts) < 2)


def test_compression_is_whispers():
    utils = pytest.importorskip("whisper.utils")
    for text in ("a", "so so so so so so so so so", "ещё один текст"):
        assert math.isclose(compression_ratio(text), utils.compression_ratio(text), abs_tol=1e-5)
