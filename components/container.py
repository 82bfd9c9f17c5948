"""The one form that every stage's container takes: the same command that a shell would run."""

from collections.abc import Mapping
from typing import Any

from kfp import dsl

# Placeholders, as kfp types them: inside a container component an artifact or a parameter is not a
# value yet, only a promise of one.
Placeholder = Any


def stage_container(
    stage: str,
    *,
    image: str,
    paths: Mapping[str, Placeholder],
    params: Mapping[str, Placeholder],
    options: Mapping[str, Placeholder] | None = None,
) -> dsl.ContainerSpec:
    """Run `kamerton STAGE` on Kubeflow's paths.

    Args:
        stage: name of the stage and of its command.
        image: reference of the container image.
        paths: port name to artifact; the option is the port's name with dashes.
        params: section of params.yaml to its values, one JSON object each, as text.
        options: further options that take one value.
    """
    arguments: list[Placeholder] = [stage]
    for port, artifact in paths.items():
        arguments += [_option(port), artifact.path]
    for name, value in (options or {}).items():
        arguments += [_option(name), value]
    for section, values in params.items():
        arguments += ["--params-json", section, values]
    # No --force: a retried task starts with empty outputs, and training must go on, not begin anew.
    arguments += [
        "--quiet",
        "--allow-partial",  # a clip left out is listed; it must not fail the run
        "--executor-input",
        dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
    ]
    return dsl.ContainerSpec(image=image, command=["python3", "-m", "kamerton"], args=arguments)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
