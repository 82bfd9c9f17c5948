"""The compiled pipeline against the table of stages: ports, types, sections, wiring, placement."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kamerton.config.schema import Params
from kamerton.stages.spec import STAGES, StageSpec

pytest.importorskip("kfp", reason="kfp is not installed: pip install 'kamerton[kubeflow]'")

ROOT = Path(__file__).parents[2]
PLACEHOLDER = re.compile(r"\{\{\$\.(\w+)\.(\w+)\['(\w+)'\](?:\.path)?\}\}")
DIGEST = "registry.example/kamerton@sha256:" + "0" * 64


def compile_to(output: Path, *arguments: str, **environment: str) -> str:
    """Compile in a process of its own, without the parameters of this checkout."""
    params = output.with_name("params.yaml")
    if not params.exists():
        params.write_text("{}\n")
    command = [sys.executable, ROOT / "pipeline.py", "compile", "-o", output]
    subprocess.run(
        [*command, "--params", params, *arguments],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
    )
    return output.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pipeline")


@pytest.fixture(scope="module")
def package(folder: Path) -> str:
    return compile_to(folder / "cpu.yaml", PYTHONHASHSEED="1")


@pytest.fixture(scope="module")
def spec(package: str) -> Any:
    return next(yaml.safe_load_all(package))


def executor(spec: Any, stage: str) -> Any:
    return spec["deploymentSpec"]["executors"][f"exec-{stage}"]


def option_values(arguments: list[str]) -> dict[str, str]:
    """Value of each option that takes one, sections of --params-json as `params-json:SECTION`."""
    found = {}
    for place, argument in enumerate(arguments):
        if argument == "--params-json":
            found[f"params-json:{arguments[place + 1]}"] = arguments[place + 2]
        elif argument.startswith("--") and not arguments[place + 1 : place + 2][0].startswith("--"):
            found[argument] = arguments[place + 1]
    return found


def test_there_are_eight_container_components(spec: Any) -> None:
    executors = spec["deploymentSpec"]["executors"]
    containers = {name for name, one in executors.items() if "container" in one}
    assert containers == {f"exec-{stage}" for stage in STAGES}
    assert len(containers) == 8
    (importer,) = executors.keys() - containers
    assert executors[importer]["importer"]["typeSchema"]["schemaTitle"] == "system.Dataset"


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda stage: stage.name)
def test_a_component_has_the_ports_and_sections_of_its_stage(spec: Any, stage: StageSpec) -> None:
    component = spec["components"][f"comp-{stage.name}"]

    def types(side: str) -> dict[str, str]:
        artifacts = component[side]["artifacts"]
        return {name: one["artifactType"]["schemaTitle"] for name, one in artifacts.items()}

    expected = {port.name: f"system.{port.kind}" for port in stage.outputs}
    assert types("outputDefinitions") == {**expected, "metrics": "system.Metrics"}
    assert types("inputDefinitions") == {p.name: f"system.{p.kind}" for p in stage.inputs}
    parameters = set(component["inputDefinitions"]["parameters"])
    extra = {"runs"} & set(stage.options)
    assert parameters == {f"{section}_params" for section in stage.sections} | extra
    assert component["outputDefinitions"].keys() == {"artifacts"}


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda stage: stage.name)
def test_a_container_runs_the_command_of_its_stage(spec: Any, stage: StageSpec) -> None:
    container = executor(spec, stage.name)["container"]
    assert container["command"] == ["python3", "-m", "kamerton"]
    assert container["args"][0] == stage.name
    values = option_values(container["args"][1:])
    expected = {p.option: f"{{{{$.inputs.artifacts['{p.name}'].path}}}}" for p in stage.inputs}
    expected |= {p.option: f"{{{{$.outputs.artifacts['{p.name}'].path}}}}" for p in stage.outputs}
    for section in stage.sections:
        expected[f"params-json:{section}"] = f"{{{{$.inputs.parameters['{section}_params']}}}}"
    if "runs" in stage.options:
        expected["--runs"] = "{{$.inputs.parameters['runs']}}"
    assert values == {**expected, "--executor-input": "{{$}}"}
    assert container["image"].startswith(f"kamerton-{stage.image}:")


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda stage: stage.name)
def test_every_argument_is_an_option_of_the_command_line(spec: Any, stage: StageSpec) -> None:
    import typer

    from kamerton.cli.stage_commands import add_stage_commands

    app = typer.Typer()
    add_stage_commands(app)
    command = typer.main.get_group(app).commands[stage.name]
    known = {option for parameter in command.params for option in parameter.opts}
    options = {a for a in executor(spec, stage.name)["container"]["args"] if a.startswith("--")}
    assert options <= known


def test_a_retried_training_goes_on_where_it_was(spec: Any) -> None:
    """`--force` would begin a new run, and one task per attempt would never end."""
    for stage in ("tune", "train"):
        assert spec["root"]["dag"]["tasks"][stage]["retryPolicy"]["maxRetryCount"] >= 1
        assert "--force" not in executor(spec, stage)["container"]["args"]


def test_each_artifact_goes_to_the_port_of_its_name(spec: Any) -> None:
    """Like-named ports are wired to each other, in the order that the stages run in."""
    tasks = spec["root"]["dag"]["tasks"]
    made: dict[str, str] = {}
    for stage in STAGES.values():
        for name, source in tasks[stage.name]["inputs"]["artifacts"].items():
            output = source["taskOutputArtifact"]
            if name == "recordings":
                assert output["producerTask"] == "importer"
                continue
            assert output == {"outputArtifactKey": name, "producerTask": made[name]}
        made |= {port.name: stage.name for port in stage.outputs}


def test_each_section_is_one_parameter_for_all_its_readers(spec: Any) -> None:
    for stage in STAGES.values():
        given = spec["root"]["dag"]["tasks"][stage.name]["inputs"]["parameters"]
        for name, source in given.items():
            assert source == {"componentInputParameter": name}


def test_defaults_are_the_parameters_with_nulls_and_whole_numbers_kept(spec: Any) -> None:
    """Kubeflow's dictionaries would lose null and turn 32 into 32.0; the text keeps both."""
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    expected = Params().model_dump(mode="json")
    expected["tracking"]["mlflow_uri"] = "http://mlflow:5000"
    for section, values in expected.items():
        text = inputs[f"{section}_params"]["defaultValue"]
        assert json.loads(text) == values
        assert text == json.dumps(values)  # 32 == 32.0 for Python, not for this
    assert "defaultValue" not in inputs["recordings"]


