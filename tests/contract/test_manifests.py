"""Every manifest against the schema of its kind, unknown fields refused; and that this is so."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kamerton.core.errors import (
    InputMissingError,
    ParamsError,
    StoppedError,
    ToolMissingError,
    UsageError,
)
from tests.contract import kube_schemas
from tests.contract.kube_schemas import SchemaMissingError, errors, is_core, schema_folder

ROOT = Path(__file__).parents[2] / "manifests"
FILES = sorted(ROOT.rglob("*.yaml"))
# Maps whose keys are the user's own words.
FREE = {
    "labels", "annotations", "matchLabels", "requests", "limits", "pairs", "selector",
    "nodeSelector", "primaryPodLabels", "data", "stringData",
}  # fmt: skip

Json = dict[str, Any]


def read(file: Path) -> list[Json]:
    return [one for one in yaml.safe_load_all(file.read_text(encoding="utf-8")) if one]


def is_kustomization(manifest: Json) -> bool:
    return bool(manifest["kind"] == "Kustomization")


MANIFESTS = [
    pytest.param(manifest, id=f"{file.relative_to(ROOT)}:{manifest['kind']}")
    for file in FILES
    for manifest in read(file)
    if not is_kustomization(manifest)
]
KUSTOMIZATIONS = [file for file in FILES if file.name == "kustomization.yaml"]


def schemas_for(manifest: Json) -> Path | None:
    folder = schema_folder()
    if folder is None and not is_core(manifest):
        pytest.skip(f"{manifest['kind']}: set {kube_schemas.VARIABLE} to the folder of schemas")
    return folder


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_manifest_is_valid(manifest: Json) -> None:
    assert errors(manifest, schemas_for(manifest)) == []


def objects(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every mapping whose keys a schema names."""
    if isinstance(value, dict):
        if path and (path[-1] in FREE or path == ("metadata",)):
            return
        yield path
        for key, one in value.items():
            yield from objects(one, (*path, key))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from objects(one, (*path, index))


def misspelt(manifest: Json, path: tuple[Any, ...]) -> Json:
    changed = copy.deepcopy(manifest)
    place: Any = changed
    for key in path:
        place = place[key]
    place["misspelt"] = "x"
    return changed


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_misspelling_anywhere_fails(manifest: Json) -> None:
    folder = schemas_for(manifest)
    passed = [path for path in objects(manifest) if not errors(misspelt(manifest, path), folder)]
    assert passed == []


@pytest.mark.parametrize(
    "file", KUSTOMIZATIONS, ids=lambda file: str(file.parent.relative_to(ROOT))
)
def test_a_kustomization_names_what_is_there(file: Path) -> None:
    (manifest,) = read(file)
    assert set(manifest) <= {"apiVersion", "kind", "namespace", "resources", "labels", "images"}
    for resource in manifest["resources"]:
        target = file.parent / resource
        assert target.is_file() or (target / "kustomization.yaml").is_file(), resource
    others = {one.name for one in file.parent.glob("*.yaml")} - {"kustomization.yaml"}
    assert others <= set(manifest["resources"])  # no manifest is forgotten


def pod_specs() -> list[Any]:
    found = []
    for parameter in MANIFESTS:
        (manifest,) = parameter.values
        if manifest["kind"] in ("Deployment", "Job"):
            found.append(pytest.param(manifest["spec"]["template"]["spec"], id=parameter.id))
        elif manifest["kind"] == "PyTorchJob":
            for replica in manifest["spec"]["pytorchReplicaSpecs"].values():
                found.append(pytest.param(replica["template"]["spec"], id=parameter.id))
    return found


@pytest.mark.parametrize("pod", pod_specs())
def test_pods_meet_the_restricted_security_standard(pod: Json) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/ , and a little more."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["readOnlyRootFilesystem"] is True
        assert set(container["resources"]) == {"requests", "limits"}
        assert ":latest" not in container["image"]


def test_no_manifest_holds_a_secret() -> None:
    """Secrets are named, never made here."""
    assert not [p.id for p in MANIFESTS if p.values[0]["kind"] == "Secret"]


def test_pods_mount_only_claims_and_accounts_that_are_made() -> None:
    manifests = [parameter.values[0] for parameter in MANIFESTS]

    def named(kind: str) -> set[str]:
        return {m["metadata"]["name"] for m in manifests if m["kind"] == kind}

    for parameter in pod_specs():
        pod = parameter.values[0]
        assert pod["serviceAccountName"] in named("ServiceAccount")
        for volume in pod["volumes"]:
            claim = volume.get("persistentVolumeClaim")
            assert claim is None or claim["claimName"] in named("PersistentVolumeClaim")


