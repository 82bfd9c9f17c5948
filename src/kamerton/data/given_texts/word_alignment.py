"""The words of one text set against those of another.

Dynamic programming with affine gaps (Gotoh, 1982): a gap is dear to open, so that what only one
side has is left out in one piece, and a word heard as another that looks alike costs less than one
that does not. Long texts are first cut at runs of words that both sides hold exactly once, as many
as stand in the same order on both.
"""

from __future__ import annotations

import bisect
import itertools
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

OPEN_COST, GAP_COST = 40, 60

_UNLIKE_COST, _ALIKE_DISCOUNT = 120, 70
_EXACT_CELLS = 1 << 20  # aligned at once
_MOST_CELLS = 1 << 26  # without a single anchor; beyond, the texts are taken to be unrelated
_ANCHOR_WORDS = (6, 4, 3, 2, 1)
_SKETCH = 64
_ROWS = 64  # of costs computed together


def align_words(human: Sequence[str], heard: Sequence[str]) -> list[int]:
    """Position in ``human`` of each heard word, -1 for one that stands opposite to nothing.

    Positions ascend. Small inputs are aligned at the least cost; large ones at the least cost
    between anchors.
    """
    codes: dict[str, int] = {}
    sides = [
        np.array([codes.setdefault(word, len(codes)) for word in side], dtype=np.int64)
        for side in (human, heard)
    ]
    sketches = _sketches(list(codes))
    partner = np.full(len(heard), -1, dtype=np.int64)
    work = [(0, len(human), 0, len(heard))]
    while work:
        a0, a1, b0, b1 = work.pop()
        one, other = sides[0][a0:a1], sides[1][b0:b1]
        if not len(one) or not len(other):
            continue
        if len(one) * len(other) > _EXACT_CELLS:
            if anchors := _anchors(one, other):
                work += _between(anchors, (a0, a1, b0, b1), partner)
                continue
            if len(one) * len(other) > _MOST_CELLS:
                continue
        found = _least_cost(one, other, sketches)
        partner[b0:b1] = np.where(found >= 0, found + a0, -1)
    return [int(word) for word in partner]


def _between(
    anchors: Sequence[tuple[int, int, int]],
    region: tuple[int, int, int, int],
    partner: NDArray[np.int64],
) -> list[tuple[int, int, int, int]]:
    """Note the pairs of the anchors; return the regions that they leave."""
    a0, a1, b0, b1 = region
    left: list[tuple[int, int, int, int]] = []
    at, bt = a0, b0
    for a, b, length in anchors:
        left.append((at, a0 + a, bt, b0 + b))
        partner[b0 + b : b0 + b + length] = np.arange(a0 + a, a0 + a + length)
        at, bt = a0 + a + length, b0 + b + length
    left.append((at, a1, bt, b1))
    return left


