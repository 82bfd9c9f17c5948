"""A Kubeflow Pipelines server over its REST API (v2beta1).

Kubeflow's own client is not used here: it treats a cancelled run as one that never ends, and a
failed one as a success, and asks a server that is down for half a minute before it says so.
Everything that is created is first looked for, so a call that was answered by a broken gateway can
be repeated without making a second pipeline or a second run.
"""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from kamerton.core.errors import PipelineError

_API = "/apis/v2beta1"
_EQUALS = 1  # the filter operation's number in Kubeflow's API
_REQUEST_SECONDS = 60.0

Json = dict[str, Any]


class ServerError(PipelineError):
    """The server answered with an error, or did not answer."""

    def __init__(self, message: str, *, hint: str, status: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed a little later."""
        status = self.status
        busy = status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT)
        return status is None or busy or status >= HTTPStatus.INTERNAL_SERVER_ERROR

    @property
    def conflict(self) -> bool:
        """Whether what should be created is there already."""
        return self.status == HTTPStatus.CONFLICT or "already exist" in self.message.lower()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses to be sent elsewhere: the credentials would go along, and a POST become a GET."""

    def redirect_request(self, *_: Any) -> None:
        """Nothing to ask instead, so that the answer itself is reported."""


_OPENER = urllib.request.build_opener(_NoRedirects)


@dataclass(frozen=True, slots=True)
class Credentials:
    """How requests are signed; files are read for every request, since tokens in pods rotate."""

    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    cookie: str | None = field(default=None, repr=False)

    def headers(self) -> dict[str, str]:
        """The HTTP headers that carry them.

        Raises:
            PipelineError: the token file cannot be read.
        """
        token = self.token
        if self.token_file is not None:
            try:
                token = self.token_file.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise PipelineError(
                    f"The token file {self.token_file} cannot be read: {error.strerror}.",
                    hint="correct KFP_TOKEN_FILE, or set KFP_TOKEN",
                ) from error
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return headers | ({"Cookie": self.cookie} if self.cookie else {})


@dataclass(frozen=True, slots=True)
class Server:
    """One endpoint; ``retry_seconds`` are the pauses before each repetition of a request."""

    endpoint: str
    credentials: Credentials = field(default_factory=Credentials)
    namespace: str | None = None
    retry_seconds: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    sleep: Callable[[float], None] = time.sleep

    def pipeline(self, name: str, package: Path) -> tuple[Json, bool]:
        """The pipeline called ``name``, uploaded if there is none; and whether it was uploaded."""
        query = self._with_namespace({"name": name, "display_name": name})
        return self._get_or_create(
            lambda: self._find("/pipelines", "pipelines", name, namespaced=True),
            lambda: self._upload("/pipelines/upload", package, query),
        )

    def version(self, pipeline_id: str, name: str, package: Path) -> tuple[Json, bool]:
        """The version ``name`` of a pipeline, uploaded if there is none."""
        query = {"name": name, "display_name": name, "pipelineid": pipeline_id}
        return self._get_or_create(
            lambda: self._find(f"/pipelines/{pipeline_id}/versions", "pipeline_versions", name),
            lambda: self._upload("/pipelines/upload_version", package, query),
        )

    def experiment(self, name: str) -> Json:
        """The experiment called ``name``, made if there is none."""
        body = self._with_namespace({"display_name": name})
        return self._get_or_create(
            lambda: self._find("/experiments", "experiments", name, namespaced=True),
            lambda: self._call("POST", "/experiments", body=body),
        )[0]

    def start(self, run: Mapping[str, Any]) -> Json:
        """Start a run; its ``display_name`` must be new, since a lost answer is looked up by it."""
        query = {"experiment_id": str(run["experiment_id"])}
        return self._get_or_create(
            lambda: self._find("/runs", "runs", str(run["display_name"]), query=query),
            lambda: self._call("POST", "/runs", query=query, body=dict(run)),
        )[0]

    def run(self, run_id: str) -> Json:
        """A run with its tasks."""
        return self._retried(lambda: self._call("GET", f"/runs/{urllib.parse.quote(run_id)}"))

    def cancel(self, run_id: str) -> None:
        """Ask for a run to be ended."""
        path = f"/runs/{urllib.parse.quote(run_id)}:terminate"
        self._retried(lambda: self._call("POST", path))

    def _with_namespace(self, query: dict[str, str]) -> dict[str, str]:
        return query | ({"namespace": self.namespace} if self.namespace else {})

    def _find(
        self,
        path: str,
        key: str,
        name: str,
        *,
        namespaced: bool = False,
        query: Mapping[str, str] | None = None,
    ) -> Json | None:
        same_name = {"operation": _EQUALS, "key": "display_name", "stringValue": name}
        wanted = dict(query or {}) | {"filter": json.dumps({"predicates": [same_name]})}
        if namespaced:
            wanted = self._with_namespace(wanted)
        listed = self._retried(lambda: self._call("GET", path, query=wanted)).get(key) or []
        # Servers before 2.15 filter loosely; the name is compared once more here.
        return next((item for item in listed if item.get("display_name") == name), None)

    def _get_or_create(
        self, find: Callable[[], Json | None], create: Callable[[], Json]
    ) -> tuple[Json, bool]:
        for pause in (*self.retry_seconds, None):
            if found := find():
                return found, False
            try:
                return create(), True
            except ServerError as error:
                if pause is None or not (error.transient or error.conflict):
                    raise
                self.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _retried(self, request: Callable[[], Json]) -> Json:
        for pause in self.retry_seconds:
            try:
                return request()
            except ServerError as error:
                if not error.transient:
                    raise
                self.sleep(pause)
        return request()

    def _upload(self, path: str, package: Path, query: Mapping[str, str]) -> Json:
        boundary = uuid.uuid4().hex
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="uploadfile"; '
            f'filename="pipeline.yaml"\r\nContent-Type: application/yaml\r\n\r\n'
        )
        data = head.encode() + package.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        content_type = f"multipart/form-data; boundary={boundary}"
        return self._call("POST", path, query=query, data=data, content_type=content_type)

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        data: bytes | None = None,
        content_type: str = "application/json",
    ) -> Json:
        url = self.endpoint.rstrip("/") + _API + path
        if query:
            url += "?" + urllib.parse.urlencode(query)
        if body is not None:
            data = json.dumps(body).encode()
        headers = {"Accept": "application/json", **self.credentials.headers()}
        if data is not None:
            headers["Content-Type"] = content_type
        request = urllib.request.Request(url, data=data, method=method, headers=headers)
        try:
            with _OPENER.open(request, timeout=_REQUEST_SECONDS) as answer:
                return _json_object(answer.read(), url)
        except urllib.error.HTTPError as error:
            raise _refused(error, url) from error
        except (OSError, urllib.error.URLError) as error:
            reason = getattr(error, "reason", error)
            raise ServerError(
                f"The Kubeflow Pipelines server at {self.endpoint} does not answer: {reason}.",
                hint="check --endpoint, or forward the port: "
                "kubectl -n kubeflow port-forward svc/ml-pipeline 8888",
            ) from error


