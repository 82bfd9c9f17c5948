"""`kamerton pipeline`: compile, run here, submit to a cluster, and look after runs there."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from kamerton import __version__
from kamerton.cli.output import narrate, print_json, print_pairs
from kamerton.cli.pipeline.package import CompileOptions, compile_package, version_name
from kamerton.cli.pipeline.server import Credentials, Server
from kamerton.cli.pipeline.wait import Clock, follow, require_success, task_states
from kamerton.cli.stage_commands import Overrides, ParamsFile
from kamerton.core.errors import (
    InputMissingError,
    PipelineError,
    ToolMissingError,
    UsageError,
)

PIPELINE_NAME = "kamerton-voice"

pipeline_app = typer.Typer(
    help="The stages on Kubeflow Pipelines: compile, run here, submit, follow.",
    epilog="Credentials come from the environment only: KFP_TOKEN, KFP_TOKEN_FILE or KFP_COOKIE.",
    no_args_is_help=True,
)

Package = Annotated[
    Path | None,
    typer.Option("--package", help="A compiled package; compiled now when not given."),
]
Profile = Annotated[
    str | None, typer.Option("--profile", help="Resources of the tasks: cpu or gpu.")
]
MlflowUri = Annotated[
    str | None,
    typer.Option("--mlflow-uri", help="MLflow server that takes the place of a local database."),
]
Cache = Annotated[
    bool,
    typer.Option("--cache", help="Reuse results of equal tasks; the recordings must never change."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
RunId = Annotated[str, typer.Argument(help="Id of the run, as `submit` prints it.")]
Endpoint = Annotated[
    str,
    typer.Option(
        "--endpoint",
        envvar="KFP_ENDPOINT",
        help="URL of the Kubeflow Pipelines API server.",
        rich_help_panel="Server",
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        envvar="KFP_NAMESPACE",
        help="Namespace of the runs; needed on a multi-user server.",
        rich_help_panel="Server",
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout-minutes", min=0.0, help="Stop waiting then; the run goes on."),
]
Poll = Annotated[float, typer.Option("--poll-seconds", min=0.01, help="Pause between questions.")]


@pipeline_app.command("compile", epilog="Example: kamerton pipeline compile --profile gpu")
def compile_command(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the package goes.")] = Path(
        "pipeline.yaml"
    ),
    params: ParamsFile = None,
    overrides: Overrides = None,
    profile: Profile = None,
    mlflow_uri: MlflowUri = None,
    cache: Cache = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only compare: end with 1 if it would change.")
    ] = False,
) -> None:
    """Write the pipeline package that Kubeflow Pipelines takes."""
    options = CompileOptions(params, tuple(overrides or ()), profile, mlflow_uri, cache)
    narrate(compile_package(output, options, ["--check"] if check else []))


@pipeline_app.command("run", epilog="Example: kamerton pipeline run --recordings data/raw")
def run_command(
    *,
    recordings: Annotated[Path, typer.Option("--recordings", help="Folder of recordings.")] = Path(
        "data/raw"
    ),
    root: Annotated[
        Path, typer.Option("--root", help="Each run gets a folder of its own below it.")
    ] = Path("pipeline-runs"),
    runs: Annotated[
        Path, typer.Option("--runs", help="Folder of resumable work, kept between runs.")
    ] = Path("runs"),
    package: Package = None,
    params: ParamsFile = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run the compiled pipeline on this machine, without containers or a cluster."""
    from kamerton.cli.pipeline.local import run_local
    from kamerton.config.loading import load_params

    if not recordings.exists():
        raise InputMissingError(recordings, produced_by="you")
    arguments: dict[str, Any] = {
        "recordings": str(recordings.absolute()),
        "runs": str(runs.absolute()),
    }
    # Compiling points tracking at the cluster's server; here the project's own place is meant.
    here = load_params(params, overrides=overrides or [])
    arguments["tracking_params"] = here.tracking.model_dump_json()
    with _package(package, CompileOptions(params, tuple(overrides or ()))) as file:
        tasks = run_local(file, arguments, root)
    if as_json:
        print_json({task.stage: {"folder": task.folder, "metrics": task.metrics} for task in tasks})
    else:
        print_pairs((task.stage, str(task.folder)) for task in tasks)


