"""What the loop measures now and then: teacher-forced losses and free-running attention.

Nothing here draws from the global generator, so that evaluating more or less often, or an
evaluation more after a resume, does not change the training. No figure depends on which
utterances share a batch: everything is measured utterance by utterance, and the noise of an
utterance is drawn from its own text.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kamerton.config.schema import TrainParams
from kamerton.data.manifest import Row
from kamerton.metrics.alignment import FAILED, AttentionScores, attention_scores
from kamerton.metrics.free_running import ended_early, mel_variance_ratio, silence_share
from kamerton.model.losses import Target, losses_of
from kamerton.model.tacotron2.decoder import Decoded
from kamerton.model.tacotron2.model import Predicted, Tacotron2, steps_of
from kamerton.tracking import names
from kamerton.tracking.quality import quality_of
from kamerton.training.data import TensorBatch, TrainingData
from kamerton.training.objective import objective_of, target_of
from kamerton.training.stops import found_stops, predicted_stops

RUNAWAY_FACTOR = 2.0  # an utterance that takes this much longer than the truth never ended


@dataclass(frozen=True, slots=True)
class Example:
    """One sentence read aloud, to look at and listen to; mels are (C, F), attention (T, N)."""

    text: str
    attention: NDArray[np.float32]
    spoken: NDArray[np.float32]
    forced: NDArray[np.float32]
    truth: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation.

    Attributes:
        values: Figures under the names of ``tracking.names``.
        quality: What the best checkpoint has least of; see ``tracking.quality``.
        scores: Attention of every sentence read aloud, in the order of ``data.spoken``.
        example: The first sentence read aloud.
    """

    values: dict[str, float]
    quality: float
    scores: tuple[AttentionScores, ...]
    example: Example


@torch.no_grad()
def evaluate(model: Tacotron2, data: TrainingData, train: TrainParams) -> Evaluation:
    """Measure the model on the validation split; leaves it in the mode it was in."""
    with measuring(model):
        values = _teacher_forced(model, data, train)
        readings = _read_aloud(model, data, train, data.spoken)
        example = _example(model, data, readings[0])
    scores = tuple(reading.scores for reading in readings)
    values |= attention_values(scores) | _free_running_values(readings)
    return Evaluation(values, quality_of(values), scores, example)


@torch.no_grad()
def read_example(model: Tacotron2, data: TrainingData, train: TrainParams) -> Example:
    """The first of the fixed sentences read aloud, as an evaluation would show it."""
    with measuring(model):
        return _example(model, data, _read_aloud(model, data, train, data.spoken[:1])[0])


@contextlib.contextmanager
def measuring(model: Tacotron2) -> Iterator[None]:
    """The model as it speaks; afterwards its mode and all random generators are as before."""
    was_training = model.training
    devices = [model.mel_mean.device] if model.mel_mean.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        model.eval()
        try:
            yield
        finally:
            model.train(was_training)


def attention_values(scores: Iterable[AttentionScores], prefix: str = "") -> dict[str, float]:
    """Medians over utterances and the share that is aligned, under their names."""
    rows = list(scores)
    columns = {
        names.ATTENTION_SCORE: [row.diagonality for row in rows],
        names.ATTENTION_COVERAGE: [row.coverage for row in rows],
        names.ATTENTION_FOCUS: [row.focus for row in rows],
        names.ATTENTION_ENTROPY: [row.entropy for row in rows],
        names.ATTENTION_MONOTONICITY: [row.monotonicity for row in rows],
    }
    values = {prefix + name: float(np.median(column)) for name, column in columns.items()}
    aligned = sum(row.aligned for row in rows) / len(rows)
    return values | {prefix + names.ALIGNED_SHARE: aligned}


@dataclass(slots=True)
class _Tally:
    """Sums over the utterances of the validation split."""

    frames: int = 0
    losses: dict[str, float] = field(default_factory=dict)  # each utterance's mean times its frames
    utterances: int = 0
    hits: int = 0
    fired: int = 0
    frames_off: int = 0
    scores: list[AttentionScores] = field(default_factory=list)

    def add_losses(self, raw: Mapping[str, Tensor], frames: int) -> None:
        self.frames += frames
        for name, value in raw.items():
            self.losses[name] = self.losses.get(name, 0.0) + frames * float(value)

    def add_stops(self, stops: Tensor, lengths: Tensor, reduction: int) -> None:
        """Count predicted last frames, (B,), -1 where there is none.

        One that never comes is as far off as the utterance is long: the gate must not look the
        better for keeping still.
        """
        fired = stops >= 0
        off = (stops - (lengths - 1)).abs()
        self.utterances += len(lengths)
        self.fired += int(fired.sum())
        self.hits += int(found_stops(stops, lengths, reduction).sum())
        self.frames_off += int(torch.where(fired, off, lengths).sum())

    def values(self) -> dict[str, float]:
        means = {name: total / self.frames for name, total in self.losses.items()}
        return {
            **{names.val_loss(name): mean for name, mean in means.items()},
            # Neither weighted nor with the regularisers, so that trials of other weights compare.
            names.VAL_LOSS: means["mel_before"] + means["mel_after"] + means["gate"],
            names.GATE_RECALL: self.hits / self.utterances,
            names.GATE_PRECISION: self.hits / self.fired if self.fired else 0.0,
            names.GATE_F1: 2 * self.hits / (self.utterances + self.fired),
            names.GATE_FRAMES_OFF: self.frames_off / self.utterances,
            **attention_values(self.scores, names.FORCED),
        }


