"""Run directories and the places a run is recorded in, behind one small protocol."""

from kamerton.tracking.composite import CompositeTracker
from kamerton.tracking.metrics_file import JsonlTracker, MetricsCursor, Record, read_records
from kamerton.tracking.opening import open_trackers
from kamerton.tracking.protocol import EndState, Follower, RunState, Tracker
from kamerton.tracking.run_directory import (
    RunDirectory,
    RunStatus,
    find_runs,
    list_runs,
    newest_unfinished,
)

__all__ = [
    "CompositeTracker",
    "EndState",
    "Follower",
    "JsonlTracker",
    "MetricsCursor",
    "Record",
    "RunDirectory",
    "RunState",
    "RunStatus",
    "Tracker",
    "find_runs",
    "list_runs",
    "newest_unfinished",
    "open_trackers",
    "read_records",
]
