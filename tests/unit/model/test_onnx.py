"""The exported graphs say what PyTorch says, whatever the voice is made of."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kamerton.config.schema import AudioParams, TextParams
from kamerton.core.errors import (
    InputCorruptError,
    InputMissingError,
    PipelineError,
    UsageError,
)
from kamerton.core.files import write_json
from kamerton.model.description import VoiceDescription
from kamerton.model.export import export_voice
from kamerton.model.onnx import FACTS, INT8_STEP, STEP
from kamerton.model.onnx.export import compare, export_onnx, write_graphs
from kamerton.model.onnx.runtime import OnnxModel
from kamerton.model.prenet_noise import prenet_masks
from kamerton.model.tacotron2.architecture import Architecture
from kamerton.model.tacotron2.model import Tacotron2
from kamerton.model.voice import Voice

TEXTS = [[5, 3, 4, 6, 2, 1], [2, 2, 5, 1], [4, 6, 3, 5, 2, 6, 4, 2, 3, 1], [3, 1]]


def small(**changed: object) -> Tacotron2:
    """A network of random weights whose batch statistics are not those it began with."""
    sizes: dict[str, object] = {
        "symbols": 8, "mels": 6, "reduction_factor": 2, "symbol_embedding": 8,
        "encoder_embedding_dim": 12, "encoder_convolutions": 2, "prenet_dim": 10,
        "attention_rnn_dim": 20, "decoder_rnn_dim": 24, "attention_dim": 9, "location_filters": 3,
        "location_kernel": 5, "postnet_dim": 8, "postnet_convolutions": 2,
    }  # fmt: skip
    torch.manual_seed(3)
    model = Tacotron2(Architecture(**(sizes | changed)))  # type: ignore[arg-type]
    with torch.no_grad():
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize(
    "changed",
    [
        {"reduction_factor": 1},
        {"reduction_factor": 3, "attention": "forward"},
        {"attention": "dynamic_convolution"},
        {"recurrent_noise": "zoneout", "attention_dropout": 0.2, "decoder_dropout": 0.3},
        {"recurrent_noise": "variational", "variational": "learned"},
        {"speakers": 3, "speaker_embedding_dim": 4},
        {"speakers": 2, "speaker_embedding_dim": 0},
        {"double_decoder_reduction": 4},
    ],
    ids=lambda changed: "-".join(map(str, changed.values())),
)
def test_they_say_what_pytorch_says(tmp_path: Path, changed: dict[str, object]) -> None:
    model = small(**changed)
    write_graphs(model, tmp_path)
    exact = compare(model, tmp_path, TEXTS, "fp32")
    assert exact.mel_difference <= 1e-4
    assert exact.attention_difference <= 1e-5
    assert exact.lengths_differ == 0
    rough = compare(model, tmp_path, TEXTS, "int8")
    # Eight bits leave a trace, a small one.
    assert exact.mel_difference < rough.mel_difference < 0.3


def test_an_utterance_is_the_same_alone_and_in_a_batch(tmp_path: Path) -> None:
    model = small()
    write_graphs(model, tmp_path)
    graphs = OnnxModel(tmp_path, precision="fp32")
    lengths = np.array([len(text) for text in TEXTS])
    symbols = np.zeros((len(TEXTS), lengths.max()), dtype=np.int64)
    for row, text in enumerate(TEXTS):
        symbols[row, : len(text)] = text
    together = graphs.speak(
        symbols, lengths, max_frames=np.full(len(TEXTS), 21), seeds=range(len(TEXTS))
    )
    for row, text in enumerate(TEXTS):
        alone = graphs.speak(
            np.array([text]), lengths[row : row + 1], max_frames=np.array([21]), seeds=[row]
        )
        count = int(alone.lengths[0])
        assert together.lengths[row] == count
        np.testing.assert_allclose(together.frames[row, :count], alone.frames[0, :count], atol=1e-5)
        assert not together.frames[row, count:].any()


def test_the_quantised_step_holds_its_matrices_in_eight_bits(tmp_path: Path) -> None:
    model = small(attention_rnn_dim=256, decoder_rnn_dim=256)
    write_graphs(model, tmp_path)
    ratio = (tmp_path / STEP).stat().st_size / (tmp_path / INT8_STEP).stat().st_size
    assert ratio > 3


def test_masks_of_more_steps_begin_as_those_of_fewer() -> None:
    long = prenet_masks(7, 50, layers=2, channels=5, dropout=0.5)
    np.testing.assert_array_equal(prenet_masks(7, 20, layers=2, channels=5, dropout=0.5), long[:20])
    assert 0.4 < long.mean() < 0.6
    assert not np.array_equal(long, prenet_masks(8, 50, layers=2, channels=5, dropout=0.5))


def test_graphs_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    write_graphs(small(), tmp_path)
    whole = (tmp_path / STEP).read_bytes()
    (tmp_path / STEP).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputCorruptError, match=r"step\.onnx"):
        OnnxModel(tmp_path, precision="fp32")
    (tmp_path / STEP).unlink()
    with pytest.raises(InputMissingError, match=r"step\.onnx"):
        OnnxModel(tmp_path, precision="fp32")


def voice_folder(folder: Path, model: Tacotron2) -> Path:
    """The model as a trained voice of six letters and the space between words."""
    description = VoiceDescription(
        model.architecture, AudioParams(mel_channels=16), TextParams(language="en"),
        tuple("abcdef "), "en", "speaker", 0.5, 2.0, {},
    )  # fmt: skip
    folder.mkdir()
    export_voice(folder, model.state_dict(), description)
    return folder


def test_an_exported_voice_reads_as_the_trained_one_and_needs_no_torch(tmp_path: Path) -> None:
    trained = voice_folder(tmp_path / "voice", small(symbols=9, mels=16))
    exported = tmp_path / "onnx"
    exact, rough = export_onnx(trained, exported)
    assert (exact.precision, rough.precision) == ("fp32", "int8")
    (truth,) = Voice.load(trained).read(["bad cafe"])
    program = (
        "import sys, numpy as np; from pathlib import Path; from kamerton.model.voice import Voice;"
        f"(reading,) = Voice.load(Path({str(exported)!r}), engine='onnx').read(['bad cafe']);"
        "assert 'torch' not in sys.modules;"
        f"np.save({str(tmp_path / 'mel.npy')!r}, reading.mel)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    np.testing.assert_allclose(np.load(tmp_path / "mel.npy"), truth.mel, atol=1e-4)
    (heard,) = Voice.load(exported).read(["bad cafe"])  # its own engine is the 8-bit one
    common = min(heard.mel.shape[1], truth.mel.shape[1])
    differences = np.abs(heard.mel[:, :common] - truth.mel[:, :common])
    assert 0 < differences.mean() < 0.1
    with pytest.raises(InputMissingError, match="best_model"):
        Voice.load(exported, engine="torch")


def test_graphs_that_differ_are_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = voice_folder(tmp_path / "voice", small(symbols=9, mels=16))
    spoil = OnnxModel.decode

    def louder(self: OnnxModel, *given: object) -> object:
        spoken = spoil(self, *given)  # type: ignore[arg-type]
        return replace(spoken, frames=spoken.frames + 0.1)

    monkeypatch.setattr(OnnxModel, "decode", louder)
    with pytest.raises(PipelineError, match="differ from PyTorch"):
        export_onnx(trained, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_the_eight_bit_step_is_left_out_where_it_says_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trained = voice_folder(tmp_path / "voice", small(symbols=9, mels=16))
    monkeypatch.setattr("kamerton.model.onnx.export.MOST_INT8_DIFFERENCE", 1e-9)
    export_onnx(trained, tmp_path / "onnx")
    assert "8-bit step is left out" in caplog.text
    assert not (tmp_path / "onnx" / INT8_STEP).exists()
    Voice.load(tmp_path / "onnx").read(["bad cafe"])  # by the other one


def test_a_voice_is_not_exported_onto_itself(tmp_path: Path) -> None:
    trained = voice_folder(tmp_path / "voice", small(symbols=9, mels=16))
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    for output in (trained, tmp_path):
        with pytest.raises(UsageError):
            export_onnx(trained, output, force=True)
    assert {path.name: path.read_bytes() for path in trained.iterdir()} == before


@pytest.mark.parametrize(
    "change",
    [{"format_version": 99}, {"states": None}, {"encoded": 3}, {"reduction_factor": 0},
     {"prenet_dropout": 1.0}, {"mels": "six"}, {"stranger": 1}],
    ids=str,
)  # fmt: skip
def test_facts_that_are_none_are_named(tmp_path: Path, change: dict[str, object]) -> None:
    write_graphs(small(), tmp_path)
    write_json(tmp_path / FACTS, json.loads((tmp_path / FACTS).read_text()) | change)
    with pytest.raises(InputCorruptError, match=r"onnx\.json"):
        OnnxModel(tmp_path)


def test_a_gate_that_opens_after_the_cut_does_not_count_as_an_end(tmp_path: Path) -> None:
    model = small(reduction_factor=3)
    with torch.no_grad():
        model.decoder.gate.weight.zero_()
        model.decoder.gate.bias.copy_(
            torch.tensor([-9.0, -9.0, 9.0])
        )  # the third frame is the last
    write_graphs(model, tmp_path)
    symbols, lengths = np.array([[3, 4, 1]]), np.array([3])
    for limit in (1, 2, 3):
        frames = np.array([limit])
        ours = model.speak(
            torch.from_numpy(symbols), torch.from_numpy(lengths),
            max_frames=torch.from_numpy(frames), seeds=[0],
        )  # fmt: skip
        theirs = OnnxModel(tmp_path).speak(symbols, lengths, max_frames=frames, seeds=[0])
        assert bool(ours.stopped[0]) is bool(theirs.stopped[0]) is (limit == 3)
