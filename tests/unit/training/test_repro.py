"""A recorded run is repeated, and what it logged comes out again, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kamerton.cli.main import exit_code
from kamerton.core.errors import PipelineError
from kamerton.core.files import write_json
from kamerton.core.stop import StopRequest
from kamerton.data.manifest import Dataset
from kamerton.tracking import RunDirectory
from kamerton.training.repro import reproduce
from kamerton.training.session import Session, fixed_threads
from tests.tiny_corpus import tiny_params, write_tiny_dataset


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run of six steps, each logged, of the quality preset."""
    folder = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kamerton.training.fingerprint.code_digest", lambda: "fixed")
        params = tiny_params(
            max_steps=6, eval_interval_steps=6, preset="quality",
            monitoring={"log_interval_steps": 1},
        )  # fmt: skip
        dataset = Dataset.open(write_tiny_dataset(folder / "dataset"))
        with fixed_threads(params.train) as threads:
            work = Session.prepare(
                dataset, 50, params, runs=folder / "runs", threads=threads, trial=False
            )
            run = work.find_run(resume=False, anew=True)
            work.train(run, stop=StopRequest())
    return run


@pytest.fixture(autouse=True)
def _fixed_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kamerton.training.fingerprint.code_digest", lambda: "fixed")


def test_it_is_equal_bit_for_bit_and_leaves_no_trace(recorded: RunDirectory) -> None:
    before = sorted(path.name for path in recorded.path.parent.iterdir())
    told: list[tuple[float, float]] = []
    result = reproduce(
        recorded, steps=4, on_progress=lambda done, total, note="": told.append((done, total))
    )
    assert result.equal
    assert result.compared_steps == (1, 2, 3, 4)
    assert result.compared_values > 4 * 5
    assert told[-1] == (4, 4)
    assert not result.surroundings
    assert sorted(path.name for path in recorded.path.parent.iterdir()) == before


def copied(recorded: RunDirectory, folder: Path) -> RunDirectory:
    """The same run elsewhere, to be changed."""
    import shutil

    shutil.copytree(recorded.path, folder / recorded.path.name)
    return RunDirectory(folder / recorded.path.name)


def test_the_first_figure_that_differs_is_named(
    recorded: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(recorded, tmp_path)
    lines = run.metrics_file.read_text().splitlines()
    for index, line in enumerate(lines):
        record = json.loads(line)
        if record["step"] == 3 and "train_loss" in record.get("values", {}):
            record["values"]["train_loss"] *= 1 + 2**-40  # the last bits
            lines[index] = json.dumps(record)
    run.metrics_file.write_text("\n".join(lines) + "\n")
    code = exit_code(["runs", "repro", "last", "--runs", str(tmp_path), "--steps", "3", "-q"])
    assert code == 1
    assert "at step 3, train_loss is" in capsys.readouterr().err


def test_other_data_are_refused_and_other_surroundings_reported(
    recorded: RunDirectory, tmp_path: Path
) -> None:
    run = copied(recorded, tmp_path)
    origin = json.loads((run.path / "origin.json").read_text())
    write_json(run.path / "origin.json", origin | {"torch": "1.0", "code": "another"})
    result = reproduce(run, steps=1)
    assert result.equal
    assert {difference.what for difference in result.surroundings} == {"torch", "code"}
    assert set(result.as_json()["surroundings"]) == {"torch", "code"}
    write_json(run.path / "origin.json", origin | {"content_sha256": "1" * 64})
    with pytest.raises(PipelineError, match="holds other data than the run had"):
        reproduce(run, steps=1)


def test_a_record_without_figures_of_these_steps_is_refused(
    recorded: RunDirectory, tmp_path: Path
) -> None:
    run = copied(recorded, tmp_path)
    run.metrics_file.write_text("")
    with pytest.raises(PipelineError, match="no figures of the first 2 steps"):
        reproduce(run, steps=2)


def test_the_dataset_may_have_moved(recorded: RunDirectory, tmp_path: Path) -> None:
    run = copied(recorded, tmp_path)
    origin = json.loads((run.path / "origin.json").read_text())
    write_json(run.path / "origin.json", origin | {"dataset": str(tmp_path / "gone")})
    assert reproduce(run, steps=1, dataset=Path(origin["dataset"])).equal
