"""All recordings, on all cores: only what is new or changed is looked at, and cut."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kamerton.core.errors import InputCorruptError
from kamerton.core.workers import Crashed, Workers
from kamerton.data.file_index import FileIndex, FileState, KnownFile
from kamerton.data.work import PASSES, Job, Origin, Refusal, Result, cut, find_result, look_at

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from kamerton.core.progress import Progress
    from kamerton.data.recordings import Recording

_SAVE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a recording; the hash is None where its bytes could not be read."""

    name: str
    sha256: str | None
    result: Result | Refusal


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done with which means.

    Attributes:
        folder: the recordings are below it.
        everything: all recordings there, of which some may be for other machines.
        whole: names of recordings that stay one clip if they are short enough.
        cache: folder of finished work, or None.
        scratch: an empty folder for results where there is no cache.
    """

    folder: Path
    everything: Sequence[Recording]
    whole: Collection[str]
    origin: Origin
    cache: Path | None
    scratch: Path
    on_progress: Progress


def process(recordings: Sequence[Recording], order: Order, team: Workers) -> list[Outcome]:
    """Cut the recordings, given in order of name; outcomes come in that order.

    Of recordings with the same bytes the first is cut.
    """
    seen = _look(recordings, order, team)
    names: dict[str, str] = {}  # hash of a recording: the first one that has it
    jobs: dict[str, Job] = {}
    outcomes: dict[str, Outcome] = {}
    for recording in recordings:
        name, file = recording.name, seen[recording.name]
        if isinstance(file, Refusal):
            outcomes[name] = Outcome(name, None, file)
        elif file.sha256 in names:
            twin = Refusal("duplicate", f"same bytes as {names[file.sha256]}")
            outcomes[name] = Outcome(name, file.sha256, twin)
        else:
            names[file.sha256] = name
            short = file.seconds <= order.origin.segment.max_seconds
            whole = name in order.whole and short
            jobs[name] = Job(recording.path, file, whole, order.origin, order.cache, order.scratch)
    results = _cut(jobs, order, team)
    for name, job in jobs.items():
        outcomes[name] = Outcome(name, job.file.sha256, results[name])
    return [outcomes[recording.name] for recording in recordings]


def _look(
    recordings: Sequence[Recording], order: Order, team: Workers
) -> dict[str, KnownFile | Refusal]:
    """The hash and length of each recording, from the index where it did not change."""
    index = FileIndex(order.cache, order.folder)
    present = [recording.name for recording in order.everything]
    seen: dict[str, KnownFile | Refusal] = {}
    for recording in recordings:
        known = _unchanged(index, recording)
        if known is not None:
            seen[recording.name] = known
    unseen = [recording for recording in recordings if recording.name not in seen]
    saved = time.monotonic()
    try:
        for number, found in team.run(look_at, [recording.path for recording in unseen]):
            name = unseen[number].name
            order.on_progress(0.0, 0.0, f"reading {name}")
            seen[name] = _crash(found) if isinstance(found, Crashed) else found
            if isinstance(found, KnownFile):
                index.add(name, found)
            if time.monotonic() - saved > _SAVE_SECONDS:
                index.save(present)
                saved = time.monotonic()
    finally:
        index.save(present)
    return seen


def _unchanged(index: FileIndex, recording: Recording) -> KnownFile | None:
    try:
        return index.find(recording.name, FileState.of(recording.path))
    except OSError:
        return None


def _cut(jobs: Mapping[str, Job], order: Order, team: Workers) -> dict[str, Result | Refusal]:
    results: dict[str, Result | Refusal] = {}
    for name, job in jobs.items():
        result = find_result(job) if order.cache is not None else None
        if result is not None:
            results[name] = result
    # The largest first: a long one that begins last would keep one core busy and the rest idle.
    left = sorted(
        (name for name in jobs if name not in results),
        key=lambda name: (-jobs[name].file.seconds, -jobs[name].file.state.size_bytes, name),
    )
    clock = _Clock({name: jobs[name].file.seconds for name in left}, order.on_progress)
    for number, refused in team.run(
        cut, [jobs[name] for name in left], lambda number, at: clock.tick(left[number], at)
    ):
        name = left[number]
        if refused is None:
            results[name] = _result_of(jobs[name])
        else:
            results[name] = _crash(refused) if isinstance(refused, Crashed) else refused
        clock.finish(name)
    return results


def _result_of(job: Job) -> Result | Refusal:
    result = find_result(job)
    if result is None:
        raise InputCorruptError(
            job.place, problem="vanished while it was used", hint="run the same command again"
        )
    return result


def _crash(crashed: Crashed) -> Refusal:
    """A decoder that took its process along, twice."""
    code = crashed.exit_code
    if code >= 0:
        return Refusal("decoder_crashed", f"ended with {code}")
    known = {int(number) for number in signal.Signals}
    said = signal.Signals(-code).name if -code in known else str(-code)
    return Refusal("decoder_crashed", f"killed by {said}")


@dataclass(slots=True)
class _Position:
    """How far a recording is: the passes that are over, and the place in this one, in seconds."""

    earlier: float = 0.0
    last: float = 0.0


class _Clock:
    """Tells the progress in seconds of sound, over all recordings to be cut and both passes."""

    def __init__(self, seconds: Mapping[str, float], on_progress: Progress) -> None:
        self._limits = {name: PASSES * length for name, length in seconds.items()}
        self._total = sum(self._limits.values())
        self._on_progress = on_progress
        self._finished = self._told = 0.0
        self._running: dict[str, _Position] = {}

    def tick(self, name: str, position: float) -> None:
        at = self._running.setdefault(name, _Position())
        if position < at.last:  # the next pass has begun
            at.earlier += at.last
        at.last = position
        self._tell(name)

    def finish(self, name: str) -> None:
        self._running.pop(name, None)
        self._finished += self._limits[name]
        self._tell(name)

    def _tell(self, name: str) -> None:
        under_way = sum(
            min(at.earlier + at.last, self._limits[other]) for other, at in self._running.items()
        )
        self._told = max(self._told, self._finished + under_way)  # sums are not exact
        self._on_progress(self._told, self._total, name)
