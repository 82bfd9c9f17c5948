"""Every request of `kamerton pipeline` against the published API of Kubeflow Pipelines 2.17."""

import json
import re
from typing import Any

import pytest

from kamerton.cli.pipeline import pipeline_app
from tests.contract.kube_schemas import VARIABLE, schema_folder, strict
from tests.unit.cli.fake_kubeflow import FakeKubeflow, Request, serving


@pytest.fixture(scope="module")
def api() -> Any:
    folder = schema_folder()
    files = sorted(folder.glob("kfp-*.swagger.json")) if folder else []
    if not files:
        pytest.skip(f"set {VARIABLE} to the folder with the API's description")
    return json.loads(files[-1].read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> list[Request]:
    """All that a submission, a look at it and its end say to the server."""
    package = tmp_path_factory.mktemp("submit") / "pipeline.yaml"
    package.write_text("components: {}\n")
    with serving(FakeKubeflow()) as fake:
        server = ["--endpoint", fake.url, "--namespace", "team-a"]
        submit = ["submit", *server, "--package", str(package), "--recordings", "s3://voices/raw"]
        more = ["--service-account", "runner", "--pipeline-root", "s3://out"]
        waiting = ["--wait", "--poll-seconds", "0.01"]
        for command in (
            [*submit, *more, *waiting],
            ["status", "run_id-1", *server],
            ["cancel", "run_id-1", *server],
        ):
            pipeline_app(command, standalone_mode=False)
    return fake.requests


def operation(api: Any, request: Request) -> Any:
    for template, methods in api["paths"].items():
        pattern = re.sub(r"\\\{[^}]+\\\}", "[^/:]+", re.escape(template))
        if re.fullmatch(pattern, request.path) and request.method.lower() in methods:
            return methods[request.method.lower()]
    pytest.fail(f"the API has no {request.method} {request.path}")


def test_every_request_is_one_of_the_api_and_says_only_what_it_knows(
    api: Any, requests: list[Request]
) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    definitions = {name: strict(one) for name, one in api["definitions"].items()}
    seen = set()
    for request in requests:
        known = operation(api, request)
        seen.add(known["operationId"])
        parameters = {one["name"]: one for one in known["parameters"]}
        assert set(request.query) <= {n for n, one in parameters.items() if one["in"] == "query"}
        required = {n for n, one in parameters.items() if one.get("required")}
        (body, *_) = [one for one in parameters.values() if one["in"] == "body"] or [None]
        if body and request.body:
            schema = {**body["schema"], "definitions": definitions}
            jsonschema.Draft202012Validator(schema).validate(request.body)
        in_path = {n for n, one in parameters.items() if one["in"] == "path"}
        in_form = {n for n, one in parameters.items() if one["in"] == "formData"}
        given = set(request.query) | in_path | ({body["name"]} if body else set())
        if in_form:
            assert b'name="uploadfile"' in request.body
            given |= in_form
        assert required <= given
    assert len(seen) >= 8  # look for and make: pipeline, version, experiment, run; and follow it
