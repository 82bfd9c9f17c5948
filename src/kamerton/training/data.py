"""The dataset as the loop sees it: the batches of every step, and fixed ones to evaluate on."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kamerton.config.schema import Params
from kamerton.core.errors import InputCorruptError, InputEmptyError
from kamerton.core.progress import Progress, silent
from kamerton.data.batching import BatchPlan, Position
from kamerton.data.collate import collate
from kamerton.data.features import MelCache
from kamerton.data.manifest import MANIFEST_FILE, Dataset, Row
from kamerton.text.symbols import SymbolTable, UnknownSymbolError
from kamerton.training.distributed import World

_LOG = logging.getLogger(__name__)
GPU_MULTIPLE_FRAMES = 8
SLOWEST_QUANTILE = 0.99  # a clip whose text is wrong must not make every runaway long


@dataclass(frozen=True, slots=True)
class TensorBatch:
    """One batch; shapes as in ``data.collate.Batch``.

    Attributes:
        speakers: Number of each utterance's speaker, (B,); None where the dataset has one.
    """

    symbols: Tensor
    symbol_lengths: Tensor
    frames: Tensor
    frame_lengths: Tensor
    speakers: Tensor | None = None

    def to(self, device: torch.device) -> TensorBatch:
        """The same on a device; from pinned memory the copy runs beside what the host does."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> TensorBatch:
        """The same in memory that a GPU copies from by itself."""
        return self._map(lambda tensor: tensor.pin_memory())

    @property
    def real_frames(self) -> int:
        """Frames that are not padding."""
        return int(self.frame_lengths.sum())

    def _map(self, change: Callable[[Tensor], Tensor]) -> TensorBatch:
        values = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return TensorBatch(**{name: change(value) for name, value in values if value is not None})


