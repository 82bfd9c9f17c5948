"""Where to cut a recording: speech scores in, clip limits out, by dynamic programming.

Everything here counts in frames of 10 ms and touches no audio, so that it can be tested against
brute force. The rule: a clip never spans a pause longer than the limit, never exceeds the maximum
length, and is cut at pauses; among the ways to do that, the one is chosen that loses least speech,
then the one that cuts in the longest, quietest pauses into lengths near the target.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRAMES_PER_SECOND = 100
_GRID_FRAMES = 2  # forced cuts are sought every 20 ms
_CUT_WINDOW_FRAMES = 11  # the 110 ms around a cut should be silent ...
_CALM_WINDOW_FRAMES = 51  # ... and, less importantly, the half second around it
_CALM_WEIGHT = 0.5
_MIN_BURST_FRAMES = 5  # shorter sounds between pauses are clicks
# A rejected clip costs more per second than all preferences together can.
_LOSS_PER_FRAME = 1.0
_FORCED_CUT_COST = 10.0
_INNER_PAUSE_COST = 0.5
_LENGTH_WEIGHT = 1.0


@dataclass(frozen=True, slots=True)
class CutLimits:
    """The limits of `SegmentParams` in frames."""

    min_frames: int
    target_frames: int
    max_frames: int
    min_pause_frames: int
    max_inner_pause_frames: int
    pad_frames: int
    keep_forced_cuts: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """A planned clip, frames [start, end), and why it would not be kept, if so.

    ``speech_start`` and ``speech_end`` are the same without the margins.
    """

    start: int
    end: int
    speech_start: int
    speech_end: int
    forced_cut: bool
    reasons: tuple[str, ...]


def speech_mask(
    scores: NDArray[np.float32],
    min_pause_frames: int,
    grow_frames: int = 0,
    threshold: float = 0.5,
) -> NDArray[np.bool_]:
    """True where there is speech, (T,).

    Silences shorter than ``min_pause_frames`` between speech are part of it; isolated bursts too
    short for a syllable are not. ``grow_frames`` are added to both sides of every stretch, for
    recordings in which noise hides the weak beginnings and ends of words.
    """
    mask = scores >= threshold
    starts, ends = runs(mask)
    keep = ends - starts >= _MIN_BURST_FRAMES
    # A short burst next to other speech belongs to a word, such as the release of a final "t".
    keep[1:] |= starts[1:] - ends[:-1] < min_pause_frames
    keep[:-1] |= starts[1:] - ends[:-1] < min_pause_frames
    starts = np.maximum(starts[keep] - grow_frames, 0)
    ends = np.minimum(ends[keep] + grow_frames, len(mask))
    if not len(starts):
        return np.zeros(len(mask), dtype=bool)
    apart = starts[1:] - ends[:-1] >= min_pause_frames
    starts, ends = starts[np.append(True, apart)], ends[np.append(apart, True)]
    edges = np.zeros(len(mask) + 1, dtype=np.int8)
    edges[starts] += 1
    edges[ends] -= 1
    return np.asarray(np.cumsum(edges[:-1], dtype=np.int8) > 0)


def runs(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start and end (exclusive) of every stretch of True."""
    edges = np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


