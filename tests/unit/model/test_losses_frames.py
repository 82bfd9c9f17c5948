"""Losses of frames and stops: against loops over utterances that know no padding."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kamerton.model.losses.frames import (
    gate_loss,
    mel_loss,
    perceptual_loss,
    spectral_loss,
    style_loss,
)
from kamerton.model.losses.loudness import a_weighting_db, band_loudness
from tests.loss_batches import (
    RUBBISH,
    Array,
    frame_lengths,
    frames_of,
    lengths_of,
    padded,
    value_and_gradient,
)

CHANNELS = 6
LOUDNESS = np.array([0.2, 0.5, 1.0, 1.1, 1.0, 0.8])
DEVIATION = np.array([0.5, 2.0, 1.0, 3.0, 1.5, 0.7])


def slow_mel(ours: list[Array], true: list[Array], *, absolute: float) -> float:
    errors = [x - y for a, b in zip(ours, true, strict=True) for x, y in zip(a.flat, b.flat)]  # noqa: B905
    return sum(e * e + absolute * abs(e) for e in errors) / len(errors)


def slow_spectral(ours: list[Array], true: list[Array]) -> float:
    weights = [1, 1, 1.5, 1.5, 1.5, 0.8]  # of channels at 0, 1/6 … 5/6 of the whole
    squares, absolutes, changes = [], [], []
    for a, b in zip(ours, true, strict=True):
        for c in range(CHANNELS):
            for t in range(len(a)):
                squares.append((weights[c] * a[t, c] - weights[c] * b[t, c]) ** 2)
                absolutes.append(abs(a[t, c] - b[t, c]))
                if t > 0:
                    changes.append(((a[t, c] - a[t - 1, c]) - (b[t, c] - b[t - 1, c])) ** 2)
    moving = np.mean(changes) if changes else 0.0
    return float(np.mean(squares) + 0.3 * np.mean(absolutes) + 0.2 * moving)


def slow_perceptual(ours: list[Array], true: list[Array]) -> float:
    unit = math.sqrt(np.mean(DEVIATION**2))
    terms = []
    for a, b in zip(ours, true, strict=True):
        for c in range(CHANNELS):
            for t in range(len(a)):
                restored = (a[t, c] * DEVIATION[c] - b[t, c] * DEVIATION[c]) / unit
                weight = LOUDNESS[c] / np.mean(LOUDNESS)
                terms.append(weight * (restored**2 + 0.5 * abs(restored)))
    return float(np.mean(terms))


def slow_style(ours: list[Array], true: list[Array]) -> float:
    def gram(x: Array) -> Array:
        return np.array(
            [
                [sum(x[:, c] * x[:, d]) / (CHANNELS * len(x)) for d in range(CHANNELS)]
                for c in range(CHANNELS)
            ]
        )

    return float(
        np.mean(
            [
                np.mean((a.mean(0) - b.mean(0)) ** 2)
                + np.mean((a.var(0) - b.var(0)) ** 2)
                + 0.5 * np.mean((gram(a) - gram(b)) ** 2)
                for a, b in zip(ours, true, strict=True)
            ]
        )
    )


def fast_perceptual(ours: Tensor, true: Tensor, lengths: Tensor) -> Tensor:
    loudness, deviation = torch.from_numpy(LOUDNESS), torch.from_numpy(DEVIATION)
    return perceptual_loss(ours, true, lengths, loudness, deviation)


LOSSES: dict[str, tuple[Callable[..., Tensor], Callable[..., float]]] = {
    "l1_l2": (mel_loss, lambda a, b: slow_mel(a, b, absolute=1.0)),
    "mse": (lambda *x: mel_loss(*x, kind="mse"), lambda a, b: slow_mel(a, b, absolute=0.0)),
    "spectral": (spectral_loss, slow_spectral),
    "perceptual": (fast_perceptual, slow_perceptual),
    "style": (style_loss, slow_style),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


@every_loss
@settings(max_examples=20, deadline=None)
@given(lengths=frame_lengths, seed=st.integers(0, 99), filler=st.sampled_from(RUBBISH))
def test_value_and_gradient_are_those_of_the_real_frames(
    name: str, lengths: list[int], seed: int, filler: float
) -> None:
    fast, slow = LOSSES[name]
    ours = frames_of(lengths, CHANNELS, seed=seed)
    true = frames_of(lengths, CHANNELS, seed=seed + 1000)
    sizes = lengths_of(ours)
    clean, clean_gradient = value_and_gradient(
        lambda x: fast(x, padded(true, 0.0), sizes), padded(ours, 0.0)
    )
    assert clean.item() == pytest.approx(slow(ours, true), rel=1e-9)
    dirty, gradient = value_and_gradient(
        lambda x: fast(x, padded(true, filler, extra=2), sizes), padded(ours, filler, extra=2)
    )
    assert dirty.item() == pytest.approx(clean.item(), rel=1e-12)
    torch.testing.assert_close(gradient[:, :-2], clean_gradient, rtol=1e-9, atol=1e-12)
    for row, length in enumerate(lengths):
        assert not gradient[row, length:].any()
        assert gradient[row, :length].any()


@every_loss
def test_a_perfect_prediction_costs_nothing(name: str) -> None:
    fast, _ = LOSSES[name]
    frames = frames_of([5, 1, 3], CHANNELS, seed=0)
    sizes = lengths_of(frames)
    value, gradient = value_and_gradient(
        lambda x: fast(x, padded(frames, 0.0), sizes), padded(frames, 9.0)
    )
    assert value.item() == 0.0
    assert not gradient.any()


@every_loss
def test_gradients_agree_with_finite_differences(name: str) -> None:
    fast, _ = LOSSES[name]
    ours, true = (frames_of([4, 2], CHANNELS, seed=seed) for seed in (1, 2))
    given_true, sizes = padded(true, 0.0), lengths_of(true)
    at = padded(ours, 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: fast(x, given_true, sizes), (at,))


@pytest.mark.parametrize("name", ["l1_l2", "mse", "perceptual"])
def test_every_frame_of_the_batch_counts_alike(name: str) -> None:
    fast, _ = LOSSES[name]
    ours, true = (frames_of([7, 2], CHANNELS, seed=seed) for seed in (1, 2))
    both = fast(padded(ours, 0.0), padded(true, 0.0), lengths_of(ours))
    alone = [
        fast(padded([a], 0.0), padded([b], 0.0), lengths_of([a]))
        for a, b in zip(ours, true, strict=True)
    ]
    torch.testing.assert_close(both, (7 * alone[0] + 2 * alone[1]) / 9)


def test_every_utterance_has_a_style_of_its_own() -> None:
    ours, true = (frames_of([7, 2], CHANNELS, seed=seed) for seed in (1, 2))
    both = style_loss(padded(ours, 0.0), padded(true, 0.0), lengths_of(ours))
    alone = [
        style_loss(padded([a], 0.0), padded([b], 0.0), lengths_of([a]))
        for a, b in zip(ours, true, strict=True)
    ]
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2)


def test_style_does_not_see_the_order_of_frames_and_does_see_flattened_ones() -> None:
    true = frames_of([9], CHANNELS, seed=3)
    size = lengths_of(true)
    turned = [true[0][::-1].copy()]
    assert style_loss(padded(turned, 0.0), padded(true, 0.0), size).item() < 1e-28
    flat = [np.repeat(true[0].mean(0, keepdims=True), 9, axis=0)]
    # The mean is right, so this is what variance and correlation alone cost.
    variance = np.mean(true[0].var(0) ** 2)
    assert style_loss(padded(flat, 0.0), padded(true, 0.0), size).item() > variance


def test_spectral_weights_of_eight_bands() -> None:
    target = torch.zeros(1, 1, 8, dtype=torch.float64)
    expected = [1, 1, 1.5, 1.5, 1.5, 1.5, 0.8, 0.8]
    for channel, weight in enumerate(expected):
        frame = target.clone()
        frame[0, 0, channel] = 2.0
        loss = spectral_loss(frame, target, torch.tensor([1]))
        assert loss.item() == pytest.approx(((2 * weight) ** 2 + 0.3 * 2) / 8)


def test_a_steady_error_does_not_change_from_frame_to_frame() -> None:
    target = torch.randn(1, 5, 8, dtype=torch.float64)
    steady = target + 0.1
    wavering = target + 0.1 * torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])[None, :, None]
    size = torch.tensor([5])
    difference = spectral_loss(wavering, target, size) - spectral_loss(steady, target, size)
    assert difference.item() == pytest.approx(0.2 * 0.2**2)  # leaps of 0.2 at a weight of 0.2


# Of IEC 61672-1, table 3, at the exact thirds of an octave 1000 · 10^(n / 10) Hz.
A_WEIGHTING = {
    -15: -39.4, -13: -30.2, -10: -19.1, -7: -10.9, -5: -6.6, -3: -3.2, 0: 0.0, 3: 1.2, 4: 1.3,
    6: 1.0, 9: -1.1, 10: -2.5, 12: -6.6,
}  # fmt: skip


def test_a_weighting_is_the_one_of_the_standard() -> None:
    hz = torch.tensor([1000 * 10 ** (n / 10) for n in A_WEIGHTING], dtype=torch.float64)
    assert a_weighting_db(hz).tolist() == pytest.approx(list(A_WEIGHTING.values()), abs=0.06)


def test_ten_decibels_more_are_twice_as_loud() -> None:
    loudness = band_loudness((100.0, 1000.0), torch.float64, torch.device("cpu"))
    assert loudness.tolist() == pytest.approx([2 ** (-19.1 / 10), 1.0], rel=5e-3)


def test_perceptual_scale_does_not_depend_on_the_units_of_loudness_or_deviation() -> None:
    ours, true = (padded(frames_of([4], CHANNELS, seed=seed), 0.0) for seed in (1, 2))
    size = torch.tensor([4])
    loudness, deviation = torch.from_numpy(LOUDNESS), torch.from_numpy(DEVIATION)
    base = perceptual_loss(ours, true, size, loudness, deviation)
    torch.testing.assert_close(perceptual_loss(ours, true, size, 7 * loudness, 3 * deviation), base)
    flat = torch.ones(CHANNELS, dtype=torch.float64)
    plain = mel_loss(ours, true, size, "mse") + 0.5 * (ours - true).abs().mean()
    torch.testing.assert_close(perceptual_loss(ours, true, size, flat), plain)
    torch.testing.assert_close(perceptual_loss(ours, true, size, flat, 5 * flat), plain)


@settings(max_examples=20, deadline=None)
@given(
    lengths=frame_lengths, reduction=st.sampled_from([1, 2, 3, 5]), filler=st.sampled_from(RUBBISH)
)
def test_gate_loss_is_the_mean_of_the_models_own_frames(
    lengths: list[int], reduction: int, filler: float
) -> None:
    own = [-(-length // reduction) * reduction for length in lengths]
    logits = frames_of(own, seed=len(own))
    terms = []
    for row, length in zip(logits, lengths, strict=True):
        for index, logit in enumerate(row.tolist()):
            last = index >= length - 1
            terms.append(5 * math.log1p(math.exp(-logit)) if last else math.log1p(math.exp(logit)))

    def loss(x: Tensor) -> Tensor:
        return gate_loss(x, torch.tensor(lengths), reduction, 5.0)

    value, gradient = value_and_gradient(loss, padded(logits, filler, extra=2))
    assert value.item() == pytest.approx(np.mean(terms), rel=1e-9)
    for row, size in enumerate(own):
        assert not gradient[row, size:].any()
        assert (gradient[row, :size] != 0).all()
    at = padded(logits, 0.0).requires_grad_()
    assert torch.autograd.gradcheck(loss, (at,))


def test_gate_loss_of_certainty_is_nothing() -> None:
    logits = torch.tensor([[-40.0, -40.0, 40.0, 40.0], [40.0, 40.0, -1.0, -1.0]])
    assert gate_loss(logits, torch.tensor([3, 1]), 2, 5.0).item() < 1e-15


def _single(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


@every_loss
def test_one_frame_in_single_precision(name: str) -> None:
    fast, _ = LOSSES[name]
    value, gradient = value_and_gradient(
        lambda x: fast(x, _single([[[0.0] * CHANNELS]]), torch.tensor([1])),
        _single([[[0.5] * CHANNELS]]),
    )
    assert value.isfinite()
    assert value > 0
    assert gradient.isfinite().all()
