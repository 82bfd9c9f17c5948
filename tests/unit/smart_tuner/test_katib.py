"""The Experiment: Katib's own rules of admission, and the way of a value into a trial."""

import re
import shlex
from typing import Any

import pytest
import yaml

from kamerton.config.loading import load_params
from kamerton.config.schema import Params
from kamerton.config.yaml_source import parse_scalar
from kamerton.smart_tuner.katib import manifests, render, trial_parameter

SPACES: dict[str, dict[str, Any]] = {
    "default": {},
    "same names": {
        "train.seed": {"type": "int", "low": 1, "high": 9},
        "tune.seed": {"type": "choice", "choices": [1, 2]},
        "audio.mel_fmax_hz": {"type": "choice", "choices": [7600.0, None]},
        "train.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
    },
}


def params_for(space: str, **tune: Any) -> Params:
    given = {"search_space": SPACES[space]} if SPACES[space] else {}
    return Params.model_validate({"tune": {**given, **tune}})


def experiment(params: Params) -> Any:
    config, made = manifests(params, image="image")
    assert (config["kind"], made["kind"]) == ("ConfigMap", "Experiment")
    return made


def command(spec: Any) -> list[str]:
    (container,) = spec["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"]
    assert container["name"] == spec["trialTemplate"]["primaryContainerName"]
    return list(container["command"])


@pytest.mark.parametrize("space", SPACES)
def test_katibs_rules_of_admission_hold(space: str) -> None:
    """pkg/webhook/v1beta1/experiment/validator of Katib 0.19; no schema says these."""
    made = experiment(params_for(space))
    spec = made["spec"]
    assert len(made["metadata"]["name"]) <= 40
    assert spec["parallelTrialCount"] <= spec["maxTrialCount"]
    assert spec["maxFailedTrialCount"] <= spec["maxTrialCount"]
    names = [one["name"] for one in spec["parameters"]]
    trial = spec["trialTemplate"]["trialParameters"]
    assert sorted(one["reference"] for one in trial) == sorted(names)
    assert len({one["name"] for one in trial}) == len(trial)
    used = re.findall(r"\$\{trialParameters\.(.+?)\}", yaml.safe_dump(spec))
    assert sorted(used) == sorted(one["name"] for one in trial)
    assert "metadata" not in spec["trialTemplate"]["trialSpec"]
    pod = spec["trialTemplate"]["trialSpec"]["spec"]["template"]
    assert pod["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"
    for one in spec["parameters"]:
        space_of = one["feasibleSpace"]
        if one["parameterType"] in ("double", "int"):
            assert "list" not in space_of
            assert all(isinstance(space_of[key], str) for key in ("min", "max"))
        else:
            assert set(space_of) == {"list"}


@pytest.mark.parametrize("space", SPACES)
def test_a_suggestion_arrives_in_the_trainers_parameters(space: str) -> None:
    """Katib puts text into the template and the whole through a shell; the trainer reads it."""
    params = params_for(space)
    spec = experiment(params)["spec"]
    short = {one["name"]: one["reference"] for one in spec["trialTemplate"]["trialParameters"]}
    for pick in (0, -1):
        chosen = {one["name"]: values_of(one)[pick] for one in spec["parameters"]}
        filled = [fill(word, short, chosen) for word in command(spec)]
        assert shlex.split(" ".join(filled)) == filled  # nothing for a shell to take apart
        overrides = [word.removeprefix("--set=") for word in filled if word.startswith("--set=")]
        loaded = load_params(overrides=overrides, sections=[("text", "{}")])
        for name, text in chosen.items():
            value: Any = loaded
            for key in name.split("."):
                value = getattr(value, key)
            assert value == parse_scalar(text)


def values_of(parameter: Any) -> list[str]:
    space = parameter["feasibleSpace"]
    return list(space.get("list") or (space["min"], space["max"]))


def fill(word: str, short: dict[str, str], chosen: dict[str, str]) -> str:
    return re.sub(r"\$\{trialParameters\.(.+?)\}", lambda match: chosen[short[match[1]]], word)


def test_a_trial_has_the_budget_of_the_study() -> None:
    config, _ = manifests(params_for("default", trial_steps=77), image="image")
    held = Params.model_validate(yaml.safe_load(config["data"]["params.yaml"]))
    assert held.train.max_steps == 77
    assert held.train.eval_interval_steps < 77
    assert held.tracking.mlflow_uri == "http://mlflow:5000"


def test_the_rendered_manifests_read_back_as_they_are() -> None:
    made = manifests(params_for("same names"), image="image")
    text = render(made)
    assert list(yaml.safe_load_all(text)) == made
    assert "&id" not in text
    assert "  params.yaml: |\n" in text


def test_every_option_of_a_trial_is_one_of_the_command() -> None:
    import typer

    from kamerton.cli.stage_commands import add_stage_commands

    app = typer.Typer()
    add_stage_commands(app)
    known = {o for p in typer.main.get_group(app).commands["train"].params for o in p.opts}
    words = command(experiment(params_for("default"))["spec"])
    assert words[:4] == ["python3", "-m", "kamerton", "train"]
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize(
    ("sampler", "algorithm"), [("tpe", "multivariate-tpe"), ("random", "random")]
)
def test_the_sampler_becomes_an_algorithm_of_katib(sampler: str, algorithm: str) -> None:
    made = experiment(params_for("default", sampler=sampler, seed=5, startup_trials=4))
    chosen = made["spec"]["algorithm"]
    assert chosen["algorithmName"] == algorithm
    settings = {one["name"]: one["value"] for one in chosen["algorithmSettings"]}
    assert settings["random_state"] == "5"
    assert ("n_startup_trials" in settings) is (algorithm == "multivariate-tpe")


def test_a_dimension_has_a_short_name_in_the_template() -> None:
    assert trial_parameter("train.learning_rate") == "learningRate"
    assert trial_parameter("train.model.encoder_embedding_dim") == "modelEncoderEmbeddingDim"
