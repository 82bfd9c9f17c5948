"""Losses of attention: against loops over utterances that know no padding."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kamerton.model.losses.attention import (
    SMALLEST_WEIGHT,
    coarse_agreement_loss,
    forward_sum_loss,
    gaussian_attention_loss,
    guided_attention_loss,
    guided_loss,
    monotonic_loss,
)
from tests.loss_batches import (
    RUBBISH,
    Array,
    attention_of,
    lengths_of,
    padded,
    sizes,
    value_and_gradient,
)

SIGMA = 0.3


def bell(step: int, steps: int, symbol: int, symbols: int) -> float:
    return math.exp(-((symbol / symbols - step / steps) ** 2) / (2 * SIGMA**2))


def slow_tachibana(items: list[Array]) -> float:
    cells = [
        weight * (1 - bell(t, *a.shape[:1], n, a.shape[1]))
        for a in items
        for (t, n), weight in np.ndenumerate(a)
    ]
    return sum(cells) / len(cells)


def slow_gaussian(items: list[Array]) -> float:
    cells = []
    for a in items:
        steps, symbols = a.shape
        for t in range(steps):
            row = [bell(t, steps, n, symbols) for n in range(symbols)]
            cells += [(a[t, n] - row[n] / sum(row)) ** 2 for n in range(symbols)]
    return sum(cells) / len(cells)


def all_paths(steps: int, symbols: int) -> list[tuple[int, ...]]:
    """Every way to read symbols 1…N in order with blanks (0) before, between and after."""
    return [
        path
        for path in itertools.product(range(symbols + 1), repeat=steps)
        if [symbol for symbol, _ in itertools.groupby(path) if symbol]
        == list(range(1, symbols + 1))
    ]


def slow_forward_sum(items: list[Array]) -> float:
    """By enumeration of all paths."""
    losses = []
    for a in items:
        steps, symbols = a.shape
        rows = np.concatenate([np.full((steps, 1), math.exp(-1)), a + SMALLEST_WEIGHT], axis=1)
        rows /= rows.sum(axis=1, keepdims=True)
        total = sum(
            math.prod(rows[t, symbol] for t, symbol in enumerate(path))
            for path in all_paths(steps, symbols)
        )
        losses.append(-math.log(total) / symbols if total else 0.0)
    return sum(losses) / len(losses)


def slow_monotonic(items: list[Array]) -> float:
    losses = []
    for a in items:
        steps, symbols = a.shape
        expected = [sum(n * a[t, n] for n in range(symbols)) for t in range(steps)]
        leap = max(3.0, 4 * symbols / steps)
        costs = [
            max(0.0, before - now) + 0.5 * max(0.0, now - before - leap)
            for before, now in itertools.pairwise(expected)
        ]
        losses.append(sum(costs) / len(costs) if costs else 0.0)
    return sum(losses) / len(losses)


LOSSES: dict[str, tuple[Callable[[Tensor, Tensor, Tensor], Tensor], Callable[..., float]]] = {
    "tachibana": (lambda a, n, t: guided_attention_loss(a, n, t, SIGMA), slow_tachibana),
    "gaussian_mse": (lambda a, n, t: gaussian_attention_loss(a, n, t, SIGMA), slow_gaussian),
    "ctc_forward_sum": (forward_sum_loss, slow_forward_sum),
    "monotonic": (monotonic_loss, slow_monotonic),
}
every_loss = pytest.mark.parametrize("name", LOSSES)
small_sizes = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=1, max_size=3)


def of(name: str, items: list[Array]) -> Callable[[Tensor], Tensor]:
    symbols, steps = lengths_of(items, 1), lengths_of(items, 0)
    return lambda attention: LOSSES[name][0](attention, symbols, steps)


@every_loss
@settings(max_examples=20, deadline=None)
@given(shapes=small_sizes, seed=st.integers(0, 99), filler=st.sampled_from(RUBBISH))
def test_value_and_gradient_are_those_of_the_real_cells(
    name: str, shapes: list[tuple[int, int]], seed: int, filler: float
) -> None:
    items = attention_of(shapes, seed=seed)
    loss = of(name, items)
    clean, clean_gradient = value_and_gradient(loss, padded(items, 0.0, axes=2))
    assert clean.item() == pytest.approx(LOSSES[name][1](items), rel=1e-9, abs=1e-12)
    dirty, gradient = value_and_gradient(loss, padded(items, filler, axes=2, extra=2))
    assert dirty.item() == pytest.approx(clean.item(), rel=1e-12, abs=1e-14)
    torch.testing.assert_close(gradient[:, :-2, :-2], clean_gradient, rtol=1e-9, atol=1e-12)
    for row, (steps, symbols) in enumerate(shapes):
        assert not gradient[row, steps:].any()
        assert not gradient[row, :, symbols:].any()


@settings(max_examples=20, deadline=None)
@given(shapes=sizes, seed=st.integers(0, 99))
def test_monotonic_loss_of_longer_attentions(shapes: list[tuple[int, int]], seed: int) -> None:
    items = attention_of([(steps, 4 * symbols) for steps, symbols in shapes], seed=seed)
    value = of("monotonic", items)(padded(items, 0.0, axes=2))
    assert value.item() == pytest.approx(slow_monotonic(items), rel=1e-9, abs=1e-12)


@every_loss
def test_gradients_agree_with_finite_differences(name: str) -> None:
    items = attention_of([(6, 4), (3, 2)], seed=5)
    at = padded(items, 0.2, axes=2).requires_grad_()
    assert torch.autograd.gradcheck(of(name, items), (at,))


@pytest.mark.parametrize("name", ["ctc_forward_sum", "monotonic"])
def test_every_utterance_counts_alike(name: str) -> None:
    items = attention_of([(8, 3), (4, 4)], seed=2)
    both = of(name, items)(padded(items, 0.0, axes=2))
    alone = [of(name, [item])(padded([item], 0.0, axes=2)) for item in items]
    assert all(value > 0 for value in alone)
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2)


@pytest.mark.parametrize("name", ["tachibana", "gaussian_mse"])
def test_every_cell_of_the_batch_counts_alike(name: str) -> None:
    items = attention_of([(8, 3), (2, 2)], seed=2)
    both = of(name, items)(padded(items, 0.0, axes=2))
    alone = [of(name, [item])(padded([item], 0.0, axes=2)) for item in items]
    torch.testing.assert_close(both, (24 * alone[0] + 4 * alone[1]) / 28)


@pytest.mark.parametrize("kind", ["tachibana", "gaussian_mse", "ctc_forward_sum"])
def test_the_kind_decides_and_a_diagonal_is_better_than_a_stuck_attention(kind: str) -> None:
    size = 8
    lengths = torch.tensor([size])
    diagonal = torch.eye(size, dtype=torch.float64)[None]
    stuck = torch.zeros(1, size, size, dtype=torch.float64)
    stuck[:, :, 0] = 1.0
    straight, idle = (
        guided_loss(a, lengths, lengths, kind=kind, sigma=SIGMA)  # type: ignore[arg-type]
        for a in (diagonal, stuck)
    )
    assert straight < idle
    expected = LOSSES[kind][0](diagonal, lengths, lengths)
    torch.testing.assert_close(straight, expected)


def test_the_least_of_each_kind() -> None:
    size = 6
    lengths = torch.tensor([size])
    diagonal = torch.eye(size, dtype=torch.float64)[None]
    assert guided_attention_loss(diagonal, lengths, lengths, SIGMA).item() == 0.0
    rows = [[bell(t, size, n, size) for n in range(size)] for t in range(size)]
    gaussian = torch.tensor([[[w / sum(row) for w in row] for row in rows]], dtype=torch.float64)
    assert gaussian_attention_loss(gaussian, lengths, lengths, SIGMA).item() < 1e-30
    # As many steps as symbols leave one path; each of its steps has 1 / (1 + 1/e) beside a blank.
    per_symbol = math.log(1 + math.exp(-1))
    assert forward_sum_loss(diagonal, lengths, lengths).item() == pytest.approx(
        per_symbol, rel=1e-6
    )


def test_a_narrow_gaussian_is_all_on_the_nearest_symbol_and_never_on_padding() -> None:
    steps, symbols = 7, 3
    nearest = [
        min(range(symbols), key=lambda n: abs(n / symbols - t / steps)) for t in range(steps)
    ]
    items = [np.eye(symbols)[nearest], attention_of([(9, 6)], seed=1)[0]]
    value, gradient = value_and_gradient(
        lambda a: gaussian_attention_loss(
            a[:1], torch.tensor([symbols]), torch.tensor([steps]), 1e-3
        ),
        padded(items, 0.0, axes=2).float(),
    )
    assert value.item() == 0.0
    assert gradient.isfinite().all()


@every_loss
@pytest.mark.parametrize(("steps", "symbols"), [(1, 1), (1, 5), (3, 7), (9, 1), (40, 9)])
@pytest.mark.parametrize("place", [0, -1])
def test_zeros_and_ones_in_single_precision_stay_finite(
    name: str, steps: int, symbols: int, place: int
) -> None:
    attention = torch.zeros(1, steps, symbols)
    attention[:, :, place] = 1.0
    item = [attention[0].numpy()]
    value, gradient = value_and_gradient(of(name, item), attention)  # type: ignore[arg-type]
    assert value.isfinite()
    assert value >= 0
    assert gradient.isfinite().all()


def test_no_path_through_too_few_steps_costs_nothing_and_spoils_nothing() -> None:
    items = attention_of([(2, 3), (5, 3)], seed=4)
    value, gradient = value_and_gradient(of("ctc_forward_sum", items), padded(items, 0.0, axes=2))
    alone = of("ctc_forward_sum", items[1:])(padded(items[1:], 0.0, axes=2))
    torch.testing.assert_close(value, alone / 2)
    assert not gradient[0].any()
    assert gradient[1].any()


@pytest.mark.parametrize("name", ["tachibana", "gaussian_mse", "ctc_forward_sum"])
def test_following_the_gradient_draws_the_diagonal(name: str) -> None:
    steps, symbols = 24, 6
    torch.manual_seed(0)
    scores = (0.1 * torch.randn(1, steps, symbols)).requires_grad_()
    optimizer = torch.optim.Adam([scores], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        loss = LOSSES[name][0](scores.softmax(2), torch.tensor([symbols]), torch.tensor([steps]))
        loss.backward()
        optimizer.step()
    read = scores.argmax(2)[0]
    assert (read.diff() >= 0).all()
    assert read.unique().tolist() == list(range(symbols))


def test_monotonic_steady_reading_costs_nothing_and_a_leap_half_its_excess() -> None:
    def cost(*places: int, symbols: int = 12) -> float:
        attention = torch.nn.functional.one_hot(torch.tensor([places]), symbols).double()
        return monotonic_loss(
            attention, torch.tensor([symbols]), torch.tensor([len(places)])
        ).item()

    assert cost(*range(12)) == 0.0
    assert cost(0, 0, 3, 3, 6, 8, 8, 8, 9, 10, 11, 11) == 0.0  # leaps of J = max(3, 4) at most
    assert cost(0, 0, 5, 5, 6, 8, 8, 8, 9, 10, 11, 11) == pytest.approx(0.5 * (5 - 4) / 11)
    assert cost(0, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11) == pytest.approx(1 / 11)
    slow = [place for place in range(12) for _ in range(4)]
    slow[3] = 4  # 4N / T is 1 here, so J is 3: ahead by 4, and back by 3
    assert cost(*slow) == pytest.approx((0.5 * (4 - 3) + 3) / 47)


def test_one_step_down_the_gradient_makes_attention_go_back_less() -> None:
    places = torch.tensor([[0, 1, 2, 5, 3, 1, 4, 5]])
    scores = (3.0 * torch.nn.functional.one_hot(places, 6)).double().requires_grad_()

    def loss(x: Tensor) -> Tensor:
        return monotonic_loss(x.softmax(2), torch.tensor([6]), torch.tensor([8]))

    before = loss(scores)
    before.backward()
    assert scores.grad is not None
    after = scores.detach() - 0.5 * scores.grad
    assert loss(after) < before
    expected = (after.softmax(2) - scores.detach().softmax(2)) @ torch.arange(6).double()
    assert expected[0, 3] < 0  # before it goes back, attention hurries less
    assert expected[0, 5] > 0  # and where it went back, it is pushed forward


def agreement(
    fine: list[Array], coarse: list[Array], *, reductions: tuple[int, int]
) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: coarse_agreement_loss(
        a, b, lengths_of(fine, 1), fine_steps=lengths_of(fine), coarse_steps=lengths_of(coarse),
        fine_reduction=reductions[0], coarse_reduction=reductions[1],
    )  # fmt: skip


def slow_agreement(fine: list[Array], coarse: list[Array], reductions: tuple[int, int]) -> float:
    cells: list[float] = []
    for a, b in zip(fine, coarse, strict=True):
        middles = [(t + 0.5) * reductions[0] for t in range(len(a))]
        known = [(t + 0.5) * reductions[1] for t in range(len(b))]
        for n in range(a.shape[1]):
            cells += np.abs(a[:, n] - np.interp(middles, known, b[:, n])).tolist()
    return float(np.mean(cells))


reductions = st.sampled_from([(1, 2), (1, 6), (2, 6), (2, 5), (3, 7)])


@settings(max_examples=30, deadline=None)
@given(
    frames=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 4)), min_size=1, max_size=3),
    pair=reductions, seed=st.integers(0, 99), filler=st.sampled_from(RUBBISH),
)  # fmt: skip
def test_agreement_is_with_the_coarse_attention_interpolated_in_time(
    frames: list[tuple[int, int]], pair: tuple[int, int], seed: int, filler: float
) -> None:
    fine, coarse = (
        attention_of([(-(-length // r), n) for length, n in frames], seed=seed + r) for r in pair
    )
    loss = agreement(fine, coarse, reductions=pair)
    leaves = [padded(x, filler, axes=2, extra=2).requires_grad_() for x in (fine, coarse)]
    value = loss(*leaves)
    assert value.item() == pytest.approx(slow_agreement(fine, coarse, pair), rel=1e-9, abs=1e-15)
    for gradient, items in zip(torch.autograd.grad(value, leaves), (fine, coarse), strict=True):
        assert gradient.isfinite().all()
        for row, item in enumerate(items):
            assert not gradient[row, item.shape[0] :].any()
            assert not gradient[row, :, item.shape[1] :].any()


def test_agreement_equals_torchs_own_interpolation() -> None:
    fine, coarse = attention_of([(12, 5)], seed=1), attention_of([(4, 5)], seed=2)
    value = agreement(fine, coarse, reductions=(2, 6))(
        padded(fine, 0.0, axes=2), padded(coarse, 0.0, axes=2)
    )
    stretched = torch.nn.functional.interpolate(
        torch.from_numpy(coarse[0]).T[None], size=12, mode="linear", align_corners=False
    )
    torch.testing.assert_close(value, (torch.from_numpy(fine[0]).T - stretched[0]).abs().mean())


def test_agreement_is_complete_where_both_read_at_the_same_pace_and_reaches_both() -> None:
    coarse = [np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])]
    middles = [min(max((t + 0.5) / 2 - 0.5, 0.0), 2.0) / 2 for t in range(6)]
    fine = [np.array([[1 - m, m] for m in middles])]
    loss = agreement(fine, coarse, reductions=(1, 2))
    assert loss(padded(fine, 0.0, axes=2), padded(coarse, 0.0, axes=2)).item() < 1e-15
    leaves = [
        padded(attention_of([shape], seed=3), 0.0, axes=2).requires_grad_()
        for shape in ((6, 2), (3, 2))
    ]
    assert torch.autograd.gradcheck(loss, leaves)
    for gradient in torch.autograd.grad(loss(*leaves), leaves):
        assert gradient.any()