@pipeline_app.command(
    "submit",
    epilog="Example: kamerton pipeline submit --endpoint http://127.0.0.1:8888 "
    "--recordings s3://voices/raw --wait",
)
def submit(
    *,
    endpoint: Endpoint,
    recordings: Annotated[
        str,
        typer.Option(
            "--recordings", help="URI of the folder of recordings: s3://, gs://, minio://."
        ),
    ],
    namespace: Namespace = None,
    package: Package = None,
    params: ParamsFile = None,
    overrides: Overrides = None,
    profile: Profile = None,
    mlflow_uri: MlflowUri = None,
    cache: Cache = False,
    experiment: Annotated[
        str, typer.Option("--experiment", help="Experiment the run belongs to.")
    ] = "kamerton",
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the run; made from version and time.")
    ] = None,
    service_account: Annotated[
        str | None, typer.Option("--service-account", help="Kubernetes account of the run's pods.")
    ] = None,
    pipeline_root: Annotated[
        str | None,
        typer.Option("--pipeline-root", help="Where artifacts go, e.g. s3://bucket/runs."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the run; end with 1 if it fails.")
    ] = False,
    timeout_minutes: Timeout = None,
    poll_seconds: Poll = 10.0,
    cancel_on_interrupt: Annotated[
        bool, typer.Option("--cancel-on-interrupt", help="Ctrl-C while waiting cancels the run.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Upload the pipeline as a version of its own and start a run of it."""
    server = connect(endpoint, namespace)
    options = CompileOptions(params, tuple(overrides or ()), profile, mlflow_uri, cache)
    with _package(package, options) as file:
        reference = _upload(server, file)
    started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    body: dict[str, Any] = {
        "experiment_id": server.experiment(experiment)["experiment_id"],
        "display_name": name or f"{reference['display_name']} {started}",
        "pipeline_version_reference": {
            "pipeline_id": reference["pipeline_id"],
            "pipeline_version_id": reference["pipeline_version_id"],
        },
        "runtime_config": {"parameters": {"recordings": recordings}},
    }
    if service_account:
        body["service_account"] = service_account
    if pipeline_root:
        body["runtime_config"]["pipeline_root"] = pipeline_root
    run = server.start(body)
    narrate(f"run {run['run_id']}: {endpoint.rstrip('/')}/#/runs/details/{run['run_id']}")
    if wait:
        run = _wait(server, run["run_id"], timeout_minutes, poll_seconds, cancel_on_interrupt)
    _print_run(run, as_json=as_json)
    if wait:
        require_success(run)


@pipeline_app.command("status", epilog="Example: kamerton pipeline status RUN_ID --wait")
def status(
    *,
    run_id: RunId,
    endpoint: Endpoint,
    namespace: Namespace = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the run; end with 1 if it fails.")
    ] = False,
    timeout_minutes: Timeout = None,
    poll_seconds: Poll = 10.0,
    as_json: AsJson = False,
) -> None:
    """Show the state of a run and of its tasks."""
    server = connect(endpoint, namespace)
    if wait:
        run = _wait(server, run_id, timeout_minutes, poll_seconds, cancel=False)
    else:
        run = server.run(run_id)
    _print_run(run, as_json=as_json)
    if wait:
        require_success(run)


@pipeline_app.command("cancel", epilog="Example: kamerton pipeline cancel RUN_ID")
def cancel(run_id: RunId, endpoint: Endpoint, namespace: Namespace = None) -> None:
    """End a run; what it has finished is kept."""
    connect(endpoint, namespace).cancel(run_id)
    narrate(f"run {run_id} is being cancelled")


@pipeline_app.command("logs", epilog="Example: kamerton pipeline logs RUN_ID --task train")
def logs(
    run_id: RunId,
    endpoint: Endpoint,
    namespace: Namespace = None,
    task: Annotated[str | None, typer.Option("--task", help="Only this task.")] = None,
    lines: Annotated[int, typer.Option("--lines", min=1, help="Last lines of each pod.")] = 200,
) -> None:
    """Print the logs of a run's pods, through kubectl: the API itself does not serve them."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise ToolMissingError("kubectl", hint="install kubectl and give it access to the cluster")
    known = task_states(connect(endpoint, namespace).run(run_id))
    chosen = [state for state in known if task in (None, state.name)]
    if not chosen:
        names = ", ".join(state.name for state in known) or "none yet"
        raise UsageError(f"Run {run_id} has no task '{task}'.", hint=f"its tasks are: {names}")
    where = ["--namespace", namespace] if namespace else []
    failures = 0
    for state in chosen:
        for pod in state.pods:
            print(f"== {state.name} ({state.state.lower()}): {pod}", flush=True)
            command = [kubectl, "logs", pod, *where, "--container", "main", "--tail", str(lines)]
            failures += subprocess.run(command, check=False).returncode != 0
    if failures:
        raise PipelineError(
            f"The logs of {failures} pods could not be read.",
            hint="finished pods are removed after a while; the artifact store may keep their logs",
        )


@pipeline_app.command(
    "katib", epilog="Example: kamerton pipeline katib && git diff manifests/katib"
)
def katib(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the manifests go.")] = Path(
        "manifests/katib/experiment.yaml"
    ),
    image: Annotated[
        str,
        typer.Option("--image", envvar="KAMERTON_IMAGE_TRAIN", help="Image of the trials."),
    ] = f"kamerton-train:{__version__}",
    params: ParamsFile = None,
    overrides: Overrides = None,
) -> None:
    """Write the search of tune.search_space as a Katib Experiment."""
    from kamerton.config.loading import load_params
    from kamerton.core.files import write_text
    from kamerton.smart_tuner.katib import manifests, render

    made = manifests(load_params(params, overrides=overrides or []), image=image)
    head = "# Made by `kamerton pipeline katib` from params.yaml: change that, and make it again.\n"
    write_text(output, head + render(made))
    narrate(f"wrote {output}")


def connect(endpoint: str, namespace: str | None) -> Server:
    """The server at ``endpoint``, with the credentials of the environment."""
    import os

    if not endpoint.startswith(("http://", "https://")):
        raise UsageError(
            f"--endpoint {endpoint} is not a URL.", hint="begin it with http:// or https://"
        )
    token_file = os.environ.get("KFP_TOKEN_FILE")
    credentials = Credentials(
        token=os.environ.get("KFP_TOKEN") or None,
        token_file=Path(token_file) if token_file else None,
        cookie=os.environ.get("KFP_COOKIE") or None,
    )
    return Server(endpoint, credentials, namespace)


@contextmanager
def _package(given: Path | None, options: CompileOptions) -> Iterator[Path]:
    """The package to use: the one given, or one compiled for the occasion."""
    if given is None:
        with tempfile.TemporaryDirectory() as folder:
            package = Path(folder, "pipeline.yaml")
            compile_package(package, options)
            yield package
        return
    if options.given:
        raise UsageError(
            "--package is compiled already; parameters and profile cannot change it.",
            hint="leave out --package, or give these options to `kamerton pipeline compile`",
        )
    if not given.exists():
        raise InputMissingError(given, produced_by="you", hint="run `kamerton pipeline compile`")
    yield given


def _upload(server: Server, package: Path) -> dict[str, Any]:
    """The version of the pipeline that holds exactly this package."""
    version = version_name(package)
    pipeline, _ = server.pipeline(PIPELINE_NAME, package)
    found, uploaded = server.version(str(pipeline["pipeline_id"]), version, package)
    narrate(f"pipeline {PIPELINE_NAME}, version {version}{' uploaded' if uploaded else ''}")
    return found


def _wait(
    server: Server, run_id: str, timeout_minutes: float | None, poll_seconds: float, cancel: bool
) -> dict[str, Any]:
    try:
        return follow(
            server,
            run_id,
            timeout_seconds=None if timeout_minutes is None else timeout_minutes * 60,
            poll_seconds=poll_seconds,
            clock=Clock(),
            say=narrate,
        )
    except KeyboardInterrupt:
        if cancel:
            server.cancel(run_id)
            narrate(f"run {run_id} is being cancelled")
        else:
            narrate(f"run {run_id} goes on; `kamerton pipeline cancel {run_id}` ends it")
        raise


def _print_run(run: dict[str, Any], *, as_json: bool) -> None:
    tasks = task_states(run)
    if as_json:
        print_json(
            {
                "run_id": run.get("run_id"),
                "state": run.get("state"),
                "tasks": {task.name: task.state for task in tasks},
            }
        )
        return
    state = str(run.get("state") or "PENDING").lower()
    print_pairs([("run", str(run.get("run_id"))), ("state", state)])
    print_pairs((task.name, task.state.lower()) for task in tasks)
