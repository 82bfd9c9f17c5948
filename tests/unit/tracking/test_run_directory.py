import multiprocessing
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from kamerton.core.errors import InputCorruptError, InputMissingError, UsageError
from kamerton.tracking import RunDirectory, find_runs, list_runs, newest_unfinished

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
FINGERPRINT = "0123456789abcdef"


def make(runs: Path, fingerprint: str = FINGERPRINT, *, minutes: int = 0) -> RunDirectory:
    return RunDirectory.create(
        runs,
        name="voice",
        fingerprint=fingerprint,
        params={"train": {"learning_rate": 0.001}},
        command=["kamerton", "train", "--set", "x.token=abcdefgh"],
        now=NOW + timedelta(minutes=minutes),
    )


def test_a_new_run_holds_what_it_was_started_with(tmp_path: Path) -> None:
    run = make(tmp_path / "runs")
    assert run.path.name == "20261120T120000Z-voice-01234567"
    assert yaml.safe_load((run.path / "params.yaml").read_text())["train"]["learning_rate"] == 0.001
    assert (run.path / "command.txt").read_text() == "kamerton train --set x.token=***\n"
    assert (run.path / "environment.json").is_file()
    status = run.status()
    assert (status.state, status.step, status.fingerprint) == ("running", 0, FINGERPRINT)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [run.path.name]


def test_runs_of_one_second_get_names_of_their_own(tmp_path: Path) -> None:
    names = [make(tmp_path).path.name for _ in range(3)]
    assert len(set(names)) == 3
    assert [run.path.name for run in list_runs(tmp_path)] == names[::-1]


def test_status_keeps_earlier_facts(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.write_status("running", step=10, best_step=5)
    run.write_status("stopped", step=20, reason="asked")
    status = run.status()
    assert (status.state, status.step, status.reason) == ("stopped", 20, "asked")
    assert status.facts == {"best_step": 5}
    assert status.started == NOW.isoformat()


def test_runs_are_found_by_fingerprint_and_state(tmp_path: Path) -> None:
    oldest, other, newest = (
        make(tmp_path),
        make(tmp_path, "fedcba9876543210", minutes=1),
        make(tmp_path, minutes=2),
    )
    assert list_runs(tmp_path) == [newest, other, oldest]
    assert find_runs(tmp_path, FINGERPRINT) == [newest, oldest]
    newest.write_status("finished", step=3)
    assert newest_unfinished(tmp_path, FINGERPRINT) == oldest
    assert newest_unfinished(tmp_path) == other
    oldest.write_status("finished", step=3)
    assert newest_unfinished(tmp_path, FINGERPRINT) is None
    assert list_runs(tmp_path / "nowhere") == []


def test_folders_that_are_no_runs_are_passed_over(tmp_path: Path) -> None:
    run = make(tmp_path)
    (tmp_path / "studies").mkdir()
    (tmp_path / ".half.partial-1").mkdir()
    broken = make(tmp_path, minutes=1)
    (broken.path / "status.json").write_text("{")
    assert list_runs(tmp_path) == [run]
    with pytest.raises(InputCorruptError):
        broken.status()
    with pytest.raises(InputMissingError):
        RunDirectory.open(tmp_path / "studies")


@pytest.mark.parametrize("field", [{"state": "sleeping"}, {"mood": "good"}])
def test_a_status_of_another_program_is_refused(tmp_path: Path, field: dict[str, str]) -> None:
    import json

    run = make(tmp_path)
    record = json.loads((run.path / "status.json").read_text()) | field
    (run.path / "status.json").write_text(json.dumps(record))
    with pytest.raises(InputCorruptError):
        run.status()


def test_a_run_is_held_by_one_process_and_free_when_that_is_killed(tmp_path: Path) -> None:
    run = make(tmp_path)
    code = (
        "import sys, time; from pathlib import Path; from kamerton.tracking import RunDirectory\n"
        "with RunDirectory(Path(sys.argv[1])).hold():\n print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    assert run.live
    with pytest.raises(UsageError, match="another process"), run.hold(wait_seconds=0.1):
        pass
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not run.live
    with run.hold(wait_seconds=0.0):
        assert run.live


def test_many_starts_at_once_make_as_many_runs(tmp_path: Path) -> None:
    # Threads share a process id, so only processes may start runs at once.
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        made = pool.map(_make_path, [tmp_path] * 6)
    assert len(set(made)) == 6
    assert len(list_runs(tmp_path)) == 6


def _make_path(runs: Path) -> str:
    return str(make(runs).path)
