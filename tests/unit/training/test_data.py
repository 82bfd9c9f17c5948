"""The dataset as the loop sees it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kamerton.config.schema import Params
from kamerton.core.errors import InputCorruptError, InputEmptyError, ParamsError
from kamerton.core.stop import StopRequest
from kamerton.data.batching import Position
from kamerton.data.manifest import Dataset
from kamerton.training.data import TensorBatch, TrainingData
from kamerton.training.distributed import World
from kamerton.training.session import Session, fixed_threads
from tests.tiny_corpus import RATE_HZ, tiny_params, write_dataset, write_tiny_dataset

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.open(write_tiny_dataset(tmp_path_factory.mktemp("corpus") / "d", train=22))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def params_with(changes: dict[str, object]) -> Params:
    return tiny_params().with_overrides({"train": changes})


def positions(data: TrainingData, epoch: int, share: float = 1.0) -> Iterator[Position]:
    position = Position(epoch, 0, share)
    while position.epoch == epoch:
        yield position
        position = data.after(position)


def rows_of(batches: Sequence[TensorBatch]) -> list[tuple[bytes, bytes]]:
    """Each utterance without its padding, to be compared and counted."""
    found = []
    for batch in batches:
        for row in range(len(batch.symbols)):
            symbols = batch.symbols[row, : batch.symbol_lengths[row]]
            frames = batch.frames[row, : batch.frame_lengths[row]]
            found.append((symbols.numpy().tobytes(), frames.numpy().tobytes()))
    return found


def test_an_epoch_holds_every_training_clip_once_as_it_is(dataset: Dataset, cache: Path) -> None:
    data = TrainingData(dataset, cache, tiny_params(), device=CPU)
    seen = [row for at in positions(data, 3) for row in rows_of(data.batches(at))]
    expected = [rows_of([data.tensors([row])])[0] for row in dataset.rows("train")]
    assert sorted(seen) == sorted(expected)
    assert len(list(positions(data, 0))) == data.steps_per_epoch


@pytest.mark.parametrize("batching", ["frames", "utterances"])
def test_processes_share_an_epoch_as_one_that_accumulates(
    dataset: Dataset, cache: Path, batching: str
) -> None:
    four = params_with({"batching": batching, "batch_size": 2, "accumulation": 4})
    two = params_with({"batching": batching, "batch_size": 2, "accumulation": 2})
    alone = TrainingData(dataset, cache, four, device=CPU)
    ranks = [
        TrainingData(dataset, cache, two, device=CPU, world=World(rank, 2)) for rank in range(2)
    ]
    assert ranks[0].steps_per_epoch == alone.steps_per_epoch
    for at in positions(alone, 1):
        together = alone.batches(at)
        shared = [rank.batches(at) for rank in ranks]
        assert len(together) == 4
        assert [len(batches) for batches in shared] == [2, 2]
        assert sorted(rows_of(together)) == sorted(rows_of([*shared[0], *shared[1]]))
        assert {rank.after(at) for rank in ranks} == {alone.after(at)}


def test_frames_are_padded_to_the_reduction_factor_and_no_further(
    dataset: Dataset, cache: Path
) -> None:
    data = TrainingData(dataset, cache, tiny_params(), device=CPU)
    for at in positions(data, 0):
        for batch in data.batches(at):
            longest = int(batch.frame_lengths.max())
            assert batch.frames.shape[1] == -(-longest // 3) * 3
            assert batch.real_frames == sum(batch.frame_lengths.tolist())


def test_a_curriculum_begins_with_the_shortest_clips(dataset: Dataset, cache: Path) -> None:
    data = TrainingData(dataset, cache, tiny_params(), device=CPU)
    taken = [n for at in positions(data, 0, 0.4) for b in data.batches(at) for n in b.frame_lengths]
    by_length = sorted(int(data.tensors([row]).frame_lengths[0]) for row in dataset.rows("train"))
    assert sorted(map(int, taken)) == by_length[:9]  # of 22


def test_one_speaker_has_no_number_and_several_are_numbered_by_name(
    dataset: Dataset, cache: Path
) -> None:
    data = TrainingData(dataset, cache, tiny_params(), device=CPU)
    assert data.speakers == ("speaker",)
    assert data.batches(Position())[0].speakers is None

    names = ["zoe", "ann", "max"]
    rows = tuple(replace(row, speaker=names[i % 3]) for i, row in enumerate(dataset.rows()))
    several = TrainingData(
        Dataset(dataset.path, dataset.card, rows), cache, tiny_params(), device=CPU
    )
    assert several.speakers == ("ann", "max", "zoe")
    for row in rows:
        numbers = several.tensors([row, rows[1]]).speakers
        assert numbers is not None
        assert numbers.tolist() == [several.speakers.index(row.speaker), 0]
    assert several.validation[0].speakers is not None


def test_what_is_read_aloud_is_as_many_sentences_as_asked_for(
    dataset: Dataset, cache: Path
) -> None:
    two = params_with({"monitoring": {"free_running_sentences": 2}})
    spoken = TrainingData(dataset, cache, two, device=CPU).spoken
    assert [row.id for row in spoken] == sorted(row.id for row in dataset.rows("val"))[:2]


def test_a_symbol_that_is_not_in_the_table_is_named_with_its_clip(
    dataset: Dataset, cache: Path
) -> None:
    rows = dataset.rows()
    rows[4] = replace(rows[4], text="ab€")
    with pytest.raises(InputCorruptError, match=rf"clip {rows[4].id}: .*'€' \(EURO SIGN\)") as got:
        TrainingData(
            Dataset(dataset.path, dataset.card, tuple(rows)), cache, tiny_params(), device=CPU
        )
    assert "kamerton dataset --force" in got.value.hint


@pytest.mark.parametrize(
    ("train", "val", "missing"), [(1, 0, "validation"), (0, 1, "training"), (0, 0, "training")]
)
def test_a_dataset_too_small_to_train_on_says_what_it_lacks(
    tmp_path: Path, train: int, val: int, missing: str
) -> None:
    small = Dataset.open(write_tiny_dataset(tmp_path / "d", train=train, val=val))
    with pytest.raises(
        InputEmptyError, match=rf"no clips for {missing} \(it has {train + val} in all"
    ):
        TrainingData(small, tmp_path / "cache", tiny_params(), device=CPU)


def test_too_few_clips_for_the_processes_are_refused(dataset: Dataset, cache: Path) -> None:
    params = params_with({"accumulation": 12})
    with pytest.raises(ParamsError, match="22 clips cannot be shared among 24 batches"):
        TrainingData(dataset, cache, params, device=CPU, world=World(0, 2))


def test_clips_longer_than_the_budget_are_told_of_once_and_trained_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    random = np.random.default_rng(0)
    seconds = [0.4] * 10 + [20.0, 12.0] + [0.4]
    clips = [
        ("train" if index < 12 else "val", "abc",
         (0.1 * random.standard_normal(int(length * RATE_HZ))).astype(np.float32))
        for index, length in enumerate(seconds)
    ]  # fmt: skip
    dataset = Dataset.open(write_dataset(tmp_path / "d", clips, RATE_HZ))
    params = params_with({"batch_size": 2})
    with caplog.at_level(logging.WARNING):
        data = TrainingData(dataset, tmp_path / "cache", params, device=CPU)
        batches = [batch for at in positions(data, 0) for batch in data.batches(at)]
    (record,) = caplog.records
    assert "2 clips are longer than a whole batch" in record.getMessage()
    assert dataset.rows("train")[10].id in record.getMessage()
    assert sorted(len(batch.symbols) for batch in batches if batch.frames.shape[1] > 1000) == [1, 1]
    assert sum(len(batch.symbols) for batch in batches) == 12

    caplog.clear()
    fixed = params_with({"batch_size": 2, "batching": "utterances"})
    TrainingData(dataset, tmp_path / "cache", fixed, device=CPU)
    assert not caplog.records  # there is no budget to exceed


def test_one_clip_to_train_on_and_one_to_validate_are_enough(tmp_path: Path) -> None:
    """Statistics over a batch of one utterance are finite, and so is everything after them."""
    small = Dataset.open(write_tiny_dataset(tmp_path / "d", train=1, val=1))
    params = tiny_params(max_steps=3, eval_interval_steps=3, checkpoint_interval_steps=3)
    work = Session.prepare(small, 50, params, runs=tmp_path / "runs", threads=1, trial=True)
    run = work.find_run(resume=False, anew=False)
    with fixed_threads(work.params.train), run.hold():
        state, _ = work.train(run, stop=StopRequest())
    assert state.step == 3
    assert state.skipped == 0
    assert np.isfinite(state.best_quality)
