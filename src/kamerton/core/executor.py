"""What a Kubeflow task is told about its outputs, and what it tells Kubeflow back.

A container component is handed one JSON text (the ``{{$}}`` placeholder). It names every output
artifact by URI, and one file into which the task may write metadata; Kubeflow merges that file
into the registered artifacts, which is what fills its Metrics tables and its lineage. The file is
written last and atomically, so its existence also means that the stage finished. Nothing here needs
``kfp``.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kamerton.core.errors import PipelineError, UsageError
from kamerton.core.files import write_json

# Where Kubeflow's launcher mounts each store; a plain path is what the local runner gives.
_MOUNTS = {"gs://": "/gcs/", "minio://": "/minio/", "s3://": "/s3/"}
_METRICS_TYPE = "system.Metrics"

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True)
class OutputArtifact:
    """One output as Kubeflow knows it; ``path`` is where the task writes it."""

    name: str
    uri: str
    type_name: str

    @property
    def path(self) -> Path:
        """The file or folder behind the URI, inside this container."""
        return local_path(self.uri)

    @property
    def is_metrics(self) -> bool:
        """Whether Kubeflow renders this artifact from its metadata alone."""
        return _METRICS_TYPE in self.type_name


@dataclass(frozen=True, slots=True)
class Executor:
    """The outputs of one task, and the file that reports on them."""

    artifacts: tuple[OutputArtifact, ...]
    output_file: Path

    def prepare(self) -> None:
        """Make the parent folders of all outputs: Kubeflow's local runner does not."""
        for artifact in self.artifacts:
            artifact.path.parent.mkdir(parents=True, exist_ok=True)
        self.output_file.parent.mkdir(parents=True, exist_ok=True)

    def finish(
        self, metrics: Mapping[str, float], *, metadata: Mapping[str, Json] | None = None
    ) -> None:
        """Report the stage as done. Call it once, after every output is in place.

        Args:
            metrics: shown in Kubeflow's Metrics table. A number that is not finite has no JSON form
                and would make Kubeflow refuse the whole file, so it is left out of the table and
                stands as null in the metrics file.
            metadata: put on every other artifact.

        Raises:
            PipelineError: an output that the task was asked for was not written.
        """
        for artifact in self.artifacts:
            if not artifact.is_metrics and not artifact.path.exists():
                raise PipelineError(
                    f"The stage did not write its output '{artifact.name}' ({artifact.path}).",
                    hint="pass the path of every output port to the stage",
                )
        finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        entries: dict[str, Json] = {}
        for artifact in self.artifacts:
            if artifact.is_metrics:
                write_json(artifact.path, {name: finite.get(name) for name in metrics})
            fields: Mapping[str, Json] = finite if artifact.is_metrics else (metadata or {})
            entry: Json = {"name": artifact.name, "uri": artifact.uri, "metadata": dict(fields)}
            entries[artifact.name] = {"artifacts": [entry]}
        write_json(self.output_file, {"artifacts": entries})


def local_path(uri: str) -> Path:
    """Map an artifact's URI to the path that Kubeflow's launcher mounts it at."""
    for scheme, mount in _MOUNTS.items():
        if uri.startswith(scheme):
            return Path(mount + uri.removeprefix(scheme))
    if "://" in uri:
        raise UsageError(
            f"Output URI {uri} is of a store that Kubeflow's launcher does not mount.",
            hint=f"use a pipeline root of one of: {', '.join(_MOUNTS)}",
        )
    return Path(uri)


def parse_executor_input(text: str) -> Executor:
    """Read the JSON that replaces ``{{$}}`` in a container component's arguments.

    Raises:
        UsageError: it is not JSON, or not of the form that Kubeflow documents.
    """
    try:
        outputs = json.loads(text)["outputs"]
        return Executor(
            tuple(_artifacts(outputs.get("artifacts", {}))), Path(outputs["outputFile"])
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise UsageError(
            f"--executor-input is not Kubeflow's executor input: {type(error).__name__}: {error}",
            hint="it is set by Kubeflow Pipelines; leave it out when running a stage by hand",
        ) from error


def _artifacts(outputs: Mapping[str, Any]) -> Iterator[OutputArtifact]:
    """One entry per output port; Kubeflow gives each a list that holds one artifact."""
    for port, listed in outputs.items():
        artifact = listed["artifacts"][0]
        kind = artifact.get("type", {})
        yield OutputArtifact(
            name=port,
            uri=str(artifact["uri"]),
            # The servers send the title; a few older ones sent the whole schema as text.
            type_name=str(kind.get("schemaTitle") or kind.get("instanceSchema") or ""),
        )