def _anchors(one: NDArray[np.int64], other: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Runs that both sides hold once, in an order both agree on: (start, start, length)."""
    for size in _ANCHOR_WORDS:
        if size > min(len(one), len(other)):
            continue
        first, second = _once(one, size), _once(other, size)
        pairs = sorted((first[run], second[run]) for run in first.keys() & second.keys())
        anchors: list[tuple[int, int, int]] = []
        for a, b in _ascending(pairs):
            if anchors:
                before_a, before_b, length = anchors[-1]
                if a - before_a == b - before_b and a <= before_a + length:
                    anchors[-1] = (before_a, before_b, a - before_a + size)
                    continue
                if a < before_a + length or b < before_b + length:
                    continue
            anchors.append((a, b, size))
        if anchors:
            return anchors
    return []


def _once(words: NDArray[np.int64], size: int) -> dict[bytes, int]:
    """Start of every run of ``size`` words that occurs exactly once."""
    runs = np.lib.stride_tricks.sliding_window_view(words, size)
    seen: dict[bytes, int] = {}
    twice: set[bytes] = set()
    for start, run in enumerate(np.ascontiguousarray(runs)):
        key = run.tobytes()
        if key in seen:
            twice.add(key)
        else:
            seen[key] = start
    return {key: start for key, start in seen.items() if key not in twice}


def _ascending(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest selection of pairs, sorted by the first, whose second ascends too."""
    tails: list[int] = []
    last: list[int] = []
    previous: list[int] = []
    for index, (_, b) in enumerate(pairs):
        place = bisect.bisect_left(tails, b)
        previous.append(last[place - 1] if place else -1)
        tails[place : place + 1] = [b]
        last[place : place + 1] = [index]
    chosen: list[tuple[int, int]] = []
    index = last[-1] if last else -1
    while index >= 0:
        chosen.append(pairs[index])
        index = previous[index]
    return chosen[::-1]


def _sketches(vocabulary: Sequence[str]) -> NDArray[np.float32]:
    """Unit vectors (words, 64) of hashed pairs of letters: alike words have alike vectors."""
    vectors = np.zeros((len(vocabulary), _SKETCH), dtype=np.float32)
    for row, word in enumerate(vocabulary):
        framed = f"<{word}>"
        for pair in itertools.pairwise(framed):
            vectors[row, zlib.crc32("".join(pair).encode("utf-8", "replace")) % _SKETCH] += 1.0
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.maximum(norms, 1e-9)
    return unit


def pair_costs(human: Sequence[str], heard: Sequence[str]) -> NDArray[np.int32]:
    """Cost (human, heard) of hearing one word as another: 0 for the same word."""
    codes: dict[str, int] = {}
    one, other = (
        np.array([codes.setdefault(word, len(codes)) for word in side], dtype=np.int64)
        for side in (human, heard)
    )
    return _pair_costs(one, other, _sketches(list(codes)))


def _pair_costs(
    one: NDArray[np.int64], other: NDArray[np.int64], sketches: NDArray[np.float32]
) -> NDArray[np.int32]:
    alike = sketches[one] @ sketches[other].T
    costs: NDArray[np.int32] = _UNLIKE_COST - np.rint(_ALIKE_DISCOUNT * alike).astype(np.int32)
    costs[one[:, None] == other[None, :]] = 0
    return costs


# What a cell of the table remembers: how its least cost was reached, and whether a gap that ends
# there was opened there.
_PAIR, _DOWN, _ACROSS = 0, 1, 2
_STATE, _DOWN_OPENED, _ACROSS_OPENED = 3, 4, 8
_NEVER = np.int32(1 << 29)


def _least_cost(
    one: NDArray[np.int64], other: NDArray[np.int64], sketches: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Position in ``one`` of each word of ``other``, or -1, at the least cost over all.

    Row by row: ``best`` is the least cost up to a cell, ``down`` that of ending in a gap of words
    of ``one``. A gap across a row is the running minimum over where it could have been opened.
    """
    columns = len(other)
    steps = np.arange(columns + 1, dtype=np.int32) * GAP_COST
    best = np.where(steps > 0, steps + OPEN_COST, 0).astype(np.int32)
    down = np.full(columns + 1, _NEVER)
    cells = np.empty((len(one), columns + 1), dtype=np.uint8)
    for row in range(len(one)):
        if row % _ROWS == 0:
            costs = _pair_costs(one[row : row + _ROWS], other, sketches)
        opened = best + OPEN_COST
        cell = np.where(opened <= down, _DOWN_OPENED | _DOWN, _DOWN).astype(np.uint8)
        down = np.minimum(opened, down) + GAP_COST
        reached = down.copy()
        paired = best[:-1] + costs[row % _ROWS]
        better = paired <= reached[1:]
        reached[1:][better] = paired[better]
        cell[1:][better] ^= _DOWN
        opened = reached[:-1] + OPEN_COST + GAP_COST
        across = np.minimum.accumulate(opened - steps[:-1]) + steps[:-1]
        cell[1:][across == opened] |= _ACROSS_OPENED
        better = across < reached[1:]
        reached[1:][better] = across[better]
        cell[1:][better] = (cell[1:][better] & ~np.uint8(_STATE)) | _ACROSS
        cells[row], best = cell, reached
    return _trace(cells, columns)


def _trace(cells: NDArray[np.uint8], columns: int) -> NDArray[np.int64]:
    found = np.full(columns, -1, dtype=np.int64)
    row, column, gap = len(cells), columns, 0
    while row and column:
        cell = int(cells[row - 1, column])
        state = gap or cell & _STATE
        if state == _PAIR:
            found[column - 1] = row - 1
            row, column = row - 1, column - 1
        elif state == _DOWN:
            gap = 0 if cell & _DOWN_OPENED else _DOWN
            row -= 1
        else:
            gap = 0 if cell & _ACROSS_OPENED else _ACROSS
            column -= 1
    return found
