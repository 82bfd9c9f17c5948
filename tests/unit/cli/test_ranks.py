"""The command line of a process that trains beside the main one: it says and locks nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kamerton.cli import main, stage_commands
from kamerton.core.files import file_lock
from kamerton.core.progress import silent


class Report:
    partial = False

    def metrics(self) -> dict[str, float]:
        return {"steps": 1.0}

    def summary(self) -> list[tuple[str, str]]:
        return [("steps", "1")]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def stage(**given: Any) -> Report:
        found.append(given)
        return Report()

    monkeypatch.setattr(stage_commands, "stage_function", lambda _name: stage)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("{}")
    return found


def ranked(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    for name, value in (("RANK", rank), ("WORLD_SIZE", 2)):
        monkeypatch.setenv(name, str(value))


def test_only_the_main_process_tells_of_a_training(
    calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ranked(monkeypatch, 0)
    assert main.exit_code(["train"]) == 0
    told = capsys.readouterr()
    assert "steps" in told.out
    assert "next:" in told.err
    ranked(monkeypatch, 1)
    assert main.exit_code(["train", "--json"]) == 0
    assert capsys.readouterr() == ("", "")
    assert calls[1]["on_progress"] is silent
    assert calls[0]["on_progress"] is not silent


def test_the_others_do_not_wait_for_the_lock_of_the_main_process(
    calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lock = tmp_path / "held.lock"
    monkeypatch.setattr(stage_commands.StageCall, "_lock", lambda _self: lock)
    ranked(monkeypatch, 1)
    with file_lock(lock):
        assert main.exit_code(["train"]) == 0
    assert len(calls) == 1


def test_other_stages_know_of_no_ranks(
    calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The environment may be that of a pod that runs one command after the other."""
    ranked(monkeypatch, 1)
    assert main.exit_code(["analyze"]) == 0
    assert "steps" in capsys.readouterr().out


def test_an_environment_that_makes_no_sense_is_a_usage_error(
    calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main.exit_code(["train"]) == 2
    assert "RANK=(unset)" in capsys.readouterr().err
    assert calls == []
