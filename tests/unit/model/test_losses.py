"""The losses: closed forms, and that no padding counts."""

import math

import pytest
import torch

from kamerton.model.losses import Objective, Target, losses_of
from kamerton.model.losses.attention import guided_attention_loss
from kamerton.model.losses.frames import gate_loss, gate_targets, mel_loss
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


def test_the_total_is_the_sum_of_the_weighted_parts_and_each_weight_reaches_the_gradient() -> None:
    torch.manual_seed(0)
    target, lengths = torch.randn(2, 5, 4), torch.tensor([5, 2])
    symbols = torch.tensor([3, 3])

    def gradient(mel: float, gate: float, guided: float) -> list[float]:
        leaves = [torch.full(s, 0.3, requires_grad=True) for s in ((2, 6, 4), (2, 6, 4), (2, 6))]
        attention = torch.full((2, 3, 3), 1 / 3, requires_grad=True)
        predicted = Predicted(leaves[0], leaves[1], leaves[2], attention)
        parts = ("mel_before", "mel_after", "gate", "guided_attention")
        weights = dict(zip(parts, (mel, mel, gate, guided), strict=True))
        aim = Target(target, lengths, torch.ones(2, 3, dtype=torch.long), symbols)
        losses = losses_of(predicted, aim, Objective(weights))
        assert losses.total.item() == pytest.approx(sum(v.item() for v in losses.weighted.values()))
        losses.total.backward()
        return [float(leaf.grad.abs().sum()) for leaf in (*leaves, attention)]  # type: ignore[union-attr]

    base = gradient(1, 1, 1)
    assert all(value > 0 for value in base)
    doubled = [gradient(*weights) for weights in ((2, 1, 1), (1, 2, 1), (1, 1, 2))]
    for changed, expected in zip(doubled, ([2, 2, 1, 1], [1, 1, 2, 1], [1, 1, 1, 2]), strict=True):
        assert [a / b for a, b in zip(changed, base, strict=True)] == pytest.approx(expected)
