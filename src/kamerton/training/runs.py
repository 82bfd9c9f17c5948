"""Which run a training goes on with: an unfinished one, a finished one, or a new one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from kamerton.config.schema import Params
from kamerton.config.yaml_source import read_yaml
from kamerton.core.errors import InputMissingError, ParamsError, PipelineError, UsageError
from kamerton.tracking import RunDirectory, find_runs, list_runs
from kamerton.training.fingerprint import ORIGIN_FILE, Origin
from kamerton.training.meaning import changes

TRIAL_SUFFIX = "-trial"
_SHOWN = 5
# Names that a person knows, for what origin.json says.
_WORDS = {
    "content_sha256": "the dataset", "total_steps": "the budget in steps", "code": "the code",
    "torch": "the version of torch", "threads": "the number of threads (train.threads)",
    "device": "the device", "processes": "the number of processes",
    "warm_start_sha256": "--warm-start",
}  # fmt: skip


def choose_run(
    runs: Path, fingerprint: str, params: Params, origin: Origin, *, name: str,
    command: Sequence[str], resume: bool, anew: bool,
) -> RunDirectory:  # fmt: skip
    """The unfinished run of this fingerprint, else its finished one, else a new one.

    Args:
        runs: Folder of run directories.
        fingerprint: Of everything that decides the outcome.
        params: The resolved parameters.
        origin: What else decides it.
        name: Of the dataset.
        command: The command line.
        resume: Only an unfinished run will do.
        anew: Only a new run will do.

    Raises:
        UsageError: there is nothing to resume, or it is finished.
        ParamsError: there is only an unfinished run of something else; what differs is named.
    """
    known = [] if anew else find_runs(runs, fingerprint)
    unfinished = [run for run in known if run.status().state != "finished"]
    if unfinished:
        return unfinished[0]
    if resume:
        raise _finished(known[0]) if known else _nothing_to_resume(runs, params, origin)
    if known:
        return known[0]
    return RunDirectory.create(
        runs,
        name=name + (TRIAL_SUFFIX if origin.trial else ""),
        fingerprint=fingerprint,
        params=params.model_dump(mode="json"),
        command=command,
    )


def _finished(run: RunDirectory) -> UsageError:
    return UsageError(
        f"{run.path} is finished, at step {run.status().step}: there is nothing to resume.",
        hint="leave --resume out to export it again, give --force to begin anew, or begin a new "
        f"run with its weights: --warm-start {run.path}",
    )


def _nothing_to_resume(runs: Path, params: Params, origin: Origin) -> PipelineError:
    for run in list_runs(runs):
        status = run.status()
        if status.state == "finished" or status.name.endswith(TRIAL_SUFFIX):
            continue
        what = ", ".join(list(_differences(run, params, origin))[:_SHOWN])
        return ParamsError(
            f"the newest unfinished run, {run.path}, was begun with another value of: "
            f"{what or 'something that it did not note'}.",
            hint="give it what it was started with, or leave --resume out to begin anew",
        )
    return UsageError(f"there is no unfinished run in {runs} to resume.", hint="leave --resume out")


def _differences(run: RunDirectory, params: Params, origin: Origin) -> Iterator[str]:
    """What decides the outcome of a run and is not as it was, in words."""
    then = read_yaml(run.path / "params.yaml").values
    for name, _, _ in changes(then, params.model_dump(mode="json")):
        if name.split(".")[0] in ("train", "audio", "text"):
            yield name
    if not (run.path / ORIGIN_FILE).exists():
        return
    try:
        old = asdict(Origin.read(run.path))
    except (PipelineError, InputMissingError):
        return
    for name, _, _ in changes(old, asdict(origin)):
        if name in _WORDS:
            yield _WORDS[name]
