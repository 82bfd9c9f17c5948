"""Parameters and controls to what the model is asked to make small."""

from __future__ import annotations

from kamerton.config.schema import TrainParams
from kamerton.model.losses import Objective
from kamerton.training.controls import Controls


def objective_of(train: TrainParams, controls: Controls | None = None) -> Objective:
    """The objective of one step, or, without controls, the one that evaluations report.

    ``train`` is resolved: no loss weight is null.
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
            "double_decoder": losses.double_decoder_weight or 0.0,
            "variational_kl": controls.variational_kl_weight if controls else 0.0,
        },
        mel=losses.mel,
        guided_attention=train.guided_attention_kind,
        guided_attention_sigma=train.guided_attention_sigma,
        gate_positive_weight=train.gate_pos_weight,
    )
