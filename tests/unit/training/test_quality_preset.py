"""All losses of the quality preset at once, on a network that learns a made-up language."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from kamerton.config.schema import Params
from kamerton.model.losses.objective import PARTS
from kamerton.model.tacotron2.model import Tacotron2
from kamerton.training.architecture import architecture_of
from kamerton.training.controls import Controls
from kamerton.training.data import TensorBatch
from kamerton.training.objective import target_of
from kamerton.training.step import StepResult, Trainee, make_optimizer, train_step

SYMBOLS, MELS = 8, 16
SIZES = {
    "symbol_embedding": 16, "encoder_embedding_dim": 16, "encoder_convolutions": 1,
    "attention_rnn_dim": 32, "decoder_rnn_dim": 32, "attention_dim": 16, "location_filters": 4,
    "location_kernel": 7, "prenet_dim": 16, "postnet_dim": 16, "postnet_convolutions": 2,
    "reduction_factor": 2, "double_decoder_reduction": 5,
}  # fmt: skip
CONTROLS = Controls(
    learning_rate=5e-3, clip_norm=1.0, guided_attention_weight=10.0, gate_weight=1.3,
    variational_kl_weight=1e-3,
)  # fmt: skip
LEARNED = {"recurrent": "variational", "variational": "learned"}


def params(**train: object) -> Params:
    return Params.model_validate(
        {
            "audio": {"mel_channels": MELS},
            "train": {"preset": "quality", "device": "cpu", "precision": "fp32", "model": SIZES}
            | train,
        }
    )


def batch() -> TensorBatch:
    """Every symbol is three or four frames of a spectrum of its own."""
    generator = torch.Generator().manual_seed(0)
    spectra = 2.0 * torch.randn(SYMBOLS, MELS, generator=generator) - 4.0
    texts = [torch.randint(1, SYMBOLS, (n,), generator=generator) for n in (9, 4, 7, 6)]
    mels = [spectra[text.repeat_interleave(3 + index % 2)] for index, text in enumerate(texts)]
    return TensorBatch(
        torch.nn.utils.rnn.pad_sequence(texts, batch_first=True),
        torch.tensor([len(text) for text in texts]),
        torch.nn.utils.rnn.pad_sequence(mels, batch_first=True),
        torch.tensor([len(mel) for mel in mels]),
    )


def trained(given: Params, *, steps: int, controls: Controls = CONTROLS) -> list[StepResult]:
    given = given.model_copy(update={"train": given.train.resolved()})
    torch.manual_seed(0)
    model = Tacotron2(architecture_of(given, SYMBOLS))
    frames = batch().frames[0]
    model.set_mel_statistics(frames.mean(0), frames.std(0))
    model.train()
    trainee = Trainee(model, make_optimizer(model, given.train), given.train, given.audio)
    return [train_step(trainee, [batch()], controls, step=step) for step in range(steps)]


@pytest.mark.parametrize("guided", ["tachibana", "gaussian_mse", "ctc_forward_sum"])
def test_every_part_is_finite_and_falls(guided: str) -> None:
    results = trained(params(guided_attention_kind=guided, regularisation=LEARNED), steps=30)
    for result in results:
        assert result.applied
        assert set(result.losses.weighted) == set(PARTS)
        assert all(math.isfinite(value) for value in result.losses.raw.values())
    for part in PARTS:
        curve = [float(result.losses.raw[part]) for result in results]
        assert sum(curve[-5:]) / 5 < curve[0], part


@pytest.mark.parametrize("part", ["spectral", "perceptual", "style", "monotonic", "double_decoder"])
def test_a_weight_in_the_parameters_changes_the_step(part: str) -> None:
    (single,), (double,) = (
        trained(params(losses={f"{part}_weight": weight}), steps=1) for weight in (0.4, 0.8)
    )
    assert single.losses.weighted[part] == pytest.approx(0.4 * float(single.losses.raw[part]))
    difference = float(double.losses.total - single.losses.total)
    assert difference == pytest.approx(float(single.losses.weighted[part]), rel=1e-3, abs=1e-6)
    assert double.grad_norm != single.grad_norm


@pytest.mark.parametrize(
    ("part", "control"),
    [
        ("gate", "gate_weight"),
        ("guided_attention", "guided_attention_weight"),
        ("variational_kl", "variational_kl_weight"),
    ],
)
def test_a_weight_in_the_controls_changes_the_step(part: str, control: str) -> None:
    given = params(regularisation=LEARNED)
    (single,), (double,) = (
        trained(given, steps=1, controls=dataclasses.replace(CONTROLS, **{control: weight}))
        for weight in (0.4, 0.8)
    )
    difference = float(double.losses.total - single.losses.total)
    assert difference == pytest.approx(0.4 * float(single.losses.raw[part]), rel=1e-3)
    assert double.grad_norm != single.grad_norm


@pytest.mark.parametrize("rates", [(0.0, 0.0), (0.0, 0.1), (0.1, 0.0)])
def test_noise_may_be_learned_by_one_lstm_or_by_none(rates: tuple[float, float]) -> None:
    attention, decoder = rates
    given = params(regularisation=LEARNED, attention_dropout=attention, decoder_dropout=decoder)
    (result,) = trained(given, steps=1)
    assert ("variational_kl" in result.losses.raw) == any(rates)


def test_the_target_is_in_the_units_of_the_network_and_knows_them() -> None:
    given = params()
    model = Tacotron2(architecture_of(given, SYMBOLS))
    model.set_mel_statistics(torch.full((MELS,), -4.0), torch.linspace(0.5, 2.0, MELS))
    target = target_of(model, batch())
    assert target.mel_deviation is not None
    torch.testing.assert_close(target.mel_deviation, torch.linspace(0.5, 2.0, MELS))
    torch.testing.assert_close(target.frames * target.mel_deviation - 4.0, batch().frames)
