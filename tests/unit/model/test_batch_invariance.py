"""An utterance comes out the same alone and in any batch, whatever lies on the padding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kamerton.model.tacotron2.model import Tacotron2, steps_of, valid_positions
from tests.tiny_network import KINDS, MELS, batch_of, masks_for, tiny_network, utterances_of

NAN = float("nan")
REDUCTIONS = [1, 2, 3, 5]
LENGTHS = st.lists(
    st.tuples(st.integers(1, 9), st.integers(1, 19)), min_size=2, max_size=4
).map(lambda pairs: [list(numbers) for numbers in zip(*pairs, strict=True)])  # fmt: skip
PADDING = st.tuples(st.integers(0, 3), st.integers(0, 6))


def network(kind: str, reduction: int, noise: str = "output") -> Tacotron2:
    model = tiny_network(
        reduction, attention=kind, recurrent_noise=noise, attention_dropout=0.1,
        decoder_dropout=0.1, speakers=3, speaker_embedding_dim=4,
    ).eval()  # fmt: skip
    with torch.no_grad():  # a gate that opens somewhere, not at once
        model.decoder.gate.weight.mul_(3.0)
        model.decoder.gate.bias.fill_(-0.3)
    return model


def close(ours: Tensor, alone: Tensor) -> None:
    torch.testing.assert_close(ours, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8)
@given(lengths=LENGTHS, padding=PADDING)
@torch.no_grad()
def test_teacher_forced(
    kind: str, reduction: int, lengths: list[list[int]], padding: tuple[int, int]
) -> None:
    model = network(kind, reduction, "zoneout")
    items = utterances_of(*lengths)
    extra_symbols, extra_frames = padding
    batch = batch_of(items, extra_symbols=extra_symbols, extra_frames=extra_frames, filler=NAN)
    masks = masks_for(model, len(items), batch[2].shape[1])
    speakers = torch.arange(len(items)) % 3
    together = model(*batch, masks=masks, speakers=speakers)
    for row, item in enumerate(items):
        symbols, frames = len(item[0]), len(item[1])
        steps = int(steps_of(frames, reduction))
        own = slice(row, row + 1)
        alone = model(*batch_of([item]), masks=masks[:steps, own], speakers=speakers[own])
        close(together.before[row, :frames], alone.before[0, :frames])
        close(together.after[row, :frames], alone.after[0, :frames])
        close(together.gate_logits[row, : steps * reduction], alone.gate_logits[0])
        close(together.attention[row, :steps, :symbols], alone.attention[0])
        assert not together.attention[row, :, symbols:].any()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8)
@given(lengths=LENGTHS, extra_symbols=st.integers(0, 3))
def test_free_running(
    kind: str, reduction: int, lengths: list[list[int]], extra_symbols: int
) -> None:
    model = network(kind, reduction, "zoneout")
    items = utterances_of(*lengths)
    symbols, sizes, _, limits = batch_of(items, extra_symbols=extra_symbols)
    seeds = list(range(5, 5 + len(items)))
    speakers = torch.arange(len(items)) % 3
    together = model.speak(symbols, sizes, max_frames=limits, seeds=seeds, speakers=speakers)
    for row in range(len(items)):
        own = slice(row, row + 1)
        alone = model.speak(
            symbols[own, : sizes[row]], sizes[own], max_frames=limits[own], seeds=[seeds[row]],
            speakers=speakers[own],
        )  # fmt: skip
        frames = int(alone.lengths[0])
        steps = int(steps_of(frames, reduction))
        assert int(together.lengths[row]) == frames <= int(limits[row])
        assert bool(together.stopped[row]) == bool(alone.stopped[0])
        close(together.frames[row, :frames], alone.frames[0, :frames])
        close(together.attention[row, :steps, : sizes[row]], alone.attention[0, :steps])
        assert not together.frames[row, frames:].any()


def test_some_of_those_utterances_end_by_themselves_and_some_are_cut() -> None:
    symbols, sizes, _, limits = batch_of(utterances_of([8, 3, 5, 2], [40, 3, 30, 35]))
    said = network("location_sensitive", 2).speak(
        symbols, sizes, max_frames=limits, seeds=[5, 6, 7, 8]
    )
    assert 0 < int(said.stopped.sum()) < 4


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_made_on_another_device_than_the_data(kind: str) -> None:
    """Where tensors are made without saying where, they land on the meta device and fail."""
    model = network(kind, 2, "zoneout")
    model.train()
    batch = batch_of(utterances_of([5, 3], [9, 4]))
    with torch.device("meta"):
        out = model(*batch)
        said = model.eval().speak(
            *batch[:2], max_frames=batch[3], seeds=[1, 2], speakers=batch[1] * 0
        )
    for made in (out.before, out.after, out.gate_logits, out.attention, said.frames):
        assert made.device.type == "cpu"
    assert said.frames.shape[2] == MELS
    assert valid_positions(torch.empty(2, dtype=torch.long, device="meta"), 4).device.type == "meta"
