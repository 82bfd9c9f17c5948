"""The registry beside the runs: what is kept, what is replaced, and where it comes from."""

import math

import pytest

from kamerton.config.schema import Params
from kamerton.core.errors import PipelineError, UsageError
from kamerton.core.files import sha256_file, write_json
from kamerton.smart_tuner.registry import ModelRegistry, entry_of, register_best
from kamerton.tracking import RunDirectory, names
from kamerton.tracking.model_registry import (
    EVALUATION_TAG,
    MODEL_TAG,
)  # fmt: skip
from kamerton.tracking.model_registry import (
    ModelRegistry as MlflowRegistry,
)

CARD = {"content_sha256": "data"}
OFF = Params().with_overrides({"tracking": {"mlflow_uri": None}})


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def voice(folder, content):
    folder.mkdir()
    (folder / "best_model.safetensors").write_text(f"{content} safe")
    (folder / "best_model.pt").write_text(f"{content} torch")
    (folder / "model.json").write_text("{}")
    return folder


def a_run(runs, name="voice", parent=None):
    made = RunDirectory.create(runs, name=name, fingerprint="f" * 16, params={})
    write_json(made.path / "origin.json", {"code": "abc", "warm_start_sha256": parent})
    return made


def values(mel):
    return {names.VAL_MEL_LOSS: mel, names.ATTENTION_SCORE: 0.9}


def register(runs, content, mel, *, card=CARD, params=OFF, parent=None):
    run = a_run(runs, name=content, parent=parent)
    model = voice(runs / f"model of {content}", content)
    return register_best(run, model, values(mel), runs=runs, card=card, params=params)


def best_content(runs, entry):
    return (runs / "registry" / entry.key / "best_model.pt").read_text()


def test_a_voice_is_kept_with_where_it_comes_from(runs):
    entry = register(runs, "one", 0.5, parent="p" * 64)
    assert entry.stage == "staging"
    assert entry.quality == pytest.approx(0.6)
    assert entry.sha256 == sha256_file(runs / "model of one" / "best_model.safetensors")
    assert best_content(runs, entry) == "one torch"
    assert entry.lineage["dataset.sha256"] == "data"
    assert entry.lineage["run.id"] == entry.run
    assert entry.lineage["code.sha256"] == "abc"
    assert entry.lineage["parent.sha256"] == "p" * 64
    assert entry.lineage["seed"] == str(OFF.train.seed)
    assert len(entry.lineage["params.sha256"]) == 64
    assert ModelRegistry(runs / "registry").entries() == [entry]


def test_the_best_is_never_replaced_by_a_worse(runs):
    good, worse, better = (
        register(runs, name, mel) for name, mel in (("a", 0.5), ("b", 0.6), ("c", 0.4))
    )
    assert worse.stage == "none"
    assert best_content(runs, better) == "c torch"
    stages = {one.sha256: one.stage for one in ModelRegistry(runs / "registry").entries()}
    assert stages == {good.sha256: "none", worse.sha256: "none", better.sha256: "staging"}


def test_only_voices_of_one_dataset_and_one_kind_of_mel_are_compared(runs):
    one = register(runs, "a", 0.1)
    other = register(runs, "b", 0.9, card={"content_sha256": "other"})
    narrow = OFF.with_overrides({"audio": {"mel_channels": 40}})
    third = register(runs, "c", 0.9, params=narrow)
    assert {one.stage, other.stage, third.stage} == {"staging"}
    assert len({one.key, other.key, third.key}) == 3
    assert best_content(runs, one) == "a torch"


def test_equal_weights_are_listed_once(runs):
    first = register(runs, "a", 0.5)
    run, model = a_run(runs), runs / "model of a"
    again = register_best(run, model, values(0.5), runs=runs, card=CARD, params=OFF)
    assert again.registered == first.registered
    assert len(ModelRegistry(runs / "registry").entries()) == 1


def test_a_damaged_best_gives_way_even_to_a_worse(runs, caplog):
    good = register(runs, "a", 0.5)
    (runs / "registry" / good.key / "best_model.pt").write_text("cut")
    worse = register(runs, "b", 0.6)
    assert worse.stage == "staging"
    assert best_content(runs, worse) == "b torch"
    assert "damaged" in caplog.text


