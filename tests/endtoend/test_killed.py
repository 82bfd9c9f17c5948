"""A small project whose every stage is killed ends like one that nobody touched."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.endtoend.killing import STAGES, hashes, kill_each_stage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc"),
]

SMALL = {
    "tune": {"trials": 2, "trial_steps": 4},
    "train": {"max_steps": 60, "checkpoint_interval_steps": 5, "eval_interval_steps": 20},
    "promote": {"min_items": 1},
}


def _project(repository: Path, folder: Path) -> Path:
    from kamerton.config.schema import merge
    from kamerton.demo.corpus import make_corpus

    folder.mkdir()
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(repository / name, folder / name)
    (folder / "assets").symlink_to(repository / "assets")
    params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    (folder / "params.yaml").write_text(yaml.safe_dump(merge(params, SMALL)), encoding="utf-8")
    make_corpus(folder / "data/raw", folder / "data/truth", seed=7, minutes=2)
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "--quiet"], cwd=folder, check=True)
    return folder


def test_kill_every_stage_then_dvc(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    command = [sys.executable, "-m", "dvc", "repro"]
    untouched = _project(repository, tmp_path / "untouched")
    subprocess.run(command, cwd=untouched, check=True)

    killed = _project(repository, tmp_path / "killed")
    kills = kill_each_stage(command, killed, after_seconds=1.0, more_steps=10)
    assert [kill.target for kill in kills if kill.target.startswith("kamerton")] == [
        f"kamerton {stage}" for stage in STAGES
    ]
    assert all(kill.exit_code != 0 for kill in kills)
    subprocess.run(command, cwd=killed, check=True)
    assert hashes(killed) == hashes(untouched)
