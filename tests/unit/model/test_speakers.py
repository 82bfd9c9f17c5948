"""Several speakers in one network."""

import pytest
import torch

from kamerton.config.schema import Params
from kamerton.model.tacotron2.model import Tacotron2
from kamerton.training.architecture import architecture_of
from tests.tiny_network import batch_of, masks_for, tiny_network, utterances_of


def network() -> Tacotron2:
    return tiny_network(2, speakers=3, speaker_embedding_dim=4)


def test_a_voice_of_one_speaker_has_no_weights_for_it() -> None:
    alone = set(tiny_network(2).state_dict())
    several = set(network().state_dict())
    assert several - alone == {"speaker_embedding.weight", "speaker_projection.weight"}
    assert alone < several


def test_who_speaks_changes_what_is_said() -> None:
    model = network().eval()
    batch = batch_of(utterances_of([5, 5], [9, 9]))
    masks = masks_for(model, 2, 9)
    said = [
        model(*batch, masks=masks, speakers=torch.tensor(numbers)).after
        for numbers in ([0, 0], [1, 0], [0, 2])
    ]
    assert not torch.allclose(said[0][0], said[1][0])
    assert torch.equal(said[0][1], said[1][1])
    assert not torch.allclose(said[0][1], said[2][1])
    assert torch.equal(model(*batch, masks=masks).after, said[0])  # the first, where none is named


def test_free_running_hears_of_it_too() -> None:
    model = network().eval()
    symbols, lengths, _, limits = batch_of(utterances_of([5], [9]))
    said = [
        model.speak(symbols, lengths, max_frames=limits, seeds=[1], speakers=torch.tensor([n]))
        for n in (0, 1, 1)
    ]
    assert not torch.equal(said[0].frames, said[1].frames)
    assert torch.equal(said[1].frames, said[2].frames)


def test_the_speaker_is_heard_at_every_symbol_and_on_no_padding() -> None:
    model = network().eval()
    symbols, lengths, _, _ = batch_of(utterances_of([5, 2], [9, 9]))
    valid = (torch.arange(5) < lengths[:, None]).float()
    numbers = torch.tensor([2, 1])
    text = model.encoder(symbols, lengths, valid)
    both = model.encode(symbols, lengths, valid, numbers)
    embedding, projection = model.speaker_embedding.weight, model.speaker_projection.weight  # type: ignore[union-attr]
    for row, number in enumerate(numbers.tolist()):
        size = int(lengths[row])
        expected = (projection @ embedding[number]).expand(size, -1)
        torch.testing.assert_close((both - text)[row, :size], expected)
        assert not both[row, size:].any()


def test_only_the_speakers_of_a_batch_learn_from_it() -> None:
    model = network()
    batch = batch_of(utterances_of([5, 4], [9, 9]))
    model(*batch, speakers=torch.tensor([2, 0])).after.sum().backward()
    rows = model.speaker_embedding.weight.grad.abs().sum(dim=1)  # type: ignore[union-attr]
    assert (rows > 0).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("asked", "speakers", "made"), [(None, 1, 0), (None, 2, 64), (0, 2, 0), (16, 1, 16)]
)
def test_the_parameters_decide(asked: int | None, speakers: int, made: int) -> None:
    params = Params.model_validate({"train": {"model": {"speaker_embedding_dim": asked}}})
    architecture = architecture_of(params, 9, speakers=speakers)
    assert architecture.speaker_embedding_dim == made
    assert architecture.speakers == (speakers if made else 1)  # without a vector all are one
