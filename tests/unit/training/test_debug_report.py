"""Debug reports: every figure is what a plain computation gives, and the run does not notice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kamerton.core.stop import StopRequest
from kamerton.data.manifest import Dataset
from kamerton.tracking import RunDirectory, read_records
from kamerton.training.controls import Controls
from kamerton.training.data import TensorBatch
from kamerton.training.debug_report import (
    DebugReporter,
    as_markdown,
    gradient_norms,
    parameter_statistics,
)
from kamerton.training.hooks import LoopFacts
from kamerton.training.session import Session, fixed_threads
from kamerton.training.state import TrainState
from kamerton.training.step import Trainee, make_optimizer, train_step
from tests.tiny_corpus import tiny_params, write_tiny_dataset

CONTROLS = Controls(
    learning_rate=1e-3, clip_norm=0.5, guided_attention_weight=7.0,
    owners={"learning_rate": "phase", "clip_norm": "params", "guided_attention_weight": "phase"},
)  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.open(write_tiny_dataset(tmp_path_factory.mktemp("corpus") / "dataset"))


class Scene:
    """A model after one step, and its reporter."""

    def __init__(self, dataset: Dataset, folder: Path, *, interval: int = 5) -> None:
        params = tiny_params()
        self.work = Session.prepare(dataset, 50, params, runs=folder, threads=1, trial=True)
        self.model = self.work.new_model()
        train = self.work.params.train
        trainee = Trainee(self.model, make_optimizer(self.model, train), train, params.audio)
        batches = [self.batch()]
        self.result = train_step(trainee, batches, CONTROLS, step=0)
        self.run = RunDirectory.create(folder, name="voice", fingerprint="f" * 8, params={})
        self.reporter = DebugReporter(
            self.run, self.model, self.work.data, interval_steps=interval
        )  # fmt: skip

    def batch(self) -> TensorBatch:
        return self.work.data.tensors(self.work.dataset.rows("train")[:4])

    def facts(self, step: int) -> LoopFacts:
        return LoopFacts(
            step=step, total=100, state=TrainState(step=step), result=self.result,
            controls=CONTROLS,
        )  # fmt: skip


@pytest.fixture
def scene(dataset: Dataset, tmp_path: Path) -> Scene:
    return Scene(dataset, tmp_path)


def test_reports_come_every_so_many_steps_as_json_and_markdown(scene: Scene) -> None:
    for step in range(1, 12):
        scene.reporter.on_step(scene.facts(step))
    names = sorted(path.name for path in (scene.run.path / "debug").iterdir())
    assert names == [
        "step_00000005.json", "step_00000005.md", "step_00000010.json", "step_00000010.md",
    ]  # fmt: skip
    report = json.loads((scene.run.path / "debug" / names[0]).read_text())
    assert (report["step"], report["of"], report["applied"]) == (5, 100, True)
    assert report["loss"] == pytest.approx(float(scene.result.losses.total))
    guided = report["losses"]["guided_attention"]
    assert guided["weighted"] == pytest.approx(7.0 * guided["raw"])
    assert report["controls"]["learning_rate"] == {"value": 1e-3, "owner": "phase"}
    assert report["memory"]["most_resident_mb"] > 10
    markdown = (scene.run.path / "debug" / names[1]).read_text()
    assert markdown.startswith("# Step 5 of 100")
    for part in (*report["parameters"], *report["activations"], *report["grad_norms"]):
        assert f"| {part} |" in markdown


def test_gradient_norms_are_those_before_clipping(scene: Scene) -> None:
    norms = gradient_norms(scene.model, scene.result.grad_norm)
    assert scene.result.grad_norm > CONTROLS.clip_norm, "nothing would have been clipped"
    assert sum(norm**2 for norm in norms.values()) ** 0.5 == pytest.approx(scene.result.grad_norm)
    postnet = sum(
        float(parameter.grad.norm()) ** 2
        for parameter in scene.model.postnet.parameters() if parameter.grad is not None
    ) ** 0.5  # fmt: skip
    scale = scene.result.grad_norm / CONTROLS.clip_norm
    ours = sum(norm**2 for name, norm in norms.items() if name.startswith("postnet")) ** 0.5
    assert ours == pytest.approx(scale * postnet, rel=1e-4)


def test_gradients_that_are_not_finite_or_not_there_are_told(scene: Scene) -> None:
    parameter = scene.model.postnet.blocks[0].convolution.weight  # type: ignore[union-attr]
    parameter.grad[0] = float("nan")  # type: ignore[index]
    norms = gradient_norms(scene.model, float("nan"))
    assert norms["postnet.blocks"] != norms["postnet.blocks"]
    assert norms["encoder.lstm"] > 0
    scene.reporter.on_step(scene.facts(5))
    report = json.loads((scene.run.path / "debug" / "step_00000005.json").read_text())
    assert report["grad_norms"]["postnet.blocks"] == "nan"
    scene.model.zero_grad(set_to_none=True)
    assert gradient_norms(scene.model, 1.0) == {}
    assert "None." in as_markdown(scene.reporter.report(scene.facts(5)))


def test_weights_are_described_by_plain_statistics(scene: Scene) -> None:
    table = parameter_statistics(scene.model)
    assert set(table) == {name for name, _ in scene.model.named_parameters()}
    weight = scene.model.decoder.lstm.weight_hh_l0.detach().numpy()
    row = table["decoder.lstm.weight_hh_l0"]
    assert row["norm"] == pytest.approx((weight**2).sum() ** 0.5, rel=1e-4)
    assert row["mean"] == pytest.approx(weight.mean(), abs=1e-6)
    assert row["deviation"] == pytest.approx(weight.std(), rel=1e-4)
    assert row["largest"] == pytest.approx(abs(weight).max())


def test_activations_are_those_of_the_fixed_sentence(scene: Scene) -> None:
    table = scene.reporter.report(scene.facts(5))["activations"]
    batch = scene.work.data.tensors(scene.work.data.spoken[:1])
    model = scene.model.eval()
    with torch.no_grad():
        symbols = model.encoder.embedding(batch.symbols)
    assert table["encoder.embedding"]["mean"] == pytest.approx(float(symbols.mean()), abs=1e-6)
    assert table["encoder.embedding"]["largest"] == pytest.approx(float(symbols.abs().max()))
    assert {"encoder", "decoder.frames", "decoder.gate", "postnet"} <= table.keys()
    # Relu and dropout of the prenet leave zeros; a dead layer would show as all zeros.
    assert 0.2 < table["decoder.prenet"]["zeros"] < 1.0
    assert scene.reporter.report(scene.facts(5))["activations"] == table  # no noise of its own


def test_a_report_changes_nothing_and_draws_nothing(scene: Scene) -> None:
    scene.model.train()
    before = {name: value.clone() for name, value in scene.model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    scene.reporter.on_step(scene.facts(5))
    assert torch.equal(torch.rand(4), expected)
    assert scene.model.training
    assert all(torch.equal(v, before[n]) for n, v in scene.model.state_dict().items())
    assert not any(module._forward_hooks for module in scene.model.modules())


def test_the_newest_picture_of_attention_is_named(scene: Scene) -> None:
    scene.run.figures.mkdir()
    for step in (2, 4, 9):
        (scene.run.figures / f"attention-{step:08d}.png").write_bytes(b"")
    report = scene.reporter.report(scene.facts(5))
    assert report["attention_figure"] == "figures/attention-00000004.png"
    assert "![attention](../figures/attention-00000004.png)" in as_markdown(report)


def test_a_disk_that_does_not_take_reports_is_told_once_and_counted(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    (scene.run.path / "debug").write_text("in the way")
    for step in (5, 10, 15):
        scene.reporter.on_step(scene.facts(step))
    assert scene.reporter.trouble.count == 3
    assert len(caplog.records) == 1
    (scene.run.path / "debug").unlink()
    scene.reporter.on_step(scene.facts(20))
    assert (scene.run.path / "debug" / "step_00000020.md").exists()


def test_a_run_writes_reports_and_trains_the_same(dataset: Dataset, tmp_path: Path) -> None:
    def losses(folder: Path, interval: int) -> tuple[RunDirectory, list[Any]]:
        monitoring = {"debug_interval_steps": interval, "sample_interval_steps": 1000,
                      "figure_interval_steps": 6}  # fmt: skip
        params = tiny_params(monitoring=monitoring, max_steps=8)
        work = Session.prepare(dataset, 50, params, runs=folder, threads=1, trial=False)
        run = work.find_run(resume=False, anew=False)
        with fixed_threads(params.train), run.hold():
            work.train(run, stop=StopRequest())
        records = read_records(run.metrics_file)
        return run, [r.values["train_loss"] for r in records if "train_loss" in r.values]

    with_reports, ours = losses(tmp_path / "a", 4)
    without, theirs = losses(tmp_path / "b", 1000)
    assert ours == theirs
    assert len(list(with_reports.path.glob("debug/*.json"))) == 2
    assert not (without.path / "debug").exists()
    report = json.loads((with_reports.path / "debug" / "step_00000008.json").read_text())
    assert report["attention_figure"] == "figures/attention-00000006.png"
    assert "best" in [event["event"] for event in report["events"]]
