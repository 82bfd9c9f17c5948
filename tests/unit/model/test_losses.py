"""The basic losses in closed form, and that every part is wired into the total."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kamerton.model.losses import Losses, Objective, Target, losses_of
from kamerton.model.losses.attention import (
    coarse_agreement_loss,
    forward_sum_loss,
    gaussian_attention_loss,
    guided_attention_loss,
    monotonic_loss,
)
from kamerton.model.losses.frames import (
    gate_loss,
    gate_targets,
    mel_loss,
    perceptual_loss,
    spectral_loss,
    style_loss,
)
from kamerton.model.losses.loudness import band_loudness
from kamerton.model.losses.objective import BASIC, PARTS
from kamerton.model.tacotron2.decoder import Decoded
from kamerton.model.tacotron2.model import Predicted


def test_mel_loss_is_zero_on_equal_frames_and_known_for_a_constant_error() -> None:
    target = torch.randn(2, 6, 4)
    lengths = torch.tensor([6, 3])
    assert mel_loss(target, target, lengths).item() == 0.0
    assert mel_loss(target + 0.5, target, lengths).item() == pytest.approx(0.5 + 0.25, rel=1e-5)


def test_mel_loss_ignores_padding() -> None:
    target = torch.randn(2, 6, 4)
    predicted = target + 0.1
    predicted[1, 3:] = 1e6
    assert mel_loss(predicted, target, torch.tensor([6, 3])).item() == pytest.approx(0.11, rel=1e-3)


def test_gate_targets_are_one_from_the_last_frame() -> None:
    expected = [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]]
    assert gate_targets(torch.tensor([3, 4]), 4).tolist() == expected


@pytest.mark.parametrize(("reduction", "counted"), [(1, 3), (2, 4), (5, 5)])
def test_gate_loss_counts_to_the_end_of_the_last_step(reduction: int, counted: int) -> None:
    lengths = torch.tensor([3])
    # Probability one half everywhere: ln 2 per frame, five times that where the target is 1.
    positives = counted - 2
    expected = math.log(2) * (2 + 5.0 * positives) / counted
    logits = torch.zeros(1, 10)
    logits[0, counted:] = 50.0
    assert gate_loss(logits, lengths, reduction, 5.0).item() == pytest.approx(expected, rel=1e-5)


def test_guided_attention_of_a_diagonal_and_of_a_uniform_attention() -> None:
    size, sigma = 5, 0.4
    lengths = torch.tensor([size])
    diagonal = torch.eye(size)[None]
    assert guided_attention_loss(diagonal, lengths, lengths, sigma).item() == 0.0
    uniform = torch.full((1, size, size), 1 / size)
    by_hand = sum(
        (1 - math.exp(-((n / size - t / size) ** 2) / (2 * sigma**2))) / size
        for n in range(size)
        for t in range(size)
    ) / (size * size)
    loss = guided_attention_loss(uniform, lengths, lengths, sigma).item()
    assert loss == pytest.approx(by_hand, rel=1e-5)


def test_guided_attention_uses_the_lengths_of_each_utterance() -> None:
    short = torch.eye(3)
    padded = torch.zeros(2, 6, 6)
    padded[0] = torch.eye(6)
    padded[1, :3, :3] = short
    padded[1, 3:, 0] = 1.0  # what the model does after its end is nobody's business
    lengths = torch.tensor([6, 3])
    assert guided_attention_loss(padded, lengths, lengths, 0.3).item() == 0.0


LENGTHS, SYMBOL_LENGTHS = torch.tensor([5, 2]), torch.tensor([3, 2])
MELS = 4
CENTRES_HZ = (100.0, 500.0, 1500.0, 6000.0)
# What each part is about: only there does it give a gradient.
REACHES = {
    "mel_before": {"before"},
    "mel_after": {"after"},
    "gate": {"gate_logits"},
    "guided_attention": {"attention"},
    "spectral": {"after"},
    "perceptual": {"after"},
    "style": {"after"},
    "monotonic": {"attention"},
    "double_decoder": {"attention", "coarse_frames", "coarse_attention"},
    "variational_kl": {"noise_divergence"},
}


def leaves() -> dict[str, Tensor]:
    """A prediction of two frames per step, and four per coarse step."""
    torch.manual_seed(0)
    values = {
        "before": torch.randn(2, 6, MELS),
        "after": torch.randn(2, 6, MELS),
        "gate_logits": torch.randn(2, 6),
        # Its first step reads far ahead and the second goes back.
        "attention": torch.tensor([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3]]).repeat(
            2, 1, 1
        ),
        "coarse_frames": torch.randn(2, 8, MELS),
        "coarse_attention": torch.rand(2, 2, 3).softmax(2),
        "noise_divergence": torch.tensor(0.7),
    }
    return {name: value.double().requires_grad_() for name, value in values.items()}


def prediction(at: dict[str, Tensor]) -> Predicted:
    coarse = Decoded(at["coarse_frames"], torch.zeros(2, 8), at["coarse_attention"])
    return Predicted(
        at["before"], at["after"], at["gate_logits"], at["attention"], coarse,
        at["noise_divergence"],
    )  # fmt: skip


def target(*, deviation: Tensor | None = None) -> Target:
    torch.manual_seed(1)
    frames = torch.randn(2, 5, MELS, dtype=torch.float64)
    symbols = torch.ones(2, 3, dtype=torch.long)
    return Target(frames, LENGTHS, symbols, SYMBOL_LENGTHS, deviation)


def losses_and_gradients(
    weights: dict[str, float], **objective: Any
) -> tuple[Losses, dict[str, Tensor]]:
    at = leaves()
    losses = losses_of(
        prediction(at), target(), Objective(weights, mel_centres_hz=CENTRES_HZ, **objective)
    )
    losses.total.backward()
    return losses, {
        name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        for name, leaf in at.items()
    }


def test_the_parts_are_known() -> None:
    assert set(PARTS) == set(REACHES)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("guided", ["tachibana", "gaussian_mse", "ctc_forward_sum"])
def test_every_part_is_in_the_total_and_pushes_what_it_is_about(part: str, guided: Any) -> None:
    rest = dict.fromkeys(PARTS, 0.3)
    without, base = losses_and_gradients({**rest, part: 0.0}, guided_attention=guided)
    losses, gradients = losses_and_gradients({**rest, part: 1.5}, guided_attention=guided)
    _, doubled = losses_and_gradients({**rest, part: 3.0}, guided_attention=guided)
    assert losses.raw[part] > 0
    torch.testing.assert_close(losses.weighted[part], 1.5 * losses.raw[part])
    torch.testing.assert_close(losses.total, torch.stack(list(losses.weighted.values())).sum())
    torch.testing.assert_close(losses.total - without.total, losses.weighted[part])
    for name, gradient in gradients.items():
        pushed = gradient - base[name]
        assert (pushed.abs().max() > 1e-6) == (name in REACHES[part]), name
        torch.testing.assert_close(doubled[name] - base[name], 2 * pushed)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_without_weight_is_not_computed_unless_it_is_always_reported(part: str) -> None:
    weights = {name: 1.0 for name in PARTS if name != part}
    left_out, gradients = losses_and_gradients(weights)
    weighed_0, same_gradients = losses_and_gradients({**weights, part: 0.0})
    for losses in (left_out, weighed_0):
        assert part not in losses.weighted
        assert (part in losses.raw) == (part in BASIC)
    assert torch.equal(left_out.total, weighed_0.total)
    assert all(torch.equal(gradients[name], same_gradients[name]) for name in gradients)


def test_nothing_weighted_is_nothing_to_learn() -> None:
    losses = losses_of(prediction(leaves()), target(), Objective({}))
    assert losses.total.item() == 0.0
    assert set(losses.raw) == set(BASIC)


def test_parts_are_what_the_losses_say_of_the_prediction() -> None:
    at, aim = leaves(), target(deviation=torch.tensor([1.0, 2.0, 3.0, 0.5]).double())
    assert aim.mel_deviation is not None
    weights = dict.fromkeys(PARTS, 1.0)
    raw = losses_of(prediction(at), aim, Objective(weights, mel_centres_hz=CENTRES_HZ)).raw
    frames = torch.nn.functional.pad(aim.frames, (0, 0, 0, 1))
    coarse_frames = torch.nn.functional.pad(aim.frames, (0, 0, 0, 3))
    loudness = band_loudness(CENTRES_HZ, torch.float64, torch.device("cpu"))
    steps, coarse_steps = torch.tensor([3, 1]), torch.tensor([2, 1])
    expected = {
        "mel_before": mel_loss(at["before"], frames, LENGTHS),
        "mel_after": mel_loss(at["after"], frames, LENGTHS),
        "gate": gate_loss(at["gate_logits"], LENGTHS, 2, 5.0),
        "guided_attention": guided_attention_loss(at["attention"], SYMBOL_LENGTHS, steps, 0.4),
        "spectral": spectral_loss(at["after"], frames, LENGTHS),
        "perceptual": perceptual_loss(at["after"], frames, LENGTHS, loudness, aim.mel_deviation),
        "style": style_loss(at["after"], frames, LENGTHS),
        "monotonic": monotonic_loss(at["attention"], SYMBOL_LENGTHS, steps),
        "double_decoder": mel_loss(at["coarse_frames"], coarse_frames, LENGTHS, "mse")
        + coarse_agreement_loss(
            at["attention"], at["coarse_attention"], SYMBOL_LENGTHS, fine_steps=steps,
            coarse_steps=coarse_steps, fine_reduction=2, coarse_reduction=4,
        ),
        "variational_kl": at["noise_divergence"],
    }  # fmt: skip
    for name, value in expected.items():
        torch.testing.assert_close(raw[name], value, msg=name)
    assert raw["perceptual"] != losses_and_gradients(weights)[0].raw["perceptual"]


@pytest.mark.parametrize("kind", ["tachibana", "gaussian_mse", "ctc_forward_sum"])
@pytest.mark.parametrize("sigma", [0.1, 0.4])
def test_kind_and_width_of_guided_attention_are_those_of_the_objective(
    kind: Any, sigma: float
) -> None:
    at = leaves()
    objective = Objective(guided_attention=kind, guided_attention_sigma=sigma)
    raw = losses_of(prediction(at), target(), objective).raw["guided_attention"]
    alone = {
        "tachibana": lambda *given: guided_attention_loss(*given, sigma),
        "gaussian_mse": lambda *given: gaussian_attention_loss(*given, sigma),
        "ctc_forward_sum": forward_sum_loss,
    }[kind]
    expected = alone(at["attention"], SYMBOL_LENGTHS, torch.tensor([3, 1]))
    torch.testing.assert_close(raw, expected)


def test_kind_of_the_mel_loss_and_weight_of_stops_are_those_of_the_objective() -> None:
    at, aim = leaves(), target()
    frames = torch.nn.functional.pad(aim.frames, (0, 0, 0, 1))
    raw = losses_of(prediction(at), aim, Objective(mel="mse", gate_positive_weight=9.0)).raw
    for part, made in (("mel_before", at["before"]), ("mel_after", at["after"])):
        torch.testing.assert_close(raw[part], mel_loss(made, frames, LENGTHS, "mse"))
    torch.testing.assert_close(raw["gate"], gate_loss(at["gate_logits"], LENGTHS, 2, 9.0))


def test_detached_losses_are_the_same_numbers_without_a_graph() -> None:
    losses, _ = losses_and_gradients(dict.fromkeys(PARTS, 1.0))
    plain = losses.detached()
    assert torch.equal(plain.total, losses.total)
    for ours, theirs in ((plain.raw, losses.raw), (plain.weighted, losses.weighted)):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert not any(value.requires_grad for value in ours.values())


@pytest.mark.parametrize(
    ("given", "message"),
    [({"mel": 1.0}, "no loss called mel"), ({"perceptual": 1.0}, "frequencies of the mel")],
)
def test_an_objective_that_cannot_be_is_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objective(given)


@pytest.mark.parametrize("part", ["double_decoder", "variational_kl"])
def test_a_weight_for_what_the_network_does_not_have_is_an_error(part: str) -> None:
    at = leaves()
    bare = Predicted(at["before"], at["after"], at["gate_logits"], at["attention"])
    with pytest.raises(ValueError, match="weighted and"):
        losses_of(bare, target(), Objective({part: 1.0}))
