"""`kamerton pipeline submit|status|cancel|logs` against a fake server on the loopback."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kamerton.cli.pipeline import package as package_module
from kamerton.cli.pipeline import pipeline_app
from kamerton.cli.pipeline.server import Server
from kamerton.cli.pipeline.wait import Clock, follow, require_success, task_states
from kamerton.core.errors import (
    INTERRUPTED_EXIT_CODE,
    InputMissingError,
    PipelineError,
    ToolMissingError,
    UsageError,
)
from tests.unit.cli.fake_kubeflow import FakeKubeflow, Fault, serving


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("KFP_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fake() -> Iterator[FakeKubeflow]:
    with serving(FakeKubeflow()) as running:
        yield running


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "given.yaml"
    path.write_text("components: {}\n")
    return path


def call(*arguments: object) -> Any:
    return pipeline_app([str(argument) for argument in arguments], standalone_mode=False)


def submit(fake: FakeKubeflow, package: Path, *arguments: object) -> Any:
    server = ["--endpoint", fake.url, "--poll-seconds", "0.01"]
    given = ["--package", package, "--recordings", "s3://voices/raw"]
    return call("submit", *server, *given, *arguments)


def task(name: str, state: str, message: str = "") -> dict[str, Any]:
    return {
        "display_name": name,
        "state": state,
        "pod_name": f"{name}-pod",
        "error": {"code": 1, "message": message} if message else None,
    }


def test_submit_starts_one_run_of_the_uploaded_version(
    fake: FakeKubeflow, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(fake, package, "--pipeline-root", "s3://out", "--service-account", "runner", "--json")
    (run,) = fake.runs
    (version,) = fake.versions
    assert run["pipeline_version_reference"] == {
        "pipeline_id": version["pipeline_id"],
        "pipeline_version_id": version["pipeline_version_id"],
    }
    assert run["runtime_config"] == {
        "parameters": {"recordings": "s3://voices/raw"},
        "pipeline_root": "s3://out",
    }
    assert run["service_account"] == "runner"
    output = capsys.readouterr()
    assert json.loads(output.out)["run_id"] == run["run_id"]
    assert f"{fake.url}/#/runs/details/{run['run_id']}" in output.err


def test_submitting_the_same_package_again_reuses_pipeline_and_version(
    fake: FakeKubeflow, package: Path
) -> None:
    submit(fake, package)
    submit(fake, package)
    assert (len(fake.pipelines), len(fake.versions), len(fake.runs)) == (1, 1, 2)
    package.write_text("components: {a: 1}\n")
    submit(fake, package)
    assert (len(fake.pipelines), len(fake.versions), len(fake.runs)) == (1, 2, 3)


def test_waiting_for_a_good_run_ends_well(
    fake: FakeKubeflow, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.tasks = [task("segment", "SUCCEEDED")]
    submit(fake, package, "--wait", "--json")
    output = capsys.readouterr()
    assert json.loads(output.out) == {
        "run_id": "run_id-1",
        "state": "SUCCEEDED",
        "tasks": {"segment": "SUCCEEDED"},
    }
    assert output.err.count("segment: succeeded") == 1  # told once, though asked three times


@pytest.mark.parametrize("ending", ["FAILED", "CANCELED"])
def test_waiting_for_a_bad_run_names_the_tasks(
    fake: FakeKubeflow, package: Path, ending: str
) -> None:
    """Kubeflow's client would return on FAILED, and never on CANCELED."""
    fake.states = ["RUNNING", ending]
    fake.tasks = [task("segment", "SUCCEEDED"), task("train", "FAILED", "out of memory")]
    with pytest.raises(PipelineError, match="train: failed out of memory") as error:
        submit(fake, package, "--wait")
    assert ending.lower() in error.value.message
    assert "segment" not in error.value.message
    assert "--task train" in error.value.hint
    assert error.value.exit_code == 1


def test_a_server_that_goes_away_is_waited_for(fake: FakeKubeflow) -> None:
    fake.runs = [{"run_id": "r", "display_name": "r", "asked": 0}]
    fake.faults += [Fault("GET", "/runs", 503)] * 2
    said: list[str] = []
    server = Server(fake.url, retry_seconds=())
    run = follow(server, "r", timeout_seconds=60, poll_seconds=0, clock=Clock(), say=said.append)
    assert run["state"] == "SUCCEEDED"
    assert sum("still waiting" in line for line in said) == 2


def test_the_time_limit_ends_the_waiting_not_the_run(fake: FakeKubeflow) -> None:
    fake.runs = [{"run_id": "r", "display_name": "r", "asked": 0}]
    fake.states = ["RUNNING"]
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    clock = Clock(now=lambda: now, sleep=sleep)
    with pytest.raises(PipelineError, match="has not ended after 25 s; it goes on"):
        follow(Server(fake.url), "r", timeout_seconds=25, poll_seconds=10, clock=clock, say=str)
    assert now == 30  # asked at 0, 10, 20 and, past the limit, at 30
    assert not any(request.method == "POST" for request in fake.requests)


def test_cancel_ends_a_run(fake: FakeKubeflow, package: Path) -> None:
    fake.states = ["RUNNING"]
    submit(fake, package)
    call("cancel", "run_id-1", "--endpoint", fake.url)
    with pytest.raises(PipelineError, match="canceled"):
        call("status", "run_id-1", "--endpoint", fake.url, "--wait", "--poll-seconds", "0.01")


