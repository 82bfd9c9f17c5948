"""Following a run on a Kubeflow Pipelines server until it ends."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kamerton.cli.pipeline.server import Server, ServerError
from kamerton.core.errors import PipelineError

SUCCEEDED = frozenset({"SUCCEEDED", "SKIPPED"})
ENDED = SUCCEEDED | {"FAILED", "CANCELED"}


@dataclass(frozen=True, slots=True)
class TaskState:
    """One task of a run, as far as the server knows it."""

    name: str
    state: str
    pods: tuple[str, ...] = ()
    message: str = ""


def task_states(run: dict[str, Any]) -> list[TaskState]:
    """The tasks of a run in the order of their start, without the server's own bookkeeping."""
    details = (run.get("run_details") or {}).get("task_details") or []
    found = []
    for task in sorted(details, key=lambda task: str(task.get("start_time") or "~")):
        children = [child.get("pod_name") for child in task.get("child_tasks") or []]
        pods = tuple(pod for pod in [task.get("pod_name"), *children] if pod)
        name = str(task.get("display_name") or task.get("task_id") or "?")
        if name == "root" or name.endswith("-driver"):
            continue
        message = str((task.get("error") or {}).get("message") or "")
        found.append(TaskState(name, str(task.get("state") or "PENDING"), pods, message))
    return found


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, which tests replace."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def follow(
    server: Server,
    run_id: str,
    *,
    timeout_seconds: float | None,
    poll_seconds: float,
    clock: Clock,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Wait until the run ends, telling each change of a task.

    A server that does not answer for a while is waited for, as long as the time limit allows:
    the run goes on without it.

    Returns:
        The ended run, whatever its state.

    Raises:
        PipelineError: the time limit passed; the run goes on.
    """
    started = clock.now()
    told: dict[str, str] = {}
    while True:
        try:
            run = server.run(run_id)
        except ServerError as error:
            if not error.transient:
                raise
            say(f"the server does not answer, still waiting: {error.message}")
        else:
            for line in _changes(run, told):
                say(line)
            if run.get("state") in ENDED:
                return run
        if timeout_seconds is not None and clock.now() - started >= timeout_seconds:
            raise PipelineError(
                f"Run {run_id} has not ended after {timeout_seconds:.0f} s; it goes on.",
                hint=f"kamerton pipeline status {run_id} --wait",
            )
        clock.sleep(poll_seconds)


def _changes(run: dict[str, Any], told: dict[str, str]) -> Iterator[str]:
    """One line per task whose state is new; ``told`` remembers what was said."""
    for task in task_states(run):
        if told.get(task.name) != task.state:
            told[task.name] = task.state
            yield f"{task.name}: {task.state.lower()}"


def require_success(run: dict[str, Any]) -> None:
    """Raise for a run that ended otherwise than well, naming the tasks that failed."""
    state = str(run.get("state"))
    if state in SUCCEEDED:
        return
    run_id = str(run.get("run_id"))
    failed = [task for task in task_states(run) if task.state in ("FAILED", "CANCELED")]
    lines = [f"\n  {task.name}: {task.state.lower()} {task.message}".rstrip() for task in failed]
    if message := (run.get("error") or {}).get("message"):
        lines.append(f"\n  {message}")
    first = f" --task {failed[0].name}" if failed else ""
    raise PipelineError(
        f"Run {run_id} ended as {state.lower()}." + "".join(lines),
        hint=f"kamerton pipeline logs {run_id}{first}",
    )
