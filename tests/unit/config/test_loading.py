import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kamerton.config.docs import reference
from kamerton.config.loading import leaves, load_params, nearest, parse_override
from kamerton.config.schema import Params
from kamerton.core.errors import InputMissingError, ParamsError, UsageError


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(project, text):
    (project / "params.yaml").write_text(text, encoding="utf-8")


def test_defaults_without_a_file(project):
    assert load_params() == Params()


def test_all_faults_at_once_with_file_and_line(project):
    write(
        project,
        "segment:\n  max_secnds: 3\n  min_seconds: abc\n"
        "train:\n  model:\n    reduction_factor: 0\n",
    )
    with pytest.raises(ParamsError) as caught:
        load_params(overrides=["trian.batch_size=3"])
    message = caught.value.message
    assert message.startswith("4 parameters are wrong")
    assert "params.yaml:2: unknown key 'segment.max_secnds'" in message
    assert "did you mean 'segment.max_seconds'?" in message
    assert "params.yaml:3: segment.min_seconds" in message
    assert "params.yaml:6: train.model.reduction_factor" in message
    assert "--set trian.batch_size=3" in message
    assert "'train'" in message
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: [", "params.yaml:"),
        ("- 1\n", "not a mapping"),
        ("train: {seed: 1}\ntrain: {seed: 2}\n", "given twice"),
        ("train:\n  seed: 1\n  seed: 2\n", "given twice"),
        ("train: 3\n", "params.yaml:1: train"),
    ],
)
def test_files_that_are_no_parameters(project, text, part):
    write(project, text)
    with pytest.raises(ParamsError) as caught:
        load_params()
    assert part in caught.value.message


def test_bytes_that_are_no_text(project):
    (project / "params.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ParamsError, match="cannot be read"):
        load_params()


def test_a_named_file_must_exist(project):
    with pytest.raises(InputMissingError):
        load_params(project / "other.yaml")


def test_overrides_win_in_order_and_are_yaml(project):
    write(project, "train:\n  batch_size: 8\n  seed: 5\n")
    params = load_params(
        overrides=["train.batch_size=16", "train.batch_size=24", "train.epochs=null"]
    )
    assert (params.train.batch_size, params.train.seed, params.train.epochs) == (24, 5, None)
    assert load_params(overrides=["train.learning_rate=1e-4"]).train.learning_rate == 1e-4


@pytest.mark.parametrize("text", ["train.batch_size", "=3", "a..b=1", "train.seed=[1"])
def test_overrides_of_another_form_are_refused(text):
    with pytest.raises(UsageError):
        parse_override(text)


def test_json_sections_replace_the_file(project):
    write(project, "train:\n  batch_size: 8\n")
    params = load_params(sections=[("train", json.dumps({"seed": 3.0, "epochs": 2.0}))])
    assert (params.train.batch_size, params.train.seed, params.train.epochs) == (32, 3, 2)


@pytest.mark.parametrize(("section", "text"), [("trian", "{}"), ("train", "["), ("train", "3")])
def test_json_sections_of_another_form_are_refused(section, text):
    with pytest.raises(ParamsError):
        load_params(sections=[(section, text)])


def test_every_default_survives_a_round_trip_through_yaml_and_json(project):
    values = Params().model_dump(mode="json")
    write(project, yaml.safe_dump(values))
    assert load_params() == Params()
    sections = [(name, json.dumps(section)) for name, section in values.items()]
    assert load_params(sections=sections) == Params()


def test_numbers_are_those_of_yaml_1_2(project):
    write(project, "train:\n  learning_rate: 1e-4\n")
    assert load_params().train.learning_rate == 1e-4


def test_the_nearest_name_is_found():
    assert nearest("train.batchsize") == "train.batch_size"
    assert nearest("learning_rate") == "train.learning_rate"
    assert nearest("zzzzzzzz") is None


def test_every_parameter_says_what_it_does():
    text = reference()
    for leaf in leaves():
        assert len(leaf.description) > 10, leaf.name
        assert f"`{leaf.name.partition('.')[2]}`" in text


@given(st.text(max_size=200))
def test_no_text_crashes_the_reader(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        load_params(path)
    except ParamsError as error:
        assert str(path) in error.message  # noqa: PT017 - the absence of other errors is the test


_KEYS = st.sampled_from(["train", "audio", "seed", "model"])
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_TREES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner)
)


@given(_TREES)
def test_no_value_crashes_validation(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    path.write_text(yaml.safe_dump({"train": value}))
    try:
        assert isinstance(load_params(path), Params)
    except ParamsError as error:
        assert error.exit_code == 3  # noqa: PT017


def test_a_file_that_holds_itself_is_refused(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("train: &x\n  model: *x\n")
    with pytest.raises(ParamsError, match="nested too deeply"):
        load_params(file)