def _teacher_forced(model: Tacotron2, data: TrainingData, train: TrainParams) -> dict[str, float]:
    objective, tally = objective_of(train, data.audio), _Tally()
    reduction = model.architecture.reduction_factor
    for batch in data.validation:
        target = target_of(model, batch)
        predicted = teacher_forced(model, batch, target.frames)
        stops = predicted_stops(
            predicted.gate_logits, batch.frame_lengths, reduction, train.gate_threshold
        )
        tally.add_stops(stops, batch.frame_lengths, reduction)
        lengths = batch.frame_lengths.tolist()
        for row, length in enumerate(lengths):
            # Each as if it were alone, however a loss is averaged over a batch.
            alone = losses_of(*_only(predicted, target, row), objective)
            tally.add_losses(alone.raw, length)
        tally.scores += _attention_by_utterance(predicted.attention, batch, reduction)
    return tally.values()


def teacher_forced(model: Tacotron2, batch: TensorBatch, frames: Tensor) -> Predicted:
    """Predict normalised ``frames`` (B, F, C); equal texts are given equal prenet noise."""
    steps = int(steps_of(frames.shape[1], model.architecture.reduction_factor))
    masks = [
        model.decoder.prenet.draw_masks(steps, generator=torch.Generator().manual_seed(seed))
        for seed in _seeds(batch)
    ]
    predicted: Predicted = model(
        batch.symbols,
        batch.symbol_lengths,
        frames,
        batch.frame_lengths,
        masks=torch.stack(masks, dim=1).to(frames.device),
        speakers=batch.speakers,
    )
    return predicted


def _seeds(batch: TensorBatch) -> list[int]:
    rows = zip(batch.symbols.tolist(), batch.symbol_lengths.tolist(), strict=True)
    return [_seed_of(repr(symbols[:length])) for symbols, length in rows]


def _seed_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6])


def _only(predicted: Predicted, target: Target, row: int) -> tuple[Predicted, Target]:
    own, coarse = slice(row, row + 1), predicted.coarse
    return (
        Predicted(
            predicted.before[own], predicted.after[own], predicted.gate_logits[own],
            predicted.attention[own],
            coarse and Decoded(coarse.frames[own], coarse.gate_logits[own], coarse.attention[own]),
            predicted.noise_divergence,
        ),
        dataclasses.replace(
            target, frames=target.frames[own], frame_lengths=target.frame_lengths[own],
            symbols=target.symbols[own], symbol_lengths=target.symbol_lengths[own],
        ),
    )  # fmt: skip


def _attention_by_utterance(
    attention: Tensor, batch: TensorBatch, reduction: int
) -> list[AttentionScores]:
    weights = attention.float().cpu().numpy()
    steps = steps_of(batch.frame_lengths, reduction).tolist()
    return [
        attention_scores(weights[row, : steps[row], :symbols])
        for row, symbols in enumerate(batch.symbol_lengths.tolist())
    ]


@dataclass(frozen=True, slots=True)
class _Reading:
    """One clip's text read aloud; mels are (C, F), attention (T, N)."""

    row: Row
    attention: NDArray[np.float32]
    spoken: NDArray[np.float32]
    truth: NDArray[np.float32]
    stopped: bool

    @property
    def scores(self) -> AttentionScores:
        # A sentence that never ended counts as not read, however straight it began.
        return attention_scores(self.attention) if self.stopped else FAILED


def _read_aloud(
    model: Tacotron2, data: TrainingData, train: TrainParams, rows: Sequence[Row]
) -> list[_Reading]:
    batch = data.tensors(rows)
    spoken = model.speak(
        batch.symbols,
        batch.symbol_lengths,
        max_frames=(batch.frame_lengths * RUNAWAY_FACTOR).long(),
        seeds=[_seed_of(row.text) for row in rows],
        gate_threshold=train.gate_threshold,
        speakers=batch.speakers,
    )
    steps = steps_of(spoken.lengths, model.architecture.reduction_factor)
    symbols = batch.symbol_lengths.tolist()
    return [
        _Reading(
            row,
            _array(spoken.attention[index, : int(steps[index]), : symbols[index]]),
            _array(spoken.frames[index, : int(spoken.lengths[index])].T),
            _array(batch.frames[index, : int(batch.frame_lengths[index])].T),
            bool(spoken.stopped[index]),
        )
        for index, row in enumerate(rows)
    ]


def _array(values: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = values.float().cpu().numpy()
    return array


def _free_running_values(readings: Sequence[_Reading]) -> dict[str, float]:
    count = len(readings)
    early = [
        reading.stopped
        and ended_early(reading.attention, reading.spoken.shape[1], reading.truth.shape[1])
        for reading in readings
    ]
    ratios = [mel_variance_ratio(reading.spoken, reading.truth) for reading in readings]
    silences = [silence_share(reading.spoken, reading.truth) for reading in readings]
    recorded = [silence_share(reading.truth, reading.truth) for reading in readings]
    return {
        names.PREMATURE_STOPPING: sum(early) / count,
        names.RUNAWAY_SHARE: sum(not reading.stopped for reading in readings) / count,
        names.MEL_VARIANCE_RATIO: float(np.median(ratios)),
        names.SILENCE_SHARE: float(np.mean(silences)),
        names.RECORDED_SILENCE_SHARE: float(np.mean(recorded)),
    }


def _example(model: Tacotron2, data: TrainingData, reading: _Reading) -> Example:
    batch = data.tensors([reading.row])
    after = teacher_forced(model, batch, model.normalise(batch.frames)).after
    forced = model.restore(after)[0, : reading.truth.shape[1]]
    return Example(
        text=reading.row.model_text,
        attention=reading.attention,
        spoken=reading.spoken,
        forced=_array(forced.T),
        truth=reading.truth,
    )
