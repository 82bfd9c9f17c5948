"""The fast teacher forcing against a slow loop in autograd, and against finite differences."""

import dataclasses

import pytest
import torch
from torch import Tensor

from kamerton.model.tacotron2 import products, recurrence
from kamerton.model.tacotron2.architecture import Architecture
from kamerton.model.tacotron2.convolution import ConvolutionBlock
from kamerton.model.tacotron2.lstm import lstm_sequence
from kamerton.model.tacotron2.model import Tacotron2, steps_of
from kamerton.model.tacotron2.noise import SILENT, StateNoise
from kamerton.model.tacotron2.products import Linear, Packed, times, transposed_times
from kamerton.model.tacotron2.recurrence import listen
from tests.reference_tacotron2 import reference_forward

SIZE = 24
KINDS = ["none", "recurrent", "zoneout", "one_mask", "gaussian"]


def noise_of(kind: str, steps: int, batch: int, size: int, dtype: torch.dtype) -> StateNoise:
    """As the model would draw it: keep and carry of 0 and 1, or factors around 1."""
    generator = torch.Generator().manual_seed(5)

    def kept(steps: int) -> Tensor:
        return (torch.rand(steps, batch, size, generator=generator) > 0.3).to(dtype)

    if kind == "none":
        return SILENT
    if kind == "recurrent":
        return StateNoise(hidden_keep=kept(steps) / 0.7)
    if kind == "zoneout":
        hidden, cell = kept(steps), kept(steps)
        return StateNoise(hidden, 1 - hidden, cell, 1 - cell)
    if kind == "one_mask":
        return StateNoise(hidden_keep=kept(1) / 0.7)
    drawn = torch.randn(1, batch, size, generator=generator, dtype=dtype)
    return StateNoise(hidden_keep=1 + 0.3 * drawn)


def model_of(reduction: int) -> Tacotron2:
    torch.manual_seed(2)
    return Tacotron2(
        Architecture(
            symbols=12, mels=10, reduction_factor=reduction, symbol_embedding=20,
            encoder_embedding_dim=24, encoder_convolutions=2, prenet_dim=16,
            attention_rnn_dim=SIZE, decoder_rnn_dim=SIZE, attention_dim=16, location_filters=6,
            location_kernel=7, postnet_dim=20, postnet_convolutions=2, encoder_dropout=0.0,
            attention_dropout=0.0, decoder_dropout=0.0, postnet_dropout=0.0,
        )
    )  # fmt: skip


