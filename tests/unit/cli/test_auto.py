"""`kamerton auto` from the shell: its options, its exit codes and what it prints."""

import itertools
import json

import pytest

from kamerton.cli import auto as command
from kamerton.cli import main, stage_commands
from kamerton.core.errors import StoppedError
from kamerton.stages.auto import AutoReport, ByHand, Override, StageDone


@pytest.fixture
def called(monkeypatch):
    """What `auto` was called with; it reports one stage."""
    seen = {}

    def stub(mode, paths, params, **options):
        seen.update(mode=mode, paths=paths, params=params, **options)
        if "error" in seen:
            raise seen["error"]
        done = StageDone("analyze", 1.0, False, {"hours": 2.0}, (("hours", "2"),))
        return AutoReport(mode, (done,), (Override("train.epochs", 3, "the 1200 recommended"),))

    monkeypatch.setattr(command, "auto", stub)
    return seen


def test_options_reach_the_function(called, capsys):
    arguments = ["auto", "--mode", "train", "--epochs", "3", "--batch-size", "4", "--force"]
    places = ["--dataset", "my/set", "--runs", "my/runs", "-S", "train.seed=7"]
    assert main.exit_code([*arguments, *places, "-q"]) == 0
    assert (called["mode"], called["force"]) == ("train", True)
    assert called["by_hand"] == ByHand(None, 3, 4)
    assert str(called["paths"].dataset) == "my/set"
    assert str(called["paths"].runs) == "my/runs"
    assert str(called["paths"].analysis) == "data/analysis.json"
    assert str(called["paths"].model) == "models/voice"
    assert called["params"].train.seed == 7
    out = capsys.readouterr().out
    assert "train.epochs is 3 by hand, instead of the 1200 recommended" in out


def test_json_holds_stages_and_overrides(called, capsys):
    assert main.exit_code(["auto", "--json", "-q"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["stages"] == [{"name": "analyze", "seconds": 1.0, "kept": False}]
    assert told["metrics"] == {"analyze/hours": 2.0}
    assert told["overrides"][0]["name"] == "train.epochs"


def test_a_stop_ends_with_75(called, capsys):
    called["error"] = StoppedError("stopped at step 3")
    assert main.exit_code(["auto", "-q"]) == 75


@pytest.mark.parametrize("arguments", [["--mode", "other"], ["--trials", "0"], ["--epochs", "x"]])
def test_wrong_options_are_refused(called, arguments):
    assert main.exit_code(["auto", *arguments]) == 2
    assert called == {}


def test_a_dry_run_runs_nothing(called, capsys):
    assert main.exit_code(["auto", "--mode", "optimize", "--trials", "2", "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["stages"] == ["analyze", "tune"]
    assert told["by_hand"] == {"tune.trials": 2}
    assert called == {}


def test_stages_run_as_their_own_commands_do(called, monkeypatch, capsys):
    assert main.exit_code(["auto", "-q"]) == 0
    seen = {}

    def function(name):
        return lambda **given: seen.update(given, stage=name)

    monkeypatch.setattr(stage_commands, "stage_function", function)
    places = called["paths"]
    ports = {"dataset": places.dataset, "analysis": places.analysis, "report": places.tuning_report}
    called["run_stage"]("analyze", ports, called["params"], force=True, options={})
    assert seen["stage"] == "analyze"
    assert seen["force"] is True
    assert seen["dataset"] == places.dataset


def test_several_processes_are_sent_to_the_train_stage(called, monkeypatch, capsys):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert main.exit_code(["auto", "-q"]) == 2
    assert "torchrun" in capsys.readouterr().err
    assert called == {}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--mode", "train", "--trials", "2"], 2),
        (["--model", "data/dataset"], 2),
        (["-S", "tune.generations.count=5"], 3),
        (["-S", "tune.sampler=cma_es", "-S", 'tune.search_space={"train.seed": {"type": "x"}}'], 3),
        (["-S", "tracking.alerts.slack.enabled=true"], 3),
        (["-S", "train.batch_size=-1"], 3),
    ],
)
def test_a_dry_run_refuses_what_a_run_would(called, capsys, monkeypatch, arguments, code):
    monkeypatch.delenv("SLACK_WEBHOOK", raising=False)
    assert main.exit_code(["auto", "--dry-run", *arguments]) == code
    assert "fix:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["auto"], ["runs", "watch"], ["runs", "advise"], ["alerts", "test"]]
)
def test_help_fills_its_lines(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERMINAL_WIDTH", "100")
    assert main.exit_code([*command, "--help"]) == 0
    text = [line.strip() for line in capsys.readouterr().out.splitlines()]
    body = text[2 : next(i for i, line in enumerate(text) if line.startswith("╭"))]
    pairs = [(a, b) for a, b in itertools.pairwise(body) if a and b]
    for line, after in pairs:  # no line ends before the next word would not fit
        assert len(line) + 1 + len(after.split()[0]) > 90, line
