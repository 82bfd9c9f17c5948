"""The exported voice: its files, what it says, and damaged ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kamerton.config.schema import TextParams
from kamerton.core.errors import InputCorruptError, InputMissingError, UsageError
from kamerton.model.description import VoiceDescription
from kamerton.model.export import TorchModel, export_voice, load_model
from kamerton.model.tacotron2.architecture import Architecture
from kamerton.model.tacotron2.model import Tacotron2
from kamerton.model.voice import Voice
from kamerton.text.symbols import SymbolTable, UnknownSymbolError
from tests.tiny_corpus import tiny_params

TABLE = SymbolTable(" abcdefghijklmnopqrstuvwxyz,.")


def description(**changes: Any) -> VoiceDescription:
    given: dict[str, Any] = {
        "architecture": Architecture(
            symbols=len(TABLE), mels=16, reduction_factor=2, symbol_embedding=8,
            encoder_embedding_dim=8, encoder_convolutions=1, prenet_dim=8, attention_rnn_dim=8,
            decoder_rnn_dim=8, attention_dim=4, location_filters=2, location_kernel=3,
            postnet_dim=8, postnet_convolutions=2,
        ),
        "audio": tiny_params().audio, "text": TextParams(), "symbols": TABLE.symbols,
        "language": "en", "speaker": "nobody", "gate_threshold": 0.5, "frames_per_symbol": 2.0,
        "training": {"steps": 3},
    }  # fmt: skip
    return VoiceDescription(**{**given, **changes})


def network(*, stops: bool = True, **changes: Any) -> Tacotron2:
    torch.manual_seed(0)
    model = Tacotron2(replace(description().architecture, **changes)).eval()
    with torch.no_grad():
        model.decoder.gate.weight.mul_(4.0)
        model.decoder.gate.bias.fill_(0.0 if stops else -50.0)
    model.set_mel_statistics(torch.full((16,), -3.0), torch.ones(16))
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    export_voice(tmp_path, network(stops=False).state_dict(), description())
    return tmp_path


def test_what_is_loaded_is_what_was_exported(folder: Path) -> None:
    model, loaded = load_model(folder)
    assert loaded == description()
    ours = network(stops=False).state_dict()
    assert model.state_dict().keys() == ours.keys()
    assert all(torch.equal(model.state_dict()[name], ours[name]) for name in ours)
    assert not model.training


def test_equal_voices_are_equal_bytes(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    weights = dict(reversed(network(stops=False).state_dict().items()))
    export_voice(other, weights, description())
    for name in ("best_model.safetensors", "best_model.pt", "model.json"):
        assert (other / name).read_bytes() == (folder / name).read_bytes()


def test_it_says_the_same_alone_and_in_company(folder: Path) -> None:
    voice = Voice.load(folder)
    texts = ["ab, cd.", "a", "the quick brown fox"]
    together = voice.speak(texts, seed=3)
    for text, utterance in zip(texts, together, strict=True):
        (alone,) = voice.speak([text], seed=3)
        assert alone.text == utterance.text == text
        np.testing.assert_allclose(alone.mel, utterance.mel, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(alone.attention, utterance.attention, atol=1e-5)


def test_shapes_range_and_rate(folder: Path) -> None:
    (said,) = Voice.load(folder).speak(["abc"])
    channels, frames = said.mel.shape
    steps, symbols = said.attention.shape
    assert (channels, symbols) == (16, 4)
    assert steps == -(-frames // 2)
    assert said.wave.shape == ((frames - 1) * 64,)
    assert said.wave.dtype == np.float32
    assert np.abs(said.wave).max() <= 1.0
    assert said.rate_hz == 8000


def test_a_runaway_is_cut_and_said_so(folder: Path) -> None:
    (said,) = Voice.load(folder).read(["abc"])
    assert not said.stopped
    # Twice two frames for each of four symbols, and half a second's margin (62.5 frames).
    assert said.mel.shape[1] == 79


def test_a_seed_makes_it_repeatable(folder: Path) -> None:
    voice = Voice.load(folder)
    first, second, other = (voice.speak(["abc"], seed=seed)[0].wave for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_text_is_normalised_first(folder: Path) -> None:
    assert Voice.load(folder).read(["Dr. Abc, 2"])[0].text == "doctor abc, two"


def test_nothing_to_say(folder: Path) -> None:
    voice = Voice.load(folder)
    with pytest.raises(UsageError, match="nothing in"):
        voice.read(["  "])
    assert voice.read([]) == []


def test_a_symbol_it_never_saw(folder: Path) -> None:
    with pytest.raises(UnknownSymbolError, match="'!'"):
        Voice.load(folder).read(["abc!"])


def test_one_frame_becomes_two(tmp_path: Path) -> None:
    model = network()
    with torch.no_grad():
        model.decoder.gate.bias.fill_(50.0)  # ends at its first frame
    export_voice(tmp_path, model.state_dict(), description())
    (said,) = Voice.load(tmp_path).speak(["abc"])
    assert said.stopped
    assert said.mel.shape == (16, 2)
    assert np.array_equal(said.mel[:, 0], said.mel[:, 1])


def test_damaged_files(folder: Path) -> None:
    weights, text = folder / "best_model.safetensors", folder / "model.json"
    good = weights.read_bytes()
    weights.write_bytes(good[:100])
    with pytest.raises(InputCorruptError, match="safetensors"):
        Voice.load(folder)
    weights.unlink()
    with pytest.raises(InputMissingError):
        Voice.load(folder)
    weights.write_bytes(good)
    values = json.loads(text.read_text())
    text.write_text(json.dumps({**values, "format_version": 99}))
    with pytest.raises(InputCorruptError, match="format 99"):
        Voice.load(folder)
    values["architecture"]["prenet_dim"] = 9
    text.write_text(json.dumps(values))
    with pytest.raises(InputCorruptError, match="does not fit"):
        Voice.load(folder)
    text.write_text("{}")
    with pytest.raises(InputCorruptError, match="does not describe a voice"):
        Voice.load(folder)


@pytest.mark.parametrize(
    "change",
    [{"location_kernel": 4}, {"attention": "none"}, {"prenet_dim": -3}, {"mels": 0},
     {"decoder_rnn_dim": "large"}],
    ids=str,
)  # fmt: skip
def test_a_description_of_no_network(folder: Path, change: dict[str, Any]) -> None:
    path = folder / "model.json"
    values = json.loads(path.read_text())
    values["architecture"] |= change
    path.write_text(json.dumps(values))
    with pytest.raises(InputCorruptError):
        load_model(folder)


def test_no_voice_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="'train' stage"):
        Voice.load(tmp_path / "absent")


def test_a_voice_of_phonemes_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dataset's function makes its symbols, of the normalised text."""
    asked: list[str] = []

    def spell(lines: list[str], voice: str) -> list[str]:
        asked.extend(lines)
        assert voice == "en-us"
        return ["x" * 3 * len(line) for line in lines]

    monkeypatch.setattr("kamerton.text.phonemes._ask", spell)
    monkeypatch.setattr("kamerton.text.phonemes._known", {})
    letters, spoken = TextParams(), TextParams(phonemes="espeak")
    (plain,) = Voice(TorchModel(network(stops=False)), description(text=letters)).read(
        ["Dr. Ab, cd."]
    )
    (reading,) = Voice(TorchModel(network(stops=False)), description(text=spoken)).read(
        ["Dr. Ab, cd."]
    )
    assert asked == ["doctor ab", "cd"]
    assert reading.text == plain.text == "doctor ab, cd."
    assert plain.attention.shape[1] == len("doctor ab, cd.") + 1
    assert reading.attention.shape[1] == 3 * len("doctor abcd") + len(", .") + 1