@pytest.mark.parametrize(("option", "cancelled"), [([], False), (["--cancel-on-interrupt"], True)])
def test_ctrl_c_leaves_the_run_unless_told_otherwise(
    fake: FakeKubeflow,
    package: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: list[str],
    cancelled: bool,
) -> None:
    def interrupt(_self: Server, _run_id: str) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "run", interrupt)
    assert submit(fake, package, "--wait", *option) == INTERRUPTED_EXIT_CODE
    assert any(r.path.endswith(":terminate") for r in fake.requests) is cancelled


def test_status_does_not_fail_for_a_failed_run(
    fake: FakeKubeflow, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asking is not waiting: the state is the answer."""
    fake.runs = [{"run_id": "r", "display_name": "r", "asked": 0}]
    fake.states = ["FAILED"]
    fake.tasks = [task("train", "FAILED"), task("root", "FAILED"), task("train-driver", "FAILED")]
    call("status", "r", "--endpoint", fake.url)
    assert capsys.readouterr().out.split() == ["run", "r", "state", "failed", "train", "failed"]


def test_the_endpoint_and_token_come_from_the_environment(
    fake: FakeKubeflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.runs = [{"run_id": "r", "display_name": "r", "asked": 0}]
    fake.token = "t0ken"
    monkeypatch.setenv("KFP_ENDPOINT", fake.url)
    monkeypatch.setenv("KFP_TOKEN", "t0ken")
    call("status", "r")


def test_an_endpoint_without_a_scheme_is_refused() -> None:
    with pytest.raises(UsageError, match="not a URL"):
        call("status", "r", "--endpoint", "kubeflow.example:8888")


def test_a_compiled_package_cannot_be_given_parameters(fake: FakeKubeflow, package: Path) -> None:
    with pytest.raises(UsageError, match="compiled already"):
        submit(fake, package, "--set", "train.max_steps=1")
    assert fake.requests == []


def test_a_missing_package_is_named(fake: FakeKubeflow, tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"nothing\.yaml"):
        submit(fake, tmp_path / "nothing.yaml")


def test_without_a_project_there_is_nothing_to_compile(fake: FakeKubeflow) -> None:
    with pytest.raises(InputMissingError, match=r"pipeline\.py"):
        call("submit", "--endpoint", fake.url, "--recordings", "s3://voices/raw")


def test_logs_ask_kubectl_for_each_pod_of_the_task(
    fake: FakeKubeflow,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fake.runs = [{"run_id": "r", "display_name": "r", "asked": 0}]
    fake.tasks = [task("segment", "SUCCEEDED"), task("train", "FAILED")]
    kubectl = tmp_path / "bin/kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text('#!/bin/sh\necho "kubectl $*"\n')
    kubectl.chmod(kubectl.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{kubectl.parent}:{os.environ['PATH']}")
    call("logs", "r", "--endpoint", fake.url, "--task", "train", "--namespace", "ns")
    output = capfd.readouterr().out
    assert "kubectl logs train-pod --namespace ns --container main --tail 200" in output
    assert "segment" not in output
    with pytest.raises(UsageError, match="no task 'trian'") as error:
        call("logs", "r", "--endpoint", fake.url, "--task", "trian")
    assert "segment, train" in error.value.hint


def test_logs_without_kubectl_say_so(fake: FakeKubeflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolMissingError, match="kubectl"):
        call("logs", "r", "--endpoint", fake.url)


def test_tasks_are_listed_in_the_order_of_their_start() -> None:
    tasks = [
        {"display_name": "later", "start_time": "2026-01-01T00:00:02Z", "state": "RUNNING"},
        {"display_name": "waiting"},
        {
            "display_name": "first",
            "start_time": "2026-01-01T00:00:01Z",
            "child_tasks": [{"pod_name": "first-impl"}],
        },
    ]
    found = task_states({"run_details": {"task_details": tasks}})
    assert [(t.name, t.state) for t in found] == [
        ("first", "PENDING"),
        ("later", "RUNNING"),
        ("waiting", "PENDING"),
    ]
    assert found[0].pods == ("first-impl",)
    assert task_states({}) == []


def test_a_skipped_run_is_a_success() -> None:
    require_success({"run_id": "r", "state": "SKIPPED"})


def test_the_compilers_own_words_and_code_are_passed_on(tmp_path: Path) -> None:
    (tmp_path / "pipeline.py").write_text(
        "import sys\nprint('error: params.yaml:3: unknown key', file=sys.stderr)\nsys.exit(3)\n"
    )
    with pytest.raises(PipelineError, match=r"params\.yaml:3: unknown key") as error:
        package_module.compile_package(tmp_path / "p.yaml", package_module.CompileOptions())
    assert error.value.exit_code == 3


def test_a_missing_kfp_is_told_with_its_extra(tmp_path: Path) -> None:
    (tmp_path / "pipeline.py").write_text("raise ModuleNotFoundError(\"No module named 'kfp'\")\n")
    with pytest.raises(ToolMissingError) as error:
        package_module.compile_package(tmp_path / "p.yaml", package_module.CompileOptions())
    assert "kamerton[kubeflow]" in error.value.hint
