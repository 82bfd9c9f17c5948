"""Evaluations against a plain loop over utterances, and against models whose answer is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kamerton.data.manifest import Dataset
from kamerton.metrics.alignment import attention_scores
from kamerton.model.losses import Target, losses_of
from kamerton.model.tacotron2.model import Predicted, Spoken, Tacotron2
from kamerton.tracking import names
from kamerton.training import evaluation as module
from kamerton.training.data import TensorBatch
from kamerton.training.evaluation import evaluate, read_example, teacher_forced
from kamerton.training.objective import objective_of
from kamerton.training.session import Session
from kamerton.training.stops import predicted_stops
from tests.tiny_corpus import tiny_params, write_tiny_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("corpus") / "dataset"
    return Dataset.open(write_tiny_dataset(folder, train=6, val=7))


@pytest.fixture(scope="module")
def work(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Session:
    return prepared(dataset, tmp_path_factory.mktemp("runs"))


def prepared(dataset: Dataset, runs: Path, **train: Any) -> Session:
    params = tiny_params(**train)
    return Session.prepare(dataset, 50, params, runs=runs, threads=1, trial=True)


def new_model(work: Session) -> Tacotron2:
    """Untrained, but with gates that open somewhere."""
    model = work.new_model()
    with torch.no_grad():
        model.decoder.gate.weight.mul_(8.0)
    return model


@pytest.mark.parametrize("change", [{"batch_size": 1}, {"batch_size": 3}, {"batch_size": 7}])
def test_which_utterances_share_a_batch_does_not_matter(
    dataset: Dataset, work: Session, tmp_path: Path, change: dict[str, Any]
) -> None:
    model = new_model(work)
    ours = evaluate(model, prepared(dataset, tmp_path, **change).data, work.params.train)
    usual = evaluate(model, work.data, work.params.train)
    assert ours.values.keys() == usual.values.keys()
    assert ours.values == pytest.approx(usual.values, abs=2e-5)


def alone(work: Session) -> list[Any]:
    """Every validation utterance as a batch of its own, without any padding."""
    rows = []
    for batch in work.data.validation:
        for row in range(len(batch.symbols)):
            own = slice(row, row + 1)
            symbols, frames = int(batch.symbol_lengths[row]), int(batch.frame_lengths[row])
            rows.append(
                TensorBatch(
                    batch.symbols[own, :symbols], batch.symbol_lengths[own],
                    batch.frames[own, :frames], batch.frame_lengths[own],
                )
            )  # fmt: skip
    return rows


def test_teacher_forced_figures_are_those_of_a_plain_loop(work: Session) -> None:
    model, train = new_model(work), work.params.train
    r = model.architecture.reduction_factor
    found = evaluate(model, work.data, train).values
    mel, gate, guided, frames, scores = 0.0, 0.0, 0.0, 0, []
    hits = fired = off = utterances = 0
    model.eval()
    for batch in alone(work):
        length = int(batch.frame_lengths[0])
        with torch.no_grad():
            truth = model.normalise(batch.frames)
            predicted = teacher_forced(model, batch, truth)
        target = Target(truth, batch.frame_lengths, batch.symbols, batch.symbol_lengths)
        raw = losses_of(predicted, target, objective_of(train, work.data.audio)).raw
        error = (predicted.after[0, :length] - truth[0, :length]).numpy()
        mel += length * float(np.mean(np.abs(error)) + np.mean(error**2))
        gate += length * float(raw["gate"])
        guided += length * float(raw["guided_attention"])
        frames += length
        scores.append(attention_scores(predicted.attention[0].numpy()))
        opened = np.flatnonzero(torch.sigmoid(predicted.gate_logits[0]).numpy() > 0.5)
        utterances += 1
        if len(opened):
            fired += 1
            distance = abs(int(opened[0]) - (length - 1))
            hits += distance <= r
            off += distance
        else:
            off += length
    assert fired > 0, "the test would not see what counts stops"
    expected = {
        names.VAL_MEL_LOSS: mel / frames,
        names.VAL_GATE_LOSS: gate / frames,
        names.VAL_GUIDED_ATTENTION_LOSS: guided / frames,
        names.GATE_RECALL: hits / utterances,
        names.GATE_PRECISION: hits / fired,
        names.GATE_F1: 2 * hits / (utterances + fired),
        names.GATE_FRAMES_OFF: off / utterances,
        names.FORCED + names.ATTENTION_SCORE: np.median([s.diagonality for s in scores]),
        names.FORCED + names.ATTENTION_COVERAGE: np.median([s.coverage for s in scores]),
        names.FORCED + names.ATTENTION_FOCUS: np.median([s.focus for s in scores]),
        names.FORCED + names.ATTENTION_ENTROPY: np.median([s.entropy for s in scores]),
        names.FORCED + names.ATTENTION_MONOTONICITY: np.median([s.monotonicity for s in scores]),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=2e-5)
    total = found[names.VAL_MEL_BEFORE_LOSS] + mel / frames + gate / frames
    assert found[names.VAL_LOSS] == pytest.approx(total, abs=2e-5)


class Known:
    """Stands in for a model: true frames, and attention and gates that a test chose."""

    def __init__(self, model: Tacotron2, attention: Any, stop: Any) -> None:
        """``attention(T, N)`` gives weights, ``stop(F)`` the frame at which the gate opens."""
        self.model, self.attention, self.stop = model, attention, stop

    def forced(self, _: Any, batch: Any, frames: Tensor) -> Predicted:
        r = self.model.architecture.reduction_factor
        count, size = len(batch.symbols), -(-frames.shape[1] // r) * r
        before = torch.nn.functional.pad(frames, (0, 0, 0, size - frames.shape[1]))
        logits = torch.full((count, size), -9.0)
        weights = torch.zeros(count, size // r, batch.symbols.shape[1])
        for row in range(count):
            length, symbols = int(batch.frame_lengths[row]), int(batch.symbol_lengths[row])
            steps = -(-length // r)
            weights[row, :steps, :symbols] = self.attention(steps, symbols)
            stop = self.stop(length)
            if 0 <= stop < size:
                logits[row, stop] = 9.0
        return Predicted(before, before, logits, weights)

    def speak(self, symbols: Tensor, lengths: Tensor, *, max_frames: Tensor, **_: Any) -> Spoken:
        r = self.model.architecture.reduction_factor
        frames = [int(limit) // 2 for limit in max_frames]  # as long as the recording
        said = torch.tensor([self.stop(length) + 1 for length in frames])
        stopped = said > 0
        said = torch.where(stopped, said, max_frames)
        steps = -(-said // r)
        weights = torch.zeros(len(symbols), int(steps.max()), symbols.shape[1])
        for row, length in enumerate(lengths.tolist()):
            weights[row, : int(steps[row]), :length] = self.attention(int(steps[row]), length)
        made = torch.zeros(len(symbols), int(said.max()), self.model.architecture.mels)
        return Spoken(made, said, weights, stopped)


def diagonal(steps: int, symbols: int) -> Tensor:
    place = (torch.arange(steps) * symbols / steps).long()
    return torch.nn.functional.one_hot(place, symbols).float()


def stuck(steps: int, symbols: int) -> Tensor:
    weights = torch.zeros(steps, symbols)
    weights[:, 0] = 1.0
    return weights


def measured(
    work: Session, monkeypatch: pytest.MonkeyPatch, attention: Any, stop: Any
) -> dict[str, float]:
    model = work.new_model()
    known = Known(model, attention, stop)
    monkeypatch.setattr(module, "teacher_forced", known.forced)
    monkeypatch.setattr(model, "speak", known.speak)
    return evaluate(model, work.data, work.params.train).values


def test_a_perfect_reader_is_perfect(work: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    values = measured(work, monkeypatch, diagonal, lambda length: length - 1)
    assert values[names.VAL_MEL_LOSS] == 0.0
    for name in (names.GATE_RECALL, names.GATE_PRECISION, names.GATE_F1):
        assert values[name] == 1.0
    assert values[names.GATE_FRAMES_OFF] == 0.0
    for prefix in ("", names.FORCED):
        assert values[prefix + names.ATTENTION_FOCUS] == 1.0
        assert values[prefix + names.ATTENTION_ENTROPY] == 0.0
        assert values[prefix + names.ATTENTION_MONOTONICITY] == 1.0
        assert values[prefix + names.ATTENTION_COVERAGE] == 1.0
        assert values[prefix + names.ATTENTION_SCORE] > 0.9
        assert values[prefix + names.ALIGNED_SHARE] == 1.0
    assert values[names.PREMATURE_STOPPING] == values[names.RUNAWAY_SHARE] == 0.0
    assert values[names.MEL_VARIANCE_RATIO] == 0.0  # it speaks one constant frame


def test_a_reader_who_is_stuck_and_never_stops(
    work: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = measured(work, monkeypatch, stuck, lambda _length: -1)
    lengths = [int(length) for batch in work.data.validation for length in batch.frame_lengths]
    assert values[names.GATE_RECALL] == values[names.GATE_PRECISION] == values[names.GATE_F1] == 0.0
    assert values[names.GATE_FRAMES_OFF] == pytest.approx(np.mean(lengths))
    assert values[names.FORCED + names.ATTENTION_FOCUS] == 1.0
    assert values[names.FORCED + names.ATTENTION_COVERAGE] < 0.5
    assert values[names.FORCED + names.ATTENTION_MONOTONICITY] == 0.0
    assert values[names.RUNAWAY_SHARE] == 1.0
    assert values[names.PREMATURE_STOPPING] == 0.0
    for name in names.ATTENTION:  # a sentence that never ended counts as not read
        assert values[name] == 0.0


def test_a_reader_who_stops_halfway(work: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    values = measured(work, monkeypatch, diagonal, lambda length: length // 2)
    lengths = [int(length) for batch in work.data.validation for length in batch.frame_lengths]
    off = np.mean([length - 1 - length // 2 for length in lengths])
    assert values[names.GATE_FRAMES_OFF] == pytest.approx(off)
    assert values[names.GATE_RECALL] == 0.0
    assert values[names.PREMATURE_STOPPING] == 1.0


def test_stops_are_looked_for_up_to_the_end_of_the_last_step_only() -> None:
    logits = torch.full((4, 12), -5.0)
    logits[0, 4] = logits[1, 5] = logits[2, 6] = 5.0  # of 5 frames in steps of 3, 6 count
    logits[3, 2:5] = 5.0
    stops = predicted_stops(logits, torch.tensor([5, 5, 5, 5]), 3, 0.5)
    assert stops.tolist() == [4, 5, -1, 2]
    assert predicted_stops(logits, torch.tensor([5] * 4), 3, 0.999).tolist() == [-1] * 4


@pytest.mark.parametrize("training", [True, False])
def test_an_evaluation_changes_nothing(work: Session, training: bool) -> None:
    model = new_model(work).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first = evaluate(model, work.data, work.params.train)
    read_example(model, work.data, work.params.train)
    assert torch.equal(torch.rand(4), expected)
    assert model.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    torch.manual_seed(4)
    again = evaluate(model, work.data, work.params.train)
    assert again.values == first.values
    assert again.scores == first.scores


def test_the_mode_is_given_back_when_an_evaluation_fails(
    work: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = new_model(work).train()

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model, "speak", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        evaluate(model, work.data, work.params.train)
    assert model.training


@pytest.mark.filterwarnings("error")
def test_a_model_that_diverged_is_measured_and_is_no_best(work: Session) -> None:
    model = new_model(work)
    with torch.no_grad():
        for parameter in model.postnet.parameters():
            parameter.fill_(float("nan"))
    found = evaluate(model, work.data, work.params.train)
    assert math.isnan(found.values[names.VAL_MEL_LOSS])
    assert math.isnan(found.quality)


def test_the_example_is_the_first_of_the_fixed_sentences(work: Session) -> None:
    model = new_model(work)
    ours = read_example(model, work.data, work.params.train)
    theirs = evaluate(model, work.data, work.params.train).example
    assert ours.text == theirs.text == work.data.spoken[0].model_text
    for name in ("attention", "spoken", "forced", "truth"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=2e-5)
    assert ours.truth.shape == ours.forced.shape
    assert ours.attention.shape[1] == len(ours.text) + 1  # and the end


def test_every_loss_of_the_objective_is_among_the_figures(dataset: Dataset, tmp_path: Path) -> None:
    quality = prepared(dataset, tmp_path, preset="quality")
    values = evaluate(quality.new_model(), quality.data, quality.params.train).values
    for part in ("spectral", "perceptual", "style", "monotonic", "guided_attention"):
        assert math.isfinite(values[names.val_loss(part)])


def test_the_speaker_reaches_the_model(work: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = new_model(work), []
    forward, speak = model.forward, model.speak
    monkeypatch.setattr(
        model, "forward", lambda *a, **k: (seen.append(k["speakers"]), forward(*a, **k))[1]
    )
    monkeypatch.setattr(
        model, "speak", lambda *a, **k: (seen.append(k["speakers"]), speak(*a, **k))[1]
    )
    evaluate(model, work.data, work.params.train)
    expected = [batch.speakers for batch in work.data.validation]
    assert len(seen) == len(expected) + 2  # sentences read aloud, and the example
    assert seen[0] is expected[0]