SPEAKERS = ("anna", "boris", "clara")


@pytest.fixture
def choir(tmp_path: Path) -> Path:
    """A voice of three speakers, of whom the second speaks by itself."""
    model = network(stops=False, speakers=3, speaker_embedding_dim=4)
    facts = description(architecture=model.architecture, speakers=SPEAKERS, speaker="boris")
    export_voice(tmp_path, model.state_dict(), facts)
    return tmp_path


def test_a_voice_of_several_speaks_as_the_one_who_is_asked(choir: Path) -> None:
    voice = Voice.load(choir)
    assert voice.description.speakers == SPEAKERS
    said = {name: voice.read(["abc"], speaker=name)[0].mel for name in (None, *SPEAKERS)}
    assert np.array_equal(said[None], said["boris"])
    assert not np.array_equal(said["anna"], said["boris"])
    assert not np.array_equal(said["clara"], said["boris"])
    (sound,) = voice.speak(["abc"], speaker="clara")
    assert np.array_equal(sound.mel, said["clara"])


def test_an_unknown_speaker(choir: Path) -> None:
    with pytest.raises(UsageError, match="'dora'") as caught:
        Voice.load(choir).read(["abc"], speaker="dora")
    assert "anna, boris, clara" in str(caught.value.hint)


def test_the_only_speaker_may_be_named(folder: Path) -> None:
    voice = Voice.load(folder)
    (named,), (plain,) = voice.read(["abc"], speaker="nobody"), voice.read(["abc"])
    assert np.array_equal(named.mel, plain.mel)
    with pytest.raises(UsageError) as caught:
        voice.read(["abc"], speaker="anna")
    assert "nobody" in str(caught.value.hint)


def test_a_voice_from_before_there_were_speakers(folder: Path) -> None:
    path = folder / "model.json"
    values = json.loads(path.read_text())
    del values["speakers"]
    for name in ("attention", "speakers", "speaker_embedding_dim", "recurrent_noise"):
        del values["architecture"][name]
    path.write_text(json.dumps(values))
    assert Voice.load(folder).description == description()


def test_names_that_do_not_fit_the_network(choir: Path) -> None:
    path = choir / "model.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "speakers": ["anna"]}))
    with pytest.raises(InputCorruptError, match="names 1 speakers of 3"):
        Voice.load(choir)


@pytest.mark.parametrize("noise", ["variational", "zoneout", "recurrent"])
def test_what_only_training_needs_is_left_behind(tmp_path: Path, noise: str) -> None:
    model = network(
        stops=False, double_decoder_reduction=6, recurrent_noise=noise, variational="learned",
        spectral_dropout=0.1,
    )  # fmt: skip
    export_voice(tmp_path, model.state_dict(), description(architecture=model.architecture))
    loaded, facts = load_model(tmp_path)
    assert facts.architecture.double_decoder_reduction == 0
    assert loaded.state_dict().keys() == network().state_dict().keys()
    symbols, lengths = torch.tensor([[2, 3, 4]]), torch.tensor([3])
    given = {"max_frames": torch.tensor([20]), "seeds": [1]}
    ours = model.speak(symbols, lengths, **given)  # type: ignore[arg-type]
    theirs = loaded.speak(symbols, lengths, **given)  # type: ignore[arg-type]
    assert torch.equal(ours.frames, theirs.frames)


def test_weights_that_are_not_all_there_are_not_exported(tmp_path: Path) -> None:
    weights = network().state_dict()
    del weights["decoder.gate.bias"]
    with pytest.raises(KeyError):
        export_voice(tmp_path, weights, description())
