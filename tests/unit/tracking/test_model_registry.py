"""The registry on a real MLflow database: versions, the alias, and work that was cut off."""

import subprocess
import sys

import pytest

from kamerton.config.schema import PromoteParams, TrackingParams
from kamerton.core.errors import InputMissingError, ParamsError, ToolMissingError
from kamerton.tracking.model_registry import (
    EVALUATION_TAG,
    MODEL_TAG,
    PREVIOUS_TAG,
    ModelRegistry,
    RegistryError,
)


@pytest.fixture
def registry(mlflow_database, request):
    """A registered name of its own in the shared database."""
    name = f"voice-{abs(hash(request.node.nodeid)) % 10**9}"
    return ModelRegistry(mlflow_database, name=name, alias="champion", experiment="registry")


def tags(model="m1", evaluation="e1"):
    return {MODEL_TAG: model, EVALUATION_TAG: evaluation, "seed": "7"}


@pytest.fixture
def folders(tmp_path):
    for part in ("model", "evaluation"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "file.txt").write_text(part)
    return tmp_path / "model", tmp_path / "evaluation"


def register(registry, folders, **which):
    return registry.register(*folders, tags=tags(**which), metrics={"wer": 0.1})


def test_a_new_registry_has_no_champion(registry):
    assert registry.champion() is None
    assert registry.find("m1", "e1") is None


def test_no_database_is_made_just_by_looking(tmp_path):
    uri = f"sqlite:///{tmp_path}/none.db"
    registry = ModelRegistry(uri, name="v", alias="champion", experiment="x")
    assert registry.champion() is None
    assert registry.find("m", "e") is None
    assert not (tmp_path / "none.db").exists()


def test_a_version_keeps_its_files_and_tags(registry, folders):
    made = register(registry, folders)
    assert made.version == "1"
    assert made.identity == ("m1", "e1")
    found = registry.find("m1", "e1")
    assert found == made
    assert found.tags["seed"] == "7"
    assert (registry.folder(found, "model") / "file.txt").read_text() == "model"
    assert (registry.folder(found, "evaluation") / "file.txt").read_text() == "evaluation"


def test_registering_again_gives_the_same_version(registry, folders):
    assert register(registry, folders) == register(registry, folders)


def test_another_model_or_another_evaluation_is_another_version(registry, folders):
    versions = [
        register(registry, folders, **which).version
        for which in ({}, {"model": "m2"}, {"evaluation": "e2"})
    ]
    assert versions == ["1", "2", "3"]


def test_the_champion_is_what_was_crowned_last_and_knows_its_predecessor(registry, folders):
    first = register(registry, folders)
    registry.crown(first, previous=None)
    assert registry.champion().version == "1"
    second = register(registry, folders, model="m2")
    assert registry.champion().version == "1"
    registry.crown(second, previous=first)
    assert registry.champion().version == "2"
    assert registry.champion().tags[PREVIOUS_TAG] == "1"


def test_crowning_the_champion_again_does_not_make_it_its_own_predecessor(registry, folders):
    first = register(registry, folders)
    registry.crown(first, previous=None)
    registry.crown(first, previous=first)
    assert PREVIOUS_TAG not in registry.champion().tags


def test_a_deleted_champion_is_no_champion(registry, folders):
    first = register(registry, folders)
    registry.crown(first, previous=None)
    registry._client().delete_model_version(registry.name, first.version)
    assert registry.champion() is None


def test_a_registration_cut_off_before_its_version_is_finished_in_the_same_run(
    registry, folders, monkeypatch
):
    client = registry._client()
    with monkeypatch.context() as broken:
        broken.setattr(
            type(client), "create_model_version", lambda *_, **__: sys.exit("killed here")
        )
        with pytest.raises(SystemExit):
            register(registry, folders)
    assert registry.find("m1", "e1") is None
    made = register(registry, folders)
    assert made.version == "1"
    experiment = client.get_experiment_by_name("registry").experiment_id
    begun = client.search_runs([experiment], f"tags.mlflow.runName = 'promote {registry.name}'")
    assert [run.info.run_id for run in begun] == [made.run_id]


def test_files_that_are_gone_are_an_error_with_a_way_out(registry, folders):
    made = register(registry, folders)
    with pytest.raises(InputMissingError) as caught:
        registry.folder(made, "nothing")
    assert "version 1" in caught.value.hint


def test_a_server_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry = ModelRegistry("http://127.0.0.1:9", name="v", alias="champion", experiment="x")
    with pytest.raises(RegistryError, match=r"127\.0\.0\.1:9"):
        registry.champion()


def test_a_file_that_is_no_database_is_named(tmp_path):
    broken = tmp_path / "mlflow.db"
    broken.write_text("this is not a database, and long enough to be taken for none")
    registry = ModelRegistry(f"sqlite:///{broken}", name="v", alias="champion", experiment="x")
    with pytest.raises(RegistryError, match=r"mlflow\.db"):
        registry.champion()


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    (tmp_path / "mlflow.db").touch()  # made where the package is installed
    for module in ("mlflow", "mlflow.exceptions"):
        monkeypatch.setitem(sys.modules, module, None)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(ToolMissingError, match="mlflow"):
        ModelRegistry(uri, name="v", alias="champion", experiment="x").champion()


def test_without_mlflow_there_is_no_registry():
    with pytest.raises(ParamsError, match="mlflow_uri"):
        ModelRegistry.of(TrackingParams(mlflow_uri=None), PromoteParams())


def test_only_one_promotion_at_a_time(registry, tmp_path):
    program = (
        "import sys; from kamerton.tracking.model_registry import ModelRegistry\n"
        f"registry = ModelRegistry({registry.uri!r}, name='v', alias='champion', experiment='x')\n"
        "with registry.lock(): print('inside', flush=True)\n"
    )
    with registry.lock():
        other = subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert "waiting" in other.stderr.readline()
        assert other.poll() is None
    out, _ = other.communicate(timeout=30)
    assert out.strip() == "inside"
