"""The API client against a fake server: what is created once, what is repeated, what is refused."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from kamerton.cli.pipeline.server import Credentials, Server, ServerError
from kamerton.core.errors import PipelineError
from tests.unit.cli.fake_kubeflow import FakeKubeflow, Fault, serving


@pytest.fixture
def fake() -> Iterator[FakeKubeflow]:
    with serving(FakeKubeflow()) as running:
        yield running


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def server(fake: FakeKubeflow, pauses: list[float]) -> Server:
    return Server(fake.url, retry_seconds=(1.0, 2.0), sleep=pauses.append)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "pipeline.yaml"
    path.write_bytes(b"components: {}\n# \xd0\xba\xd0\xb0\xd0\xbc\r\n\r\n--not a boundary\r\n")
    return path


def test_a_second_upload_finds_the_first(fake: FakeKubeflow, server: Server, package: Path) -> None:
    first, uploaded = server.pipeline("voice", package)
    again, uploaded_again = server.pipeline("voice", package)
    assert (uploaded, uploaded_again) == (True, False)
    assert first["pipeline_id"] == again["pipeline_id"]
    assert len(fake.pipelines) == 1


def test_the_package_arrives_byte_for_byte(
    fake: FakeKubeflow, server: Server, package: Path
) -> None:
    server.pipeline("voice", package)
    (upload,) = (r for r in fake.requests if r.method == "POST")
    boundary = upload.headers["content-type"].partition("boundary=")[2].encode()
    head, _, rest = upload.body.partition(b"\r\n\r\n")
    assert head.startswith(b"--" + boundary)
    assert b'name="uploadfile"' in head
    assert rest == package.read_bytes() + b"\r\n--" + boundary + b"--\r\n"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_lost_answer_makes_no_second_run(
    fake: FakeKubeflow, server: Server, pauses: list[float], after: bool
) -> None:
    """A gateway that breaks before or after the server has acted: one run either way."""
    fake.faults.append(Fault("POST", "/runs", 503, after=after))
    run = server.start({"experiment_id": "e", "display_name": "one"})
    assert [r["run_id"] for r in fake.runs] == [run["run_id"]]
    assert pauses == [1.0]


def test_somebody_elses_upload_at_the_same_time_is_used(
    fake: FakeKubeflow, server: Server, package: Path
) -> None:
    fake.faults.append(
        Fault("POST", "/pipelines/upload", 409, after=True, body='{"message": "already exists"}')
    )
    found, uploaded = server.pipeline("voice", package)
    assert (found["pipeline_id"], uploaded) == ("pipeline_id-1", False)


def test_transient_errors_are_repeated_and_then_told(
    fake: FakeKubeflow, server: Server, pauses: list[float]
) -> None:
    fake.faults += [Fault("GET", "/runs", 502)] * 3
    with pytest.raises(ServerError, match="502") as error:
        server.run("r")
    assert pauses == [1.0, 2.0]
    assert error.value.transient


def test_a_refusal_is_not_repeated(fake: FakeKubeflow, server: Server, pauses: list[float]) -> None:
    with pytest.raises(ServerError, match="Run nothing not found"):
        server.run("nothing")
    assert pauses == []
    assert len(fake.requests) == 1


def test_an_answer_that_is_not_json_is_named(fake: FakeKubeflow, server: Server) -> None:
    """What a proxy's login page looks like to a client."""
    fake.faults.append(Fault("GET", "/runs", 200, body="<html>log in</html>"))
    with pytest.raises(ServerError, match="something else than a JSON object") as error:
        server.run("r")
    assert "login page" in error.value.hint


def test_no_server_is_told_with_the_address(pauses: list[float]) -> None:
    server = Server("http://127.0.0.1:9", retry_seconds=(0.5,), sleep=pauses.append)
    with pytest.raises(ServerError, match=r"127\.0\.0\.1:9 does not answer"):
        server.run("r")
    assert pauses == [0.5]


def test_a_wrong_token_is_refused_with_the_names_of_the_variables(
    fake: FakeKubeflow, server: Server
) -> None:
    fake.token = "right"
    with pytest.raises(ServerError, match="401") as error:
        server.run("r")
    assert "KFP_TOKEN" in error.value.hint


def test_a_rotated_token_file_is_read_again(fake: FakeKubeflow, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    server = Server(fake.url, Credentials(token_file=token_file))
    for token in ("first", "second"):
        token_file.write_text(token + "\n")
        fake.token = token
        server.experiment("voices")


def test_an_unreadable_token_file_is_named(fake: FakeKubeflow, tmp_path: Path) -> None:
    server = Server(fake.url, Credentials(token_file=tmp_path / "nothing"))
    with pytest.raises(PipelineError, match="token file"):
        server.run("r")


def test_secrets_are_not_in_the_representation() -> None:
    assert "s3cret" not in repr(Credentials(token="s3cret", cookie="s3cret"))


def test_the_namespace_goes_with_what_is_namespaced(
    fake: FakeKubeflow, package: Path, pauses: list[float]
) -> None:
    server = Server(fake.url, namespace="team-a", sleep=pauses.append)
    server.pipeline("voice", package)
    server.experiment("voices")
    listing, upload, experiments, creation = fake.requests
    assert listing.query["namespace"] == upload.query["namespace"] == "team-a"
    assert experiments.query["namespace"] == creation.body["namespace"] == "team-a"


def test_credentials_do_not_follow_a_redirect(fake: FakeKubeflow) -> None:
    """A login page elsewhere must not be handed the token."""
    seen: list[str] = []

    class Login(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(302)
            self.send_header("Location", fake.url + "/login")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Login) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        server = Server(f"http://127.0.0.1:{other.server_port}", Credentials(token="s3cret"))
        with pytest.raises(ServerError, match="302") as error:
            server.run("r")
        other.shutdown()
    assert len(seen) == 1
    assert fake.requests == []
    assert "/login" in error.value.hint
