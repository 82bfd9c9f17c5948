"""status.json of a run in training: written if the disk takes it, and never what ends the run."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from kamerton.core.errors import InputCorruptError, InputMissingError
from kamerton.tracking import RunDirectory, RunState, RunStatus

_log = logging.getLogger("kamerton.train")
_troubled: set[str] = set()  # runs whose trouble was told; nothing depends on it
_known: dict[str, RunStatus] = {}  # what was last read, to make anew what somebody removed


def note_status(
    run: RunDirectory, state: RunState, *, step: int, reason: str = "", **facts: Any
) -> None:
    """Replace status.json as ``RunDirectory.write_status`` does; trouble is told once.

    The status tells people where a run stands. What it goes on from is in its checkpoints, so a
    status that is a little old does no harm; the next one is whole again. One that was removed or
    damaged is made anew.
    """
    try:
        _restore(run)
        run.write_status(state, step=step, reason=reason, **facts)
    except (OSError, InputMissingError, InputCorruptError) as error:
        if str(run.path) not in _troubled:
            said = error.strerror if isinstance(error, OSError) else error
            _log.warning(
                "%s: status.json could not be written (%s); it is tried again", run.path, said
            )
        _troubled.add(str(run.path))
    else:
        _troubled.discard(str(run.path))


def noted_step(run: RunDirectory) -> int:
    """The step that status.json tells of, or told of before somebody removed it."""
    try:
        return run.status().step
    except (OSError, InputMissingError, InputCorruptError):
        known = _known.get(str(run.path))
        return known.step if known else 0


def note_fingerprint(run: RunDirectory, fingerprint: str) -> None:
    """Make status.json say that the run is one of ``fingerprint`` from now on."""
    status = run.status()
    if status.fingerprint != fingerprint:
        run.replace_status(dataclasses.replace(status, fingerprint=fingerprint))


def _restore(run: RunDirectory) -> None:
    """Read status.json, and write again what was last read where it is gone."""
    key = str(run.path)
    try:
        _known[key] = run.status()
    except (InputMissingError, InputCorruptError) as error:
        if key not in _known:
            raise
        _log.warning("%s; it is written anew", error)
        run.replace_status(_known[key])
