"""Batches prepared ahead: the same as without, errors heard of, no thread left behind."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from kamerton.data.batching import Position
from kamerton.data.manifest import Dataset
from kamerton.training.data import TensorBatch, TrainingData
from kamerton.training.loader import AHEAD_STEPS, Loader
from tests.tiny_corpus import tiny_params, write_tiny_dataset

CPU = torch.device("cpu")
GROUPS = 5


class Numbers:
    """A source whose batches say where they are from; five steps make an epoch."""

    device = CPU

    def __init__(self) -> None:
        self.asked: list[Position] = []
        self.gate = threading.Event()
        self.gate.set()
        self.broken: Position | None = None

    def prepare(self, position: Position) -> list[TensorBatch]:
        self.gate.wait(10)
        self.asked.append(position)
        if position == self.broken:
            raise OSError("the disk is gone")
        percents = round(100 * position.share), round(100 * position.scale)
        value = torch.tensor([[position.epoch, position.batch, *percents]])
        return [TensorBatch(value, value[:, 0], value[..., None].float(), value[:, 1])]

    def after(self, position: Position, share: float, scale: float) -> Position:
        if position.batch + 1 < GROUPS:
            return dataclasses.replace(position, batch=position.batch + 1)
        return Position(position.epoch + 1, 0, share, scale)


@pytest.fixture
def source() -> Numbers:
    return Numbers()


def where(batches: list[TensorBatch]) -> Position:
    (batch,) = batches
    epoch, step, share, scale = batch.symbols[0].tolist()
    return Position(epoch, step, share / 100, scale / 100)


def until(condition: object, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.002)


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "kamerton-loader"]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> object:
    yield
    assert loader_threads() == []


def test_it_gives_what_the_data_gives_directly(tmp_path: Path) -> None:
    dataset = Dataset.open(write_tiny_dataset(tmp_path / "d", train=10))
    data = TrainingData(dataset, tmp_path / "cache", tiny_params(), device=CPU)
    position = Position(0, 0, 0.5)
    with Loader(data) as loader:
        for _ in range(12):
            ahead, direct = loader.batches(position), data.batches(position)
            assert len(ahead) == len(direct)
            for one, other in zip(ahead, direct, strict=True):
                assert torch.equal(one.frames, other.frames)
                assert torch.equal(one.symbols, other.symbols)
                assert torch.equal(one.frame_lengths, other.frame_lengths)
                assert torch.equal(one.symbol_lengths, other.symbol_lengths)
            position = data.after(position, min(1.0, 0.5 + 0.2 * position.epoch))
    assert position.epoch > 1


def test_it_is_ahead_by_so_many_steps_and_asks_for_nothing_twice(source: Numbers) -> None:
    with Loader(source) as loader:
        assert where(loader.batches(Position())) == Position()
        until(lambda: len(source.asked) == 1 + AHEAD_STEPS)
        time.sleep(0.02)
        assert len(source.asked) == 1 + AHEAD_STEPS
        for step in range(1, GROUPS):
            assert where(loader.batches(Position(0, step))) == Position(0, step)
        assert where(loader.batches(Position(1, 0))) == Position(1, 0)
    assert len(set(source.asked)) == len(source.asked)


@pytest.mark.parametrize(
    "jump",
    [
        Position(0, 0),
        Position(3, 1),
        Position(0, 4),
        Position(1, 0, 0.7),
        Position(1, 0, 1.0, 1.25),
    ],
)
def test_any_position_may_follow_any_other(source: Numbers, jump: Position) -> None:
    """As after a rollback, or in an epoch of another share or scale."""
    with Loader(source) as loader:
        for step in range(3):
            loader.batches(Position(0, step))
        for at in (jump, source.after(jump, 1.0, 1.0), jump):
            assert where(loader.batches(at)) == at


def test_it_expects_the_scale_of_an_epoch_to_stay(source: Numbers) -> None:
    larger = Position(2, GROUPS - 1, 0.5, 1.25)
    with Loader(source) as loader:
        assert where(loader.batches(larger)) == larger
        until(lambda: len(source.asked) == 1 + AHEAD_STEPS)
    assert source.asked[1:] == [Position(3, 0, 0.5, 1.25), Position(3, 1, 0.5, 1.25)]


def test_a_change_of_course_while_a_batch_is_made_drops_that_batch(source: Numbers) -> None:
    with Loader(source, ahead=1) as loader:
        loader.batches(Position(0, 0))
        until(lambda: len(source.asked) == 2)  # (0, 1) is ready, and no more is made
        source.gate.clear()
        assert where(loader.batches(Position(0, 1))) == Position(0, 1)
        opener = threading.Timer(0.05, source.gate.set)
        opener.start()
        assert where(loader.batches(Position(7, 2))) == Position(7, 2)  # (0, 2) was being made
        assert where(loader.batches(Position(7, 3))) == Position(7, 3)
        opener.join()


def test_an_error_is_raised_where_its_batches_are_asked_for(source: Numbers) -> None:
    source.broken = Position(0, 2)
    with Loader(source) as loader:
        loader.batches(Position(0, 0))
        until(lambda: source.broken in source.asked)
        assert where(loader.batches(Position(0, 1))) == Position(0, 1)
        for _ in range(2):  # tried again, as it may be over by then
            with pytest.raises(OSError, match="the disk is gone"):
                loader.batches(Position(0, 2))
        source.broken = None
        assert where(loader.batches(Position(0, 2))) == Position(0, 2)


def test_waiting_is_counted_and_being_ahead_costs_none(source: Numbers) -> None:
    with Loader(source) as loader:
        source.gate.clear()
        opener = threading.Timer(0.2, source.gate.set)
        opener.start()
        loader.batches(Position(0, 0))
        assert 0.15 < loader.waited_seconds < 2.0
        waited = loader.waited_seconds
        until(lambda: len(source.asked) == 3)
        loader.batches(Position(0, 1))
        assert loader.waited_seconds - waited < 0.1
        opener.join()


def test_closing_ends_the_thread_even_with_batches_left(source: Numbers) -> None:
    loader = Loader(source)
    loader.batches(Position())
    assert len(loader_threads()) == 1
    loader.close()
    loader.close()
    assert loader_threads() == []
    with pytest.raises(RuntimeError, match="closed"):
        loader.batches(Position(0, 1))


def test_a_loader_that_is_forgotten_takes_its_thread_with_it(source: Numbers) -> None:
    loader = Loader(source)
    loader.batches(Position())
    del loader
    assert loader_threads() == []


def test_an_open_loader_does_not_keep_the_process() -> None:
    code = (
        "from tests.unit.training.test_loader import *\n"
        "loader = Loader(Numbers())\n"
        "loader.batches(Position())\n"
        "raise SystemExit(75)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], timeout=60, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (75, "")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU answers")
def test_on_a_gpu_batches_come_from_pinned_memory(tmp_path: Path) -> None:
    dataset = Dataset.open(write_tiny_dataset(tmp_path / "d", train=10))
    gpu = torch.device("cuda")
    data = TrainingData(dataset, tmp_path / "cache", tiny_params(), device=gpu)
    host = TrainingData(dataset, tmp_path / "cache", tiny_params(batching="utterances"), device=CPU)
    assert data.prepare(Position())[0].frames.is_pinned()
    with Loader(data) as loader:
        position = Position()
        for _ in range(6):
            (ours,), (expected,) = loader.batches(position), host.batches(position)
            assert ours.frames.device.type == "cuda"
            assert torch.equal(ours.frames.cpu(), expected.frames)
            position = data.after(position)
