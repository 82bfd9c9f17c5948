"""Data stages killed at random moments end as if nobody had touched them, and lose little work."""

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kamerton.core.files import sha256_file, sha256_tree
from kamerton.core.workers import usable_cores
from tests.dvc_project import environment_for
from tests.endtoend.killing import run_and_kill

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc"),
]

SEED = 20261120
OUTPUTS = ("data/clips", "data/transcripts.jsonl", "data/dataset", "data/analysis.json", "reports")
# Kill once so much more of a stage is in the cache (and a random moment later): ten recordings,
# whose clips are a window each. Waits are short, because on an idle machine so is what is left.
MOMENTS = {"segment": (1, 1, 1), "transcribe": (1, 2, 2)}
LONGEST_WAIT_SECONDS = 0.05

Entries = dict[Path, int]


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAMERTON_CACHE", raising=False)
    for name, value in environment_for(tmp_path / "project").items():
        monkeypatch.setenv(name, value)


def make_project(repository: Path, folder: Path, recordings: Path) -> Path:
    folder.mkdir()
    for name in ("dvc.yaml", ".dvcignore", "params.yaml"):
        shutil.copy(repository / name, folder / name)
    (folder / "assets").symlink_to(repository / "assets")
    shutil.copytree(recordings, folder / "data/raw")
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "--quiet"], cwd=folder, check=True)
    return folder


def repro(stage: str) -> list[str]:
    return [sys.executable, "-m", "dvc", "repro", stage]


def finished(project: Path) -> Entries:
    """Entries of the work cache, and when anything beside each was last begun or ended.

    Work on an entry begins with a hidden folder beside it, which changes the folder of both: an
    entry that is made again cannot hide it, although it keeps its old content.
    """
    kept = [path for path in project.glob(".kamerton/*/??/*") if path.is_dir()]
    return {path: path.parent.stat().st_mtime_ns for path in kept if path.name[0] != "."}


def begun(project: Path) -> set[Path]:
    return {path for path in project.glob(".kamerton/*/??/.*") if path.is_dir()}


def untouched_since(project: Path, before: Entries) -> None:
    """No work that was finished then has been begun again."""
    now = finished(project)
    assert set(before) <= set(now)
    busy = {path.parent for path in set(now) - set(before)}
    for path, changed in before.items():
        if path.parent not in busy:
            assert now[path] == changed, path


def once(project: Path, count: int, seconds: float) -> Callable[[], bool]:
    """True so many seconds after so many entries were finished."""
    reached: list[float] = []

    def ready() -> bool:
        if len(finished(project)) >= count:
            reached.append(time.monotonic())
        return bool(reached) and time.monotonic() - reached[0] >= seconds

    return ready


def hashes(project: Path) -> dict[str, str]:
    paths = {name: project / name for name in OUTPUTS}
    return {n: sha256_tree(p) if p.is_dir() else sha256_file(p) for n, p in paths.items()}


def test_kill_segment_and_transcribe_at_random(repository: Path, tmp_path: Path) -> None:
    from kamerton.demo.corpus import make_corpus

    for part in range(2):
        make_corpus(tmp_path / f"raw/{part}", tmp_path / f"truth/{part}", seed=part, minutes=1.5)
    untouched = make_project(repository, tmp_path / "untouched", tmp_path / "raw")
    subprocess.run(repro("analyze"), cwd=untouched, check=True)

    killed = make_project(repository, tmp_path / "killed", tmp_path / "raw")
    chance, before, lost = random.Random(SEED), Entries(), set[Path]()
    for stage, moments in MOMENTS.items():
        for more in moments:
            wait_seconds = chance.uniform(0.0, LONGEST_WAIT_SECONDS)
            moment = once(killed, len(before) + more, wait_seconds)
            kill = run_and_kill(repro(stage), killed, ("kamerton", stage), moment)
            assert kill.exit_code != 0
            assert len(begun(killed) - lost) <= usable_cores()  # no more than was in flight
            untouched_since(killed, before)
            before, lost = finished(killed), begun(killed)
        subprocess.run(repro(stage), cwd=killed, check=True)
        untouched_since(killed, before)
        before = finished(killed)
    subprocess.run(repro("analyze"), cwd=killed, check=True)
    assert hashes(killed) == hashes(untouched)
    assert begun(killed) == set()  # nothing half-made stays
    assert set(finished(killed)) == {
        killed / path.relative_to(untouched) for path in finished(untouched)
    }
