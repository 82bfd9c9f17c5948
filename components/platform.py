"""How a task is placed on the cluster: processors, memory, volume, secrets, cache.

All settings of Kubernetes are made here, so that the pipeline itself reads as the list of stages.
"""

from dataclasses import dataclass

from kfp import dsl, kubernetes

from components import images

WORKSPACE = "/kamerton"  # where the claim is mounted in every task
WORKSPACE_CLAIM = "kamerton-workspace"
SECRET = "kamerton-secrets"

# Optional: a key that the secret does not hold is simply not set. These are names, never values.
SECRET_KEYS = {
    "mlflow-username": "MLFLOW_TRACKING_USERNAME",
    "mlflow-password": "MLFLOW_TRACKING_PASSWORD",
    "wandb-api-key": "WANDB_API_KEY",
}
# They read or change the registry, which Kubeflow's cache key knows nothing of.
NEVER_CACHED = frozenset({"evaluate", "promote"})


@dataclass(frozen=True, slots=True)
class Resources:
    """What one task asks for; the limits equal the requests, so that no neighbour is starved."""

    cpu: str
    memory: str
    gpus: int = 0
    shared_memory: str | None = None
    retries: int = 1


@dataclass(frozen=True, slots=True)
class Profile:
    """Resources of each stage, and what the whole pipeline does about caching."""

    name: str
    stages: dict[str, Resources]
    gpu_resource: str = "nvidia.com/gpu"


_LIGHT = Resources(cpu="1", memory="2Gi")
_DATA = Resources(cpu="2", memory="4Gi")
_TRAIN_CPU = Resources(cpu="2", memory="8Gi", shared_memory="1Gi", retries=3)
# Workers hand batches over through shared memory, of which a pod has 64 MB by default.
_TRAIN_GPU = Resources(cpu="4", memory="16Gi", gpus=1, shared_memory="4Gi", retries=3)


def _profile(name: str, recognise: Resources, train: Resources) -> Profile:
    stages = {
        "segment": _DATA,
        "transcribe": recognise,
        "dataset": _DATA,
        "analyze": _DATA,
        "tune": train,
        "train": train,
        "evaluate": recognise,
        "promote": _LIGHT,
    }
    return Profile(name, stages)


PROFILES = {
    "cpu": _profile("cpu", Resources(cpu="2", memory="8Gi"), _TRAIN_CPU),
    "gpu": _profile("gpu", Resources(cpu="4", memory="16Gi", gpus=1), _TRAIN_GPU),
}


def apply_platform(task: dsl.PipelineTask, stage: str, profile: Profile, *, cache: bool) -> None:
    """Place ``task``; Kubeflow's local runner ignores all of it.

    Args:
        task: the task to place, changed in place.
        stage: name of the stage that it runs.
        profile: which resources it gets.
        cache: let Kubeflow reuse results. Only right where the recordings' URI is never refilled
            with other sound, and only done where the image is pinned by digest.
    """
    resources = profile.stages[stage]
    _request(task, resources, profile.gpu_resource)
    kubernetes.mount_pvc(task, pvc_name=WORKSPACE_CLAIM, mount_path=WORKSPACE)
    kubernetes.use_secret_as_env(task, SECRET, secret_key_to_env=SECRET_KEYS, optional=True)
    # A node that is taken away fails its task. Training then goes on from its last checkpoint.
    task.set_retry(resources.retries, backoff_duration="30s")
    pinned = images.is_pinned(task.container_spec.image)
    task.set_caching_options(cache and pinned and stage not in NEVER_CACHED)


def _request(task: dsl.PipelineTask, resources: Resources, gpu_resource: str) -> None:
    task.set_cpu_request(resources.cpu).set_cpu_limit(resources.cpu)
    task.set_memory_request(resources.memory).set_memory_limit(resources.memory)
    if resources.gpus:
        task.set_accelerator_type(gpu_resource).set_accelerator_limit(resources.gpus)
    if resources.shared_memory:
        kubernetes.empty_dir_mount(
            task,
            volume_name="shared-memory",
            mount_path="/dev/shm",
            medium="Memory",
            size_limit=resources.shared_memory,
        )
