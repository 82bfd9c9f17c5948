"""The coarse decoder that trains beside the first."""

import pytest
import torch

from kamerton.config.schema import Params
from kamerton.core.errors import ParamsError
from kamerton.model.tacotron2.model import Predicted, Tacotron2
from kamerton.training.architecture import architecture_of
from tests.tiny_network import MELS, batch_of, masks_for, tiny_network, utterances_of


def predict(model: Tacotron2, *, filler: float = 0.0, extra: int = 0) -> Predicted:
    batch = batch_of(utterances_of([5, 3], [13, 7]), filler=filler, extra_frames=extra)
    torch.manual_seed(5)
    predicted: Predicted = model(*batch, masks=masks_for(model, 2, batch[2].shape[1]))
    return predicted


@pytest.mark.parametrize(("reduction", "coarse"), [(1, 2), (2, 6), (3, 5), (5, 20)])
def test_its_shapes(reduction: int, coarse: int) -> None:
    model = tiny_network(reduction, double_decoder_reduction=coarse).train()
    made = predict(model).coarse
    assert made is not None
    steps = -(-(-(-13 // reduction) * reduction) // coarse)
    assert made.frames.shape == (2, steps * coarse, MELS)
    assert made.gate_logits.shape == (2, steps * coarse)
    assert made.attention.shape == (2, steps, 5)
    torch.testing.assert_close(made.attention.sum(2), torch.ones(2, steps))
    assert not made.attention[1, :, 3:].any()


def test_it_is_a_decoder_of_its_own_on_a_shared_encoder() -> None:
    model = tiny_network(2, double_decoder_reduction=6).train()
    coarse = predict(model).coarse
    assert coarse is not None
    (coarse.frames.sum() + coarse.attention.square().sum()).backward()
    learned = {name for name, p in model.named_parameters() if p.grad is not None}
    trained = {name for name in learned if model.get_parameter(name).grad.abs().sum() > 0}  # type: ignore[union-attr]
    assert {name.split(".")[0] for name in trained} == {"encoder", "coarse"}
    own = {f"coarse.{name}" for name, _ in model.coarse.named_parameters()}  # type: ignore[union-attr]
    assert own - trained == {"coarse.gate.weight", "coarse.gate.bias"}  # frozen: nobody hears it
    assert not model.coarse.gate.weight.requires_grad  # type: ignore[union-attr]


def test_the_first_decoder_does_not_hear_it() -> None:
    with_it, without = tiny_network(2, double_decoder_reduction=6), tiny_network(2)
    without.load_state_dict({k: v for k, v in with_it.state_dict().items() if "coarse" not in k})
    ours, plain = predict(with_it.train()), predict(without.train())
    torch.testing.assert_close(ours.after, plain.after)
    assert ours.coarse is not None
    assert plain.coarse is None


def test_it_is_given_the_last_frame_of_each_of_its_own_steps() -> None:
    model = tiny_network(1, double_decoder_reduction=4).train()
    symbols, sizes, frames, lengths = batch_of(utterances_of([5], [13]))
    masks = masks_for(model, 1, 13)

    def run(changed: int) -> torch.Tensor:
        other = frames.clone()
        other[0, changed] += 1.0
        torch.manual_seed(5)
        coarse = model(symbols, sizes, other, lengths, masks=masks).coarse
        return coarse.frames[0].detach()  # type: ignore[no-any-return]

    base = run(12)  # the last frame is fed to no step
    assert torch.equal(run(2), base)  # not the last of its step
    changed = (run(3) - base).abs().amax(dim=1) > 0
    assert changed.tolist() == [False] * 4 + [True] * 12


def test_padding_does_not_reach_it() -> None:
    model = tiny_network(2, double_decoder_reduction=6).train()
    clean, dirty = predict(model), predict(model, filler=float("nan"))
    assert torch.equal(clean.coarse.frames, dirty.coarse.frames)  # type: ignore[union-attr]


def test_it_is_no_part_of_evaluation() -> None:
    model = tiny_network(2, double_decoder_reduction=6).eval()
    assert predict(model).coarse is None
    assert model.architecture.for_inference().double_decoder_reduction == 0


@pytest.mark.parametrize(("preset", "made"), [("plain", 0), ("quality", 6)])
def test_the_preset_decides(preset: str, made: int) -> None:
    params = Params.model_validate({"train": {"preset": preset}})
    params = params.model_copy(update={"train": params.train.resolved()})
    assert architecture_of(params, 9).double_decoder_reduction == made


def test_it_must_be_coarser_than_the_first() -> None:
    train = {"preset": "quality", "model": {"reduction_factor": 6}}
    params = Params.model_validate({"train": train})
    params = params.model_copy(update={"train": params.train.resolved()})
    with pytest.raises(ParamsError, match="makes 6 frames") as caught:
        architecture_of(params, 9)
    assert "12" in str(caught.value.hint)
