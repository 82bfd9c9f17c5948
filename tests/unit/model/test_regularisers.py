"""Spectral dropout: its transform, what it drops, and where it is heard."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import dct

from kamerton.config.schema import Params
from kamerton.model.regularisers import SpectralDropout, cosine_basis
from kamerton.training.architecture import architecture_of
from tests.tiny_network import batch_of, masks_for, tiny_network, utterances_of


@given(size=st.integers(1, 100))
def test_the_basis_is_the_orthonormal_cosine_transform(size: int) -> None:
    basis = cosine_basis(size)
    expected = dct(np.eye(size), type=2, norm="ortho", axis=0)
    np.testing.assert_allclose(basis.numpy(), expected, atol=1e-6)
    torch.testing.assert_close(basis @ basis.T, torch.eye(size), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_the_weakest_share_goes_and_of_the_others_each_by_chance(rate: float) -> None:
    torch.manual_seed(0)
    layer = SpectralDropout(80, rate).double().train()
    frames = torch.randn(30, 40, 80, dtype=torch.float64)
    given, left = frames @ layer.basis.T, layer(frames) @ layer.basis.T
    gone = left.abs() < given.abs() / 2
    torch.testing.assert_close(left, given * ~gone / (1 - rate), rtol=0, atol=1e-5)
    order = given.abs().argsort(dim=-1)
    by_rank = torch.gather(gone.float(), -1, order).mean(dim=(0, 1))
    weakest = int(rate * 80)
    assert (by_rank[:weakest] == 1).all()
    # Each of the others at 1,200 draws: within five deviations.
    deviation = (rate * (1 - rate) / 1200) ** 0.5
    assert (by_rank[weakest:] - rate).abs().max() < 5 * deviation


def test_a_strong_coefficient_has_the_same_mean_as_without() -> None:
    torch.manual_seed(0)
    layer = SpectralDropout(10, 0.2).train()
    frame = torch.arange(10.0).repeat(20_000, 1)
    strong = 1  # the slope
    mean = (layer(frame) @ layer.basis.T)[:, strong].mean()
    torch.testing.assert_close(mean, (frame[0] @ layer.basis.T)[strong], rtol=0.02, atol=0.0)


def test_zeros_stay_zeros_and_evaluation_hears_nothing_of_it() -> None:
    layer = SpectralDropout(12, 0.5)
    frames = torch.randn(3, 4, 12)
    assert not layer.train()(torch.zeros(3, 12)).any()
    assert layer.eval()(frames) is frames
    assert SpectralDropout(12, 0.0).train()(frames) is frames


def test_it_reaches_the_decoder_in_training_alone_and_changes_no_weights() -> None:
    model, plain = tiny_network(2, spectral_dropout=0.3), tiny_network(2)
    assert model.state_dict().keys() == plain.state_dict().keys()
    batch = batch_of(utterances_of([5, 3], [13, 7]))
    masks = masks_for(model, 2, 13)

    def run(network: torch.nn.Module, seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return network(*batch, masks=masks).before.detach()  # type: ignore[no-any-return]

    assert torch.equal(run(model.eval(), 1), run(plain.eval(), 2))
    first, again, other = (run(model.train(), seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert torch.equal(first[:, :2], other[:, :2])  # the first step is given silence
    assert torch.equal(run(plain.train(), 1), run(plain.train(), 2))


@pytest.mark.parametrize(("preset", "rate"), [("plain", 0.0), ("quality", 0.05)])
def test_the_preset_decides(preset: str, rate: float) -> None:
    params = Params.model_validate({"train": {"preset": preset}})
    params = params.model_copy(update={"train": params.train.resolved()})
    assert architecture_of(params, 9).spectral_dropout == rate
