"""Padding of one batch."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kamerton.data.collate import collate

utterances = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 30)), min_size=1, max_size=6)


@given(utterances, st.integers(1, 5))
def test_everything_is_in_its_place_and_the_rest_is_zero(
    sizes: list[tuple[int, int]], multiple: int
) -> None:
    symbols = [list(range(1, count + 1)) for count, _ in sizes]
    frames = [np.full((length, 3), 7.0, np.float32) for _, length in sizes]
    batch = collate(symbols, frames, multiple=multiple)

    longest = max(length for _, length in sizes)
    assert batch.frames.shape[1] % multiple == 0
    assert longest <= batch.frames.shape[1] < longest + multiple
    assert batch.symbols.shape[1] == max(count for count, _ in sizes)
    for row, (count, length) in enumerate(sizes):
        assert batch.symbols[row, :count].tolist() == symbols[row]
        assert not batch.symbols[row, count:].any()
        assert (batch.frames[row, :length] == 7.0).all()
        assert not batch.frames[row, length:].any()
    assert batch.symbol_lengths.tolist() == [count for count, _ in sizes]
    assert batch.frame_lengths.tolist() == [length for _, length in sizes]


@given(utterances, st.integers(1, 5))
def test_no_more_frames_are_made_than_the_longest_needs(
    sizes: list[tuple[int, int]], multiple: int
) -> None:
    """Nothing but frames is padded to a multiple, and those by less than one."""
    symbols = [np.arange(1, count + 1) for count, _ in sizes]
    frames = [np.zeros((length, 2), np.float32) for _, length in sizes]
    batch = collate(symbols, frames, multiple=multiple)
    assert batch.frames.shape[1] == -(-max(length for _, length in sizes) // multiple) * multiple
    for row, ids in zip(batch.symbols, symbols, strict=True):
        assert row[: len(ids)].tolist() == ids.tolist()