class TrainingData:
    """Training batches by position, and the validation split.

    Attributes:
        symbols: The symbol table of the dataset.
        speakers: Names of its speakers, in the order of their numbers.
        audio: How its mel spectrograms are made.
        device: Where batches go.
        validation: The validation split in batches, always the same.
        spoken: The clips whose texts are read aloud at every evaluation.
        steps_per_epoch: Optimiser steps in an epoch of all clips in batches of the usual size;
            others differ by a few.
    """

    def __init__(
        self, dataset: Dataset, cache: Path, params: Params, *, device: torch.device,
        world: World | None = None, on_progress: Progress = silent,
    ) -> None:  # fmt: skip
        """Open a dataset, computing its mel spectrograms below ``cache`` if they are not there.

        Args:
            dataset: The dataset.
            cache: Folder of mel spectrograms, shared by runs and processes.
            params: Parameters.
            device: Where batches go.
            world: The processes that share the training split; None: this one alone.
            on_progress: Told while spectrograms are computed.

        Raises:
            InputEmptyError: the training or the validation split has no clip.
            InputCorruptError: a clip's sound or text is not what it should be; the clip is named.
            ParamsError: the sample rate is another, or there are too few clips for all processes.
        """
        train = params.train
        self._rows, validation = _splits(dataset)
        self.symbols = SymbolTable(dataset.card["symbols"])
        self.speakers = tuple(sorted({row.speaker for row in dataset.rows()}))
        self.audio = params.audio
        self.device = device
        self._world = world or World()
        self._texts = _encoded(dataset, self.symbols)
        self._mels = MelCache.build(cache, dataset, params.audio, on_progress=on_progress)
        self._multiple = train.model.reduction_factor
        if device.type == "cuda":  # whole tiles for the tensor cores
            self._multiple = math.lcm(self._multiple, GPU_MULTIPLE_FRAMES)
        kind = train.batching
        if kind == "auto":
            kind = "utterances" if device.type == "cuda" else "frames"
        self._plan = BatchPlan(
            [self._mels.frames(row.id) for row in self._rows], train.batch_size, kind=kind,
            seed=train.seed, group=self._world.size * train.accumulation, multiple=self._multiple,
        )  # fmt: skip
        self.steps_per_epoch = self._plan.steps_per_epoch
        self._tell_long_clips()
        by_length = sorted(validation, key=lambda row: -self._mels.frames(row.id))
        self.validation = [
            self.tensors(by_length[start : start + train.batch_size])
            for start in range(0, len(by_length), train.batch_size)
        ]
        self.spoken = validation[: train.monitoring.free_running_sentences]

    @property
    def batching(self) -> str:
        """What is equal among batches, frames or utterances, where the parameters say auto."""
        return self._plan.kind

    def batches(self, position: Position) -> list[TensorBatch]:
        """What this process trains on in one step: as many batches as it accumulates."""
        return [batch.to(self.device) for batch in self.prepare(position)]

    def prepare(self, position: Position) -> list[TensorBatch]:
        """The same in the host's memory, pinned where they go to a GPU; safe in any thread."""
        plan = self._plan.batches(position, self._world.rank, self._world.size)
        batches = [self._collated([self._rows[index] for index in batch]) for batch in plan]
        return [batch.pinned() for batch in batches] if self.device.type == "cuda" else batches

    def after(self, position: Position, share: float = 1.0, scale: float = 1.0) -> Position:
        """The position of the next step.

        Args:
            position: Of this step.
            share: The share of the clips, the shortest, that a new epoch is made of, where one
                begins.
            scale: How many times ``train.batch_size`` the batches of a new epoch are.
        """
        return self._plan.after(position, share, scale)

    def tensors(self, rows: Sequence[Row]) -> TensorBatch:
        """Any rows of the dataset as one batch, on the device."""
        return self._collated(rows).to(self.device)

    def _collated(self, rows: Sequence[Row]) -> TensorBatch:
        batch = collate(
            [self._texts[row.id] for row in rows],
            [self._mels[row.id] for row in rows],
            multiple=self._multiple,
        )
        speakers = None
        if len(self.speakers) > 1:
            speakers = torch.tensor([self.speakers.index(row.speaker) for row in rows])
        return TensorBatch(
            torch.from_numpy(batch.symbols), torch.from_numpy(batch.symbol_lengths),
            torch.from_numpy(batch.frames), torch.from_numpy(batch.frame_lengths), speakers,
        )  # fmt: skip

    def _tell_long_clips(self) -> None:
        alone = self._plan.longer_than_budget()
        if alone and self._world.main:
            longest = self._rows[alone[0]].id
            _LOG.warning(
                "%d clips are longer than a whole batch (%d frames) and are batches of their own; "
                "the longest is clip %s with %d frames",
                len(alone), self._plan.budget, longest, self._mels.frames(longest),
            )  # fmt: skip

    def mel_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of every mel channel over the training split, (C,) each."""
        mean, deviation = self._mels.statistics([row.id for row in self._rows])
        return torch.from_numpy(mean), torch.from_numpy(deviation)

    def frames_per_symbol(self) -> float:
        """The slowest usual reading of the training split, the end of the text being a symbol."""
        paces = [self._mels.frames(row.id) / (len(row.model_text) + 1) for row in self._rows]
        return float(np.quantile(paces, SLOWEST_QUANTILE))


def _splits(dataset: Dataset) -> tuple[list[Row], list[Row]]:
    """Clips to train on, in the order of the manifest, and to validate on, by name."""
    train, validation = dataset.rows("train"), dataset.rows("val")
    for split, rows in (("training", train), ("validation", validation)):
        if not rows:
            raise InputEmptyError(
                dataset.path,
                wanted=f"clips for {split} (it has {len(dataset.rows())} in all; at least one to "
                "train and one to validate are needed)",
                hint="add recordings, or lower dataset.val_fraction and dataset.test_fraction",
            )
    return train, sorted(validation, key=lambda row: row.id)


def _encoded(dataset: Dataset, symbols: SymbolTable) -> dict[str, NDArray[np.int64]]:
    """Symbol ids of every clip's text."""
    texts = {}
    for row in dataset.rows():
        try:
            texts[row.id] = np.array(symbols.encode(row.model_text), dtype=np.int64)
        except UnknownSymbolError as error:
            raise InputCorruptError(
                dataset.path / MANIFEST_FILE,
                problem=f"clip {row.id}: {error.message}",
                hint="make the dataset again: `kamerton dataset --force`",
            ) from error
    return texts
