"""The compiled pipeline really runs, without containers: eight stages, typed artifacts, metrics.

Kubeflow's own local runner reads the package that a cluster would get and runs each container's
command as a child process, in a process of its own.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from kamerton.stages.spec import STAGES, StageSpec

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'kamerton[kubeflow]'")
pytest.importorskip("espeakng_loader", reason="the demo extra is not installed")

ROOT = Path(__file__).parents[2]
RECOGNISER = ROOT / "assets/toy-whisper/toy.pt"

# Enough for every stage to do its work, not enough for a voice that speaks: the verdict is no.
OVERRIDES = {
    "transcribe.temperatures": "[0.0]",
    "dataset.test_fraction": 0.2,
    "dataset.val_fraction": 0.2,
    "dataset.block_seconds": 4,
    "tune.trials": 1,
    "tune.trial_steps": 2,
    "train.max_steps": 6,
    "train.batch_size": 4,
    "train.eval_interval_steps": 3,
    "train.checkpoint_interval_steps": 3,
    "train.model.symbol_embedding": 32,
    "train.model.encoder_embedding_dim": 32,
    "train.model.attention_rnn_dim": 32,
    "train.model.decoder_rnn_dim": 32,
    "train.model.prenet_dim": 16,
    "train.model.postnet_dim": 32,
    "train.model.reduction_factor": 8,
    "evaluate.max_items": 2,
    "evaluate.bootstrap_samples": 100,
    "evaluate.griffin_lim_iterations": 2,
}


@dataclass(frozen=True)
class Outcome:
    """A finished run: its tasks' folders, what the command printed, and what lay around it."""

    result: dict[str, Any]
    package: Path
    project: Path

    def folder(self, stage: str) -> Path:
        return Path(self.result[stage]["folder"])

    def artifacts(self, stage: str) -> Any:
        """The executor output: what Kubeflow would merge into its records."""
        text = (self.folder(stage) / "executor_output.json").read_text(encoding="utf-8")
        return json.loads(text)["artifacts"]


def kamerton(
    *arguments: object, cwd: Path, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kamerton", *(str(argument) for argument in arguments)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    from kamerton.demo.corpus import make_corpus

    project = tmp_path_factory.mktemp("project")
    make_corpus(project / "raw", project / "truth", minutes=0.8)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["transcribe"]["model"] = str(RECOGNISER)
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    overrides = [text for name, value in OVERRIDES.items() for text in ("--set", f"{name}={value}")]
    # The project's pipeline.py and components/ are used from where they are.
    for name in ("pipeline.py", "components"):
        (project / name).symlink_to(ROOT / name)
    package = project / "pipeline.yaml"
    compiled = kamerton("pipeline", "compile", "-o", package, *overrides, cwd=project)
    assert compiled.returncode == 0, compiled.stderr
    done = kamerton(
        *("pipeline", "run", "--package", package, "--recordings", "raw", "--json"), cwd=project
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return Outcome(json.loads(done.stdout), package, project)


def test_eight_tasks_succeeded(outcome: Outcome) -> None:
    assert set(outcome.result) == set(STAGES)


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda stage: stage.name)
def test_every_artifact_is_there_and_has_its_type(outcome: Outcome, stage: StageSpec) -> None:
    spec = next(yaml.safe_load_all(outcome.package.read_text(encoding="utf-8")))
    declared = spec["components"][f"comp-{stage.name}"]["outputDefinitions"]["artifacts"]
    written = outcome.artifacts(stage.name)
    assert set(written) == set(declared) == {port.name for port in stage.outputs} | {"metrics"}
    for port in stage.outputs:
        (artifact,) = written[port.name]["artifacts"]
        assert declared[port.name]["artifactType"]["schemaTitle"] == f"system.{port.kind}"
        path = Path(artifact["uri"])
        assert path == outcome.folder(stage.name) / port.name
        # A folder where the port is a folder, a file where it has a suffix; neither is empty.
        assert path.is_file() if Path(port.default).suffix else any(path.iterdir())
        assert artifact["metadata"]["stage"] == stage.name


@pytest.mark.parametrize("stage", STAGES)
def test_metrics_are_in_the_metadata(outcome: Outcome, stage: str) -> None:
    (artifact,) = outcome.artifacts(stage)["metrics"]["artifacts"]
    assert artifact["metadata"]
    assert all(isinstance(value, int | float) for value in artifact["metadata"].values())
    assert artifact["metadata"] == outcome.result[stage]["metrics"]


@pytest.mark.parametrize(
    "stage", [s.name for s in STAGES.values() if "report" in [p.name for p in s.ports]]
)
def test_reports_are_whole_pages(outcome: Outcome, stage: str) -> None:
    """Kubeflow shows the file itself, inside a frame: nothing outside it can be loaded."""
    page = (outcome.folder(stage) / "report").read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert 'src="http' not in page
    assert "<link" not in page


def test_parameters_reached_the_stages(outcome: Outcome) -> None:
    """Given when compiling, seen by the training run: six steps, not the demo's hundreds."""
    (run,) = (outcome.project / "runs").glob("*/params.yaml")  # the trials' are further down
    assert yaml.safe_load(run.read_text(encoding="utf-8"))["train"]["max_steps"] == 6


def test_a_voice_that_does_not_speak_is_not_promoted(outcome: Outcome) -> None:
    promotion = json.loads((outcome.folder("promote") / "promotion").read_text(encoding="utf-8"))
    assert promotion["verdict"] == "rejected"
    assert promotion["reasons"]


def test_a_failed_stage_fails_the_run(tmp_path: Path, outcome: Outcome) -> None:
    """Nothing to cut: the first stage stops, and so does the command."""
    (tmp_path / "raw").mkdir()
    done = kamerton(
        "pipeline", "run", "--package", outcome.package, "--recordings", "raw", cwd=tmp_path
    )
    assert done.returncode == 1
    assert "Inner task failed: 'segment'" in done.stderr
    assert not list(tmp_path.glob("pipeline-runs/*/segment/executor_output.json"))
