"""What the loop measures now and then: teacher-forced losses and free-running attention.

Nothing here draws from the global generator, so that evaluating more or less often, or an
evaluation more after a resume, does not change the training.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kamerton.config.schema import TrainParams
from kamerton.metrics.alignment import (
    FAILED,
    AttentionScores,
    attention_scores,
    summarise_attention,
)
from kamerton.model.losses import Target, losses_of
from kamerton.model.tacotron2.model import Predicted, Tacotron2, steps_of
from kamerton.tracking import names
from kamerton.training.data import TensorBatch, TrainingData
from kamerton.training.objective import objective_of

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
        quality: What the best checkpoint has least of: the validation mel loss, plus what the
            free-running diagonality lacks of 1. Mel loss alone does not see a voice that cannot
            read without help.
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
    was_training = model.training
    model.eval()
    values = _teacher_forced(model, data, train)
    scores, example = _free_running(model, data, train)
    model.train(was_training)
    summary = summarise_attention(scores)
    values |= {
        names.ATTENTION_SCORE: summary.diagonality_median,
        names.ATTENTION_COVERAGE: summary.coverage_median,
        names.ATTENTION_FOCUS: summary.focus_median,
        names.ATTENTION_ENTROPY: float(np.median([score.entropy for score in scores])),
        "attention_monotonicity": float(np.median([score.monotonicity for score in scores])),
        "aligned_share": summary.aligned_share,
    }
    quality = values[names.VAL_MEL_LOSS] + 1.0 - summary.diagonality_median
    return Evaluation(values, quality, tuple(scores), example)


def _teacher_forced(model: Tacotron2, data: TrainingData, train: TrainParams) -> dict[str, float]:
    totals = {"mel_before": 0.0, "mel_after": 0.0, "gate": 0.0, "guided_attention": 0.0}
    utterances, hits, fired = 0, 0, 0
    for index, batch in enumerate(data.validation):
        frames = model.normalise(batch.frames)
        predicted = _forced(model, batch, frames, seed=index)
        target = Target(frames, batch.frame_lengths, batch.symbols, batch.symbol_lengths)
        raw = losses_of(predicted, target, objective_of(train)).raw
        size = len(batch.symbols)
        for name in totals:
            totals[name] += size * float(raw[name])
        utterances += size
        batch_hits, batch_fired = _stop_frames(predicted, batch, train)
        hits, fired = hits + batch_hits, fired + batch_fired
    means = {name: total / utterances for name, total in totals.items()}
    return {
        # Neither weighted nor with the regulariser, so that trials of other weights compare.
        names.VAL_LOSS: means["mel_before"] + means["mel_after"] + means["gate"],
        names.VAL_MEL_LOSS: means["mel_after"],
        names.VAL_GATE_LOSS: means["gate"],
        "val_guided_attention_loss": means["guided_attention"],
        names.GATE_F1: 2 * hits / (utterances + fired),
    }


def _forced(model: Tacotron2, batch: TensorBatch, frames: Tensor, *, seed: int) -> Predicted:
    generator = torch.Generator().manual_seed(seed)
    reduction = model.architecture.reduction_factor
    steps = int(steps_of(frames.shape[1], reduction))
    masks = model.decoder.prenet.draw_masks(steps, len(batch.symbols), generator=generator)
    predicted: Predicted = model(
        batch.symbols,
        batch.symbol_lengths,
        frames,
        batch.frame_lengths,
        masks=masks.to(frames.device),
    )
    return predicted


def _stop_frames(predicted: Predicted, batch: TensorBatch, train: TrainParams) -> tuple[int, int]:
    """How many utterances stopped within one decoder step of their end, and how many stopped."""
    reduction = predicted.gate_logits.shape[1] // predicted.attention.shape[1]
    opened = predicted.gate_logits.sigmoid() > train.gate_threshold
    fired = opened.any(dim=1)
    error = opened.to(torch.uint8).argmax(dim=1) - (batch.frame_lengths - 1)
    return int((fired & (error.abs() <= reduction)).sum()), int(fired.sum())


def _free_running(
    model: Tacotron2, data: TrainingData, train: TrainParams
) -> tuple[list[AttentionScores], Example]:
    batch = data.tensors(data.spoken)
    spoken = model.speak(
        batch.symbols,
        batch.symbol_lengths,
        max_frames=(batch.frame_lengths * RUNAWAY_FACTOR).long(),
        seeds=[
            int.from_bytes(hashlib.sha256(row.text.encode()).digest()[:6]) for row in data.spoken
        ],
        gate_threshold=train.gate_threshold,
    )
    steps = steps_of(spoken.lengths, model.architecture.reduction_factor)
    scores = []
    for row, stopped in enumerate(spoken.stopped.tolist()):
        weights = spoken.attention[row, : int(steps[row]), : int(batch.symbol_lengths[row])]
        # A sentence that never ended counts as not read, however straight it began.
        scores.append(attention_scores(weights.cpu().numpy()) if stopped else FAILED)

    frames = model.normalise(batch.frames)
    forced = model.restore(_forced(model, batch, frames, seed=0).after)
    truth, said = int(batch.frame_lengths[0]), int(spoken.lengths[0])
    example = Example(
        text=data.spoken[0].model_text,
        attention=spoken.attention[0, : int(steps[0]), : int(batch.symbol_lengths[0])]
        .cpu()
        .numpy(),
        spoken=spoken.frames[0, :said].T.cpu().numpy(),
        forced=forced[0, :truth].T.cpu().numpy(),
        truth=batch.frames[0, :truth].T.cpu().numpy(),
    )
    return scores, example
