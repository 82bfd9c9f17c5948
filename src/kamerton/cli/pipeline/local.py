"""Running the compiled pipeline here, with Kubeflow's own local runner and no containers.

The runner refuses container components in child processes, although it can run them: their command
starts with `python3 -m kamerton`, which is installed here. Two checks of Kubeflow are lifted for
that, in this process only. The package is the one that a cluster would get, except that no task is
tried again: retries are for lost nodes, and here they would only delay the message.
"""

import contextlib
import re
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kamerton.core.errors import PipelineError, ToolMissingError
from kamerton.core.files import read_json

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
OUTPUT_FILE = "executor_output.json"


@dataclass(frozen=True, slots=True)
class LocalTask:
    """What one stage of a local run left: its folder and the metrics in its metadata."""

    stage: str
    folder: Path
    metrics: dict[str, float]


def run_local(package: Path, arguments: dict[str, Any], root: Path) -> list[LocalTask]:
    """Run ``package`` below ``root`` and return its tasks in order of name.

    Call it once per process: Kubeflow's local runner keeps global state and wraps standard output.

    Raises:
        PipelineError: a task failed, or ended without reporting its outputs.
        ToolMissingError: kfp is not installed.
    """
    root = root.absolute()
    root.mkdir(parents=True, exist_ok=True)
    before = set(root.iterdir())
    try:
        _execute(package, arguments, root)
    except ImportError as error:
        raise ToolMissingError("kfp", extra="kubeflow") from error
    except RuntimeError as error:
        raise PipelineError(
            f"The pipeline failed: {_ANSI.sub('', str(error))}",
            hint="the failed stage's own message is above",
        ) from error
    made = [path for path in root.iterdir() if path not in before and path.is_dir()]
    if not made:
        raise PipelineError(
            f"The local runner left no task below {root}.", hint="compile the package again"
        )
    return [_task(folder) for folder in sorted(made[0].iterdir()) if folder.is_dir()]


def _execute(package: Path, arguments: dict[str, Any], root: Path) -> None:
    # What the stages and kfp say goes to stderr: stdout is for the result.
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")  # kfp warns on import, of itself
        from kfp import components, local
        from kfp.local.subprocess_task_handler import SubprocessTaskHandler

        # Private names of kfp, the same from 2.15 to 2.17; test_pipeline_local notices a change.
        SubprocessTaskHandler.validate_image = lambda *_: None
        SubprocessTaskHandler.validate_not_container_component = lambda *_: None
        pipeline = components.load_component_from_text(without_retries(package.read_text("utf-8")))
        # kfp deletes its workspace at the end, even one that was there before: give it one of ours.
        with tempfile.TemporaryDirectory() as workspace:
            local.init(
                runner=local.SubprocessRunner(use_venv=False),
                pipeline_root=str(root),
                workspace_root=str(Path(workspace, "workspace")),
                raise_on_error=True,
            )
            pipeline(**arguments)


def without_retries(package: str) -> str:
    """The same package with every task tried once."""
    import yaml

    spec, *platforms = yaml.safe_load_all(package)
    for task in spec["root"]["dag"]["tasks"].values():
        task.pop("retryPolicy", None)
    return yaml.safe_dump_all([spec, *platforms], sort_keys=True)


def _task(folder: Path) -> LocalTask:
    """Read a task's report; that it exists is the proof that the stage finished."""
    if not (folder / OUTPUT_FILE).exists():
        raise PipelineError(
            f"Stage {folder.name} ended without reporting its outputs.",
            hint="the stage's own message is above",
        )
    artifacts = read_json(folder / OUTPUT_FILE, produced_by=folder.name)["artifacts"]
    return LocalTask(folder.name, folder, artifacts["metrics"]["artifacts"][0]["metadata"])
