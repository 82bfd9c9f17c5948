"""The dataset as the loop sees it: a batch for every step, and fixed ones to evaluate on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kamerton.config.schema import Params
from kamerton.core.errors import InputEmptyError
from kamerton.core.progress import Progress, silent
from kamerton.data.batching import BucketPlan
from kamerton.data.collate import collate
from kamerton.data.features import MelCache
from kamerton.data.manifest import Dataset, Row
from kamerton.text.symbols import SymbolTable

FREE_RUNNING_SENTENCES = 8  # of the validation split, read aloud at every evaluation


@dataclass(frozen=True, slots=True)
class TensorBatch:
    """One batch on the model's device; shapes as in ``data.collate.Batch``."""

    symbols: Tensor
    symbol_lengths: Tensor
    frames: Tensor
    frame_lengths: Tensor


class TrainingData:
    """Training batches by step, and the validation split.

    Attributes:
        symbols: The symbol table of the dataset.
        plan: Which clips are in which batch.
        validation: The validation split in batches, always the same.
        spoken: The clips whose texts are read aloud at every evaluation, at most eight.
    """

    def __init__(
        self, dataset: Dataset, cache: Path, params: Params, *, device: torch.device,
        on_progress: Progress = silent,
    ) -> None:  # fmt: skip
        """Open a dataset, computing its mel spectrograms below ``cache`` if they are not there.

        Raises:
            InputEmptyError: the training or the validation split has no clip.
        """
        self._rows = dataset.rows("train")
        validation = sorted(dataset.rows("val"), key=lambda row: row.id)
        for split, rows in (("training", self._rows), ("validation", validation)):
            if not rows:
                raise InputEmptyError(
                    dataset.path, wanted=f"{split} clips",
                    hint="add recordings, or lower dataset.val_fraction and dataset.test_fraction",
                )  # fmt: skip
        self.symbols = SymbolTable(dataset.card["symbols"])
        self._mels = MelCache.build(cache, dataset, params.audio, on_progress=on_progress)
        self._multiple = params.train.model.reduction_factor
        self._device = device
        lengths = [self._mels.frames(row.id) for row in self._rows]
        self.plan = BucketPlan(lengths, params.train.batch_size, seed=params.train.seed)
        size = params.train.batch_size
        by_length = sorted(validation, key=lambda row: -self._mels.frames(row.id))
        self.validation = [
            self.tensors(by_length[start : start + size])
            for start in range(0, len(by_length), size)
        ]
        self.spoken = validation[:FREE_RUNNING_SENTENCES]

    def batch(self, step: int) -> TensorBatch:
        """The batch of step number ``step``, from 0."""
        return self.tensors([self._rows[index] for index in self.plan.batch(step)])

    def tensors(self, rows: Sequence[Row]) -> TensorBatch:
        """Any rows as one batch."""
        batch = collate(
            [self.symbols.encode(row.model_text) for row in rows],
            [self._mels[row.id] for row in rows],
            multiple=self._multiple,
        )
        device = self._device
        return TensorBatch(
            torch.from_numpy(batch.symbols).to(device),
            torch.from_numpy(batch.symbol_lengths).to(device),
            torch.from_numpy(batch.frames).to(device),
            torch.from_numpy(batch.frame_lengths).to(device),
        )

    def mel_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of every mel channel over the training split, (C,) each."""
        mean, deviation = self._mels.statistics([row.id for row in self._rows])
        return torch.from_numpy(mean), torch.from_numpy(deviation)

    def frames_per_symbol(self) -> float:
        """The slowest reading in the training split, counting the end of the text as a symbol."""
        return max(self._mels.frames(row.id) / (len(row.model_text) + 1) for row in self._rows)
