"""The kinds of attention against their formulas, written as loops over symbols and filters."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.nn import functional

from kamerton.model.tacotron2.attention import (
    AttentionRecurrence,
    ForwardAttention,
    make_attention,
)
from kamerton.model.tacotron2.dynamic_convolution import (
    PRIOR_FLOOR,
    PRIOR_SHAPE,
    PRIOR_STEPS,
    DynamicConvolutionAttention,
    beta_binomial,
)
from kamerton.model.tacotron2.keys import Keys
from kamerton.model.tacotron2.model import valid_positions
from kamerton.model.tacotron2.noise import StateNoise
from tests.tiny_network import KINDS

HIDDEN, MEMORY, ATTENTION, FILTERS, KERNEL = 6, 5, 4, 3, 5
LENGTHS = torch.tensor([9, 4])


def recurrence(kind: str) -> AttentionRecurrence:
    torch.manual_seed(2)
    made = AttentionRecurrence(
        3, HIDDEN, MEMORY, ATTENTION, filters=FILTERS, kernel=KERNEL, kind=kind
    )
    with torch.no_grad():  # sharp enough to move
        for name, parameter in made.attention.named_parameters():
            if "energy" in name:
                parameter.mul_(4.0)
    return made


def text() -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    valid = valid_positions(LENGTHS, 9)
    return torch.randn(2, 9, MEMORY) * valid.unsqueeze(2), valid


@pytest.mark.parametrize("count", [1, 10, 20])
@pytest.mark.parametrize(("alpha", "beta"), [(0.1, 0.9), (2.0, 3.0)])
def test_the_prior_is_beta_binomial(count: int, alpha: float, beta: float) -> None:
    expected = stats.betabinom(count, alpha, beta).pmf(range(count + 1))
    torch.testing.assert_close(beta_binomial(count, alpha, beta).double(), torch.tensor(expected))


def test_the_prior_moves_one_symbol_in_the_mean() -> None:
    prior = beta_binomial(PRIOR_STEPS, *PRIOR_SHAPE)
    assert float((prior * torch.arange(PRIOR_STEPS + 1)).sum()) == pytest.approx(1.0)


def test_dynamic_convolution_is_its_formula() -> None:
    """Equations 8 and 9 of the paper, filter by filter, for one utterance after the other."""
    attention = recurrence("dynamic_convolution").attention
    assert isinstance(attention, DynamicConvolutionAttention)
    memory, valid = text()
    keys = attention.keys(memory, valid)
    hidden = torch.randn(2, HIDDEN)
    alpha = torch.rand(2, 9) * valid
    alpha = alpha / alpha.sum(1, keepdim=True)
    history = functional.pad(alpha.unsqueeze(1), (KERNEL // 2, KERNEL // 2))
    weights, after = attention.weigh(hidden, keys, history)
    for row, size in enumerate(LENGTHS.tolist()):
        last = alpha[row, :size][None, None]
        made = attention.filter_output(attention.filter_hidden(hidden[row]).tanh())
        dynamic = made.view(FILTERS, 1, KERNEL)
        fixed = functional.conv1d(last, attention.static.weight, padding=KERNEL // 2)[0].T
        moving = functional.conv1d(last, dynamic, padding=KERNEL // 2)[0].T
        sums = attention.project_static(fixed) + attention.project_dynamic(moving)
        energies = attention.energy(sums.tanh())[:, 0]
        for n in range(size):
            prior = sum(
                float(attention.prior[k] * last[0, 0, n - k])
                for k in range(min(n, PRIOR_STEPS) + 1)
            )
            energies[n] += math.log(max(prior, PRIOR_FLOOR))
        torch.testing.assert_close(weights[row, :size], energies.softmax(0))
    kept = after[:, 0, KERNEL // 2 : -(KERNEL // 2)]
    torch.testing.assert_close(kept, weights)


def test_dynamic_convolution_knows_nothing_of_the_text_but_its_length() -> None:
    made = recurrence("dynamic_convolution")
    memory, valid = text()
    hidden, history = (
        torch.randn(2, HIDDEN),
        made.attention.start(made.attention.keys(memory, valid)),
    )
    weights = [
        made.attention.weigh(hidden, made.attention.keys(memory * factor, valid), history)[0]
        for factor in (1.0, -3.0)
    ]
    assert torch.equal(*weights)


def test_dynamic_convolution_without_energies_follows_its_prior() -> None:
    """From the first symbol on: the distribution of a sum of beta-binomial moves."""
    made = recurrence("dynamic_convolution").attention
    with torch.no_grad():
        made.energy.weight.zero_()
    keys = made.keys(torch.zeros(1, 40, MEMORY), torch.ones(1, 40))
    history = made.start(keys)
    move = stats.betabinom(PRIOR_STEPS, *PRIOR_SHAPE).pmf(range(PRIOR_STEPS + 1))
    expected = [1.0]
    for _ in range(3):
        weights, history = made.weigh(torch.zeros(1, HIDDEN), keys, history)
        expected = list(functional.conv1d(
            torch.tensor([[expected]]).double(),
            torch.tensor(move).flip(0)[None, None],
            padding=PRIOR_STEPS,
        )[0, 0])  # fmt: skip
        reached = torch.stack(expected)
        # Symbols out of reach keep the floor.
        torch.testing.assert_close(
            weights[0, : len(reached)].double(), reached, rtol=1e-3, atol=2e-6
        )
        assert weights[0, len(reached) :].max() < 1.1 * PRIOR_FLOOR


def naive_forward(made: ForwardAttention, hidden: Tensor, keys: Keys) -> Tensor:
    """Algorithm 1 of the paper for one utterance: hidden (T, H) to weights (T, N)."""
    fit, size = made.fit, keys.memory.shape[1]
    alpha = [1.0] + [0.0] * (size - 1)
    last, summed, rows = torch.tensor(alpha), torch.zeros(size), []
    for query in hidden:
        location = functional.conv1d(
            torch.stack([last, summed])[None], fit.location.weight, padding=fit.kernel // 2
        )
        location = fit.project_location(location[0].T)
        y = fit.energy((fit.query(query) + fit.memory(keys.memory[0]) + location).tanh())[:, 0]
        y = y.softmax(0).tolist()
        moved = [(alpha[n] + (alpha[n - 1] if n else 0.0)) * y[n] for n in range(size)]
        alpha = [value / sum(moved) for value in moved]
        last = torch.tensor(alpha)
        summed = summed + last
        rows.append(last)
    return torch.stack(rows)


@pytest.mark.parametrize("size", [1, 2, 9])
def test_forward_attention_is_the_recursion_of_the_paper(size: int) -> None:
    made = recurrence("forward").attention
    assert isinstance(made, ForwardAttention)
    torch.manual_seed(4)
    memory, hidden = torch.randn(1, size, MEMORY), torch.randn(12, HIDDEN)
    keys = made.keys(memory, torch.ones(1, size))
    history, rows = made.start(keys), []
    for query in hidden:
        weights, history = made.weigh(query[None], keys, history)
        rows.append(weights[0])
    torch.testing.assert_close(
        torch.stack(rows), naive_forward(made, hidden, keys), rtol=1e-4, atol=1e-6
    )


def test_forward_attention_moves_at_most_one_symbol_a_step_and_never_back() -> None:
    made = recurrence("forward")
    memory, valid = text()
    keys = made.attention.keys(memory, valid)
    weights = made(torch.randn(7, 2, 3), keys)[2]
    for step in range(7):
        assert not weights[step, :, step + 2 :].any()
    # All on one symbol: the next step shares it with the one after, and with no other.
    history = torch.zeros(1, 2, 9 + KERNEL - 1)
    history[0, 0, KERNEL // 2 + 4] = 1.0
    single = Keys(keys.memory[:1], keys.projected[:1], keys.bias[:1], keys.kernel)
    after = made.attention.weigh(torch.randn(1, HIDDEN), single, history)[0]
    assert (after[0] > 0).tolist() == [n in (4, 5) for n in range(9)]


def test_forward_attention_is_finite_where_the_last_symbol_is_reached_long_before_the_end() -> None:
    made = recurrence("forward")
    memory, valid = text()
    memory.requires_grad_()
    given = torch.randn(400, 2, 3) * 5
    weights = made(given, made.attention.keys(memory, valid))[2]
    (weights * torch.randn(weights.shape)).sum().backward()
    torch.testing.assert_close(weights.sum(2), torch.ones(400, 2))
    for gradient in [memory.grad] + [p.grad for p in made.parameters()]:
        assert gradient is not None
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4), steps=st.integers(1, 15),
    seed=st.integers(0, 999), loudness=st.sampled_from([0.0, 1.0, 30.0]),
)  # fmt: skip
def test_weights_are_a_distribution_over_symbols(
    kind: str, lengths: list[int], steps: int, seed: int, loudness: float
) -> None:
    made = recurrence(kind)
    torch.manual_seed(seed)
    sizes = torch.tensor(lengths)
    valid = valid_positions(sizes, max(lengths) + seed % 3)
    memory = (torch.randn(*valid.shape, MEMORY) * loudness).masked_fill(valid[..., None] == 0, 0.0)
    memory.requires_grad_()
    hidden, context, weights = made(
        torch.randn(steps, len(lengths), 3) * loudness, made.attention.keys(memory, valid)
    )
    assert (weights >= 0).all()
    assert not (weights * (1 - valid)).any()
    torch.testing.assert_close(weights.sum(2), torch.ones(steps, len(lengths)))
    torch.testing.assert_close(context, torch.einsum("tbn,bnm->tbm", weights, memory))
    (hidden.sum() + context.square().sum() + weights.square().sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in made.parameters() if p.grad is not None)
    assert torch.isfinite(memory.grad).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noisy", [False, True])
def test_step_by_step_is_all_at_once(kind: str, noisy: bool) -> None:
    made = recurrence(kind)
    memory, valid = text()
    keys = made.attention.keys(memory, valid)
    given = torch.randn(6, 2, 3)
    factors = [torch.rand(6, 2, HIDDEN), torch.rand(1, 2, HIDDEN), torch.rand(6, 2, HIDDEN), None]
    noise = StateNoise(*factors) if noisy else StateNoise()
    hidden, contexts, weights = made(given, keys, noise)
    state = made.start(keys)
    for step in range(6):
        row, state = made.step(given[step], keys, state, noise.at(step))
        for one, all_of_them in (
            (state.hidden, hidden), (state.context, contexts), (row, weights),
        ):  # fmt: skip
            torch.testing.assert_close(one, all_of_them[step], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_in_single_precision_also_under_autocast(kind: str) -> None:
    made = recurrence(kind)
    memory, valid = text()
    given = torch.randn(20, 2, 3)
    exact = made(given, made.attention.keys(memory, valid))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = made(given, made.attention.keys(memory, valid))
    assert not torch.equal(rounded[2], exact[2])
    for ours, reference in zip(rounded, exact, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, reference, rtol=0.05, atol=0.05)
    torch.testing.assert_close(rounded[2].sum(2), torch.ones(20, 2))
    (rounded[0].sum() + rounded[2].square().sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in made.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns(kind: str) -> None:
    made = recurrence(kind)
    memory, valid = text()
    _, _, weights = made(torch.randn(8, 2, 3), made.attention.keys(memory, valid))
    (weights * torch.randn(weights.shape)).sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_names_of_the_weights_of_a_trained_voice() -> None:
    assert set(recurrence("location_sensitive").state_dict()) == {
        "recurrent", "input.weight", "input.bias", "attention.query.weight",
        "attention.memory.weight", "attention.memory.bias", "attention.location.weight",
        "attention.project_location.weight", "attention.energy.weight",
    }  # fmt: skip


def test_an_even_kernel_or_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        make_attention("forward", 4, 4, 4, filters=2, kernel=4)
    with pytest.raises(ValueError, match="no attention of kind 'backward'"):
        make_attention("backward", 4, 4, 4, filters=2, kernel=5)