def test_a_voice_that_changes_while_it_is_copied_leaves_the_best(runs):
    good = register(runs, "a", 0.5)
    model = voice(runs / "new", "new")
    entry = entry_of(a_run(runs), model, values(0.1), card=CARD, params=OFF)
    (model / "best_model.pt").write_text("other")
    with pytest.raises(OSError, match="changed"):
        ModelRegistry(runs / "registry").keep(model, entry)
    assert best_content(runs, good) == "a torch"
    assert ModelRegistry(runs / "registry").entries() == [good]


def test_a_damaged_list_is_moved_aside(runs, caplog):
    register(runs, "a", 0.5)
    (runs / "registry" / "index.json").write_text("{")
    entry = register(runs, "b", 0.6)
    assert entry.stage == "none", "the best knows itself without the list"
    assert len(list((runs / "registry").glob("index.damaged-*.json"))) == 1
    assert "moved" in caplog.text


def test_one_voice_of_a_kind_is_production(runs):
    first, second = register(runs, "a", 0.5), register(runs, "b", 0.4)
    registry = ModelRegistry(runs / "registry")
    assert registry.set_stage(first.sha256[:10], "production").sha256 == first.sha256
    registry.set_stage(second.sha256, "production")
    stages = {one.run: one.stage for one in registry.entries()}
    assert stages == {first.run: "none", second.run: "production"}
    register(runs, "c", 0.3)
    stages = {one.run: one.stage for one in registry.entries()}
    assert stages[second.run] == "production", "only a person ends that"
    with pytest.raises(UsageError, match="0 voices"):
        registry.set_stage("xyz", "none")
    with pytest.raises(UsageError, match="3 voices"):
        registry.set_stage("", "none")


def test_trouble_is_told_and_ends_nothing(runs, caplog):
    run, model = a_run(runs), voice(runs / "voice", "a")
    (model / "best_model.pt").unlink()
    assert register_best(run, model, values(0.5), runs=runs, card=CARD, params=OFF) is None
    assert "was not registered" in caplog.text


def test_mlflow_gets_a_new_best_once_and_promote_takes_the_same_version(runs, mlflow_database):
    tracking = {"mlflow_uri": mlflow_database, "register_best": "best-of-registry-test"}
    params = Params().with_overrides({"tracking": tracking})
    entry = register(runs, "a", 0.5, params=params)
    assert entry.mlflow_version == "1"
    assert register(runs, "b", 0.6, params=params).mlflow_version == "", "no new best"
    listed = ModelRegistry(runs / "registry").entries()
    assert [one.mlflow_version for one in listed] == ["1", ""]
    mlflow = MlflowRegistry.of_name(params.tracking, "best-of-registry-test")
    found = mlflow.find_unevaluated(entry.sha256)
    assert found.tags["dataset.sha256"] == "data"
    assert (mlflow.folder(found, "model") / "best_model.pt").read_text() == "a torch"
    assert mlflow.champion() is None, "the alias is promote's"

    evaluation = runs / "evaluation"
    write_json(evaluation / "metrics.json", {})
    tags = {MODEL_TAG: entry.sha256, EVALUATION_TAG: "e"}
    promoted = mlflow.register(runs / "model of a", evaluation, tags=tags, metrics={"wer": 0.1})
    assert promoted.version == "1"
    assert promoted.identity == (entry.sha256, "e")
    assert (mlflow.folder(promoted, "evaluation") / "metrics.json").is_file()
    assert mlflow.find_unevaluated(entry.sha256) is None
    again = register_best(
        RunDirectory(runs / entry.run), runs / "model of a", values(0.5), runs=runs, card=CARD,
        params=params,
    )  # fmt: skip
    assert again.mlflow_version == "1"


def test_the_list_of_another_version_is_left_alone(runs, caplog):
    register(runs, "a", 0.5)
    index = runs / "registry" / "index.json"
    content = index.read_text().replace('"format": 1', '"format": 2')
    index.write_text(content)
    with pytest.raises(PipelineError, match="another version of kamerton"):
        ModelRegistry(runs / "registry").entries()
    assert register(runs, "b", 0.4) is None
    assert "another version" in caplog.text
    assert index.read_text() == content
    assert not list(index.parent.glob("*damaged*"))


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_figure_that_is_no_number_is_never_the_best(runs, caplog, number):
    assert register(runs, "a", number) is None
    assert "not finite" in caplog.text
    registry = ModelRegistry(runs / "registry")
    assert registry.entries() == []
    good = register(runs, "b", 0.5)
    home = runs / "registry" / good.key / "entry.json"  # as an earlier version kept it
    home.write_text(home.read_text().replace("0.6", "NaN"))
    assert register(runs, "c", 0.9).stage == "staging"
