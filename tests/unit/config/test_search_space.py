import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from kamerton.config.loading import load_params, parse_override
from kamerton.config.schema import Params
from kamerton.config.search_space import (
    Dimension,
    lookup,
    nest,
    search_space_faults,
    yaml_text,
)
from kamerton.core.errors import ParamsError

# The specification's search space (document 002), letter for letter.
SPECIFICATION = """
learning_rate: {type: "loguniform", low: 1.0e-5, high: 1.0e-2}
weight_decay: {type: "loguniform", low: 1.0e-8, high: 1.0e-3}
encoder_embedding_dim: {type: "choice", choices: [256, 512]}
dropout_decoder: {type: "uniform", low: 0.0, high: 0.5}
batch_size: {type: "choice", choices: [24, 32, 48]}
mel_fmax: {type: "choice", choices: [7600, 8000, null]}
"""


def dimension(**fields: Any) -> Dimension:
    return Dimension.model_validate(fields)


def params_with(space: dict[str, Any]) -> Params:
    return Params.model_validate({"tune": {"search_space": space}})


@st.composite
def dimensions(draw: st.DrawFn) -> Dimension:
    kind = draw(st.sampled_from(["float", "log", "step", "int", "choice"]))
    if kind == "choice":
        values = draw(st.lists(st.integers(-5, 5), min_size=1, unique=True))
        return dimension(type="choice", choices=[*values, None])
    if kind == "int":
        low, step = draw(st.integers(1, 50)), draw(st.integers(1, 7))
        high = low + step * draw(st.integers(0, 9))
        return dimension(type="int", low=low, high=high, step=draw(st.sampled_from([step, None])))
    if kind == "step":
        low, step = draw(st.integers(-50, 50)), draw(st.integers(1, 30))
        high = low + step * draw(st.integers(0, 9))
        return dimension(type="float", low=low / 100, high=high / 100, step=step / 100)
    low = draw(st.floats(1e-6, 1.0))
    high = low * draw(st.floats(1.0, 1e4))
    return dimension(type="float", low=low, high=high, log=kind == "log")


def test_the_forms_of_the_specification_are_understood() -> None:
    found = {
        name: Dimension.model_validate(fields)
        for name, fields in yaml.safe_load(SPECIFICATION).items()
    }
    assert (found["learning_rate"].type, found["learning_rate"].log) == ("float", True)
    assert (found["dropout_decoder"].type, found["dropout_decoder"].log) == ("float", False)
    assert found["mel_fmax"].choices == (7600, 8000, None)
    assert found["batch_size"].extremes() == (24, 32, 48)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"type": "choice"}, "non-empty"),
        ({"type": "choice", "choices": []}, "non-empty"),
        ({"type": "choice", "choices": [1, 1]}, "once"),
        ({"type": "choice", "choices": [1], "low": 0}, "no low"),
        ({"type": "float", "low": 2, "high": 1}, "low <= high"),
        ({"type": "float", "low": 2}, "low <= high"),
        ({"type": "float", "low": 0, "high": 1, "choices": [1]}, "only a choice"),
        ({"type": "loguniform", "low": 0, "high": 1}, "low > 0"),
        ({"type": "loguniform", "low": 1, "high": 2, "step": 1}, "no step"),
        ({"type": "uniform", "low": 1, "high": 2, "step": 0}, "above 0"),
        ({"type": "uniform", "low": 0, "high": 1, "step": 0.3}, "whole number of steps"),
        ({"type": "int", "low": 1.5, "high": 2}, "whole"),
        ({"type": "int", "low": 1, "high": 2, "step": 0.5}, "whole"),
        ({"type": "normal", "low": 1, "high": 2}, "choice"),
        ({"type": "float", "low": 1, "high": math.inf}, "finite"),
        ({"type": "float", "low": 1, "hihg": 2}, "not permitted"),
    ],
)
def test_a_dimension_that_makes_no_sense_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Dimension.model_validate(fields)


@given(dimensions(), st.integers(0, 2**31))
def test_optuna_draws_values_that_are_their_own_nearest(one: Dimension, seed: int) -> None:
    optuna = pytest.importorskip("optuna")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    drawn = study.ask({"x": one.distribution()}).params["x"]
    nearest = one.nearest(drawn)
    if isinstance(drawn, float):
        assert nearest == pytest.approx(drawn, rel=1e-9, abs=1e-9)
    else:
        assert nearest == drawn
        assert type(nearest) is type(drawn)


@given(dimensions(), st.one_of(st.none(), st.integers(-100, 10**6), st.floats(-10.0, 1e6)))
def test_the_nearest_value_belongs_to_the_dimension(
    one: Dimension, value: float | int | None
) -> None:
    pytest.importorskip("optuna")
    distribution = one.distribution()
    nearest = one.nearest(value)
    assert distribution._contains(distribution.to_internal_repr(nearest))


