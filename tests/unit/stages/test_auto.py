"""Several stages in one go: what runs, in which order, with what, and what is kept."""

import json
import os
from dataclasses import replace

import pytest

from kamerton.config.schema import Params
from kamerton.config.yaml_source import read_yaml
from kamerton.core.errors import InputMissingError, ParamsError, StoppedError, UsageError
from kamerton.stages.auto import AutoPaths, ByHand, auto, with_values
from kamerton.tracking import RunDirectory

CARD = {"content_sha256": "d" * 64}


class Report:
    partial = False

    def __init__(self, name, run=None):
        self.name, self.run = name, run

    def metrics(self):
        return {"figure": 1.0}

    def summary(self):
        return [("did", self.name)]


class Stages:
    """Stages that write what the real ones would, and remember how they were called."""

    def __init__(self, places):
        self.places, self.calls, self.fail = places, [], {}
        self.seen_best_params = None

    def __call__(self, name, paths, params, *, force, options):
        self.calls.append((name, dict(paths), params, force, dict(options)))
        if name in self.fail:
            raise self.fail[name]
        return getattr(self, name)(paths, params, force)

    def analyze(self, paths, params, force):
        assert force, "an analysis that is out of date is replaced"
        content = {
            "dataset_sha256": CARD["content_sha256"], "recommended_epochs": 1200,
            "params": params.analyze.model_dump(mode="json"),
        }  # fmt: skip
        paths["analysis"].parent.mkdir(parents=True, exist_ok=True)
        paths["analysis"].write_text(json.dumps(content))
        paths["report"].write_text("page")
        return Report("analyze")

    def tune(self, paths, params, force):
        assert force
        paths["best_params"].write_text("train:\n  learning_rate: 0.001\n")
        return Report("tune")

    def train(self, paths, params, force):
        self.seen_best_params = read_yaml(paths["best_params"]).values
        assert not paths["model"].exists(), "the stage refuses to overwrite"
        paths["model"].mkdir(parents=True)
        (paths["model"] / "model.json").write_text(f"voice {len(self.calls)}")
        paths["report"].write_text(f"page {len(self.calls)}")
        run = RunDirectory.create(
            self.places.runs, name="v", fingerprint="f" * 16, params={}
        )  # fmt: skip
        run.write_status("finished", step=5)
        return Report("train", run.path)

    @property
    def names(self):
        return [call[0] for call in self.calls]


@pytest.fixture
def places(tmp_path, monkeypatch):
    from kamerton.stages import auto as module

    class Dataset:
        card = CARD

        @classmethod
        def open(cls, path):
            if not path.exists():
                raise InputMissingError(path, produced_by="dataset")
            return cls

    monkeypatch.setattr(module, "Dataset", Dataset)
    (tmp_path / "dataset").mkdir()
    fields = AutoPaths.__dataclass_fields__
    return AutoPaths(**{name: tmp_path / name for name in fields})


@pytest.fixture
def stages(places):
    return Stages(places)


def run(mode, stages, params=Params(), **options):  # noqa: B008
    said = []
    report = auto(mode, stages.places, params, run_stage=stages, say=said.append, **options)
    return report, said


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("auto", ["analyze", "tune", "train"]), ("train", ["analyze", "train"]),
        ("optimize", ["analyze", "tune"]),
    ],
)  # fmt: skip
def test_each_mode_runs_its_stages_in_order(stages, mode, expected):
    report, said = run(mode, stages)
    assert stages.names == expected == [done.name for done in report.stages]
    assert next(line for line in said if " of " in line and ":" in line) == (
        f"1 of {len(expected)}: analyze"
    )
    assert report.metrics() == {f"{name}/figure": 1.0 for name in expected}
    assert ("mode", mode) in report.summary()
    assert ("  did", expected[-1]) in report.summary()
    assert (stages.places.model.exists(), stages.places.best_params.exists()) == (
        "train" in expected, "tune" in expected
    )  # fmt: skip
    assert not report.partial


def test_training_needs_no_tuner(stages):
    run("train", stages)
    assert stages.seen_best_params == {}
    assert not stages.places.best_params.exists(), "nothing stands in the tuner's place"


