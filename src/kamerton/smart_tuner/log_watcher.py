"""LogWatcher: what is new in the records of one or many runs, each point once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

from kamerton.core.errors import PipelineError
from kamerton.core.files import read_json
from kamerton.smart_tuner.metrics_store import MetricsStore
from kamerton.smart_tuner.sources import (
    Cursor,
    Event,
    JsonlSource,
    MetricSource,
    MlflowSource,
    TensorBoardSource,
)

SourceKind = Literal["jsonl", "tensorboard", "mlflow"]

_RECORD: Final = "metrics.jsonl"
# Of a run directory: no run lies below them, and there may be many files.
_NO_RUNS: Final = frozenset(
    {"cache", "checkpoints", "debug", "figures", "mlartifacts", "samples", "tensorboard"}
)


class LogWatcher:
    """Polls sources; which there are may change while it does.

    It remembers nothing of what it gave: everything is in the cursor, which is plain JSON and may
    be kept by whoever asks, over any number of processes.
    """

    def __init__(
        self,
        sources: Iterable[MetricSource] = (),
        *,
        discover: Callable[[], Mapping[str, Callable[[], MetricSource]]] | None = None,
    ) -> None:
        """Watch ``sources``.

        Args:
            sources: Of one run each.
            discover: What else there is by now: how to open the source, by run. Asked with every
                poll; each run is opened once.
        """
        self._sources = {source.run: source for source in sources}
        self._discover = discover

    @property
    def runs(self) -> list[str]:
        """The runs that are watched."""
        return list(self._sources)

    def poll(self, cursor: Cursor) -> tuple[list[Event], Cursor]:
        """What is new in all sources, and the cursor to ask with next; see ``MetricSource``."""
        now = dict(cursor)
        events: list[Event] = []
        for run, source in self._known():
            found, after = source.poll(now.get(run, {}))
            events += found
            if after:
                now[run] = after
        return events, now

    def collect(self, store: MetricsStore) -> Iterator[list[Event]]:
        """Enter what is new into ``store``, and give it when it is there.

        Where another process enters the same meanwhile, it is left to that one: over all of them
        each event is given once.
        """
        for run, source in self._known():
            key = f"{source.kind}:{run}"
            before = store.cursor(key)
            while True:
                events, after = source.poll(before)
                if after == before or not store.advance(key, events, before=before, after=after):
                    break
                before = after
                if events:
                    yield events

    def _known(self) -> list[tuple[str, MetricSource]]:
        if self._discover is not None:
            for run, source in self._discover().items():
                if run not in self._sources:
                    self._sources[run] = source()
        return list(self._sources.items())


def run_folders(runs: Path) -> Iterator[Path]:
    """Folders below ``runs`` with a metrics.jsonl: runs, studies, and the runs of their trials."""
    for folder, below, files in os.walk(runs):
        below[:] = sorted(
            name for name in below if name not in _NO_RUNS and not name.startswith(".")
        )
        if _RECORD in files:
            yield Path(folder)


def sources_in(
    runs: Path,
    kind: SourceKind = "jsonl",
    *,
    chosen: Callable[[str], bool] = lambda _run: True,
    interval_seconds: float = 5.0,
) -> dict[str, Callable[[], MetricSource]]:
    """How to open the record of each run below ``runs`` that is ``chosen``, by its path there.

    A run whose record of that kind is not there yet is left out; ask again later.
    """
    found: dict[str, Callable[[], MetricSource]] = {}
    for folder in run_folders(runs):
        run = folder.relative_to(runs).as_posix()
        source = _source(folder, run, kind, interval_seconds) if chosen(run) else None
        if source is not None:
            found[run] = source
    return found


def _source(
    folder: Path, run: str, kind: SourceKind, interval_seconds: float
) -> Callable[[], MetricSource] | None:
    if kind == "jsonl":
        return lambda: JsonlSource(folder / _RECORD, run)
    if kind == "tensorboard":
        events = folder / "tensorboard"
        return (lambda: TensorBoardSource(events, run)) if events.is_dir() else None
    try:
        record = read_json(folder / "mlflow.json", produced_by="train")
    except PipelineError:
        return None
    if not record.get("run_id"):
        return None
    uri, run_id = str(record["uri"]), str(record["run_id"])
    return lambda: MlflowSource(uri, run_id, run, interval_seconds=interval_seconds)