def _json_object(answer: bytes, url: str) -> Json:
    try:
        value = json.loads(answer or b"{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ServerError(
            f"{url} answered with something else than a JSON object.",
            hint="--endpoint may be the address of a login page; give the API server's own",
            status=HTTPStatus.OK,
        )
    return value


def _refused(error: urllib.error.HTTPError, url: str) -> ServerError:
    """The server's own words, and what would help."""
    text = error.read().decode("utf-8", errors="replace")
    try:
        answer = json.loads(text)
        text = str(answer.get("message") or answer.get("error") or text)
    except (ValueError, AttributeError):
        text = text.strip()
    hint = "see the server's log"
    if error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        hint = "set KFP_TOKEN, KFP_TOKEN_FILE or KFP_COOKIE, and --namespace on a multi-user server"
    elif HTTPStatus.MULTIPLE_CHOICES <= error.code < HTTPStatus.BAD_REQUEST:
        hint = f"it sends to {error.headers.get('Location')}: give the API server's own --endpoint"
    elif error.code == HTTPStatus.NOT_FOUND:
        hint = "check the id, and that --endpoint is a Kubeflow Pipelines 2 server"
    path = urllib.parse.urlsplit(url).path
    return ServerError(f"{path}: {error.code} {error.reason}: {text}", hint=hint, status=error.code)
