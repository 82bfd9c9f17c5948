"""A copy of a run, cut at one of its checkpoints, that a trainer goes on with as with its own."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from kamerton.core.errors import PipelineError
from kamerton.core.files import (
    link_file,
    publish_folder,
    read_json,
    temporary_folder,
    write_json,
)
from kamerton.tracking.metrics_file import read_records
from kamerton.tracking.run_directory import RunDirectory

_RECORD: Final = ("params.yaml", "environment.json", "command.txt", "origin.json")
_STEP: Final = "step_{:08d}.pt"
_BEST: Final = ("best.pt", "best_before.pt")


def checkpoint_at(run: RunDirectory, step: int) -> Path:
    """The file of the state after ``step`` steps, which is there once that is evaluated."""
    return run.checkpoints / _STEP.format(step)


def require_checkpoint(run: RunDirectory, step: int) -> Path:
    """The same, which must be there.

    Raises:
        PipelineError: it is not.
    """
    path = checkpoint_at(run, step)
    if not path.is_file():
        raise PipelineError(
            f"{run.path} has no checkpoint of step {step} to go on from.",
            hint="remove generations.json and generations/ of its study to make them again",
        )
    return path


def _best_steps(run: RunDirectory) -> tuple[int, int]:
    """Steps of ``best.pt`` and of the one before it, as the run recorded them.

    0 where it recorded none: then they are its parent's, of before that was cut.
    """
    records = read_records(run.metrics_file)
    made = [record.step or 0 for record in records if record.name == "best"]
    last, before = ([0, 0, *made])[:-3:-1]
    return last, before


def fork(source: RunDirectory, runs: Path, step: int) -> RunDirectory:
    """Make a run below ``runs`` that stands where ``source`` stood after ``step`` steps.

    Its metrics.jsonl begins empty: it records its own steps only, by their global numbers.
    Checkpoints are further names of the same files, which nobody writes into. A best one that was
    made after the cut is left behind.

    Args:
        source: A run that has a checkpoint of that step.
        runs: Folder for the copy, of nobody else's run.
        step: Where to cut.

    Raises:
        PipelineError: there is no such checkpoint.
    """
    state = require_checkpoint(source, step)
    runs.mkdir(parents=True, exist_ok=True)
    path = runs / source.path.name
    temporary = temporary_folder(path)
    for name in _RECORD:
        if (source.path / name).is_file():
            shutil.copy2(source.path / name, temporary / name)
    folder = temporary / "checkpoints"
    folder.mkdir()
    link_file(state, folder / "last.pt")
    for known in source.checkpoints.glob("step_*.pt"):
        if known.name <= state.name:
            link_file(known, folder / known.name)
    for name, made in zip(_BEST, _best_steps(source), strict=True):
        if made <= step and (source.checkpoints / name).is_file():
            link_file(source.checkpoints / name, folder / name)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    status = read_json(source.path / "status.json", produced_by="train")
    status |= {"state": "stopped", "step": step, "reason": "", "started": now, "updated": now}
    write_json(temporary / "status.json", {**status, "facts": {}})
    publish_folder(temporary, path)
    return RunDirectory(path)
