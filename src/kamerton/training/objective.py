"""Parameters and controls to what the model is asked to make small."""

from __future__ import annotations

from kamerton.audio.mel import mel_centres_hz
from kamerton.config.schema import AudioParams, TrainParams
from kamerton.model.losses import Objective, Target
from kamerton.model.tacotron2.model import Tacotron2
from kamerton.training.controls import Controls
from kamerton.training.data import TensorBatch


def target_of(model: Tacotron2, batch: TensorBatch) -> Target:
    """What ``model`` should predict of a batch, normalised as it predicts."""
    return Target(
        model.normalise(batch.frames), batch.frame_lengths, batch.symbols, batch.symbol_lengths,
        model.mel_deviation,
    )  # fmt: skip


def objective_of(
    train: TrainParams, audio: AudioParams, controls: Controls | None = None
) -> Objective:
    """The objective of one step, or, without controls, the one that evaluations report.

    Args:
        train: Resolved: no loss weight is null.
        audio: How the mel frames were made; decides how loud each of their bands is heard.
        controls: Of the step.
    """
    losses = train.losses
    guided = controls.guided_attention_weight if controls else train.guided_attention_weight
    return Objective(
        weights={
            "mel_before": 1.0,
            "mel_after": 1.0,
            "gate": controls.gate_weight if controls else 1.0,
            "guided_attention": guided,
            "spectral": losses.spectral_weight or 0.0,
            "perceptual": losses.perceptual_weight or 0.0,
            "style": losses.style_weight or 0.0,
            "monotonic": losses.monotonic_weight or 0.0,
            # What only trains the network is no part of evaluations, where it may be absent.
            "double_decoder": (losses.double_decoder_weight or 0.0) if controls else 0.0,
            "variational_kl": controls.variational_kl_weight
            if controls and _learns_noise(train)
            else 0.0,
        },
        mel=losses.mel,
        mel_centres_hz=mel_centres_hz(audio),
        guided_attention=train.guided_attention_kind,
        guided_attention_sigma=train.guided_attention_sigma,
        gate_positive_weight=train.gate_pos_weight,
    )


def _learns_noise(train: TrainParams) -> bool:
    """Whether any LSTM has noise whose width is learned."""
    noise = train.regularisation
    kind = noise.recurrent == "variational" and noise.variational == "learned"
    return kind and max(train.attention_dropout, train.decoder_dropout) > 0
