"""The noise of the LSTMs: what is drawn, what it does to the decoder, what it costs."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kamerton.config.schema import Params
from kamerton.model.tacotron2.decoder import Decoder
from kamerton.model.tacotron2.model import Tacotron2, valid_positions
from kamerton.model.tacotron2.noise import SILENT, LstmNoise, StateNoise
from kamerton.training.architecture import architecture_of
from tests.tiny_network import batch_of, masks_for, tiny_network, utterances_of

SIZE, STEPS, BATCH, RATE = 50, 40, 30, 0.2
EVERY = [
    ("output", "gal"), ("recurrent", "gal"), ("zoneout", "gal"), ("variational", "gal"),
    ("variational", "gaussian"), ("variational", "learned"),
]  # fmt: skip
STATEFUL = EVERY[1:]


def noise_of(kind: str, variational: str = "gal", rate: float = RATE) -> LstmNoise:
    return LstmNoise(SIZE, rate, kind=kind, variational=variational).train()


def drawn(kind: str, variational: str = "gal") -> StateNoise:
    torch.manual_seed(0)
    return noise_of(kind, variational).draw(STEPS, BATCH, torch.zeros(1))


def share(mask: Tensor) -> float:
    """How often it is on, which over all steps must be 1 - RATE within five deviations."""
    on = float((mask > 0).double().mean())
    assert abs(on - (1 - RATE)) < 5 * (RATE * (1 - RATE) / mask.numel()) ** 0.5
    return on


def test_recurrent_dropout_draws_a_mask_for_every_step() -> None:
    noise = drawn("recurrent")
    assert noise.hidden_keep is not None
    assert noise.hidden_keep.shape == (STEPS, BATCH, SIZE)
    assert set(noise.hidden_keep.unique().tolist()) == {0.0, 1.25}
    share(noise.hidden_keep)
    assert noise.hidden_carry is noise.cell_keep is noise.cell_carry is None


def test_zoneout_keeps_either_the_new_or_the_old_value() -> None:
    noise = drawn("zoneout")
    for keep, carry in (
        (noise.hidden_keep, noise.hidden_carry), (noise.cell_keep, noise.cell_carry),
    ):  # fmt: skip
        assert keep is not None
        assert carry is not None
        assert keep.shape == (STEPS, BATCH, SIZE)
        assert set(keep.unique().tolist()) == {0.0, 1.0}
        assert torch.equal(keep + carry, torch.ones_like(keep))
        share(keep)
    assert not torch.equal(noise.hidden_keep, noise.cell_keep)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["gal", "gaussian", "learned"])
def test_variational_noise_is_one_mask_for_all_steps(kind: str) -> None:
    noise = drawn("variational", kind)
    keep = noise.hidden_keep
    assert keep is not None
    assert keep.shape == (1, BATCH, SIZE)
    assert noise.hidden_carry is noise.cell_keep is noise.cell_carry is None
    variance = RATE / (1 - RATE)  # of Bernoulli noise scaled to mean 1, too
    count = keep.numel()
    assert float(keep.mean().detach()) == pytest.approx(1.0, abs=5 * (variance / count) ** 0.5)
    assert float(keep.var().detach()) == pytest.approx(variance, rel=0.15)
    assert (len(keep.unique()) == 2) == (kind == "gal")


@pytest.mark.parametrize(("kind", "variational"), EVERY)
def test_evaluation_draws_nothing(kind: str, variational: str) -> None:
    noise = noise_of(kind, variational).eval()
    hidden = torch.randn(STEPS, BATCH, SIZE)
    before = torch.get_rng_state()
    factors = noise.draw(STEPS, BATCH, torch.zeros(1))
    assert torch.equal(noise.outputs(hidden), hidden)
    assert torch.equal(torch.get_rng_state(), before)
    if kind != "zoneout":
        assert factors.silent
        return
    for keep, carry in (
        (factors.hidden_keep, factors.hidden_carry), (factors.cell_keep, factors.cell_carry),
    ):  # fmt: skip
        torch.testing.assert_close(keep, torch.full((1, BATCH, SIZE), 1 - RATE))
        torch.testing.assert_close(carry, torch.full((1, BATCH, SIZE), RATE))


@pytest.mark.parametrize(("kind", "variational"), EVERY)
def test_a_rate_of_zero_is_silence(kind: str, variational: str) -> None:
    noise = noise_of(kind, variational, rate=0.0)
    assert noise.draw(STEPS, BATCH, torch.zeros(1)).silent
    assert not list(noise.parameters())
    hidden = torch.randn(2, 3, SIZE)
    assert torch.equal(noise.outputs(hidden), hidden)


def slow_noisy_decoder(decoder: Decoder, memory: Tensor, valid: Tensor, frames: Tensor,
                       masks: Tensor, noises: tuple[StateNoise, StateNoise]) -> Tensor:  # fmt: skip
    """The decoder one step at a time, with noise written out as Krueger et al. have it."""

    def factor(tensor: Tensor | None, step: int, default: float) -> Tensor | float:
        return default if tensor is None else tensor[min(step, len(tensor) - 1)]

    def mixed(noise: StateNoise, step: int, new: tuple[Tensor, Tensor],
              old: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:  # fmt: skip
        return (
            factor(noise.hidden_keep, step, 1.0) * new[0]
            + factor(noise.hidden_carry, step, 0.0) * old[0],
            factor(noise.cell_keep, step, 1.0) * new[1]
            + factor(noise.cell_carry, step, 0.0) * old[1],
        )

    recurrence, attention, r = decoder.recurrence, decoder.recurrence.attention, decoder.reduction
    batch = len(memory)
    heard = (torch.zeros(batch, recurrence.hidden),) * 2
    spoken = (torch.zeros(batch, decoder.lstm.hidden_size),) * 2
    context, frame = torch.zeros(batch, memory.shape[2]), torch.zeros(batch, decoder.mels)
    keys = attention.keys(memory, valid)
    history, made = attention.start(keys), []
    for step in range(frames.shape[1] // r):
        x = decoder.prenet(frame, masks[step])
        sums = recurrence.input(x) + torch.cat([heard[0], context], 1) @ recurrence.recurrent.T
        enter, forget, leave, candidate = sums.chunk(4, dim=1)
        new = forget.sigmoid() * heard[1] + enter.sigmoid() * candidate.tanh()
        heard = mixed(noises[0], step, (leave.sigmoid() * new.tanh(), new), heard)
        weights, history = attention.weigh(heard[0], keys, history)
        context = (weights[:, :, None] * memory).sum(dim=1)
        given = torch.cat([heard[0], context], 1)
        new_spoken = torch.lstm_cell(given, spoken, *decoder.lstm.all_weights[0])
        spoken = mixed(noises[1], step, new_spoken, spoken)
        made.append(decoder.frames(torch.cat([spoken[0], context], 1)).view(batch, r, -1))
        frame = frames[:, (step + 1) * r - 1]
    return torch.cat(made, 1)


def noisy_decoder(kind: str, variational: str) -> Decoder:
    torch.manual_seed(3)
    return Decoder(
        6, 10, reduction=2, prenet=8, prenet_dropout=0.5, attention_lstm=12, decoder_lstm=14,
        attention=7, filters=3, kernel=5, attention_dropout=0.3, decoder_dropout=0.2, noise=kind,
        variational=variational,
    )  # fmt: skip


def decoder_inputs(decoder: Decoder) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(4)
    valid = valid_positions(torch.tensor([11, 3, 8]), 11)
    memory = torch.randn(3, 11, 10) * valid[:, :, None]
    return memory, valid, torch.randn(3, 18, 6), decoder.prenet.draw_masks(9, 3)


@pytest.mark.parametrize(("kind", "variational"), STATEFUL)
@pytest.mark.parametrize("training", [True, False])
def test_the_decoder_with_noise_is_the_slow_loop_with_it(
    kind: str, variational: str, training: bool
) -> None:
    decoder = noisy_decoder(kind, variational).train(training)
    memory, valid, frames, masks = decoder_inputs(decoder)
    learned = [memory.requires_grad_(), *decoder.parameters()]
    torch.manual_seed(5)
    fast = decoder(memory, valid, frames, masks).frames
    torch.manual_seed(5)
    noises = tuple(
        noise.draw(9, 3, torch.zeros(1))
        for noise in (decoder.attention_noise, decoder.decoder_noise)
    )
    slow = slow_noisy_decoder(decoder, memory, valid, frames, masks, noises)  # type: ignore[arg-type]
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)
    ours, theirs = (
        torch.autograd.grad((made * made.detach().roll(1)).sum(), learned, allow_unused=True)
        for made in (fast, slow)
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "variational"), EVERY)
def test_free_running_is_what_evaluation_with_true_frames_predicts(
    kind: str, variational: str
) -> None:
    decoder = noisy_decoder(kind, variational).eval()
    memory, valid, _, masks = decoder_inputs(decoder)
    spoken, _, _ = decoder.generate(memory, valid, masks, torch.tensor([9, 9, 9]), 2.0)
    forced = decoder(memory, valid, spoken.frames, masks)
    torch.testing.assert_close(spoken.frames, forced.frames, rtol=1e-4, atol=1e-5)
    decoder.train()  # what free running makes does not depend on it
    again, _, _ = decoder.generate(memory, valid, masks, torch.tensor([9, 9, 9]), 2.0)
    assert torch.equal(again.frames, spoken.frames)


def network(kind: str, variational: str, attention: float = 0.3, decoder: float = 0.3) -> Tacotron2:
    return tiny_network(
        2, recurrent_noise=kind, variational=variational, attention_dropout=attention,
        decoder_dropout=decoder,
    )  # fmt: skip


def predict(model: Tacotron2, seed: int) -> Tensor:
    batch = batch_of(utterances_of([5, 3], [13, 7]))
    torch.manual_seed(seed)
    frames: Tensor = model(*batch, masks=masks_for(model, 2, 13)).before
    return frames


@pytest.mark.parametrize(("kind", "variational"), EVERY)
@pytest.mark.parametrize(("attention", "decoder"), [(0.3, 0.0), (0.0, 0.3)])
def test_each_rate_is_heard_in_training_and_hangs_on_the_seed_alone(
    kind: str, variational: str, attention: float, decoder: float
) -> None:
    model = network(kind, variational, attention, decoder).train()
    first, again, other = (predict(model, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    model.eval()
    assert torch.equal(predict(model, 1), predict(model, 2))


def test_the_kinds_differ_in_training_and_all_but_zoneout_agree_afterwards() -> None:
    models = [network(*kinds) for kinds in EVERY]
    with torch.no_grad():  # untrained, learned noise is Gaussian noise
        models[-1].decoder.attention_noise.variance_logit.add_(0.5)  # type: ignore[union-attr]
    noisy = [predict(model.train(), 1) for model in models]
    for ours, theirs in itertools.combinations(noisy, 2):
        assert not torch.allclose(ours, theirs)
    calm = [predict(model.eval(), 1) for model in models]
    for (kind, _), frames in zip(EVERY, calm, strict=True):
        assert torch.equal(frames, calm[0]) == (kind != "zoneout")


def test_learned_widths_learn_from_the_frames_and_from_their_cost() -> None:
    model = network("variational", "learned").train()
    widths = [noise.variance_logit for noise in
              (model.decoder.attention_noise, model.decoder.decoder_noise)]  # fmt: skip
    assert all(width is not None and width.shape[0] in (12, 14) for width in widths)
    for loss in (lambda: predict(model, 1).square().sum(), lambda: divergence_of(model)):
        model.zero_grad()
        loss().backward()
        assert all((width.grad.abs() > 0).all() for width in widths)  # type: ignore[union-attr]
    assert all((width.grad < 0).all() for width in widths)  # type: ignore[union-attr]  # more noise is cheaper


def divergence_of(model: Tacotron2) -> Tensor:
    batch = batch_of(utterances_of([5, 3], [13, 7]))
    divergence = model(*batch).noise_divergence
    assert divergence is not None
    return divergence  # type: ignore[no-any-return]


def test_the_coarse_decoder_pays_for_its_noise_too() -> None:
    model = tiny_network(
        2, recurrent_noise="variational", variational="learned", attention_dropout=0.3,
        decoder_dropout=0.3, double_decoder_reduction=4,
    ).train()  # fmt: skip
    divergence_of(model).backward()
    learned = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learned == {
        f"{decoder}.{lstm}_noise.variance_logit"
        for decoder in ("decoder", "coarse")
        for lstm in ("attention", "decoder")
    }


@pytest.mark.parametrize(("kind", "variational"), EVERY[:-1])
def test_noise_that_is_not_learned_costs_nothing_and_has_no_weights(
    kind: str, variational: str
) -> None:
    model = network(kind, variational)
    batch = batch_of(utterances_of([5, 3], [13, 7]))
    assert model(*batch).noise_divergence is None
    assert model.state_dict().keys() == network("output", "gal").state_dict().keys()


def test_the_divergence_is_that_from_a_log_uniform_prior() -> None:
    """-1/2 log a + E log|1 + sqrt(a) z| by quadrature, up to the constant that nobody knows."""
    z = np.linspace(-12, 12, 2_000_001)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])

    def exact(variance: float) -> float:
        distance = np.maximum(np.abs(1 + math.sqrt(variance) * z), 1e-12)
        return float((density * np.log(distance)).sum()) - 0.5 * math.log(variance)

    def ours(variance: float) -> float:
        noise = LstmNoise(3, 0.1, kind="variational", variational="learned")
        with torch.no_grad():
            noise.variance_logit.fill_(math.log(variance / (1 - variance)))  # type: ignore[union-attr]
        return float(noise.divergence().detach()) / 3  # type: ignore[union-attr]

    variances = [0.02, 0.1, 0.3, 0.6, 0.95]
    offset = exact(variances[0]) - ours(variances[0])
    for variance in variances[1:]:
        assert exact(variance) - ours(variance) == pytest.approx(offset, abs=0.02)
    assert ours(0.1) > ours(0.5) > 0


def test_learned_noise_begins_as_wide_as_gaussian_noise_of_its_rate() -> None:
    noise = LstmNoise(4, 0.1, kind="variational", variational="learned")
    assert noise.variance_logit is not None
    torch.testing.assert_close(
        torch.sigmoid(noise.variance_logit.detach()), torch.full((4,), 0.1 / 0.9)
    )


def test_silence_is_silent() -> None:
    assert SILENT.silent
    assert not StateNoise(cell_carry=torch.ones(1, 2, 3)).silent
    new, old = torch.randn(2, 3), torch.randn(2, 3)
    assert torch.equal(SILENT.hidden(new, old), new)
    assert torch.equal(SILENT.cell(new, old), new)


@pytest.mark.parametrize(
    ("preset", "asked", "kind"),
    [
        ("plain", None, "output"), ("quality", None, "zoneout"),
        ("quality", "variational", "variational"),
    ],
)  # fmt: skip
def test_the_parameters_decide(preset: str, asked: str | None, kind: str) -> None:
    regularisation = {"recurrent": asked, "variational": "learned"}
    params = Params.model_validate({"train": {"preset": preset, "regularisation": regularisation}})
    params = params.model_copy(update={"train": params.train.resolved()})
    architecture = architecture_of(params, 9)
    assert (architecture.recurrent_noise, architecture.variational) == (kind, "learned")
