"""The search as a Katib Experiment: the same search space and budget, trials as Jobs on a cluster.

Katib puts its metrics collector around the trial's command through a shell, so no argument may need
quoting: fixed parameters travel in a ConfigMap, and only plain numbers and words in arguments.
Trials are compared by the validation mel loss, since Katib takes one recorded metric and knows no
baseline to scale a composite by.
"""

import re
from typing import Any, Final

import yaml

from kamerton.config.schema import Params
from kamerton.smart_tuner.study import trial_params
from kamerton.tracking.names import ATTENTION_SCORE, GATE_F1, VAL_MEL_LOSS

NAME: Final = "kamerton-search"
WORKSPACE: Final = "/kamerton"
CLAIM: Final = "kamerton-workspace"
MLFLOW_URI: Final = "http://mlflow:5000"  # the service in manifests/base, of the same namespace
_PARAMS_FOLDER: Final = "/etc/kamerton"
# Katib's `tpe` gives equal parameters to all trials of a round (kubeflow/katib#1329). What its
# services do not have falls back to the multivariate form, which is also what Optuna's tpe is here.
_ALGORITHMS: Final = {"random": "random"}
_DEFAULT_ALGORITHM: Final = "multivariate-tpe"

Json = dict[str, Any]


def manifests(params: Params, *, image: str) -> list[Json]:
    """The ConfigMap with the parameters of every trial, and the Experiment."""
    labels = {"app.kubernetes.io/part-of": "kamerton"}
    if (params.tracking.mlflow_uri or "").startswith("sqlite:"):
        # A database file of this machine means nothing in a container.
        params = params.with_overrides({"tracking": {"mlflow_uri": MLFLOW_URI}})
    values = trial_params(params, {}).model_dump(mode="json")
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": NAME, "labels": labels},
            "data": {"params.yaml": text},
        },
        {
            "apiVersion": "kubeflow.org/v1beta1",
            "kind": "Experiment",
            "metadata": {"name": NAME, "labels": labels},
            "spec": _experiment(params, image),
        },
    ]


def render(made: list[Json]) -> str:
    """Manifests as YAML for people: texts of several lines as such, nothing by reference."""

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, _data: object) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return yaml.dump_all(made, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)


def trial_parameter(name: str) -> str:
    """The name of a dimension inside the trial template: ``train.learning_rate``, learningRate."""
    first, *others = re.split(r"[._]", name.partition(".")[2])
    return first + "".join(word.capitalize() for word in others)


def _experiment(params: Params, image: str) -> Json:
    space = params.tune.search_space
    names = {name: trial_parameter(name) for name in space}
    if len(set(names.values())) < len(names):
        # Two sections have a key of one name: tell them apart by the section.
        names = {name: name.replace(".", "-").replace("_", "-") for name in space}
    references = [{"name": names[name], "reference": name} for name in space]
    return {
        "objective": {
            "type": "minimize",
            "objectiveMetricName": VAL_MEL_LOSS,
            "additionalMetricNames": [ATTENTION_SCORE, GATE_F1],
        },
        "algorithm": _algorithm(params),
        # The claim of manifests/base is for one node at a time: more trials at once need a volume
        # that several nodes may write to.
        "parallelTrialCount": 1,
        "maxTrialCount": params.tune.trials,
        "maxFailedTrialCount": max(1, params.tune.trials // 3),
        "metricsCollectorSpec": {"collector": {"kind": "StdOut"}},
        "parameters": [{"name": name, **one.katib()} for name, one in space.items()],
        "trialTemplate": {
            "primaryContainerName": "train",
            "trialParameters": references,
            "trialSpec": _job(names, image),
        },
    }


def _algorithm(params: Params) -> Json:
    name = _ALGORITHMS.get(params.tune.sampler, _DEFAULT_ALGORITHM)
    settings = [{"name": "random_state", "value": str(params.tune.seed)}]
    if name == _DEFAULT_ALGORITHM and params.tune.startup_trials is not None:
        settings.append({"name": "n_startup_trials", "value": str(params.tune.startup_trials)})
    return {"algorithmName": name, "algorithmSettings": settings}


def _job(names: dict[str, str], image: str) -> Json:
    """One trial: a Job, which Kubernetes repeats when its node is lost; training then goes on."""
    command = ["python3", "-m", "kamerton", "train", "--trial", "--quiet"]
    command += [f"--dataset={WORKSPACE}/data/dataset", f"--analysis={WORKSPACE}/data/analysis.json"]
    command += [f"--runs={WORKSPACE}/runs", f"--params={_PARAMS_FOLDER}/params.yaml"]
    command += [f"--set={name}=${{trialParameters.{short}}}" for name, short in names.items()]
    resources = {"cpu": "2", "memory": "8Gi"}
    container = {
        "name": "train",
        "image": image,
        "command": command,
        "resources": {"requests": resources, "limits": resources},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "workspace", "mountPath": WORKSPACE},
            {"name": "params", "mountPath": _PARAMS_FOLDER},
        ],
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "workspace", "persistentVolumeClaim": {"claimName": CLAIM}},
            {"name": "params", "configMap": {"name": NAME}},
        ],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "spec": {
            "backoffLimit": 2,
            "template": {
                # The proxy of a mesh outlives the trainer, and the Job would never complete.
                "metadata": {"annotations": {"sidecar.istio.io/inject": "false"}},
                "spec": pod,
            },
        },
    }