def with_noise(model: Tacotron2, kind: str, steps: int) -> tuple[StateNoise, StateNoise]:
    """Make both LSTMs of ``model`` draw this noise, and return it."""
    noises = []
    for layer in (model.decoder.attention_noise, model.decoder.decoder_noise):
        noise = noise_of(kind, steps, 4, SIZE, torch.float32)
        layer.draw = lambda *_args, noise=noise: noise  # type: ignore[method-assign]
        noises.append(noise)
    return noises[0], noises[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", [1, 2, 3, 5])
def test_outputs_and_gradients_equal_the_reference(
    reduction: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurrence, "_CHUNK_ELEMENTS", 7000)  # several chunks, the last cut short
    model = model_of(reduction)
    symbol_lengths, frame_lengths = torch.tensor([13, 5, 9, 1]), torch.tensor([41, 17, 29, 3])
    symbols = torch.randint(1, 12, (4, 13)) * (torch.arange(13) < symbol_lengths[:, None])
    frames = torch.randn(4, 41, 10)
    steps = int(steps_of(41, reduction))
    masks = model.decoder.prenet.draw_masks(steps, 4)
    noises = with_noise(model, kind, steps)
    given = (symbols, symbol_lengths, frames, frame_lengths)
    results = []
    for run in (
        lambda: model(*given, masks=masks),
        lambda: reference_forward(
            model, *given, masks=masks, attention_noise=noises[0], decoder_noise=noises[1]
        ),
    ):
        model.zero_grad()
        made = run()
        outputs = [made.before, made.after, made.gate_logits, made.attention]
        torch.manual_seed(7)  # unequal weights: an error in one output cannot cancel another's
        sum((part * torch.randn(part.shape)).sum() for part in outputs).backward()
        results.append((outputs, {name: p.grad for name, p in model.named_parameters()}))
    (fast, fast_grads), (slow, slow_grads) = results
    for ours, reference in zip(fast, slow, strict=True):
        torch.testing.assert_close(ours, reference, rtol=0, atol=2e-5)
    for name, reference in slow_grads.items():
        if float(reference.norm()) > 1e-4:
            error = float((fast_grads[name] - reference).norm() / reference.norm())
            assert error <= 1e-5, (name, error)
    assert sum(float(grad.norm()) > 1e-4 for grad in slow_grads.values()) > 20


@pytest.mark.parametrize("kind", KINDS)
def test_the_loop_agrees_with_finite_differences(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurrence, "_CHUNK_ELEMENTS", 60)  # three steps at once
    steps, batch, size, symbols, channels, attention, taps = 4, 2, 2, 3, 2, 2, 3
    torch.manual_seed(1)
    shapes = [
        (steps, batch, 4 * size), (4 * size, size + channels), (attention, size),
        (batch, symbols, attention), (batch, symbols, channels), (2 * taps, attention),
        (attention,),
    ]  # fmt: skip
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    bias = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, -torch.inf]])
    noise = noise_of(kind, steps, batch, size, torch.float64)
    names = [f.name for f in dataclasses.fields(noise) if getattr(noise, f.name) is not None]
    factors = [getattr(noise, name).requires_grad_() for name in names]

    def run(*given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        drawn = StateNoise(**dict(zip(names, given[7:], strict=True)))
        return listen(*given[:7], bias, drawn)

    assert torch.autograd.gradcheck(run, (*tensors, *factors), fast_mode=kind != "zoneout")


@pytest.mark.parametrize("kind", KINDS)
def test_the_sequence_agrees_with_finite_differences(kind: str) -> None:
    torch.manual_seed(1)
    sums = torch.randn(5, 2, 12, dtype=torch.float64, requires_grad=True)
    recurrent = torch.randn(12, 3, dtype=torch.float64, requires_grad=True)
    noise = noise_of(kind, 5, 2, 3, torch.float64)
    names = [f.name for f in dataclasses.fields(noise) if getattr(noise, f.name) is not None]
    factors = [getattr(noise, name).requires_grad_() for name in names]

    def run(sums: Tensor, recurrent: Tensor, *given: Tensor) -> Tensor:
        return lstm_sequence(sums, recurrent, StateNoise(**dict(zip(names, given, strict=True))))

    assert torch.autograd.gradcheck(run, (sums, recurrent, *factors))


def test_the_sequence_equals_torchs_own() -> None:
    torch.manual_seed(0)
    lstm, x = torch.nn.LSTM(6, 16), torch.randn(21, 3, 6)
    sums = torch.nn.functional.linear(x, lstm.weight_ih_l0, lstm.bias_ih_l0 + lstm.bias_hh_l0)
    ours = lstm_sequence(sums, lstm.weight_hh_l0)
    torch.testing.assert_close(ours, lstm(x)[0], rtol=0, atol=1e-6)
    narrow = lstm_sequence(sums, lstm.weight_hh_l0, format=torch.bfloat16).detach()
    assert 0 < float((narrow - ours.detach()).abs().max()) < 0.02


def test_a_second_backward_pass_over_a_kept_graph_gives_the_same() -> None:
    torch.manual_seed(0)
    sums = torch.randn(5, 2, 12, requires_grad=True)
    out = lstm_sequence(sums, torch.randn(12, 3)).square().sum()
    first = torch.autograd.grad(out, sums, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(out, sums)[0], first, rtol=0, atol=0)


@pytest.mark.parametrize("available", [True, False])
@pytest.mark.parametrize("rows", [1, 8, 33, 2500])
def test_products_equal_those_in_double_precision(
    rows: int, available: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "_AVAILABLE", available and products._AVAILABLE)
    torch.manual_seed(0)
    x, weight, plus = torch.randn(rows, 40), torch.randn(24, 40), torch.randn(rows, 24)
    exact = x.double() @ weight.double().t()
    for made, expected in (
        (times(x, weight), exact),
        (times(x, weight, plus), exact + plus),
        (times(x, weight, plus[0]), exact + plus[0]),
        (Packed(weight, rows, torch.float32).times(x), exact),
        (Packed(weight, rows, torch.float32).times(x, plus), exact + plus),
        (transposed_times(x, plus), x.double().t() @ plus.double()),
    ):
        torch.testing.assert_close(made.double(), expected, rtol=1e-5, atol=1e-4)
        assert made.dtype == torch.float32
    narrow = Packed(weight, rows, torch.bfloat16).times(x, plus)
    assert narrow.dtype == torch.float32
    error = float((narrow - exact - plus).norm() / exact.norm())
    assert 1e-5 < error < 0.01


def test_a_linear_layer_is_that_of_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = Linear(24, 40), torch.nn.Linear(24, 40)
    theirs.load_state_dict(ours.state_dict())
    results = []
    for layer in (ours, theirs):
        torch.manual_seed(1)
        x = torch.randn(5, 7, 24, requires_grad=True)
        y = layer(x)
        (y * torch.randn(y.shape)).sum().backward()
        results.append((y, x.grad, layer.weight.grad, layer.bias.grad))
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_a_block_made_again_in_the_backward_pass_has_the_same_gradients() -> None:
    torch.manual_seed(0)
    block = ConvolutionBlock(4, 6, kernel=3, activation="tanh", dropout=0.5)
    x, valid = torch.randn(3, 4, 11, requires_grad=True), torch.ones(3, 1, 11)
    results = []
    for recompute in (True, False):
        block.recompute = recompute
        torch.manual_seed(1)
        made = block(x, valid)
        grads = torch.autograd.grad(made.square().sum(), [x, *block.parameters()])
        results.append((made, *grads, block.normalisation.take_seen()))
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)