def test_a_parameter_file_and_overrides_change_the_defaults(folder: Path) -> None:
    one = folder / "changed"
    one.mkdir()
    (one / "params.yaml").write_text(
        "train: {batch_size: 7}\ntracking: {mlflow_uri: 'https://mlflow.example'}\n"
    )
    text = compile_to(one / "p.yaml", "--set", "audio.mel_fmax_hz=null")
    spec = next(yaml.safe_load_all(text))
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    assert json.loads(inputs["train_params"]["defaultValue"])["batch_size"] == 7
    assert json.loads(inputs["audio_params"]["defaultValue"])["mel_fmax_hz"] is None
    tracking = json.loads(inputs["tracking_params"]["defaultValue"])
    assert tracking["mlflow_uri"] == "https://mlflow.example"


def test_equal_input_compiles_to_equal_bytes(folder: Path, package: str) -> None:
    assert compile_to(folder / "again.yaml", PYTHONHASHSEED="2") == package


def test_check_tells_a_stale_package(folder: Path) -> None:
    def check(path: Path) -> int:
        params = str(folder / "params.yaml")
        command = [sys.executable, str(ROOT / "pipeline.py"), "compile", "--check"]
        command += ["-o", str(path), "--params", params]
        return subprocess.run(command, capture_output=True, check=False).returncode

    path = folder / "stale.yaml"
    assert check(path) == 1  # nothing there yet
    text = compile_to(path)
    assert check(path) == 0
    path.write_text(re.sub(r"(?m)^sdkVersion: .*$", "sdkVersion: kfp-2.99.0", text))
    assert check(path) == 0
    path.write_text(text.replace("--executor-input", "--executor_input"))
    assert check(path) == 1


