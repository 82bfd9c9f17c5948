"""status.json of a run in training: written if the disk takes it, and never what ends the run."""

from __future__ import annotations

import logging
from typing import Any

from kamerton.tracking import RunDirectory, RunState

_log = logging.getLogger("kamerton.train")
_troubled: set[str] = set()  # runs whose trouble was told; nothing depends on it


def note_status(
    run: RunDirectory, state: RunState, *, step: int, reason: str = "", **facts: Any
) -> None:
    """Replace status.json as ``RunDirectory.write_status`` does; trouble is told once.

    The status tells people where a run stands. What it goes on from is in its checkpoints, so a
    status that is a little old does no harm; the next one is whole again.
    """
    try:
        run.write_status(state, step=step, reason=reason, **facts)
    except OSError as error:
        if str(run.path) not in _troubled:
            _log.warning(
                "%s: status.json could not be written (%s); it is tried again", run.path,
                error.strerror,
            )  # fmt: skip
        _troubled.add(str(run.path))
    else:
        _troubled.discard(str(run.path))