def cut_cost(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cost of a cut before each frame, (T,): how much speech is around it."""
    cost = hann_mean(scores, _CUT_WINDOW_FRAMES)
    cost += np.float32(_CALM_WEIGHT) * hann_mean(scores, _CALM_WINDOW_FRAMES)
    return cost


def hann_mean(scores: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Mean under a Hann window of odd ``width`` around each frame, (T,)."""
    window = np.hanning(width + 2)[1:-1]
    weights = (window / window.sum()).astype(np.float32)
    return np.convolve(np.pad(scores, width // 2), weights, mode="valid")


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Places to cut, in order, (K,) each.

    A pause is one candidate, and inside stretches of speech longer than the maximum every 20 ms
    is one. A clip from candidate i to j holds the speech [after[i], before[j]) and, with its
    margins, [begin[i], finish[j]).
    """

    before: NDArray[np.int64]
    after: NDArray[np.int64]
    begin: NDArray[np.int64]
    finish: NDArray[np.int64]
    cost: NDArray[np.float64]
    spanned: NDArray[np.float64]
    forced: NDArray[np.bool_]
    wall: NDArray[np.bool_]


def plan_clips(
    scores: NDArray[np.float32], mask: NDArray[np.bool_], limits: CutLimits
) -> list[Span]:
    """Cut a recording into clips that together hold all of its speech.

    Args:
        scores: speech scores, (T,).
        mask: `speech_mask` of them, (T,).
        limits: what a clip may be.

    Returns:
        Clips in order, not overlapping, none longer than the maximum. Those that break another
        limit are included, with reasons.
    """
    starts, ends = runs(mask)
    if not len(starts):
        return []
    candidates = _find_candidates(cut_cost(scores), starts, ends, len(mask), limits)
    walls = np.flatnonzero(candidates.wall)
    spans: list[Span] = []
    for first, last in pairwise(walls):
        chosen = _cheapest_path(candidates, int(first), int(last), limits)
        spans += [_span(candidates, i, j, limits) for i, j in pairwise(chosen)]
    return spans


def _find_candidates(
    cost: NDArray[np.float32],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    frames: int,
    limits: CutLimits,
) -> _Candidates:
    """All candidates; the recording's two ends are walls like its long pauses."""
    before, after = np.append(0, ends), np.append(starts, frames)  # pause k is [before, after)
    length = after - before
    wall = length > limits.max_inner_pause_frames
    wall[0] = wall[-1] = True
    inside = [
        np.arange(start + _GRID_FRAMES, end, _GRID_FRAMES)
        for start, end in zip(starts, ends, strict=True)
        if end - start > limits.max_frames
    ]
    grid = np.concatenate(inside) if inside else np.zeros(0, dtype=np.int64)
    middle = (before + after) // 2
    middle_cost = cost[np.minimum(middle, frames - 1)]
    # The recording may be cut anywhere before its first word and after its last one.
    low, high = middle.copy(), -(-(before + after) // 2)
    low[-1], high[0] = frames, 0
    none = np.zeros(len(grid))
    columns = (
        (before, grid),
        (after, grid),
        (np.maximum(after - limits.pad_frames, high), grid),
        (np.minimum(before + limits.pad_frames, low), grid),
        (np.where(wall, 0.0, middle_cost), cost[grid] + _FORCED_CUT_COST),
        (_INNER_PAUSE_COST * length / limits.max_inner_pause_frames, none),
        (np.zeros(len(before), dtype=bool), none == 0.0),
        (wall, none > 0.0),
    )
    order = np.argsort(np.concatenate([middle, grid]), kind="stable")
    return _Candidates(*(np.concatenate(column)[order] for column in columns))


def _cheapest_path(candidates: _Candidates, first: int, last: int, limits: CutLimits) -> list[int]:
    """The candidates from ``first`` to ``last`` at which to cut, both included."""
    part = slice(first, last + 1)
    after, begin = candidates.after[part], candidates.begin[part]
    before, finish = candidates.before[part], candidates.finish[part]
    cost, forced = candidates.cost[part], candidates.forced[part]
    spanned = np.cumsum(candidates.spanned[part])
    lost_if_forced = forced & (not limits.keep_forced_cuts)
    best = np.zeros(last - first + 1)
    previous = np.zeros(last - first + 1, dtype=np.int64)
    # The first candidate from which candidate j is within reach.
    nearest = np.searchsorted(after, before - limits.max_frames)
    for j in range(1, last - first + 1):
        reach = slice(min(nearest[j], j - 1), j)
        length = np.minimum(finish[j] - begin[reach], limits.max_frames)
        lost = (length < limits.min_frames) | lost_if_forced[reach] | lost_if_forced[j]
        # What is lost has no length to be good or bad: its cuts are placed by their cost alone.
        badness = np.where(
            lost,
            _LOSS_PER_FRAME * (before[j] - after[reach]),
            _LENGTH_WEIGHT * np.log(np.maximum(length, 1) / limits.target_frames) ** 2,
        )
        total = best[reach] + badness + (spanned[j - 1] - spanned[reach])
        choice = int(np.argmin(total))
        previous[j] = choice + reach.start
        best[j] = total[choice] + cost[j]
    path = [last - first]
    while path[-1]:
        path.append(int(previous[path[-1]]))
    return [first + index for index in reversed(path)]


def whole_span(mask: NDArray[np.bool_], limits: CutLimits) -> Span | None:
    """One clip from the first speech to the last, pauses and all; None if it would be too long."""
    speech = np.flatnonzero(mask)
    if not len(speech) or speech[-1] + 1 - speech[0] > limits.max_frames:
        return None
    first, last = int(speech[0]), int(speech[-1]) + 1
    begin, finish = max(0, first - limits.pad_frames), min(len(mask), last + limits.pad_frames)
    return _limited(begin, finish, first, last, limits, forced=False)


def _span(candidates: _Candidates, i: int, j: int, limits: CutLimits) -> Span:
    speech_start, speech_end = int(candidates.after[i]), int(candidates.before[j])
    start, end = int(candidates.begin[i]), int(candidates.finish[j])
    forced = bool(candidates.forced[i] or candidates.forced[j])
    return _limited(start, end, speech_start, speech_end, limits, forced=forced)


def _limited(
    start: int, end: int, speech_start: int, speech_end: int, limits: CutLimits, *, forced: bool
) -> Span:
    """A span within the maximum, with its reasons; margins give way, never speech."""
    excess = max(0, end - start - limits.max_frames)
    cut_left = min(speech_start - start, max(excess // 2, excess - (end - speech_end)))
    start, end = start + cut_left, end - (excess - cut_left)
    reasons = []
    if forced and not limits.keep_forced_cuts:
        reasons.append("forced_cut")
    if end - start < limits.min_frames:
        reasons.append("too_short")
    return Span(start, end, speech_start, speech_end, forced, tuple(reasons))