def test_the_pipeline_uses_the_volume_and_the_server_that_are_made() -> None:
    pytest.importorskip("kfp", reason="kfp is not installed")
    # Read, not imported: compiling belongs to a process of its own.
    platform = (ROOT.parent / "components/platform.py").read_text(encoding="utf-8")
    pipeline = (ROOT.parent / "pipeline.py").read_text(encoding="utf-8")
    assert 'WORKSPACE_CLAIM = "kamerton-workspace"' in platform
    manifests = {
        (p.values[0]["kind"], p.values[0]["metadata"]["name"]): p.values[0] for p in MANIFESTS
    }
    assert ("PersistentVolumeClaim", "kamerton-workspace") in manifests
    (port,) = manifests["Service", "mlflow"]["spec"]["ports"]
    assert f'CLUSTER_MLFLOW_URI = "http://mlflow:{port["port"]}"' in pipeline


def job(name: str) -> Json:
    (found,) = [m for m in read(ROOT / f"data/{name}.yaml") if m["kind"] == "Job"]
    return found


def arguments(name: str) -> list[str]:
    (container,) = job(name)["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python3", "-m", "kamerton", name]
    return list(container["args"])


def test_the_parts_that_are_joined_are_the_parts_that_are_cut() -> None:
    spec = job("segment")["spec"]
    assert spec["completionMode"] == "Indexed"
    assert f"--shard=$(JOB_COMPLETION_INDEX)/{spec['completions']}" in arguments("segment")
    (written,) = [a for a in arguments("segment") if a.startswith("--clips=")]
    parts = [
        written.replace("$(JOB_COMPLETION_INDEX)", str(part)) for part in range(spec["completions"])
    ]
    assert [a for a in arguments("merge") if a.startswith("--clips=")] == parts
    # Nothing starts it before the parts are there.
    assert job("merge")["spec"]["suspend"] is True


def test_the_data_jobs_call_commands_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from kamerton.cli import main

    def here(name: str) -> list[str]:
        given = [a.replace("$(JOB_COMPLETION_INDEX)", "3") for a in arguments(name)]
        return [a.replace("=/kamerton/", f"={tmp_path}/") for a in given]

    (tmp_path / "data").mkdir()
    (tmp_path / "data/params.yaml").write_text("segment: {max_seconds: 9}", encoding="utf-8")
    assert main.exit_code(["segment", *here("segment"), "--dry-run"]) == 0
    assert "3/4" in capsys.readouterr().out
    assert main.exit_code(["merge", *here("merge")]) == InputMissingError.exit_code


def test_a_pod_of_the_data_jobs_is_tried_again_unless_that_is_no_use() -> None:
    """A pod that was evicted goes on; what wrong parameters cost is one try."""
    rules = {r["action"]: r for r in job("segment")["spec"]["podFailurePolicy"]["rules"]}
    assert rules["Ignore"]["onPodConditions"] == [{"type": "DisruptionTarget"}]
    hopeless = {UsageError, ParamsError, InputMissingError, ToolMissingError}
    assert set(rules["FailJob"]["onExitCodes"]["values"]) == {e.exit_code for e in hopeless}
    assert not {137, 143, StoppedError.exit_code} & set(rules["FailJob"]["onExitCodes"]["values"])


def training() -> tuple[Json, Json]:
    """The two ways to train on several GPUs."""
    (trainjob,) = read(ROOT / "training/trainjob.yaml")
    (pytorchjob,) = read(ROOT / "training/legacy/pytorchjob.yaml")
    return trainjob, pytorchjob


