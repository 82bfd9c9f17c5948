"""dvc.yaml against the table of stages, and one real `dvc repro` of the graph it describes."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kamerton.config.schema import SECTIONS
from kamerton.stages.spec import STAGES, StageSpec

ROOT = Path(__file__).parents[2]
PROJECT = ("dvc.yaml", ".dvcignore", ".gitignore")

# Writes what the stage would, and a line for each call; the arguments are those of the table.
STAND_IN = """#!{python}
import sys
from pathlib import Path
from kamerton.stages.spec import STAGES

arguments = sys.argv[1:]
stage = STAGES[arguments[0]]
for port in stage.inputs:
    assert Path(arguments[arguments.index(port.option) + 1]).exists(), port
for port in stage.outputs:
    path = Path(arguments[arguments.index(port.option) + 1])
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix:
        path.write_text(stage.name)
    else:
        path.mkdir()
        (path / "metrics.json").write_text('{{"wer": 0.5}}')
with Path({calls!r}).open("a") as file:
    file.write(stage.name + "\\n")
"""


@pytest.fixture(scope="module")
def stages() -> Any:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def paths(entries: list[Any]) -> list[str]:
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def test_the_stages_are_those_of_the_table_in_its_order(stages: Any) -> None:
    assert list(stages) == list(STAGES)


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda stage: stage.name)
def test_a_stage_runs_its_command_on_its_ports(stages: Any, stage: StageSpec) -> None:
    program, name, *arguments = shlex.split(stages[stage.name]["cmd"])
    assert (program, name) == ("kamerton", stage.name)
    expected = [text for port in stage.ports for text in (port.option, port.default)]
    if "runs" in stage.options:
        expected += ["--runs", "runs"]
    # DVC takes every code but 0 for a failure: one unreadable recording must not end the night.
    assert arguments == [*expected, "--allow-partial"]


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda stage: stage.name)
def test_a_stage_declares_what_it_reads_and_writes(stages: Any, stage: StageSpec) -> None:
    declared = stages[stage.name]
    assert declared["deps"] == [port.default for port in stage.inputs]
    assert paths(declared["outs"]) == [port.default for port in stage.outputs]
    assert declared["params"] == list(stage.sections)


def test_the_parameter_file_has_every_section_that_dvc_asks_for() -> None:
    """DVC stops at a section that params.yaml does not have, empty or not."""
    assert set(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))) >= set(SECTIONS)


def make_project(folder: Path) -> tuple[dict[str, str], Path]:
    """The project's own files, with a stand-in for the command; returns environment and calls."""
    calls = folder.with_name("calls")
    program = folder.with_name("bin") / "kamerton"
    program.parent.mkdir()
    program.write_text(STAND_IN.format(python=sys.executable, calls=str(calls)))
    program.chmod(0o755)
    for name in PROJECT:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")
    shutil.copy(ROOT / ".dvc/.gitignore", folder / ".dvc/.gitignore")
    (folder / "params.yaml").write_text("".join(f"{section}: {{}}\n" for section in SECTIONS))
    (folder / "data/raw").mkdir(parents=True)
    (folder / "data/raw/one.wav").write_bytes(b"sound")
    path = f"{program.parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"}
    return {**environment, "DVC_GLOBAL_CONFIG_DIR": str(folder.with_name("config"))}, calls


def test_dvc_runs_all_of_it_once_and_then_nothing(tmp_path: Path) -> None:
    pytest.importorskip("dvc", reason="dvc is not installed: pip install 'kamerton[pipeline]'")
    folder = tmp_path / "project"
    environment, calls = make_project(folder)

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    dvc = [sys.executable, "-m", "dvc"]
    run("git", "init", "--quiet")
    run(*dvc, "add", "data/raw")
    # What git ignores in data/ does not keep DVC from looking into it.
    assert "raw" in run(*dvc, "list", ".", "data", "--dvc-only").split()
    run(*dvc, "repro")
    assert calls.read_text().split() == list(STAGES)
    assert "0.5" in run(*dvc, "metrics", "show")
    # Nothing but the locks is new to git: DVC need not write ignore files of its own.
    untracked = run("git", "status", "--porcelain", "--untracked-files=all").split()[1::2]
    made = {"params.yaml", "dvc.lock", "data/raw.dvc"}
    assert set(untracked) == {*PROJECT, ".dvc/config", ".dvc/.gitignore", *made}

    calls.unlink()
    assert "up to date" in run(*dvc, "repro")
    assert not calls.exists()
    (folder / "params.yaml").write_text(
        "".join(f"{section}: {{}}\n" for section in SECTIONS).replace(
            "promote: {}", "promote: {min_items: 3}"
        )
    )
    run(*dvc, "repro")
    assert calls.read_text().split() == ["evaluate", "promote"]
