"""Batches: nothing lost, nothing twice, little padding, alike in a group, always the same."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kamerton.core.errors import ParamsError
from kamerton.data.batching import (
    MAX_UTTERANCES_FACTOR,
    Batch,
    BatchPlan,
    Kind,
    Position,
)

KINDS: list[Kind] = ["frames", "utterances"]
BEFORE_SCALES = {"frames": "2895111cc35f383c", "utterances": "b302477268b085c2"}
lengths_of_a_dataset = st.lists(st.integers(1, 2000), min_size=1, max_size=300)
kinds = st.sampled_from(KINDS)
sizes = st.integers(1, 40)
groups = st.integers(1, 12)
shares = st.floats(0.01, 1.0)
epochs = st.integers(0, 50)


def plan_of(
    lengths: list[int], size: int, kind: Kind, *, group: int = 1, multiple: int = 1, seed: int = 1
) -> BatchPlan:
    return BatchPlan(
        lengths, size, kind=kind, seed=seed, group=min(group, len(lengths)), multiple=multiple,
    )  # fmt: skip


def flat(epoch: list[list[Batch]]) -> list[Batch]:
    return [batch for group in epoch for batch in group]


def padded(lengths: Sequence[int], batch: Batch, multiple: int = 1) -> int:
    longest = max(lengths[index] for index in batch)
    return len(batch) * math.ceil(longest / multiple) * multiple


def padding(lengths: Sequence[int], batches: Sequence[Batch], multiple: int = 1) -> float:
    """Share of the frames computed that are padding, batch by batch."""
    computed = sum(padded(lengths, batch, multiple) for batch in batches)
    return 1 - sum(lengths[index] for batch in batches for index in batch) / computed


def as_lists(epoch: list[list[Batch]]) -> list[list[list[int]]]:
    return [[batch.tolist() for batch in group] for group in epoch]


def like_ljspeech(count: int, seed: int = 0) -> list[int]:
    seconds = np.random.default_rng(seed).normal(6.8, 2.0, count).clip(1.0, 10.0)
    frames: list[int] = (seconds * 22050 / 256).astype(int).tolist()
    return frames


@given(lengths_of_a_dataset, sizes, kinds, groups, epochs)
def test_every_utterance_is_in_an_epoch_exactly_once(
    lengths: list[int], size: int, kind: Kind, group: int, epoch: int
) -> None:
    made = plan_of(lengths, size, kind, group=group).epoch(epoch)
    assert sorted(np.concatenate(flat(made)).tolist()) == list(range(len(lengths)))
    assert min(len(batch) for batch in flat(made)) >= 1


@given(lengths_of_a_dataset, sizes, kinds, groups, shares, epochs, st.integers(0, 2**31))
def test_a_plan_is_a_function_of_what_it_is_given(
    lengths: list[int], size: int, kind: Kind, group: int, share: float, epoch: int, seed: int
) -> None:
    walked = plan_of(lengths, size, kind, group=group, seed=seed)
    for earlier in range(max(0, epoch - 3), epoch):
        walked.epoch(earlier, 0.5)
    fresh = plan_of(lengths, size, kind, group=group, seed=seed)
    assert as_lists(walked.epoch(epoch, share)) == as_lists(fresh.epoch(epoch, share))


@given(lengths_of_a_dataset, sizes, st.integers(1, 10))
def test_no_batch_exceeds_the_budget_but_an_utterance_alone(
    lengths: list[int], size: int, multiple: int
) -> None:
    plan = plan_of(lengths, size, "frames", multiple=multiple)
    rounded = [math.ceil(length / multiple) * multiple for length in lengths]
    assert plan.budget == math.ceil(Fraction(size * sum(rounded), len(rounded)))
    for batch in flat(plan.epoch(3)):
        assert padded(lengths, batch, multiple) <= plan.budget or len(batch) == 1
        assert len(batch) <= MAX_UTTERANCES_FACTOR * size
    alone = plan.longer_than_budget()
    assert sorted(alone) == [i for i, length in enumerate(rounded) if length > plan.budget]
    assert [rounded[i] for i in alone] == sorted((rounded[i] for i in alone), reverse=True)


@given(lengths_of_a_dataset, sizes, groups)
def test_no_batch_has_more_utterances_than_it_is_given(
    lengths: list[int], size: int, group: int
) -> None:
    plan = plan_of(lengths, size, "utterances", group=group)
    counts = [len(batch) for batch in flat(plan.epoch(3))]
    taken = min(group, len(lengths))
    assert len(counts) == taken * math.ceil(len(lengths) / (size * taken)) or size == 1
    # Batches of one, and no multiple of a group of them: some must take two.
    assert max(counts) <= size or (size == 1 and len(lengths) % taken and max(counts) == 2)
    assert plan.longer_than_budget() == []


@given(lengths_of_a_dataset, sizes, groups)
def test_the_budget_holds_in_groups_too(lengths: list[int], size: int, group: int) -> None:
    plan = plan_of(lengths, size, "frames", group=group)
    batches = flat(plan.epoch(0))
    within = [padded(lengths, batch) <= plan.budget or len(batch) == 1 for batch in batches]
    # Only where a group of batches of one cannot be filled up must some take more.
    assert all(within) or len(lengths) % min(group, len(lengths))
    assert within.count(False) <= group


@given(lengths_of_a_dataset, sizes, kinds, groups)
def test_batches_are_sorted_longest_first(
    lengths: list[int], size: int, kind: Kind, group: int
) -> None:
    for batch in flat(plan_of(lengths, size, kind, group=group).epoch(4)):
        taken = [lengths[index] for index in batch]
        assert taken == sorted(taken, reverse=True)


@given(lengths_of_a_dataset, sizes, kinds, st.integers(1, 4), st.integers(1, 3), shares)
def test_ranks_share_an_epoch_in_equal_numbers_and_without_overlap(
    lengths: list[int], size: int, kind: Kind, ranks: int, accumulation: int, share: float
) -> None:
    assume(len(lengths) >= ranks * accumulation)
    plan = plan_of(lengths, size, kind, group=ranks * accumulation)
    seen: list[int] = []
    position = Position(2, 0, share)
    while position.epoch == 2:
        for rank in range(ranks):
            batches = plan.batches(position, rank, ranks)
            assert len(batches) == accumulation
            seen += np.concatenate(batches).tolist()
        position = plan.after(position, share)
    taken = np.concatenate(flat(plan.epoch(2, share)))
    assert sorted(seen) == sorted(taken.tolist())
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("kind", KINDS)
def test_one_process_that_accumulates_takes_what_two_processes_take(kind: Kind) -> None:
    plan = plan_of(like_ljspeech(300), 8, kind, group=2)
    together = plan.batches(Position(1, 5))
    apart = plan.batches(Position(1, 5), 0, 2) + plan.batches(Position(1, 5), 1, 2)
    assert [batch.tolist() for batch in together] == [batch.tolist() for batch in apart]


@given(
    st.lists(st.integers(1, 2000), min_size=1, max_size=80),
    st.integers(1, 8), kinds, st.integers(1, 3), st.integers(0, 40),
)  # fmt: skip
def test_going_on_from_any_position_gives_what_an_uninterrupted_run_sees(
    lengths: list[int], size: int, kind: Kind, group: int, stop: int
) -> None:
    def walk(plan: BatchPlan, position: Position, steps: int) -> list[tuple[Position, list[int]]]:
        seen = []
        for _ in range(steps):
            seen.append((position, np.concatenate(plan.batches(position)).tolist()))
            share = min(1.0, 0.4 + 0.2 * (position.epoch + 1))
            position = plan.after(position, share)
        return seen

    start = Position(0, 0, 0.4)
    whole = walk(plan_of(lengths, size, kind, group=group), start, stop + 10)
    resumed = walk(plan_of(lengths, size, kind, group=group), whole[stop][0], 10)
    assert resumed == whole[stop:]


@given(lengths_of_a_dataset, sizes, kinds, groups, shares, shares)
def test_a_share_is_the_shortest_clips_and_grows_with_it(
    lengths: list[int], size: int, kind: Kind, group: int, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    plan = plan_of(lengths, size, kind, group=group)
    fewer, more = (set(np.concatenate(flat(plan.epoch(0, s))).tolist()) for s in (low, high))
    assert fewer <= more
    assert len(fewer) == max(min(group, len(lengths)), math.ceil(low * len(lengths)))
    left_out = set(range(len(lengths))) - fewer
    assert not left_out or max(lengths[i] for i in fewer) <= min(lengths[i] for i in left_out)


def test_a_new_epoch_takes_the_share_it_is_given_and_an_old_one_keeps_its_own() -> None:
    plan = plan_of(like_ljspeech(100), 10, "utterances")
    assert plan.after(Position(0, 0, 0.4), 0.7) == Position(0, 1, 0.4)
    last = len(plan.epoch(0, 0.4)) - 1
    assert plan.after(Position(0, last, 0.4), 0.7) == Position(1, 0, 0.7)


@given(lengths_of_a_dataset, sizes, kinds, groups, shares, epochs, st.floats(0.02, 5.0))
def test_a_scaled_epoch_is_that_of_a_plan_of_so_many_times_the_batch_size(
    lengths: list[int], size: int, kind: Kind, group: int, share: float, epoch: int, scale: float
) -> None:
    scaled = plan_of(lengths, size, kind, group=group)
    other = plan_of(lengths, max(1, round(size * scale)), kind, group=group)
    assert as_lists(scaled.epoch(epoch, share, scale)) == as_lists(other.epoch(epoch, share))
    # And what it is asked for in between changes neither the usual epochs nor their number.
    usual = plan_of(lengths, size, kind, group=group)
    assert as_lists(scaled.epoch(epoch, share)) == as_lists(usual.epoch(epoch, share))
    assert scaled.steps_per_epoch == usual.steps_per_epoch


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_scale_one_are_those_from_before_there_was_a_scale(kind: Kind) -> None:
    """Runs that were begun then go on as they would have; the hashes were taken then."""
    lengths = [(37 * index) % 211 + 5 for index in range(120)]
    plan = plan_of(lengths, 8, kind, group=2, multiple=2)
    made = [as_lists(plan.epoch(epoch, share)) for epoch in range(3) for share in (1.0, 0.5)]
    assert hashlib.sha256(repr(made).encode()).hexdigest()[:16] == BEFORE_SCALES[kind]


@given(
    st.lists(st.integers(1, 2000), min_size=1, max_size=80),
    st.integers(1, 8), kinds, st.integers(1, 3), st.integers(0, 40),
    st.lists(st.sampled_from([0.5, 0.8, 1.0, 1.25, 2.0]), min_size=1, max_size=5),
)  # fmt: skip
def test_scales_that_change_are_gone_on_from_exactly(
    lengths: list[int], size: int, kind: Kind, group: int, stop: int, scales: list[float]
) -> None:
    def walk(plan: BatchPlan, position: Position, steps: int) -> list[tuple[Position, list[int]]]:
        seen = []
        for _ in range(steps):
            seen.append((position, np.concatenate(plan.batches(position)).tolist()))
            following = scales[(position.epoch + 1) % len(scales)]
            position = plan.after(position, 1.0, following)
            assert position.batch == 0 or position.scale == seen[-1][0].scale
        return seen

    start = Position(0, 0, 1.0, scales[0])
    whole = walk(plan_of(lengths, size, kind, group=group), start, stop + 10)
    resumed = walk(plan_of(lengths, size, kind, group=group), whole[stop][0], 10)
    assert resumed == whole[stop:]
    epoch = [taken for position, taken in whole if position.epoch == 0]
    if whole[-1][0].epoch > 0:
        assert sorted(np.concatenate(epoch).tolist()) == list(range(len(lengths)))


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_one_group_are_neighbours_in_length(kind: Kind) -> None:
    lengths = like_ljspeech(4000)
    plan = plan_of(lengths, 16, kind, group=4)
    longest = [[max(lengths[i] for i in batch) for batch in group] for group in plan.epoch(0)]
    within = np.mean([np.std(group) for group in longest])
    shuffled = np.random.default_rng(0).permutation(np.ravel(longest)).reshape(-1, 4)
    assert within < 0.2 * np.mean(np.std(shuffled, axis=1))
    # Nothing of a group lies on both sides of a third.
    spans = sorted((min(group), max(group)) for group in longest)
    assert np.mean([high - low for low, high in spans]) < 0.15 * (max(lengths) - min(lengths))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group", [1, 3, 8])
def test_groups_and_epochs_come_in_no_order_of_length(kind: Kind, group: int) -> None:
    lengths = like_ljspeech(4000)
    plan = plan_of(lengths, 8, kind, group=group)
    means = [np.mean([lengths[i] for batch in g for i in batch]) for g in plan.epoch(0)]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.2
    members = {frozenset(frozenset(b.tolist()) for b in flat(plan.epoch(e))) for e in range(3)}
    assert len(members) == 3  # not the same batches in another order
    other = plan_of(lengths, 8, kind, group=group, seed=2)
    assert as_lists(plan.epoch(0)) != as_lists(other.epoch(0))


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize(("kind", "most"), [("frames", 0.025), ("utterances", 0.025)])
def test_padding_is_a_small_part_of_what_it_is_unsorted(
    kind: Kind, most: float, group: int
) -> None:
    lengths = like_ljspeech(4000)
    shuffled = np.array_split(np.random.default_rng(0).permutation(4000), 250)
    assert padding(lengths, shuffled) > 0.2
    assert padding(lengths, flat(plan_of(lengths, 16, kind, group=group).epoch(0))) < most


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [170, 515, 1030])
def test_no_pool_ends_in_tiny_batches(kind: Kind, count: int) -> None:
    lengths = like_ljspeech(count)
    batches = flat(plan_of(lengths, 16, kind).epoch(0))
    expected = count / 16
    assert len(batches) <= expected * 1.12 + 2
    frames = [padded(lengths, batch) for batch in batches]
    assert min(frames) >= 0.3 * np.median(frames)


@pytest.mark.parametrize("kind", KINDS)
def test_epochs_have_almost_the_same_number_of_steps(kind: Kind) -> None:
    plan = plan_of(like_ljspeech(2000), 16, kind)
    assert plan.steps_per_epoch == len(plan.epoch(0))
    counts = [len(plan.epoch(epoch)) for epoch in range(8)]
    assert max(counts) - min(counts) <= 0.03 * plan.steps_per_epoch


def test_many_short_clips_do_not_fill_one_batch() -> None:
    lengths = [1] * 400 + [400] * 100  # the mean is 80.8: by frames alone 646 short ones would fit
    batches = flat(plan_of(lengths, 8, "frames").epoch(0))
    assert 8 < max(len(batch) for batch in batches) <= MAX_UTTERANCES_FACTOR * 8


def test_a_clip_longer_than_the_budget_is_a_batch_of_its_own() -> None:
    lengths = [10] * 99 + [5000]
    plan = plan_of(lengths, 8, "frames")
    assert plan.budget < 5000
    assert [batch.tolist() for batch in flat(plan.epoch(0)) if 99 in batch] == [[99]]
    assert plan.longer_than_budget() == [99]


@pytest.mark.parametrize(
    ("lengths", "size", "group", "multiple"),
    [([], 4, 1, 1), ([3], 0, 1, 1), ([3], 1, 0, 1), ([3], 1, 1, 0)],
)
def test_impossible_plans_are_refused(
    lengths: list[int], size: int, group: int, multiple: int
) -> None:
    with pytest.raises(ValueError, match="cannot make batches"):
        BatchPlan(lengths, size, kind="frames", seed=0, group=group, multiple=multiple)


def test_too_few_clips_for_all_processes_are_refused() -> None:
    with pytest.raises(ParamsError, match="3 clips cannot be shared among 4 batches"):
        BatchPlan([5, 6, 7], 2, kind="frames", seed=0, group=4)