@pytest.mark.parametrize(
    ("fields", "value", "expected"),
    [
        ({"type": "choice", "choices": [8, 16, 32]}, 20, 16),
        ({"type": "choice", "choices": [7600.0, None]}, None, None),
        ({"type": "choice", "choices": ["a", "b"]}, "c", "a"),
        ({"type": "float", "low": 1.0, "high": 2.0}, 7.0, 2.0),
        ({"type": "float", "low": 1.0, "high": 2.0}, None, 1.0),
        ({"type": "float", "low": 0.0, "high": 0.8, "step": 0.4}, 0.95, 0.8),
        ({"type": "int", "low": 1, "high": 10, "step": 3}, 6, 7),
    ],
)
def test_nearest_by_hand(fields: dict[str, Any], value: Any, expected: Any) -> None:
    assert dimension(**fields).nearest(value) == pytest.approx(expected)


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False)))
def test_values_survive_yaml_and_the_command_line(value: Any) -> None:
    assume(not (isinstance(value, float) and math.isinf(value)))
    assert yaml.safe_load(yaml_text(value)) == value
    assert parse_override(f"train.x={yaml_text(value)}") == {"train": {"x": value}}


@pytest.mark.parametrize(
    ("fields", "kind", "space"),
    [
        ({"type": "loguniform", "low": 1e-5, "high": 0.01}, "double",
         {"min": "1.0e-05", "max": "0.01", "distribution": "logUniform"}),
        ({"type": "uniform", "low": 0.0, "high": 1.0, "step": 0.25}, "double",
         {"min": "0.0", "max": "1.0", "step": "0.25", "distribution": "uniform"}),
        ({"type": "int", "low": 2, "high": 8, "step": 2}, "int",
         {"min": "2", "max": "8", "step": "2", "distribution": "uniform"}),
        ({"type": "choice", "choices": [7600, None]}, "categorical", {"list": ["7600", "null"]}),
    ],
)  # fmt: skip
def test_katib_gets_texts(fields: dict[str, Any], kind: str, space: dict[str, Any]) -> None:
    assert dimension(**fields).katib() == {"parameterType": kind, "feasibleSpace": space}


def test_nested_values_lie_where_their_names_say() -> None:
    values = {"train.model.prenet_dim": 8, "train.batch_size": 4, "audio.mel_fmax_hz": None}
    nested = nest(values)
    assert nested == {
        "train": {"model": {"prenet_dim": 8}, "batch_size": 4},
        "audio": {"mel_fmax_hz": None},
    }
    params = Params().with_overrides(nested)
    assert {name: lookup(params, name) for name in values} == values


def test_the_default_space_fits_the_default_parameters() -> None:
    params = Params()
    assert search_space_faults(params) == {}
    for name, one in params.tune.search_space.items():
        assert one.nearest(lookup(params, name)) == lookup(params, name)


RANGE = {"type": "int", "low": 8, "high": 16}


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("train.batch_sice", RANGE, "did you mean 'train.batch_size'?"),
        ("batch_size", RANGE, "did you mean 'train.batch_size'?"),
        ("train.model", RANGE, "there is no parameter"),
        ("segment.max_seconds", RANGE, "only parameters of train, audio"),
        ("train.max_steps", RANGE, "tune.trial_steps"),
        ("train.seed", RANGE, "luck"),
        ("train.batch_size", {"type": "uniform", "low": 8, "high": 16}, "type: int"),
        ("train.batch_size", {"type": "int", "low": 0, "high": 16}, "0 is not allowed"),
        ("train.prenet_dropout", {"type": "uniform", "low": 0, "high": 2}, "2.0 is not allowed"),
        ("audio.mel_fmax_hz", {"type": "choice", "choices": [8000, 1e6]}, "1000000.0 is not"),
        ("train.model.encoder_kernel", {"type": "choice", "choices": [5, 6]}, "must be odd"),
        ("train.precision", {"type": "choice", "choices": ["fp32", "fp8"]}, "fp8 is not allowed"),
    ],
)
def test_a_dimension_that_no_trial_could_run_is_explained(
    name: str, fields: dict[str, Any], words: str
) -> None:
    faults = search_space_faults(params_with({name: fields, "train.batch_size": fields}))
    assert words in faults[name]


def test_a_float_range_over_whole_and_null_values_is_fine() -> None:
    space = {"audio.mel_fmax_hz": {"type": "uniform", "low": 7000, "high": 8000}}
    assert search_space_faults(params_with(space)) == {}


def test_faults_of_a_written_space_are_found_when_parameters_are_loaded(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(
        "tune:\n  search_space:\n"
        "    train.batch_size: {type: int, low: 8, high: 16}\n"
        "    train.lerning_rate: {type: loguniform, low: 1e-5, high: 1e-2}\n"
    )
    with pytest.raises(ParamsError, match=r"params\.yaml:4: .*did you mean 'train\.learning_rate'"):
        load_params(file)


def test_the_default_space_is_the_tuners_business_only(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("audio: {sample_rate_hz: 8000, mel_fmax_hz: null}\n")
    assert search_space_faults(load_params(file)) != {}
