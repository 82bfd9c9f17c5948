"""Strict validation of Kubernetes manifests: a field that the kind does not have is an error.

Core kinds are checked by `kubernetes-validate`, always. Kubeflow's kinds are checked against the
schemas of their projects, in the folder that `KAMERTON_SCHEMAS` names: the CRD's schema, or for
Katib, whose CRD allows anything, the OpenAPI file of its Go types. The trial template inside an
Experiment is checked against its own kind, which neither Katib nor an API server does.
"""

import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]

VARIABLE = "KAMERTON_SCHEMAS"
KATIB_GROUP = "kubeflow.org/v1beta1"
_KATIB_TYPES = "v1beta1."  # prefix of Katib's own types in its OpenAPI file
_EMBEDDED = {
    "apiVersion": {"type": "string"},
    "kind": {"type": "string"},
    "metadata": {"type": "object"},
}


class SchemaMissingError(LookupError):
    """No schema for this kind is at hand."""


def schema_folder() -> Path | None:
    """The folder with the schemas of Kubeflow's kinds, where one is given."""
    given = os.environ.get(VARIABLE)
    return Path(given) if given else None


def is_core(manifest: Json) -> bool:
    """Whether Kubernetes itself defines the kind."""
    group = str(manifest["apiVersion"]).rpartition("/")[0]
    return "." not in group or group.endswith(".k8s.io")


def errors(manifest: Json, folder: Path | None) -> list[str]:
    """Everything wrong with ``manifest``, as `place: problem`.

    Raises:
        SchemaMissingError: its kind is known neither to Kubernetes nor in ``folder``.
    """
    kind = (str(manifest["apiVersion"]), str(manifest["kind"]))
    if is_core(manifest):
        return _core_errors(manifest)
    if folder is None:
        raise SchemaMissingError(f"{VARIABLE} is not set; {kind[1]} is not a core kind")
    if kind == (KATIB_GROUP, "Experiment"):
        return [*_check(manifest, _katib_schema(folder)), *_trial_errors(manifest, folder)]
    return _check(manifest, _crd_schema(folder, *kind))


def _core_errors(manifest: Json) -> list[str]:
    import kubernetes_validate

    try:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{_place(error.path)}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError as error:
        raise SchemaMissingError(error.message) from error
    return []


def _trial_errors(experiment: Json, folder: Path) -> Iterator[str]:
    """Problems of the trial template as the kind that it creates, named by their place."""
    trial = experiment.get("spec", {}).get("trialTemplate", {}).get("trialSpec")
    if trial:
        named = {**trial, "metadata": {"name": "trial", **trial.get("metadata", {})}}
        for problem in errors(named, folder):
            yield f"spec.trialTemplate.trialSpec.{problem}"


def _check(manifest: Json, schema: Json) -> list[str]:
    import jsonschema

    found = jsonschema.Draft202012Validator(schema).iter_errors(manifest)
    return [f"{_place(error.absolute_path)}: {error.message}" for error in found]


def _place(path: Any) -> str:
    return ".".join(str(part) for part in path) or "(top)"


@functools.cache
def _crd_schema(folder: Path, api_version: str, kind: str) -> Json:
    group, _, version = api_version.partition("/")
    for file in sorted(folder.glob("*.crd.yaml")):
        # Large files: the C loader takes seconds where the other one takes minutes.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        for definition in yaml.load_all(file.read_bytes(), Loader=loader):
            spec = (definition or {}).get("spec", {})
            if spec.get("group") != group or spec.get("names", {}).get("kind") != kind:
                continue
            for one in spec["versions"]:
                if one["name"] == version:
                    return strict(one["schema"]["openAPIV3Schema"], embedded=True)
    raise SchemaMissingError(f"no schema for {api_version} {kind} in {folder}")


@functools.cache
def _katib_schema(folder: Path) -> Json:
    files = sorted(folder.glob("katib-*.openapi.json"))
    if not files:
        raise SchemaMissingError(f"no OpenAPI file of Katib in {folder}")
    types = json.loads(files[-1].read_text(encoding="utf-8"))["components"]["schemas"]
    closed = {name: strict(one) for name, one in types.items()}
    # The trial template is any kind at all; it is checked as that kind.
    closed[f"{_KATIB_TYPES}TrialTemplate"]["properties"]["trialSpec"] = {"type": "object"}
    return {"$ref": f"#/components/schemas/{_KATIB_TYPES}Experiment", **_as_components(closed)}


def _as_components(types: Json) -> Json:
    return {"components": {"schemas": types}}


def strict(schema: Json, *, embedded: bool = False) -> Json:
    """A structural schema of Kubernetes as JSON Schema that refuses unknown fields.

    Args:
        schema: OpenAPI 3, as CRDs hold it.
        embedded: the object has apiVersion, kind and metadata, which its schema leaves out.
    """
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    # Formats and patterns of Go's regular expressions are the API server's business.
    for key in ("description", "format", "example", "default"):
        made.pop(key, None)
    embedded = embedded or bool(schema.get("x-kubernetes-embedded-resource"))
    properties = {name: strict(one) for name, one in schema.get("properties", {}).items()}
    if embedded:
        properties = {**_EMBEDDED, **properties, "metadata": {"type": "object"}}
    if properties:
        made["properties"] = properties
    if isinstance(schema.get("items"), dict):
        made["items"] = strict(schema["items"])
    free = schema.get("x-kubernetes-preserve-unknown-fields", False)
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        made["additionalProperties"] = strict(values)
    elif properties and not free:
        made["additionalProperties"] = False
    for key in ("allOf", "anyOf", "oneOf"):
        if key in schema:
            # Branches only narrow what the object itself declares: closing them would refuse all.
            made[key] = [_narrowing(one) for one in schema[key]]
    return _nullable(made) if schema.get("nullable") else made


def _narrowing(branch: Json) -> Json:
    if "$ref" in branch:
        return {"$ref": branch["$ref"]}
    return {key: value for key, value in branch.items() if key in ("required", "type")}


def _nullable(schema: Json) -> Json:
    return {"anyOf": [{"type": "null"}, schema]}
