"""The whole model: shapes, padding, reduction factors."""

import pytest
import torch
from torch import Tensor

from kamerton.model.tacotron2.convolution import MaskedBatchNorm
from kamerton.model.tacotron2.model import Architecture, Tacotron2, steps_of

SYMBOLS, MELS = 9, 7
SYMBOL_LENGTHS = [8, 3, 5]
FRAME_LENGTHS = [23, 11, 16]


def small_model(reduction: int, *, dropout: float = 0.0) -> Tacotron2:
    torch.manual_seed(1)
    model = Tacotron2(
        Architecture(
            symbols=SYMBOLS, mels=MELS, reduction_factor=reduction, symbol_embedding=6,
            encoder_embedding_dim=10, encoder_convolutions=2, prenet_dim=8, attention_rnn_dim=12,
            decoder_rnn_dim=14, attention_dim=6, location_filters=3, location_kernel=5,
            postnet_dim=9, postnet_convolutions=3, encoder_dropout=dropout,
            attention_dropout=dropout, decoder_dropout=dropout, postnet_dropout=dropout,
        )
    )  # fmt: skip
    # Statistics as after some training, not the identity.
    for module in model.modules():
        if isinstance(module, MaskedBatchNorm):
            module.running_mean.normal_()
            module.running_variance.uniform_(0.5, 2.0)
    return model


def utterances() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [
        (
            torch.randint(1, SYMBOLS, (symbols,), generator=generator),
            torch.randn(frames, MELS, generator=generator),
        )
        for symbols, frames in zip(SYMBOL_LENGTHS, FRAME_LENGTHS, strict=True)
    ]


def batch_of(
    items: list[tuple[Tensor, Tensor]], *, extra_symbols: int = 0, extra_frames: int = 0,
    filler: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    symbol_lengths = torch.tensor([len(symbols) for symbols, _ in items])
    frame_lengths = torch.tensor([len(frames) for _, frames in items])
    symbols = torch.zeros(len(items), int(symbol_lengths.max()) + extra_symbols, dtype=torch.long)
    frames = torch.full((len(items), int(frame_lengths.max()) + extra_frames, MELS), filler)
    for row, (ids, mel) in enumerate(items):
        symbols[row, : len(ids)] = ids
        frames[row, : len(mel)] = mel
    return symbols, symbol_lengths, frames, frame_lengths


def masks_for(model: Tacotron2, rows: int, frames: int) -> Tensor:
    steps = int(steps_of(frames, model.architecture.reduction_factor))
    generator = torch.Generator().manual_seed(4)
    drawn = model.decoder.prenet.draw_masks(40, 3, generator=generator)
    return drawn[:steps, :rows]


@pytest.mark.parametrize("reduction", [1, 2, 3, 5])
def test_an_utterance_is_the_same_alone_and_in_any_batch(reduction: int) -> None:
    model = small_model(reduction).eval()
    items = utterances()
    batch = batch_of(items, extra_symbols=4, extra_frames=7, filler=9.0)
    masks = masks_for(model, 3, batch[2].shape[1])
    together = model(*batch, masks=masks)
    for row, item in enumerate(items):
        frames, symbols = len(item[1]), len(item[0])
        steps = int(steps_of(frames, reduction))
        alone = model(*batch_of([item]), masks=masks[:steps, row : row + 1])
        for whole, single in (
            (together.before[row, :frames], alone.before[0, :frames]),
            (together.after[row, :frames], alone.after[0, :frames]),
            (together.gate_logits[row, : steps * reduction], alone.gate_logits[0]),
            (together.attention[row, :steps, :symbols], alone.attention[0]),
        ):
            torch.testing.assert_close(whole, single, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reduction", [1, 3])
def test_padding_changes_nothing_in_training_either(reduction: int) -> None:
    items = utterances()
    grads = []
    for extra in (0, 11):
        model = small_model(reduction).double().train()
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
    model = small_model(reduction).eval()
    for length in range(1, 12):
        item = (torch.tensor([2, 3, 4]), torch.randn(length, MELS))
        out = model(*batch_of([item]))
        steps = -(-length // reduction)
        assert out.after.shape == (1, steps * reduction, MELS)
        assert out.gate_logits.shape == (1, steps * reduction)
        assert out.attention.shape == (1, steps, 3)


@pytest.mark.parametrize("reduction", [1, 2, 5])
def test_speech_is_the_same_alone_and_in_any_batch(reduction: int) -> None:
    model = small_model(reduction).eval()
    with torch.no_grad():  # a gate that opens somewhere, not at once
        model.decoder.gate.bias.fill_(-0.3)
    symbols, lengths, _, _ = batch_of(utterances())
    limits = torch.tensor([30, 17, 22])
    together = model.speak(symbols, lengths, max_frames=limits, seeds=[5, 6, 7])
    for row in range(3):
        alone = model.speak(
            symbols[row : row + 1, : lengths[row]], lengths[row : row + 1],
            max_frames=limits[row : row + 1], seeds=[5 + row],
        )  # fmt: skip
        frames = int(alone.lengths[0])
        assert int(together.lengths[row]) == frames <= int(limits[row])
        assert bool(together.stopped[row]) == bool(alone.stopped[0])
        torch.testing.assert_close(
            together.frames[row, :frames], alone.frames[0, :frames], rtol=1e-4, atol=1e-5
        )
        assert not together.frames[row, frames:].any()


def test_another_seed_speaks_otherwise_and_the_same_seed_does_not() -> None:
    model = small_model(2).eval()
    with torch.no_grad():
        model.decoder.gate.bias.fill_(-9.0)  # never ends by itself
    symbols, lengths, _, _ = batch_of(utterances()[:1])
    limit = torch.tensor([20])
    said = [model.speak(symbols, lengths, max_frames=limit, seeds=[s]).frames for s in (1, 1, 2)]
    assert torch.equal(said[0], said[1])
    assert not torch.allclose(said[0], said[2], atol=1e-3)


def test_speech_is_in_the_units_of_the_data() -> None:
    model = small_model(2).eval()
    symbols, lengths, _, _ = batch_of(utterances()[:1])
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
    torch.testing.assert_close(layer.running_mean, reference.running_mean)
    torch.testing.assert_close(layer.running_variance, reference.running_var)


def test_a_batch_that_overflowed_leaves_the_statistics_alone() -> None:
    layer = MaskedBatchNorm(2).train()
    layer(torch.full((1, 2, 4), float("nan")), torch.ones(1, 1, 4))
    assert torch.equal(layer.running_mean, torch.zeros(2))
    assert torch.equal(layer.running_variance, torch.ones(2))