def test_a_wrong_parameter_ends_with_the_code_for_parameters(folder: Path) -> None:
    command = [sys.executable, str(ROOT / "pipeline.py"), "compile", "-o", str(folder / "no.yaml")]
    command += ["--set", "train.batch_sise=3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 3
    assert "did you mean 'train.batch_size'" in done.stderr
    assert not (folder / "no.yaml").exists()


def kubernetes(package: str, stage: str) -> Any:
    platform = list(yaml.safe_load_all(package))[1]
    return platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{stage}"]


def test_tasks_get_the_volume_and_the_secret_by_name(package: str) -> None:
    for stage in STAGES:
        placed = kubernetes(package, stage)
        (mount,) = placed["pvcMount"]
        assert mount["mountPath"] == "/kamerton"
        (secret,) = placed["secretAsEnv"]
        assert secret["secretName"] == "kamerton-secrets"
        assert secret["optional"] is True


def test_work_that_must_survive_lies_on_the_volume(spec: Any, package: str) -> None:
    default = spec["root"]["inputDefinitions"]["parameters"]["runs"]["defaultValue"]
    (mount,) = kubernetes(package, "train")["pvcMount"]
    assert Path(default).is_relative_to(mount["mountPath"])


def test_the_gpu_profile_gives_gpus_to_the_stages_that_use_them(folder: Path, spec: Any) -> None:
    text = compile_to(folder / "gpu.yaml", "--profile", "gpu")
    gpu = next(yaml.safe_load_all(text))
    with_gpu = set()
    for stage in STAGES:
        assert "accelerator" not in executor(spec, stage)["container"]["resources"]
        accelerator = executor(gpu, stage)["container"]["resources"].get("accelerator")
        if accelerator:
            assert accelerator["resourceType"] == "nvidia.com/gpu"
            with_gpu.add(stage)
    assert with_gpu == {"transcribe", "tune", "train", "evaluate"}


def test_results_are_only_reused_where_that_is_right(folder: Path) -> None:
    """Not by default, not for images under a movable tag, never where the registry is read."""
    pinned = {"KAMERTON_IMAGE_DATA": DIGEST, "KAMERTON_IMAGE_TRAIN": DIGEST}

    def cached(name: str, *arguments: str, **environment: str) -> set[str]:
        text = compile_to(folder / f"{name}.yaml", *arguments, **environment)
        tasks = next(yaml.safe_load_all(text))["root"]["dag"]["tasks"]
        return {
            stage for stage in STAGES if tasks[stage]["cachingOptions"].get("enableCache", False)
        }

    assert cached("plain", **pinned) == set()
    assert cached("tags", "--cache") == set()
    assert cached("cached", "--cache", **pinned) == set(STAGES) - {"evaluate", "promote"}


def test_images_can_be_pinned_when_compiling(folder: Path) -> None:
    text = compile_to(folder / "pinned.yaml", KAMERTON_IMAGE_TRAIN=DIGEST)
    spec = next(yaml.safe_load_all(text))
    assert executor(spec, "train")["container"]["image"] == DIGEST
    assert executor(spec, "segment")["container"]["image"].startswith("kamerton-data:")


def test_every_placeholder_names_something_that_is_declared(spec: Any) -> None:
    for stage in STAGES:
        component = spec["components"][f"comp-{stage}"]
        for argument in executor(spec, stage)["container"]["args"]:
            if match := PLACEHOLDER.fullmatch(argument):
                side, kind, name = match.groups()
                assert name in component[f"{side.removesuffix('s')}Definitions"][kind]
            else:
                assert "{{" not in argument.replace("{{$}}", "")
