"""Which run a training goes on with: an unfinished one, a finished one, or a new one."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from kamerton.config.schema import Params
from kamerton.core.errors import ParamsError, PipelineError, UsageError
from kamerton.core.files import write_bytes, write_text
from kamerton.tracking import RunDirectory, list_runs
from kamerton.tracking.redaction import redact
from kamerton.training.differences import PARAMS_FILE, Differences, differences, in_words
from kamerton.training.fingerprint import ORIGIN_FILE, Origin
from kamerton.training.status import note_fingerprint
from kamerton.training.warm_start import source_files

TRIAL_SUFFIX = "-trial"
_SHOWN = 5

_log = logging.getLogger("kamerton.train")


def choose_run(
    runs: Path, fingerprint: str, params: Params, origin: Origin, *, name: str,
    command: Sequence[str], resume: bool, anew: bool,
) -> RunDirectory:  # fmt: skip
    """The newest run that counts: an unfinished one, or one finished by this code; else a new one.

    An unfinished run goes on in other surroundings, and, with ``resume``, with other values of
    what may change in the middle of a run; see ``differences``.

    Args:
        runs: Folder of run directories.
        fingerprint: Of everything that decides what is trained.
        params: The resolved parameters.
        origin: What else decides it.
        name: Of the dataset.
        command: The command line.
        resume: Only an unfinished run will do.
        anew: Only a new run will do.

    Raises:
        UsageError: there is nothing to resume, or it is finished.
        InputMissingError: the weights for a new run to begin with are not there.
        ParamsError: the newest unfinished run is one of something else; what differs is named.
    """
    known = [] if anew else _of_this_kind(runs, origin)
    for run in known:
        if _is_finished(run):
            if not resume and _is_repeated_by(run, fingerprint, origin):
                return run
        elif run.status().fingerprint == fingerprint or differences(run, params, origin).same:
            return run
    if resume:
        return _resumable(runs, known, fingerprint, params, origin)
    if origin.warm_start is not None:
        source_files(Path(origin.warm_start))  # only a run that goes on can do without them
    _warn_of_unfinished(known, params, origin)
    run = RunDirectory.create(
        runs,
        name=name + (TRIAL_SUFFIX if origin.trial else ""),
        fingerprint=fingerprint,
        params=params.model_dump(mode="json"),
        command=command,
    )
    origin.write(run.path)
    return run


def warm_start_hash(runs: Path, source: Path) -> str | None:
    """What the newest unfinished run that began with ``source`` noted of it; None: there is none.

    The weights that a run began with are in its checkpoints, so that it goes on without them.
    """
    for run in list_runs(runs):
        try:
            then = None if _is_finished(run) else Origin.read(run.path)
        except PipelineError:
            continue
        if then is not None and then.warm_start == str(source.absolute()):
            return then.warm_start_sha256
    return None


def adopt(
    run: RunDirectory, params: Params, origin: Origin, fingerprint: str, *, found: Differences,
    step: int,
) -> None:  # fmt: skip
    """Make the record of ``run`` say what it goes on with from ``step``.

    What it said of the steps before is kept as ``params-before-STEP.yaml`` and
    ``origin-before-STEP.json``. The same command then finds the run again.
    """
    if found.decisive:
        _keep(run, PARAMS_FILE, step)
        values = redact(params.model_dump(mode="json"))
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        write_text(run.path / PARAMS_FILE, text)
    if found.surroundings:
        _keep(run, ORIGIN_FILE, step)
    origin.write(run.path)
    note_fingerprint(run, fingerprint)


def first_record(run: RunDirectory, name: str) -> tuple[Path, int | None]:
    """What ``name``, params.yaml or origin.json, said when the run began, and up to which step."""
    kept = _kept(run, name)
    return (kept[0][1], kept[0][0]) if kept else (run.path / name, None)


def _of_this_kind(runs: Path, origin: Origin) -> list[RunDirectory]:
    """Runs, newest first: trials among trials."""
    return [
        run for run in list_runs(runs) if run.status().name.endswith(TRIAL_SUFFIX) == origin.trial
    ]


def _is_finished(run: RunDirectory) -> bool:
    return run.status().state == "finished"


def _is_live(run: RunDirectory) -> bool:
    try:
        return run.live
    except OSError:  # somebody else's, who does not let us lock it
        return False


def _is_repeated_by(run: RunDirectory, fingerprint: str, origin: Origin) -> bool:
    """Whether training anew would make the model of this finished run."""
    try:
        return run.status().fingerprint == fingerprint and (
            Origin.read(run.path).code == origin.code
        )
    except PipelineError:
        return False


def _resumable(
    runs: Path, known: Sequence[RunDirectory], fingerprint: str, params: Params, origin: Origin
) -> RunDirectory:
    """The newest unfinished run, if it can go on with what is asked."""
    for run in known:
        if _is_finished(run):
            if run.status().fingerprint == fingerprint:
                raise _finished(run)
            continue
        found = differences(run, params, origin)
        if found.hot_only:
            return run
        raise _refused(run, found)
    raise UsageError(f"there is no unfinished run in {runs} to resume.", hint="leave --resume out")


def _finished(run: RunDirectory) -> UsageError:
    return UsageError(
        f"{run.path} is finished, at step {run.status().step}: there is nothing to resume.",
        hint="leave --resume out to export it again, give --force to begin anew, or begin a new "
        f"run with its weights: --warm-start {run.path}",
    )


def _refused(run: RunDirectory, found: Differences) -> ParamsError:
    hint = "give it what it was started with, or leave --resume out to begin anew"
    if "cold" in found.classes:
        hint += (
            f"; cold ones make another model, which can begin with the weights of this run where "
            f"network and mels are the same: --warm-start {run.path}"
        )
    elif "warm" in found.classes:
        hint += f", with its weights: --warm-start {run.path}; only hot ones may change in a run"
    return ParamsError(
        f"the newest unfinished run, {run.path}, was begun with another value of: "
        f"{found.words(limit=_SHOWN)}.",
        hint=hint,
    )


def _warn_of_unfinished(known: Sequence[RunDirectory], params: Params, origin: Origin) -> None:
    """Say that a new run begins beside an unfinished one of the same data, and why."""
    if origin.trial:  # a search leaves many
        return
    for run in known:
        if _is_finished(run) or _is_live(run) or not run.status().step:
            continue  # what was refused before its first step is no work to go on with
        found = differences(run, params, origin)
        if not found.noted or "content_sha256" in found.decisive:
            continue
        way = "--resume goes on with it" if found.hot_only else "it goes on with its own values"
        _log.warning(
            "a new run begins; %s is unfinished at step %d and was begun with another value of: "
            "%s; %s", run.path, run.status().step, found.words(limit=_SHOWN), way,
        )  # fmt: skip
        return


def told_surroundings(found: Differences) -> str:
    """What a run goes on without, in words."""
    return ", ".join(
        f"{in_words(name)} ({str(old)[:12]}, now {str(new)[:12]})"
        for name, (old, new) in found.surroundings.items()
    )


def _kept(run: RunDirectory, name: str) -> list[tuple[int, Path]]:
    """Earlier versions of a file of the record, with the step up to which they held."""
    stem, _, ending = name.partition(".")
    pattern = re.compile(rf"{stem}-before-(\d+)\.{ending}")
    found = ((pattern.fullmatch(path.name), path) for path in run.path.glob(f"{stem}-before-*"))
    return sorted((int(match[1]), path) for match, path in found if match)


def _keep(run: RunDirectory, name: str, step: int) -> None:
    """Keep what a file of the record says of the steps before ``step``."""
    if step == 0:  # nothing was made with it
        return
    stem, _, ending = name.partition(".")
    beyond = [(number, path) for number, path in _kept(run, name) if number >= step]
    # The run may have gone further with yet others, and come back to an older checkpoint.
    held = beyond[0][1] if beyond else run.path / name
    write_bytes(run.path / f"{stem}-before-{step}.{ending}", held.read_bytes())
    for number, path in beyond:
        if number != step:
            path.unlink()
