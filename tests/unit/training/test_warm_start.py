"""Warm starts: weights only, matched by what they stand for, and refused where they do not fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from kamerton.core.errors import InputCorruptError, InputMissingError, ParamsError
from kamerton.core.stop import StopRequest
from kamerton.data.manifest import Dataset
from kamerton.model.tacotron2.model import Tacotron2
from kamerton.tracking import read_records
from kamerton.training.architecture import architecture_of
from kamerton.training.checkpoint import Checkpoints, read_checkpoint
from kamerton.training.meaning import Meaning
from kamerton.training.session import Session
from kamerton.training.state import TrainState
from kamerton.training.step import make_optimizer
from kamerton.training.warm_start import (
    Source,
    read_source,
    source_files,
    source_sha256,
    warm_start,
)
from tests.tiny_corpus import tiny_params, write_tiny_dataset


def network(symbols: str = "abc", seed: int = 1, speakers: int = 1, **train: Any) -> Tacotron2:
    params = tiny_params(**train)
    params = params.model_copy(update={"train": params.train.resolved()})
    torch.manual_seed(seed)
    return Tacotron2(architecture_of(params, 2 + len(symbols), speakers=speakers))


def meaning_of(model: Tacotron2, symbols: str = "abc", *speakers: str) -> Meaning:
    audio = tiny_params().audio.model_dump(mode="json")
    return Meaning(model.architecture.to_dict(), audio, tuple(symbols), speakers or ("ann",))


def source(model: Tacotron2, symbols: str = "abc", *speakers: str) -> Source:
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    return Source(Path("there.pt"), "0" * 64, weights, meaning_of(model, symbols, *speakers))


def test_every_weight_is_taken_but_the_datasets_own_figures() -> None:
    old, new = network(seed=1), network(seed=2)
    old.set_mel_statistics(torch.full((16,), 3.0), torch.full((16,), 2.0))
    taken = warm_start(new, source(old), meaning_of(new))
    assert set(taken.taken) == set(new.state_dict()) - {"mel_mean", "mel_deviation"}
    assert (taken.fresh, taken.left, taken.new_rows) == ((), (), ())
    for name in taken.taken:
        assert torch.equal(new.state_dict()[name], old.state_dict()[name]), name
    assert torch.equal(new.mel_mean, torch.zeros(16))


def test_symbols_are_matched_by_what_they_are() -> None:
    old, new = network("abc", seed=1), network("xcab", seed=2)
    before = new.encoder.embedding.weight.detach().clone()
    taken = warm_start(new, source(old, "abc"), meaning_of(new, "xcab"))
    theirs, ours = old.encoder.embedding.weight, new.encoder.embedding.weight
    assert torch.equal(ours[:2], theirs[:2])  # padding and the end of the text
    for symbol in "abc":
        row, place = 2 + "xcab".index(symbol), 2 + "abc".index(symbol)
        assert torch.equal(ours[row], theirs[place]), symbol
    assert torch.equal(ours[2], before[2])  # 'x' is as the seed made it
    assert taken.new_rows == ("x",)


def test_speakers_are_matched_by_name() -> None:
    model = {**tiny_params().train.model.model_dump(), "speaker_embedding_dim": 4}
    old = network(speakers=2, model=model)
    new = network(speakers=3, seed=2, model=model)
    taken = warm_start(new, source(old, "abc", "ann", "bob"), meaning_of(new, "abc", "bob", "cy",
                                                                         "ann"))  # fmt: skip
    (name,) = [name for name in new.state_dict() if name.endswith("speaker_embedding.weight")]
    ours, theirs = new.state_dict()[name], old.state_dict()[name]
    assert torch.equal(ours[[2, 0]], theirs)
    assert taken.new_rows == ("cy",)


def test_what_only_training_needs_may_be_absent() -> None:
    losses = {"double_decoder_weight": 0.5}
    old, new = network(), network(seed=2, losses=losses)
    coarse = set(new.state_dict()) - set(old.state_dict())
    assert coarse
    taken = warm_start(new, source(old), meaning_of(new))
    assert set(taken.fresh) == coarse
    back = warm_start(network(seed=3), source(new), meaning_of(old))
    assert set(back.left) == coarse


def test_another_network_is_refused_by_the_names_of_its_parameters() -> None:
    model = tiny_params().train.model.model_dump()
    new = network(model={**model, "prenet_dim": 12, "decoder_rnn_dim": 24})
    before = {name: value.clone() for name, value in new.state_dict().items()}
    with pytest.raises(ParamsError) as caught:
        warm_start(new, source(network()), meaning_of(new))
    for words in ("train.model.prenet_dim (8, asked 12)", "decoder_rnn_dim (16, asked 24)"):
        assert words in caught.value.message
    assert caught.value.exit_code == 3
    assert all(torch.equal(before[name], value) for name, value in new.state_dict().items())


def test_other_mels_are_refused() -> None:
    new = network()
    there = source(network())
    mels = {**there.meaning.audio, "hop_samples": 128}
    there = dataclasses.replace(there, meaning=dataclasses.replace(there.meaning, audio=mels))
    with pytest.raises(ParamsError, match=r"audio\.hop_samples \(128, asked 64\)"):
        warm_start(new, there, meaning_of(new))


def test_other_shapes_are_listed_with_their_names() -> None:
    new, there = network(), source(network())
    weights = dict(there.weights)
    name = next(name for name in weights if name.startswith("postnet") and weights[name].dim() == 3)
    weights[name] = torch.zeros(3, 4, 5)
    with pytest.raises(ParamsError, match=rf"{name} \[3, 4, 5\], asked \[\d+, \d+, \d+\]"):
        warm_start(new, dataclasses.replace(there, weights=weights), meaning_of(new))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    model = network()
    folder = tmp_path / "run" / "checkpoints"
    checkpoints = Checkpoints(folder, keep=1, meaning=meaning_of(model))
    checkpoints.save_best(model, make_optimizer(model, tiny_params().train), TrainState(step=3))
    return checkpoints.best


def test_a_run_stands_for_its_best_checkpoint(checkpoint: Path) -> None:
    run = checkpoint.parent.parent
    assert source_files(run) == source_files(checkpoint) == (checkpoint,)
    assert source_sha256(run) == source_sha256(checkpoint)
    assert read_source(run).meaning == read_source(checkpoint).meaning
    assert set(read_source(run).weights) == set(network().state_dict())


def test_what_is_not_there_or_no_weights_is_told(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(InputMissingError) as missing:
        source_sha256(tmp_path / "absent.pt")
    assert missing.value.exit_code == 4
    with pytest.raises(InputCorruptError, match="holds no weights"):
        source_sha256(tmp_path)
    (tmp_path / "voice").mkdir()
    (tmp_path / "voice" / "model.json").write_text("{}")
    with pytest.raises(InputMissingError, match="best_model"):
        source_sha256(tmp_path / "voice")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-3000])
    with pytest.raises(InputCorruptError, match="cannot be read"):
        read_source(checkpoint)
    torch.save({"format_version": 99}, checkpoint)
    with pytest.raises(InputCorruptError, match="it is of format 99"):
        read_source(checkpoint)


def test_a_run_begins_with_them_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kamerton.training.fingerprint.code_digest", lambda: "fixed")
    dataset = Dataset.open(write_tiny_dataset(tmp_path / "dataset"))

    def train(runs: Path, warm: Path | None, **changes: Any) -> Any:
        params = tiny_params(**{"max_steps": 2, "eval_interval_steps": 2, **changes})
        work = Session.prepare(
            dataset, 50, params, runs=runs, threads=1, trial=True, warm_start=warm
        )
        run = work.find_run(resume=False, anew=True)
        work.train(run, stop=StopRequest())
        return run

    first = train(tmp_path / "a", None)
    still = train(tmp_path / "b", first.path, learning_rate=1e-12, weight_decay=0.0)
    (event,) = [r for r in read_records(still.metrics_file) if r.name == "warm_start"]
    assert event.fields["source"] == str(first.path)
    assert event.fields["sha256"] == source_sha256(first.path)
    ours = read_checkpoint(still.checkpoints / "last.pt")
    theirs = read_checkpoint(first.checkpoints / "best.pt")
    assert set(event.fields["taken"]) >= set(ours["model"]) - {"mel_mean", "mel_deviation"}
    parameters = [name for name in theirs["model"] if name.endswith(("weight", "bias"))]
    assert len(parameters) > 20
    for name in parameters:
        torch.testing.assert_close(
            ours["model"][name], theirs["model"][name], rtol=0, atol=1e-9, msg=name
        )
    assert ours["state"]["step"] == 2  # the position is not taken
    other = train(tmp_path / "c", None, learning_rate=1e-12, weight_decay=0.0)
    assert other.status().fingerprint != still.status().fingerprint