def test_both_kinds_of_training_jobs_are_the_same_training() -> None:
    trainjob, pytorchjob = training()
    trainer = trainjob["spec"]["trainer"]
    pod = pytorchjob["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    (container,) = pod["containers"]
    (patch,) = trainjob["spec"]["runtimePatches"]
    (jobs,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    patched = jobs["template"]["spec"]["template"]["spec"]
    for key in ("command", "args", "env"):
        assert trainer[key] == container[key]
    assert trainer["resourcesPerNode"] == container["resources"]
    assert str(trainer["numProcPerNode"]) == pytorchjob["spec"]["nprocPerNode"]
    assert str(trainer["numProcPerNode"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    for key in ("securityContext", "volumes", "serviceAccountName"):
        assert patched[key] == pod[key]
    for key in ("securityContext", "volumeMounts"):
        assert patched["containers"][0][key] == container[key]
    # Every process has its share of the CPUs, and says so: it would count those of the node.
    (threads,) = [a for a in trainer["args"] if a.startswith("--set=train.threads=")]
    cpus = int(trainer["resourcesPerNode"]["limits"]["cpu"])
    assert int(threads.rpartition("=")[2]) * trainer["numProcPerNode"] == cpus
    # torchrun has time to have everything saved before the pod is killed.
    (seconds,) = [e["value"] for e in trainer["env"] if e["name"].endswith("SHUTDOWN_TIMEOUT")]
    assert int(seconds) < patched["terminationGracePeriodSeconds"]
    assert patched["terminationGracePeriodSeconds"] == pod["terminationGracePeriodSeconds"]


def test_training_jobs_use_the_image_of_this_version() -> None:
    from kamerton import __version__

    trainjob, _ = training()
    assert trainjob["spec"]["trainer"]["image"] == f"kamerton-train:{__version__}"
    (kustomization,) = read(ROOT / "training/legacy/kustomization.yaml")
    assert kustomization["images"] == [{"name": "kamerton-train", "newTag": __version__}]


def test_training_jobs_call_the_command_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from kamerton.cli import main

    given = training()[0]["spec"]["trainer"]
    assert given["command"] == ["python3", "-m", "torch.distributed.run"]
    assert given["args"][:3] == ["-m", "kamerton", "train"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data/params.yaml").write_text("train: {max_steps: 77}", encoding="utf-8")
    arguments = [a.replace("=/kamerton/", f"={tmp_path}/") for a in given["args"][2:]]
    assert main.exit_code([*arguments, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert '"max_steps": 77' in shown
    assert f"{tmp_path}/runs" in shown


def test_the_experiment_is_what_the_parameters_make() -> None:
    """manifests/katib is generated: `kamerton pipeline katib` (part of `make docs`)."""
    from kamerton import __version__
    from kamerton.config.loading import load_params
    from kamerton.smart_tuner.katib import manifests

    made = manifests(
        load_params(ROOT.parent / "params.yaml"), image=f"kamerton-train:{__version__}"
    )
    assert read(ROOT / "katib/experiment.yaml") == made


# The validator itself.

TRAIN_JOB: Json = {
    "apiVersion": "trainer.kubeflow.org/v1alpha1",
    "kind": "TrainJob",
    "spec": {
        "runtimeRef": {"name": "torch-distributed"},
        "trainer": {
            "numNodes": 1,
            "args": ["--learning-rate=${trialParameters.learningRate}"],
            "resourcesPerNode": {"limits": {"nvidia.com/gpu": 1}},
        },
    },
}
EXPERIMENT: Json = {
    "apiVersion": "kubeflow.org/v1beta1",
    "kind": "Experiment",
    "metadata": {"name": "sample"},
    "spec": {
        "objective": {"type": "minimize", "objectiveMetricName": "val_loss"},
        "algorithm": {"algorithmName": "multivariate-tpe"},
        "parallelTrialCount": 1,
        "maxTrialCount": 3,
        "parameters": [
            {
                "name": "learning-rate",
                "parameterType": "double",
                "feasibleSpace": {"min": "0.001", "max": "0.01", "distribution": "logUniform"},
            }
        ],
        "trialTemplate": {
            "primaryContainerName": "node",
            "trialParameters": [{"name": "learningRate", "reference": "learning-rate"}],
            "trialSpec": TRAIN_JOB,
        },
    },
}


@pytest.fixture(scope="module")
def folder() -> Path:
    found = schema_folder()
    if found is None:
        pytest.skip(f"set {kube_schemas.VARIABLE} to the folder of Kubeflow's schemas")
    return found


def test_a_good_experiment_passes(folder: Path) -> None:
    assert errors(EXPERIMENT, folder) == []


def test_every_misspelling_in_an_experiment_fails(folder: Path) -> None:
    """Also inside the trial, which an API server lets through."""
    # The user's own maps: resource names, and labels.
    places = [p for p in objects(EXPERIMENT) if "metadata" not in p]
    assert ("spec", "trialTemplate", "trialSpec", "spec", "trainer") in places
    passed = [path for path in places if not errors(misspelt(EXPERIMENT, path), folder)]
    assert passed == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "maxTrialCount"), "three"),
        (("spec", "parameters", 0, "feasibleSpace", "min"), 0.001),  # Katib takes text only
        (("spec", "trialTemplate", "trialSpec", "spec", "trainer", "numNodes"), "one"),
        (("spec", "trialTemplate", "trialSpec", "spec", "runtimeRef"), {}),
    ],
)
def test_a_wrong_type_fails_and_is_placed(folder: Path, path: tuple[Any, ...], value: Any) -> None:
    changed = copy.deepcopy(EXPERIMENT)
    place: Any = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (problem, *_) = errors(changed, folder)
    assert ".".join(map(str, path)) in problem


def test_an_unknown_kind_is_an_error_not_a_pass(folder: Path) -> None:
    with pytest.raises(SchemaMissingError, match="Experimnt"):
        errors({**EXPERIMENT, "kind": "Experimnt"}, folder)


def test_without_schemas_a_foreign_kind_cannot_pass() -> None:
    with pytest.raises(SchemaMissingError, match="TrainJob"):
        errors(TRAIN_JOB, None)
