import contextlib
import json
from dataclasses import dataclass

import pytest

from kamerton.cli import main, stage_commands
from kamerton.core.errors import GateNotMetError, InputMissingError, StoppedError


@dataclass
class Report:
    partial: bool = False

    def metrics(self):
        return {"clips": 3.0}

    def summary(self):
        return [("clips", "3")]


@pytest.fixture
def stage(monkeypatch, tmp_path):
    """Replace the stage functions by one of the test's; returns a setter."""
    monkeypatch.chdir(tmp_path)

    def put(function):
        monkeypatch.setattr(stage_commands, "stage_function", lambda _name: function)

    return put


def test_success_prints_the_result_and_the_next_command(stage, capsys):
    stage(lambda **_: Report())
    assert main.exit_code(["segment"]) == 0
    shown = capsys.readouterr()
    assert "clips  3" in shown.out
    assert "next: kamerton transcribe" in shown.err


@pytest.mark.parametrize(("arguments", "held"), [([], 1), (["--trial"], 0)])
def test_a_trial_does_not_wait_for_a_training_of_the_project(stage, monkeypatch, arguments, held):
    locks = []

    def lock(path):
        locks.append(path)
        return contextlib.nullcontext()

    monkeypatch.setattr(stage_commands, "file_lock", lock)
    stage(lambda **_: Report())
    assert main.exit_code(["train", *arguments]) == 0
    assert len(locks) == held


def test_json_is_all_that_stdout_holds(stage, capsys):
    stage(lambda **_: Report())
    assert main.exit_code(["segment", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "stage": "segment",
        "metrics": {"clips": 3.0},
        "partial": False,
        "outputs": {"clips": "data/clips", "report": "reports/segment.html"},
    }


@pytest.mark.parametrize(("arguments", "code"), [([], 7), (["--allow-partial"], 0)])
def test_partial_results_have_a_code_of_their_own(stage, arguments, code):
    stage(lambda **_: Report(partial=True))
    assert main.exit_code(["segment", *arguments]) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputMissingError("data/raw", produced_by="you"), 4),
        (GateNotMetError("too bad", hint="train longer"), 6),
        (StoppedError("stopped at step 3"), 75),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_codes_and_fixes_without_a_traceback(stage, capsys, error, code):
    def fail(**_):
        raise error

    stage(fail)
    assert main.exit_code(["segment", "--quiet"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err
    if code != 130:
        assert "error:" in shown.err
        assert "fix:" in shown.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nonsense"], 2),
        (["segment", "--nonsense"], 2),
        (["segment", "--recordings"], 2),
        (["segment", "-S", "nonsense"], 2),
        (["segment", "-S", "segment.nonsense=1"], 3),
        (["segment", "--params", "absent.yaml"], 4),
        (["segment", "--params-json", "segment", "["], 3),
        (["segment", "--executor-input", "["], 2),
        (["--version"], 0),
        (["--help"], 0),
    ],
)
def test_wrong_calls(stage, capsys, arguments, code):
    stage(lambda **_: Report())
    assert main.exit_code(arguments) == code
    capsys.readouterr()


def test_executor_output_is_written_last(stage, tmp_path, capsys):
    output = tmp_path / "out" / "executor.json"
    artifacts = {
        name: {
            "artifacts": [
                {"name": name, "uri": str(tmp_path / name), "type": {"schemaTitle": kind}}
            ]
        }
        for name, kind in (
            ("clips", "system.Dataset"),
            ("report", "system.HTML"),
            ("metrics", "system.Metrics"),
        )
    }
    request = json.dumps({"outputs": {"artifacts": artifacts, "outputFile": str(output)}})

    def run(clips, report, **_):
        assert not output.exists()
        clips.mkdir()
        report.write_text("page")
        return Report()

    stage(run)
    paths = ["--clips", str(tmp_path / "clips"), "--report", str(tmp_path / "report")]
    assert main.exit_code(["segment", *paths, "--executor-input", request, "--quiet"]) == 0
    written = json.loads(output.read_text())["artifacts"]
    assert written["metrics"]["artifacts"][0]["metadata"] == {"clips": 3.0}
    capsys.readouterr()


def test_params_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main.exit_code(["params", "check"]) == 4
    (tmp_path / "params.yaml").write_text("train:\n  seed: 7\n")
    assert main.exit_code(["params", "check"]) == 0
    capsys.readouterr()
    assert main.exit_code(["params", "show", "train.seed"]) == 0
    assert capsys.readouterr().out.split()[0] == "7"
    assert main.exit_code(["params", "show", "train", "--json", "-S", "train.seed=8"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 8
    assert main.exit_code(["params", "show", "trian"]) == 2
    assert main.exit_code(["params", "docs", "-o", "docs.md"]) == 0
    assert "`learning_rate`" in (tmp_path / "docs.md").read_text()
    capsys.readouterr()


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied", "out"),
        OSError(28, "No space left on device", "out"),
    ],
)
def test_what_the_system_refuses_has_a_message_and_a_fix(stage, capsys, error):
    def fail(**_):
        raise error

    stage(fail)
    assert main.exit_code(["segment", "--quiet"]) == 1
    shown = capsys.readouterr().err
    assert f"error: out: {error.strerror}." in shown
    assert "fix:" in shown


def test_a_wrong_call_has_a_fix(capsys):
    assert main.exit_code(["nonsense"]) == 2
    shown = capsys.readouterr().err
    assert "error: No such command 'nonsense'." in shown
    assert "fix:" in shown
    assert "--help` lists" in shown