def test_training_takes_what_an_earlier_search_found_and_says_so(stages):
    stages.places.best_params.write_text("train:\n  batch_size: 4\n")
    _, said = run("train", stages)
    assert stages.seen_best_params == {"train": {"batch_size": 4}}
    assert any("best_params is used" in line for line in said)


def test_an_analysis_of_this_dataset_is_kept_and_another_is_not(stages):
    run("optimize", stages)
    report, said = run("optimize", stages)
    assert stages.names == ["analyze", "tune", "tune"]
    assert report.stages[0].kept
    assert any("kept" in line for line in said)
    assert report.metrics()["analyze/recommended_epochs"] == 1200
    other = Params().with_overrides({"analyze": {"accent": True}})
    run("optimize", stages, other)
    assert stages.names[3:] == ["analyze", "tune"]
    run("optimize", stages, other, force=True)
    assert stages.names[5:] == ["analyze", "tune"]
    stages.places.analysis.write_text("{")
    run("optimize", stages, other)
    assert stages.names[7:] == ["analyze", "tune"]


def test_the_voice_stays_until_the_new_one_is_whole(stages):
    run("train", stages)
    before = (stages.places.model / "model.json").read_text()
    (stages.places.model / "old").write_text("")
    stages.fail["train"] = StoppedError("stopped at step 3")
    with pytest.raises(StoppedError) as caught:
        run("train", stages)
    assert caught.value.exit_code == 75
    assert "kamerton auto --mode train" in caught.value.hint
    assert (stages.places.model / "model.json").read_text() == before
    del stages.fail["train"]
    run("train", stages)
    assert (stages.places.model / "model.json").read_text() != before
    assert not (stages.places.model / "old").exists()
    assert stages.places.training_report.read_text().startswith("page")
    hidden = [path.name for path in stages.places.model.parent.glob(".*auto*")]
    assert hidden == []


def test_only_force_begins_a_training_anew(stages):
    run("train", stages)
    run("train", stages, force=True)
    forced = [call[3] for call in stages.calls if call[0] == "train"]
    assert forced == [False, True]


def test_a_stage_that_fails_ends_it(stages):
    stages.fail["tune"] = ParamsError("wrong", hint="right")
    with pytest.raises(ParamsError):
        run("auto", stages)
    assert stages.names == ["analyze", "tune"]


def test_values_by_hand_reach_the_stages_and_are_said_and_noted(stages, caplog):
    by_hand = ByHand(trials=7, epochs=20, batch_size=5)
    report, _ = run("auto", stages, by_hand=by_hand)
    for name, _paths, params, _force, _options in stages.calls:
        assert (params.tune.trials, params.train.epochs, params.train.batch_size) == (7, 20, 5)
        assert params.given == {"tune.trials", "train.epochs", "train.batch_size"}, name
    told = [text for name, text in report.summary() if name == "by hand"]
    assert told == [
        "tune.trials is 7 by hand, instead of 10 (tune.trials)",
        "train.epochs is 20 by hand, instead of the 1200 recommended",
        "train.batch_size is 5 by hand, instead of 32 (train.batch_size)",
    ]
    assert "override: train.epochs is 20" in caplog.text
    (made,) = [path for path in stages.places.runs.iterdir() if (path / "status.json").exists()]
    status = RunDirectory(made).status()
    assert (status.state, status.step) == ("finished", 5)
    assert status.facts["overrides"]["train.epochs"] == told[1]
    assert report.as_dict()["overrides"][1]["value"] == 20


def test_a_batch_size_by_hand_is_not_searched():
    plain = Params()
    space = {
        "train.batch_size": {"type": "choice", "choices": [8, 16]},
        "train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-3, "log": True},
    }
    searched = plain.with_overrides({"tune": {"search_space": space}})
    found = with_values(searched, ByHand(batch_size=4))
    assert set(found.tune.search_space) == {"train.learning_rate"}
    assert (
        found.tune.search_space["train.learning_rate"]
        == (searched.tune.search_space["train.learning_rate"])
    )
    assert with_values(plain, ByHand()) is plain


