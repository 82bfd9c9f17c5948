"""Batches: nothing lost, nothing twice, little padding, always the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.data.batching import BucketPlan

lengths_of_a_dataset = st.lists(st.integers(1, 2000), min_size=1, max_size=300)


@given(lengths_of_a_dataset, st.integers(1, 40), st.integers(0, 2**31), st.integers(0, 50))
def test_every_utterance_is_in_an_epoch_exactly_once(
    lengths: list[int], batch_size: int, seed: int, epoch: int
) -> None:
    plan = BucketPlan(lengths, batch_size, seed=seed)
    batches = plan.epoch(epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == plan.batches_per_epoch
    assert max(len(batch) for batch in batches) <= batch_size


@given(lengths_of_a_dataset, st.integers(1, 40), st.integers(0, 500))
def test_a_step_gives_its_batch_without_those_before(
    lengths: list[int], batch_size: int, step: int
) -> None:
    walked = BucketPlan(lengths, batch_size, seed=3)
    for earlier in range(max(0, step - 3), step):
        walked.batch(earlier)
    jumped = BucketPlan(lengths, batch_size, seed=3)
    assert jumped.batch(step).tolist() == walked.batch(step).tolist()
    position = jumped.position(step)
    assert position.epoch * jumped.batches_per_epoch + position.batch == step
    expected = jumped.epoch(position.epoch)[position.batch]
    assert jumped.batch(step).tolist() == expected.tolist()


def test_epochs_and_seeds_differ() -> None:
    lengths = np.random.default_rng(0).integers(100, 300, 190).tolist()
    plan = BucketPlan(lengths, 16, seed=1)
    members = [frozenset(map(frozenset, (b.tolist() for b in plan.epoch(e)))) for e in range(3)]
    assert len(set(members)) == 3  # not the same batches in another order
    other = BucketPlan(lengths, 16, seed=2)
    assert [b.tolist() for b in plan.epoch(0)] != [b.tolist() for b in other.epoch(0)]


def padding_share(lengths, batches) -> float:
    """Share of the frames computed that are padding, batch by batch."""
    computed = wanted = 0
    for batch in batches:
        frames = [lengths[index] for index in batch]
        computed += len(frames) * max(frames)
        wanted += sum(frames)
    return 1 - wanted / computed


def test_padding_is_a_small_part_of_what_it_is_unsorted() -> None:
    random = np.random.default_rng(0)
    seconds = np.clip(random.normal(6.8, 2.0, 4000), 1.0, 10.0)  # like LJSpeech
    lengths = (seconds * 86).astype(int).tolist()
    bucketed = padding_share(lengths, BucketPlan(lengths, 16, seed=0).epoch(0))
    shuffled = np.array_split(random.permutation(4000), 250)
    assert padding_share(lengths, shuffled) > 0.2
    assert bucketed < 0.05


def test_batches_are_sorted_longest_first() -> None:
    lengths = [5, 9, 2, 7, 7, 1, 30]
    for batch in BucketPlan(lengths, 3, seed=0).epoch(4):
        sizes = [lengths[index] for index in batch]
        assert sizes == sorted(sizes, reverse=True)


def test_batches_come_in_no_order_of_length() -> None:
    lengths = list(range(1, 641))
    longest = [max(batch) for batch in BucketPlan(lengths, 16, seed=0).epoch(0)]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


@pytest.mark.parametrize(("lengths", "size"), [([], 4), ([3], 0)])
def test_impossible_plans_are_refused(lengths: list[int], size: int) -> None:
    with pytest.raises(ValueError, match="cannot make batches"):
        BucketPlan(lengths, size, seed=0)
