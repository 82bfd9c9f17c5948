"""A Kubeflow Pipelines API server on the loopback, small and stateful, with faults on request."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

API = "/apis/v2beta1"


@dataclass
class Fault:
    """Answer the next matching request with ``status``; ``after``: once it has been carried out."""

    method: str
    path: str
    status: int
    after: bool = False
    body: str = '{"code": 13, "message": "injected"}'


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]


@dataclass
class FakeKubeflow:
    """State of the server. A run walks through ``states``, one per time it is asked for."""

    url: str = ""
    token: str | None = None
    states: list[str] = field(default_factory=lambda: ["PENDING", "RUNNING", "SUCCEEDED"])
    tasks: list[dict[str, Any]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    pipelines: list[dict[str, Any]] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
    experiments: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    packages: list[bytes] = field(default_factory=list)

    def answer(self, request: Request) -> tuple[int, Any]:
        self.requests.append(request)
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return 401, {"code": 16, "message": "Request header error: there is no user identity"}
        fault = next((f for f in self.faults if _matches(f, request)), None)
        if fault:
            self.faults.remove(fault)
            if fault.after:
                self._carry_out(request)
            return fault.status, fault.body
        return self._carry_out(request)

    def _carry_out(self, request: Request) -> tuple[int, Any]:  # noqa: PLR0911 - one per route
        parts = [unquote(part) for part in request.path.removeprefix(API).strip("/").split("/")]
        match (request.method, parts):
            case ("GET", ["pipelines"]):
                return 200, {"pipelines": _filtered(self.pipelines, request)}
            case ("POST", ["pipelines", "upload"]):
                return self._add(self.pipelines, "pipeline_id", request.query, request.body)
            case ("GET", ["pipelines", identity, "versions"]):
                own = [v for v in self.versions if v["pipeline_id"] == identity]
                return 200, {"pipeline_versions": _filtered(own, request)}
            case ("POST", ["pipelines", "upload_version"]):
                fields = {**request.query, "pipeline_id": request.query["pipelineid"]}
                return self._add(self.versions, "pipeline_version_id", fields, request.body)
            case ("GET", ["experiments"]):
                return 200, {"experiments": _filtered(self.experiments, request)}
            case ("POST", ["experiments"]):
                return self._add(self.experiments, "experiment_id", request.body, None)
            case ("GET", ["runs"]):
                return 200, {"runs": _filtered(self.runs, request)}
            case ("POST", ["runs"]):
                return self._add(self.runs, "run_id", {**request.body, "asked": 0}, None, new=True)
            case ("GET", ["runs", identity]):
                return self._run(identity)
            case ("POST", ["runs", action]) if action.endswith(":terminate"):
                self.states = ["CANCELING", "CANCELED"]
                self._find_run(action.removesuffix(":terminate"))["asked"] = 0
                return 200, {}
        return 404, {"code": 5, "message": f"{request.method} {request.path} not found"}

    def _find_run(self, identity: str) -> dict[str, Any]:
        return next(run for run in self.runs if run["run_id"] == identity)

    def _run(self, identity: str) -> tuple[int, Any]:
        if not any(run["run_id"] == identity for run in self.runs):
            return 404, {"code": 5, "message": f"Run {identity} not found"}
        run = self._find_run(identity)
        state = self.states[min(run["asked"], len(self.states) - 1)]
        run["asked"] += 1
        shown = {key: value for key, value in run.items() if key != "asked"}
        return 200, {**shown, "state": state, "run_details": {"task_details": self.tasks}}

    def _add(
        self,
        items: list[dict[str, Any]],
        key: str,
        fields: dict[str, Any],
        package: bytes | None,
        *,
        new: bool = False,
    ) -> tuple[int, Any]:
        name = fields.get("display_name") or fields["name"]
        if not new and any(item["display_name"] == name for item in items):
            return 409, {"code": 6, "message": f"{name} already exists"}
        if package is not None:
            self.packages.append(package)
        item = {**fields, "display_name": name, key: f"{key}-{len(items) + 1}"}
        items.append(item)
        return 200, item


def _matches(fault: Fault, request: Request) -> bool:
    return fault.method == request.method and request.path.startswith(API + fault.path)


def _filtered(items: list[dict[str, Any]], request: Request) -> list[dict[str, Any]]:
    (predicate,) = json.loads(request.query["filter"])["predicates"]
    assert predicate["operation"] == 1
    return [item for item in items if item[predicate["key"]] == predicate["stringValue"]]


@contextmanager
def serving(fake: FakeKubeflow) -> Iterator[FakeKubeflow]:
    """Answer on a free port of the loopback while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            parts = urlsplit(self.path)
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kind = self.headers.get("Content-Type", "")
            body = json.loads(data) if kind == "application/json" and data else data
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            headers = {key.lower(): value for key, value in self.headers.items()}
            request = Request(self.command, parts.path, query, body, headers)
            status, answer = fake.answer(request)
            text = answer if isinstance(answer, str) else json.dumps(answer)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = _handle  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