def test_what_was_set_before_stays_given():
    params = Params().marked_as_given(["train.learning_rate"])
    found = with_values(params, ByHand(epochs=3))
    assert found.given == {"train.learning_rate", "train.epochs"}


@pytest.mark.parametrize(
    ("mode", "by_hand", "option"),
    [("train", ByHand(trials=3), "--trials"), ("optimize", ByHand(epochs=3), "--epochs")],
)
def test_a_value_that_would_change_nothing_is_refused(stages, mode, by_hand, option):
    with pytest.raises(UsageError, match=option):
        run(mode, stages, by_hand=by_hand)
    assert stages.calls == []


def test_a_voice_in_the_place_of_the_dataset_is_refused(stages):
    wrong = replace(stages.places, model=stages.places.dataset)
    with pytest.raises(UsageError, match="which is read"):
        auto("train", wrong, Params(), run_stage=stages)


@pytest.mark.slow
def test_the_real_stages_make_a_voice_and_teach_the_next_recommendation(tmp_path):
    """Analysis and training in earnest, twice: the second finds its work done."""
    from kamerton.smart_tuner.history import History
    from kamerton.smart_tuner.registry import ModelRegistry
    from kamerton.stages import stage_function
    from kamerton.tracking import read_records
    from tests.tiny_corpus import tiny_params, write_tiny_dataset

    places = AutoPaths(**{name: tmp_path / name for name in AutoPaths.__dataclass_fields__})
    write_tiny_dataset(places.dataset)
    analysis = {"history": str(places.runs / "history.db"), "min_epochs": 1, "max_epochs": 50}
    params = tiny_params(max_steps=None, eval_interval_steps=2).with_overrides(
        {"analyze": analysis}
    )

    def run_stage(name, ports, stage_params, *, force, options):
        return stage_function(name)(**ports, params=stage_params, force=force, **options)

    for _ in range(2):
        report = auto("train", places, params, run_stage=run_stage, by_hand=ByHand(epochs=7))
    assert report.stages[0].kept
    assert dict(report.stages[1].summary)["run"].endswith("(was finished; exported again)")
    assert {path.name for path in places.model.iterdir()} >= {"model.json", "best_model.pt"}
    assert places.training_report.read_text("utf-8").startswith("<!doctype html>")
    (outcome,) = History(places.runs / "history.db").runs()
    assert outcome.planned_epochs == 7.0
    assert outcome.recommended_epochs == 50
    assert len(outcome.curve) >= 5
    (voice,) = ModelRegistry(places.runs / "registry").entries()
    assert (voice.run, voice.stage) == (outcome.run_id, "staging")
    records = read_records(places.runs / outcome.run_id / "metrics.jsonl")
    told = [record for record in records if record.name == "forecast"]
    assert len(told) == 1
    assert told[0].fields["low"] <= told[0].fields["final_quality"] <= told[0].fields["high"]
    assert any("forecast/low" in record.values for record in records)


def test_history_is_looked_for_beside_the_runs_unless_another_is_named(stages):
    run("optimize", stages)
    assert stages.calls[0][2].analyze.history == str(stages.places.runs / "history.db")
    for history in (None, "other.db"):
        params = Params().with_overrides({"analyze": {"history": history}})
        run("optimize", stages, params, force=True)
        assert stages.calls[-2][2].analyze.history == history
    given = Params().marked_as_given({"analyze.history"})
    run("optimize", stages, given, force=True)
    assert stages.calls[-2][2].analyze.history == "runs/history.db"
    run("optimize", stages, replace_runs := Params(), force=True)
    assert replace_runs.analyze.history == "runs/history.db"


def test_two_at_once_train_into_places_of_their_own(stages, monkeypatch):
    seen = []
    inner = stages.train

    def train(paths, params, force):
        seen.append(paths["model"])
        if len(seen) == 1:  # another process begins meanwhile
            other = os.getppid()
            monkeypatch.setattr("os.getpid", lambda: other)
            run("train", stages)
            assert seen[0].parent.is_dir()
            monkeypatch.undo()
        return inner(paths, params, force)

    stages.train = train
    run("train", stages)
    first, second = seen
    assert first.parent != second.parent
    assert not first.parent.exists()
    assert (stages.places.model / "model.json").is_file()
