"""The whole model: padding in training, reduction factors, units, batch statistics."""

import pytest
import torch

from kamerton.model.tacotron2.convolution import (
    MaskedBatchNorm,
    commit_statistics,
    discard_statistics,
)
from tests.tiny_network import MELS, batch_of, masks_for, tiny_network, utterances_of

SYMBOL_LENGTHS = [8, 3, 5]
FRAME_LENGTHS = [23, 11, 16]


@pytest.mark.parametrize("reduction", [1, 3])
def test_padding_changes_nothing_in_training_either(reduction: int) -> None:
    items = utterances_of(SYMBOL_LENGTHS, FRAME_LENGTHS)
    grads = []
    for extra in (0, 11):
        model = tiny_network(reduction).double().train()
        symbols, lengths, frames, sizes = batch_of(
            items, extra_symbols=extra, extra_frames=extra, filler=5.0
        )
        masks = masks_for(model, 3, frames.shape[1])
        out = model(symbols, lengths, frames.double(), sizes, masks=masks)
        real = (torch.arange(out.after.shape[1]) < sizes[:, None]).unsqueeze(2)
        ((out.after * real).square().sum() + (out.before * real).sum()).backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.parametrize("reduction", [1, 2, 3, 5])
def test_the_longest_utterance_may_have_any_length(reduction: int) -> None:
    model = tiny_network(reduction).eval()
    for length in range(1, 12):
        item = (torch.tensor([2, 3, 4]), torch.randn(length, MELS))
        out = model(*batch_of([item]))
        steps = -(-length // reduction)
        assert out.after.shape == (1, steps * reduction, MELS)
        assert out.gate_logits.shape == (1, steps * reduction)
        assert out.attention.shape == (1, steps, 3)


def test_another_seed_speaks_otherwise_and_the_same_seed_does_not() -> None:
    model = tiny_network(2).eval()
    with torch.no_grad():
        model.decoder.gate.bias.fill_(-9.0)  # never ends by itself
    symbols, lengths, _, _ = batch_of(utterances_of(SYMBOL_LENGTHS, FRAME_LENGTHS)[:1])
    limit = torch.tensor([20])
    said = [model.speak(symbols, lengths, max_frames=limit, seeds=[s]).frames for s in (1, 1, 2)]
    assert torch.equal(said[0], said[1])
    assert not torch.allclose(said[0], said[2], atol=1e-3)


def test_speech_is_in_the_units_of_the_data() -> None:
    model = tiny_network(2).eval()
    symbols, lengths, _, _ = batch_of(utterances_of(SYMBOL_LENGTHS, FRAME_LENGTHS)[:1])
    given = {"max_frames": torch.tensor([20]), "seeds": [1]}
    plain = model.speak(symbols, lengths, **given)  # type: ignore[arg-type]
    model.set_mel_statistics(torch.full((MELS,), -4.0), torch.full((MELS,), 2.0))
    scaled = model.speak(symbols, lengths, **given)  # type: ignore[arg-type]
    length = int(plain.lengths[0])
    torch.testing.assert_close(scaled.frames[0, :length], plain.frames[0, :length] * 2.0 - 4.0)
    torch.testing.assert_close(model.restore(model.normalise(plain.frames)), plain.frames)


def test_batch_statistics_are_those_of_the_valid_positions() -> None:
    layer = MaskedBatchNorm(3).train()
    x = torch.randn(2, 3, 6)
    valid = torch.ones(2, 1, 6)
    valid[1, :, 2:] = 0.0
    x[1, :, 2:] = 1e4  # padding that must not count
    out = layer(x, valid)
    seen = torch.cat([x[0], x[1, :, :2]], dim=1)  # (C, 8)
    reference = torch.nn.BatchNorm1d(3).train()
    expected = reference(seen.T)
    torch.testing.assert_close(torch.cat([out[0], out[1, :, :2]], dim=1), expected.T.detach())
    assert torch.equal(layer.running_mean, torch.zeros(3))  # not before the step is made
    commit_statistics(layer)
    torch.testing.assert_close(layer.running_mean, reference.running_mean)
    torch.testing.assert_close(layer.running_variance, reference.running_var)


def test_a_discarded_pass_leaves_the_statistics_alone() -> None:
    layer = MaskedBatchNorm(2).train()
    layer(torch.full((1, 2, 4), float("nan")), torch.ones(1, 1, 4))
    discard_statistics(layer)
    commit_statistics(layer)
    assert torch.equal(layer.running_mean, torch.zeros(2))
    assert torch.equal(layer.running_variance, torch.ones(2))
