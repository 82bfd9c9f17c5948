"""One stage, four callers: Python, the shell, dvc.yaml and Kubeflow must mean the same."""

import inspect
import json
import shlex
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from kamerton.cli import main, stage_commands
from kamerton.config.loading import leaves
from kamerton.config.schema import SECTIONS, Params
from kamerton.stages import stage_function
from kamerton.stages.spec import STAGES

NAMES = list(STAGES)


@pytest.fixture(scope="module")
def dvc_stages(repository):
    return yaml.safe_load((repository / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@pytest.fixture(scope="module")
def components(repository):
    """The component specification of every stage, as Kubeflow would store it."""
    kfp = pytest.importorskip("kfp", reason="kfp is not installed (extra 'kubeflow')")
    del kfp
    import importlib
    import sys

    sys.path.insert(0, str(repository))
    try:
        modules = {name: importlib.import_module(f"components.{name}") for name in NAMES}
    finally:
        sys.path.remove(str(repository))
    return {name: getattr(module, name).component_spec for name, module in modules.items()}


def test_the_stages_are_the_same_everywhere(dvc_stages, components):
    assert list(dvc_stages) == NAMES
    assert sorted(components) == sorted(NAMES)
    read = {section for spec in STAGES.values() for section in spec.sections}
    assert read == set(SECTIONS)


@pytest.mark.parametrize("name", NAMES)
def test_python_signature(name):
    parameters = inspect.signature(stage_function(name)).parameters
    spec = STAGES[name]
    paths = [port.name for port in spec.ports]
    assert list(parameters)[: len(paths) + 1] == [*paths, "params"]
    assert set(parameters) == {*paths, "params", "force", "on_progress", *spec.options}


@pytest.mark.parametrize("name", NAMES)
def test_command_line(name, capsys):
    assert main.exit_code([name, "--dry-run"]) == 0
    described = json.loads(capsys.readouterr().out)
    spec = STAGES[name]
    assert described["reads"] == {port.name: port.default for port in spec.inputs}
    assert described["writes"] == {port.name: port.default for port in spec.outputs}
    assert set(described["options"]) == set(spec.options)
    assert set(described["params"]) == set(spec.sections)


def _dvc_paths(stage: dict[str, Any]) -> tuple[list[str], list[str]]:
    outs = [next(iter(out)) if isinstance(out, dict) else out for out in stage["outs"]]
    return stage["deps"], outs


@pytest.mark.parametrize("name", NAMES)
def test_dvc_stage(name, dvc_stages, monkeypatch):
    stage, spec = dvc_stages[name], STAGES[name]
    deps, outs = _dvc_paths(stage)
    assert deps == [port.default for port in spec.inputs]
    assert outs == [port.default for port in spec.outputs]
    assert stage["params"] == list(spec.sections)
    seen = _received(monkeypatch, shlex.split(stage["cmd"])[1:])
    assert seen["stage"] == name
    assert {n: str(seen[n]) for n in (p.name for p in spec.ports)} == {
        port.name: port.default for port in spec.ports
    }


def _is_artifact(port) -> bool:
    return port.type.startswith("system.")


@pytest.mark.parametrize("name", NAMES)
def test_kubeflow_component(name, components):
    spec, component = STAGES[name], components[name]
    artifacts = {k: v.type for k, v in component.inputs.items() if _is_artifact(v)}
    assert {k: v.split("@")[0] for k, v in artifacts.items()} == {
        port.name: f"system.{port.kind}" for port in spec.inputs
    }
    outputs = {k: v.type.split("@")[0] for k, v in component.outputs.items()}
    metrics = outputs.pop("metrics", None)
    assert metrics == "system.Metrics"
    assert outputs == {port.name: f"system.{port.kind}" for port in spec.outputs}
    parameters = {k for k, v in component.inputs.items() if not _is_artifact(v)}
    assert {f"{section}_params" for section in spec.sections} <= parameters
    assert parameters - {f"{section}_params" for section in spec.sections} <= set(spec.options)
    # These say how work is done, not what comes out: the image and the node decide.
    assert not parameters & {"cache", "workers", "shard"}


class _Report:
    partial = False

    def metrics(self):
        return {}

    def summary(self):
        return []


def _received(monkeypatch, arguments: list[str]) -> dict[str, Any]:
    """Everything that a stage function is called with by a command line."""
    seen: dict[str, Any] = {}

    def recorder(name):
        def stage(**given):
            seen.update(given, stage=name)
            return _Report()

        return stage

    monkeypatch.setattr(stage_commands, "stage_function", recorder)
    monkeypatch.setattr(stage_commands, "parse_executor_input", lambda _text: None)
    assert main.exit_code([*arguments, "--quiet"]) == 0, arguments
    return seen


def _other_values(value: Any, kind: str) -> list[Any]:
    """Candidates for a different value of the same kind; the schema says which one is allowed."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [value + 1, value + 2, value * 2, value - 1, value / 2, value * 0.9]
    if isinstance(value, tuple):
        plain = [item.model_dump() if isinstance(item, BaseModel) else item for item in value]
        halves = [item / 2 for item in plain if isinstance(item, float)]
        return [plain[:-1], halves, [{"from_share": 0.5}], ["someone@example.org"], ["cusum"]]
    if isinstance(value, dict):
        return [{"train.weight_decay": {"type": "float", "low": 0.01, "high": 0.02}}]
    choices = [choice for choice in kind.split(" | ") if choice not in ("null", str(value))]
    return [
        *choices,
        "sqlite:///other.db",
        "postgresql://host/study",
        "xx",
        "OTHER",
        "other",
        True,
        3,
        0.5,
        4000.0,
    ]


def _changed(leaf) -> dict[str, Any]:
    """Nested overrides that change one parameter to another valid value."""
    for candidate in _other_values(leaf.default, leaf.type):
        nested: Any = candidate
        for key in reversed(leaf.name.split(".")):
            nested = {key: nested}
        try:
            changed = Params().with_overrides(nested)
        except ValidationError:
            continue
        if changed != Params():
            return nested
    raise AssertionError(f"no other valid value found for {leaf.name}")


def _value(params: Params, dotted: str) -> Any:
    value: Any = params
    for key in dotted.split("."):
        value = getattr(value, key)
    return value


def _set_argument(name: str, nested: dict[str, Any]) -> str:
    value: Any = nested
    for key in name.split("."):
        value = value[key]
    return f"{name}={json.dumps(value)}"


def _kubeflow_arguments(component, section_json: dict[str, str]) -> list[str]:
    """The arguments that a pod would get: placeholders replaced as Kubeflow replaces them."""
    filled = []
    for argument in component.implementation.container.args:
        text = str(argument)
        if "{{$.inputs.parameters" in text:
            name = text.split("'")[1]
            section = name.removesuffix("_params")
            filled.append(section_json[section] if name.endswith("_params") else "runs")
        elif "{{$" in text:
            filled.append("{}" if text == "{{$}}" else f"/pod/{text.split(chr(39))[1]}")
        else:
            filled.append(text)
    return filled


@pytest.mark.parametrize("leaf", leaves(), ids=lambda leaf: leaf.name)
def test_every_parameter_arrives_by_all_four_ways(
    leaf, dvc_stages, components, monkeypatch, tmp_path
):
    nested = _changed(leaf)
    expected = Params().with_overrides(nested)
    wanted = _value(expected, leaf.name)
    section = leaf.name.partition(".")[0]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(nested))
    readers = [name for name, spec in STAGES.items() if section in spec.sections]
    assert readers, f"no stage reads {section}"
    sections = expected.model_dump(mode="json")
    for name in readers:
        by_shell = _received(
            monkeypatch, [name, "--params", "/dev/null", "--set", _set_argument(leaf.name, nested)]
        )
        by_dvc = _received(monkeypatch, shlex.split(dvc_stages[name]["cmd"])[1:])
        assert section in dvc_stages[name]["params"]
        texts = {key: json.dumps(value) for key, value in sections.items()}
        by_kubeflow = _received(monkeypatch, _kubeflow_arguments(components[name], texts))
        for way, seen in (("shell", by_shell), ("dvc", by_dvc), ("kubeflow", by_kubeflow)):
            assert _value(seen["params"], leaf.name) == wanted, f"{name} by {way}"
            assert _value(seen["params"], leaf.name) != leaf.default, f"{name} by {way}"


HEAVY = ("torch", "mlflow", "whisper", "faster_whisper", "optuna", "kfp", "dvc", "scipy")


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["train", "--dry-run"]])
def test_the_command_line_starts_without_heavy_packages(arguments):
    import subprocess
    import sys

    code = (
        "import sys\nfrom kamerton.cli.main import exit_code\n"
        f"code = exit_code({arguments!r})\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "[]"
