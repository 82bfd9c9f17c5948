"""Every parameter of the losses reaches the objective, and the objective the network."""

from typing import Any

import pytest
import torch

from kamerton.config.schema import AudioParams, TrainParams
from kamerton.model.losses.objective import BASIC, PARTS
from kamerton.training.controls import Controls
from kamerton.training.objective import objective_of

AUDIO = AudioParams()
CONTROLS = Controls(
    learning_rate=1e-3, clip_norm=1.0, guided_attention_weight=4.0, gate_weight=1.3,
    variational_kl_weight=2e-5,
)  # fmt: skip


def resolved(**values: Any) -> TrainParams:
    return TrainParams.model_validate(values).resolved()


def weights_of(train: TrainParams, controls: Controls | None = CONTROLS) -> dict[str, float]:
    given = objective_of(train, AUDIO, controls).weights
    return {name: weight for name, weight in given.items() if weight}


def test_the_plain_preset_has_the_papers_losses_alone() -> None:
    expected = {"mel_before": 1.0, "mel_after": 1.0, "gate": 1.3, "guided_attention": 4.0}
    assert weights_of(resolved()) == expected


def test_the_quality_preset_has_all_but_the_cost_of_widths_it_does_not_learn() -> None:
    weights = weights_of(resolved(preset="quality"))
    extras = {
        "spectral": 0.3, "perceptual": 0.2, "style": 0.1, "monotonic": 0.1, "double_decoder": 0.5,
    }  # fmt: skip
    assert {name: weights[name] for name in weights if name not in BASIC} == extras


@pytest.mark.parametrize("part", ["spectral", "perceptual", "style", "monotonic", "double_decoder"])
def test_each_weight_alone(part: str) -> None:
    weights = weights_of(resolved(losses={f"{part}_weight": 0.7}))
    assert set(weights) == {*BASIC, part}
    assert weights[part] == 0.7


def test_learned_widths_of_noise_have_a_cost_in_training() -> None:
    noise = {"recurrent": "variational", "variational": "learned"}
    assert weights_of(resolved(regularisation=noise))["variational_kl"] == 2e-5
    assert "variational_kl" not in weights_of(resolved(regularisation=noise), None)
    gal = {**noise, "variational": "gal"}
    assert "variational_kl" not in weights_of(resolved(regularisation=gal))
    silent = resolved(regularisation=noise, attention_dropout=0.0, decoder_dropout=0.0)
    assert "variational_kl" not in weights_of(silent)
    one = resolved(regularisation=noise, attention_dropout=0.0)
    assert weights_of(one)["variational_kl"] == 2e-5


def test_evaluations_have_fixed_weights_and_only_what_a_network_at_rest_has() -> None:
    weights = weights_of(resolved(preset="quality", guided_attention_weight=6.0), None)
    assert weights["gate"] == 1.0
    assert weights["guided_attention"] == 6.0
    assert not {"double_decoder", "variational_kl"} & set(weights)
    assert set(weights) <= set(PARTS)


def test_kinds_and_sizes_are_passed_on() -> None:
    train = resolved(
        guided_attention_kind="gaussian_mse", guided_attention_sigma=0.15, gate_pos_weight=7.0,
        losses={"mel": "mse"},
    )  # fmt: skip
    audio = AudioParams(mel_channels=40, mel_fmax_hz=6000.0)
    objective = objective_of(train, audio, CONTROLS)
    assert objective.mel == "mse"
    assert objective.guided_attention == "gaussian_mse"
    assert objective.guided_attention_sigma == 0.15
    assert objective.gate_positive_weight == 7.0
    centres = torch.tensor(objective.mel_centres_hz)
    assert len(centres) == 40
    assert (centres.diff() > 0).all()
    assert centres[0] > 0
    assert centres[-1] < 6000
