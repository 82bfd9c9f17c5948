"""One optimiser step, against the same made slowly and plainly."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.amp.grad_scaler import GradScaler

from kamerton.config.schema import Params
from kamerton.model.losses import Losses, losses_of
from kamerton.model.tacotron2.convolution import MaskedBatchNorm
from kamerton.model.tacotron2.model import Tacotron2
from kamerton.training.data import TensorBatch
from kamerton.training.objective import objective_of, target_of
from kamerton.training.step import Trainee, _gathered, _Norms, noise_seed, part_of, train_step
from kamerton.training.stops import count_stops
from tests.ranks_worker import CONTROLS, batches, params, trainee

STEP = 3


class Slow:
    """The mean loss of all batches as one graph, plain Adam, statistics gathered by hooks."""

    def __init__(self, params: Params) -> None:
        self.params = params
        self.model: Tacotron2 = trainee(params).model
        self.seen: dict[str, list[torch.Tensor]] = {}
        for name, layer in self.model.named_modules():
            if isinstance(layer, MaskedBatchNorm):
                layer.register_forward_pre_hook(self._notes(name))

    def _notes(self, name: str) -> Any:
        def note(_layer: MaskedBatchNorm, given: tuple[torch.Tensor, torch.Tensor]) -> None:
            x, valid = given
            values = x.detach().movedim(1, 2)[valid[:, 0] > 0]  # (positions, C)
            self.seen.setdefault(name, []).append(torch.stack([values.mean(0), values.var(0)]))

        return note

    def step(self, group: list[TensorBatch]) -> tuple[dict[str, float], float]:
        """Losses and gradient norm; the weights move."""
        train, losses = self.params.train, []
        for index, batch in enumerate(group):
            torch.manual_seed(noise_seed(train.seed, STEP, index))
            target = target_of(self.model, batch)
            predicted = self.model(
                batch.symbols, batch.symbol_lengths, target.frames, batch.frame_lengths
            ).widened()
            losses.append(
                losses_of(predicted, target, objective_of(train, self.params.audio, CONTROLS))
            )
        torch.stack([one.total for one in losses]).mean().backward()
        losses = [one.detached() for one in losses]
        used = [weight for weight in self.model.parameters() if weight.grad is not None]
        norm = torch.cat([weight.grad.flatten() for weight in used]).norm()
        for weight in used:
            weight.grad *= min(1.0, CONTROLS.clip_norm / (float(norm) + 1e-6))
        torch.optim.AdamW(
            used, lr=CONTROLS.learning_rate, weight_decay=train.weight_decay, foreach=False
        ).step()
        for name, seen in self.seen.items():
            layer = self.model.get_submodule(name)
            mean, variance = torch.stack(seen).mean(dim=0)
            layer.running_mean.lerp_(mean, layer.momentum)
            layer.running_variance.lerp_(variance, layer.momentum)
        raw = {
            part: sum(float(one.raw[part]) for one in losses) / len(group) for part in losses[0].raw
        }
        return raw, float(norm)


@pytest.mark.parametrize("preset", ["plain", "quality"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_step_is_what_it_should_be(preset: str, count: int) -> None:
    given = params(preset=preset)
    group, slow, fast = batches(given, count), Slow(given), trainee(given)
    raw, norm = slow.step(group)
    result = train_step(fast, group, CONTROLS, step=STEP)
    assert result.applied
    assert result.grad_norm == pytest.approx(norm, rel=1e-4)
    assert {name: float(value) for name, value in result.losses.raw.items()} == pytest.approx(
        raw, rel=1e-5
    )
    weighted = sum(float(value) for value in result.losses.weighted.values())
    assert float(result.losses.total) == pytest.approx(weighted, rel=1e-5)
    assert norm > CONTROLS.clip_norm  # so that clipping is seen in the weights
    theirs = slow.model.state_dict()
    for name, value in fast.model.state_dict().items():
        torch.testing.assert_close(value, theirs[name], atol=1e-5, rtol=1e-3, msg=name)


def test_frames_and_stops_are_counted_over_all_batches() -> None:
    given = params()
    group, one = batches(given, 2), trainee(given)
    result = train_step(one, group, CONTROLS, step=0)
    lengths = [int(length) for batch in group for length in batch.frame_lengths]
    assert result.frames == sum(lengths)
    assert result.padded_frames == 2 * 3 * 15
    again = trainee(given)
    expected = [0, 0, 0]
    for index, batch in enumerate(group):
        torch.manual_seed(noise_seed(given.train.seed, 0, index))
        frames = again.model.normalise(batch.frames)
        predicted = again.model(batch.symbols, batch.symbol_lengths, frames, batch.frame_lengths)
        stops = count_stops(
            predicted.gate_logits, batch.frame_lengths, given.train.model.reduction_factor,
            given.train.gate_threshold,
        )  # fmt: skip
        expected = [a + b for a, b in zip(expected, stops, strict=True)]
    assert list(result.stops) == expected
    assert result.stops[2] == len(lengths)


def test_steps_without_noise_of_equal_batches_do_not_depend_on_their_number() -> None:
    given = params(
        prenet_dropout=0.0, encoder_dropout=0.0, postnet_dropout=0.0, attention_dropout=0.0,
        decoder_dropout=0.0,
    )  # fmt: skip
    (batch,) = batches(given, 1)
    one, four = trainee(given), trainee(given)
    first = train_step(one, [batch], CONTROLS, step=0)
    second = train_step(four, [batch] * 4, CONTROLS, step=9)
    assert float(second.losses.total) == pytest.approx(float(first.losses.total), rel=1e-6)
    assert second.grad_norm == pytest.approx(first.grad_norm, rel=1e-5)


def test_each_batch_of_a_step_has_noise_of_its_own() -> None:
    given = params()
    (batch,) = batches(given, 1)
    alone = [train_step(trainee(given), [batch], CONTROLS, step=step) for step in (0, 0, 1)]
    totals = [float(result.losses.total) for result in alone]
    assert totals[0] == totals[1]
    assert totals[0] != totals[2]
    both = train_step(trainee(given), [batch, batch], CONTROLS, step=0)
    assert float(both.losses.total) != totals[0]


@settings(max_examples=30)
@given(st.tuples(*[st.integers(0, 1000)] * 3), st.tuples(*[st.integers(0, 1000)] * 3))
def test_noise_seeds_are_equal_only_for_equal_places(
    one: tuple[int, int, int], other: tuple[int, int, int]
) -> None:
    assert (noise_seed(*one) == noise_seed(*other)) is (one == other)
    assert 0 <= noise_seed(*one) < 2**63


def state_of(one: Trainee) -> dict[str, torch.Tensor]:
    moments = {
        f"{index}/{name}": value
        for index, moments in one.optimizer.state_dict()["state"].items()
        for name, value in moments.items()
    }
    return {name: value.clone() for name, value in (one.model.state_dict() | moments).items()}


def test_a_step_that_is_not_finite_leaves_nothing_behind() -> None:
    given = params()
    one, group = trainee(given), batches(given, 2)
    train_step(one, group, CONTROLS, step=0)
    before = state_of(one)
    poisoned = batches(given, 2)
    poisoned[0].frames[0, 0, 0] = float("inf")
    result = train_step(one, poisoned, CONTROLS, step=1)
    assert not result.applied
    after = state_of(one)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    undisturbed = trainee(given)
    train_step(undisturbed, group, CONTROLS, step=0)
    train_step(one, group, CONTROLS, step=2)
    train_step(undisturbed, group, CONTROLS, step=2)
    assert all(
        torch.equal(value, state_of(one)[name]) for name, value in state_of(undisturbed).items()
    )


def test_what_evaluations_leave_in_training_mode_does_not_count() -> None:
    """Statistics of passes that belong to no step are dropped."""
    given = params()
    one, other, group = trainee(given), trainee(given), batches(given, 1)
    (extra,) = batches(given, 1, first=5)
    one.model(extra.symbols, extra.symbol_lengths, extra.frames, extra.frame_lengths)
    for each in (one, other):
        train_step(each, group, CONTROLS, step=0)
    theirs = other.model.state_dict()
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, theirs[name]), name


def scaled(params: Params, scale: float) -> Trainee:
    """With a loss scaler, as float16 on a GPU has one."""
    one = trainee(params)
    object.__setattr__(one, "scaler", GradScaler("cpu", init_scale=scale, growth_interval=2))
    return one


def test_a_loss_scaler_changes_nothing_but_its_scale() -> None:
    given = params()
    plain, one = trainee(given), scaled(given, 1024.0)
    for step in range(2):
        expected = train_step(plain, batches(given, 2), CONTROLS, step=step)
        result = train_step(one, batches(given, 2), CONTROLS, step=step)
        assert result.applied
        assert result.grad_norm == pytest.approx(expected.grad_norm, rel=1e-4)
        assert float(result.losses.total) == pytest.approx(float(expected.losses.total), rel=1e-4)
    state = one.scaler_state()
    assert state is not None
    assert state["scale"] == 2048.0  # two good steps: it grew
    resumed = scaled(given, 1.0)
    resumed.load_scaler(state)
    assert resumed.scaler_state() == state


def test_a_scale_that_overflows_is_halved_and_the_step_skipped() -> None:
    given = params()
    one = scaled(given, 1024.0)
    before = state_of(one)
    weight = next(one.model.parameters())
    weight.register_hook(lambda gradient: gradient * 1e38 * 1e38)  # as float16's would
    result = train_step(one, batches(given, 1), CONTROLS, step=0)
    assert not result.applied
    assert torch.isfinite(result.losses.total)
    state = one.scaler_state()
    assert state is not None
    assert state["scale"] == 512.0
    after = state_of(one)
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_formats_of_wide_range_have_no_scaler() -> None:
    one = trainee(params(precision="bf16"))
    assert one.autocast is torch.bfloat16
    assert one.scaler is None
    assert one.scaler_state() is None
    one.load_scaler(None)
    result = train_step(one, batches(params(), 1), CONTROLS, step=0)
    exact = train_step(trainee(params(precision="fp32")), batches(params(), 1), CONTROLS, step=0)
    assert result.applied
    assert float(result.losses.total) != float(exact.losses.total)
    assert float(result.losses.total) == pytest.approx(float(exact.losses.total), rel=0.02)


def test_the_learning_rate_is_that_of_the_controls() -> None:
    one = trainee(params())
    train_step(one, batches(params(), 1), CONTROLS, step=0)
    assert {group["lr"] for group in one.optimizer.param_groups} == {CONTROLS.learning_rate}


def test_the_gradient_norm_that_decides_is_the_mean_over_all_processes() -> None:
    """Devices may round their norms differently; what follows from them must not differ."""
    seen: list[torch.Tensor] = []

    def with_a_peer(own: torch.Tensor) -> torch.Tensor:
        seen.append(own.clone())
        peer = own.clone()
        peer[-4] += 1e-3  # the total; after it come three tensors
        peer[-1] += 2e-3
        return own + peer

    losses = Losses(torch.tensor(2.0), {"gate": torch.tensor(2.0)}, {"gate": torch.tensor(2.0)})
    one = SimpleNamespace(losses=losses, counts=lambda train: (10, 12, 1, 1, 2))
    world = SimpleNamespace(size=2, sum=with_a_peer)
    trainee: Any = SimpleNamespace(world=world, train=None)
    norms = _Norms(torch.tensor(3.0), torch.tensor([1.0, 2.0, 2.0]), ("gate", "gate", "postnet"))
    result = _gathered(trainee, [one], norms)  # type: ignore[list-item]
    assert seen[0][-4:].tolist() == [3.0, 1.0, 2.0, 2.0]
    assert result.grad_norm == pytest.approx(3.0005)
    assert result.module_norms == pytest.approx({"gate": 5**0.5, "postnet": 2.001})
    assert (float(result.losses.total), result.frames, result.stops) == (2.0, 20, (2, 2, 4))
    lost = _Norms(torch.tensor(float("nan")), norms.each, norms.parts)
    assert not _gathered(trainee, [one], lost).applied  # type: ignore[list-item]


@pytest.mark.parametrize("limit", [1e-3, 1e6])
def test_clipping_is_that_of_torch_to_the_last_bit(limit: float) -> None:
    """So runs made before the parts were measured are repeated as they were."""
    ours, theirs = trainee(params()), trainee(params())
    controls = dataclasses.replace(CONTROLS, clip_norm=limit)
    given = batches(params(), 1)
    result = train_step(ours, given, controls, step=STEP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kamerton.training.step._clip", _clip_of_torch)
        expected = train_step(theirs, given, controls, step=STEP)
    assert result.grad_norm == expected.grad_norm
    gradients = zip(ours.model.parameters(), theirs.model.parameters(), strict=True)
    for one, other in gradients:
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None and other.grad is not None:
            assert torch.equal(one.grad, other.grad)
        assert torch.equal(one, other)


def _clip_of_torch(one: Trainee, limit: float) -> _Norms:
    total = torch.nn.utils.clip_grad_norm_(one.model.parameters(), limit)
    return _Norms(total, total[None], ("all",))


@pytest.mark.parametrize("preset", ["plain", "quality"])
def test_the_norm_of_every_part_is_that_of_its_parameters(preset: str) -> None:
    one = trainee(params(preset=preset))
    quiet = dataclasses.replace(CONTROLS, clip_norm=1e9)  # gradients are left as they were
    result = train_step(one, batches(params(preset=preset), 1), quiet, step=STEP)
    expected: dict[str, list[torch.Tensor]] = {}
    for name, weight in one.model.named_parameters():
        if weight.grad is not None:
            expected.setdefault(part_of(name), []).append(weight.grad.double().flatten())
    found = {name: float(torch.cat(parts).norm()) for name, parts in expected.items()}
    assert result.module_norms == pytest.approx(found, rel=1e-5)
    assert sum(norm**2 for norm in found.values()) == pytest.approx(result.grad_norm**2, rel=1e-5)
    own = {"embedding", "encoder", "prenet", "attention", "decoder", "gate", "postnet"}
    assert own <= set(found)
    assert set(found) <= own | {"coarse", "speaker"}
    assert min(found.values()) > 0.0


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("encoder.embedding.weight", "embedding"),
        ("encoder.blocks.0.convolution.weight", "encoder"),
        ("decoder.prenet.layers.0.weight", "prenet"),
        ("decoder.recurrence.attention.query.weight", "attention"),
        ("decoder.attention_noise.width", "attention"),
        ("decoder.decoder_noise.width", "decoder"),
        ("decoder.lstm.weight_ih_l0", "decoder"),
        ("decoder.gate.bias", "gate"),
        ("coarse.gate.bias", "coarse"),
        ("speaker_projection.weight", "speaker"),
    ],
)
def test_parameters_belong_to_the_parts_they_are_of(name: str, part: str) -> None:
    assert part_of(name) == part
