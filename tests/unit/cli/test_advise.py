"""`kamerton runs advise` and `kamerton runs voices`."""

import json

import pytest

from kamerton.cli import main
from kamerton.config.schema import Params
from kamerton.smart_tuner.history import History
from kamerton.smart_tuner.registry import Entry, ModelRegistry
from kamerton.stages.analyze import analyze
from tests.clip_folder import make_dataset
from tests.unit.smart_tuner.outcomes import run_outcome


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset and its analysis, made without a history."""
    folder = tmp_path_factory.mktemp("advise")
    dataset = make_dataset(folder, clips=3)
    params = Params().with_overrides({"analyze": {"history": str(folder / "none.db")}})
    analyze(dataset, folder / "analysis.json", folder / "a.html", params)
    return dataset, folder / "analysis.json"


@pytest.fixture
def history(tmp_path, made):
    rule = json.loads(made[1].read_text())["rule_epochs"]
    outcome = run_outcome(
        "earlier", rule_epochs=rule, planned_epochs=float(rule), near_best_epochs=rule // 4
    )
    History(tmp_path / "history.db").add_run(outcome)
    return tmp_path / "history.db"


def told(capsys, *arguments):
    assert main.exit_code(["runs", "advise", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_it_explains_the_analysis_and_what_history_says_now(made, history, capsys):
    found = json.loads(told(capsys, made[1], "--history", history, "--json"))
    assert found["analysis"]["history"]["state"] == "absent"
    assert found["analysis"]["recommended_epochs"] == found["rule"]["recommended_epochs"]
    assert found["now"]["recommended_epochs"] < found["analysis"]["recommended_epochs"]
    assert found["now"]["history"]["lessons"][0]["source"] == "earlier"
    assert found["factors"]["size"] == "very_small"
    assert found["now"]["confidence"] > found["rule"]["confidence"]
    text = told(capsys, made[1], "--history", history)
    for part in ("in the analysis", "earlier (unlike by", "kamerton analyze --force", "confidence"):
        assert part in text


def test_without_history_nothing_differs(made, capsys):
    text = told(capsys, made[1])
    assert "no run has finished yet" in text
    assert "--force" not in text


def test_a_dataset_is_measured(made, history, capsys):
    setting = f"analyze.history={history}"
    found = json.loads(told(capsys, made[0], "-S", setting, "--json", "-q"))
    assert found["analysis"]["history"]["used_runs"] == 1
    assert found["analysis"]["recommended_epochs"] == found["now"]["recommended_epochs"]


def test_what_is_no_analysis_is_refused_with_a_fix(tmp_path, capsys):
    (tmp_path / "a.json").write_text('{"recommended_epochs": 5}')
    assert main.exit_code(["runs", "advise", str(tmp_path / "a.json")]) == 1
    told = capsys.readouterr().err
    assert "kamerton analyze --force" in told
    assert "it has no 'base_epochs'" in told
    assert "KeyError" not in told
    assert main.exit_code(["runs", "advise", str(tmp_path / "none.json")]) == 4


@pytest.mark.parametrize("lost", ["hours", "complexity", "confidence", "history"])
def test_an_analysis_that_lacks_something_is_told_in_words(made, tmp_path, capsys, lost):
    found = json.loads(made[1].read_text())
    del found[lost]
    (tmp_path / "a.json").write_text(json.dumps(found))
    assert main.exit_code(["runs", "advise", str(tmp_path / "a.json")]) == 1
    assert f"it has no '{lost}'" in capsys.readouterr().err


def test_it_is_said_that_there_are_no_voices(tmp_path, capsys):
    assert main.exit_code(["runs", "voices", "--runs", str(tmp_path)]) == 0
    assert "lists no voice yet" in capsys.readouterr().err


def test_voices_are_listed_and_given_a_stage(tmp_path, capsys):
    registry = ModelRegistry(tmp_path / "registry")
    entry = Entry(sha256="a" * 64, torch_sha256="b" * 64, key="k", quality=0.5, run="r", lineage={})
    registry.folder.mkdir()
    registry._write([entry])
    runs = ["--runs", str(tmp_path)]
    assert main.exit_code(["runs", "voices", *runs]) == 0
    assert "aaaaaaaaaaaa  k    0.5000  none" in capsys.readouterr().out
    assert main.exit_code(["runs", "voices", "aaa", "--stage", "production", "--json", *runs]) == 0
    assert json.loads(capsys.readouterr().out)[0]["stage"] == "production"
    assert main.exit_code(["runs", "voices", "aaa", *runs]) == 2
