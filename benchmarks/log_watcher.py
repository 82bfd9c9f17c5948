"""What watching a run costs: reading its whole record, and looking whether there is more.

    python -m benchmarks.log_watcher [--points 100000] [--quick] [--json FILE]

Every record holds the same 1e5 points of ten series: metrics.jsonl with ten values a line, as the
trainer writes, and with one; TensorBoard's event files with ten scalars an event, with one, and of
the new style, in which scalars are tensors; and MLflow's SQLite database, with a tenth of the
points because it takes half a minute to fill. Each reading has a process of its own; CPU seconds
are those of that process, without its imports, and memory is the rise of its peak, the points that
were read included. The baselines are read in the same run: a loop of json.loads over the lines,
which makes no events of them, and TensorBoard's EventAccumulator that is told to keep everything.
Polls are timed with nothing new and with one new line or event, their cursor taken through JSON
each time as a restart would; the middle one of many is shown.

Ends with 1 if a full read by a file's source takes a CPU second or more, or gives other points than
were written. ``--quick`` takes a tenth of the points and judges exactness alone.
"""

import argparse
import json
import math
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from kamerton.smart_tuner.metrics_store import MetricsStore
from kamerton.smart_tuner.sources import (
    Cursor,
    JsonlSource,
    MetricSource,
    MlflowSource,
    TensorBoardSource,
)

SERIES: Final = tuple(f"train_part_{number}_loss" for number in range(10))
MOST_SECONDS: Final = 1.0
POLLS: Final = 200
MLFLOW_PART: Final = 10


def value_of(index: int, step: int) -> float:
    """The value of a point: of every size, exact in single precision."""
    return float(round(1e6 * math.sin(index + step)) / 64.0)


def narrate(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# Writers: each makes the record of some steps, all series at each.


def write_lines(path: Path, steps: range, per_line: int = 10) -> None:
    with path.open("a", encoding="utf-8") as file:
        for step in steps:
            values = {name: value_of(i, step) for i, name in enumerate(SERIES)}
            names = list(values)
            for start in range(0, len(names), per_line):
                part = {name: values[name] for name in names[start : start + per_line]}
                raw = {"kind": "metrics", "step": step, "time": 1e9 + step, "values": part}
                file.write(json.dumps(raw, separators=(",", ":")) + "\n")


def write_events(folder: Path, steps: range, per_event: int = 10, *, tensors: bool = False) -> None:
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter
    from tensorboard.util.tensor_util import make_tensor_proto

    folder.mkdir(exist_ok=True)
    with (folder / "events.out.tfevents.0000000001.host").open("ab") as file:
        writer = RecordWriter(file)
        for step in steps:
            values = []
            for index, name in enumerate(SERIES):
                number = value_of(index, step)
                value = summary_pb2.Summary.Value(tag=name)
                if tensors:
                    value.tensor.CopyFrom(make_tensor_proto(number, dtype="float32"))
                    value.metadata.plugin_data.plugin_name = "scalars"
                else:
                    value.simple_value = number
                values.append(value)
            for start in range(0, len(values), per_event):
                summary = summary_pb2.Summary(value=values[start : start + per_event])
                event = event_pb2.Event(wall_time=1e9 + step, step=step, summary=summary)
                writer.write(event.SerializeToString())
        writer.flush()


def write_mlflow(uri: str, run_id: str, steps: range) -> None:
    from mlflow.entities import Metric

    from kamerton.tracking.mlflow_client import connect

    points = [
        Metric(name, value_of(index, step), 1_000_000 + step, step)
        for step in steps
        for index, name in enumerate(SERIES)
    ]
    client = connect(uri)
    for start in range(0, len(points), 1000):
        client.log_batch(run_id, metrics=points[start : start + 1000])


# What is measured, each in a process of its own.


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one reader."""

    points: int
    cpu_seconds: float
    memory_mb: float
    idle_us: float | None = None  # CPU of a poll with nothing new
    one_us: float | None = None  # and with one new step of one or ten points
    exact: bool = True


def peak_mb() -> float:
    """The most that this process was resident, in MiB.

    Not getrusage's figure, which a child begins with what its parent had when it was made.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("no VmHWM in /proc/self/status: this benchmark needs Linux")


def drain(source: MetricSource, cursor: Cursor) -> tuple[list[Any], Cursor]:
    events: list[Any] = []
    while True:
        found, after = source.poll(cursor)
        if after == cursor:
            return events, cursor
        events += found
        cursor = after


def is_exact(events: list[Any], steps: int) -> bool:
    found = {(event.name, event.step): event.value for event in events}
    wanted = {
        (name, step): value_of(index, step)
        for step in range(1, steps + 1)
        for index, name in enumerate(SERIES)
    }
    return len(events) == len(wanted) and found == wanted


def poll_cost(
    source: MetricSource,
    cursor: Cursor,
    append: Callable[[int], None] | None,
    first: int,
    polls: int,
) -> float:
    """Median CPU microseconds of a poll and its cursor's way through JSON."""
    taken = []
    for number in range(polls):
        if append is not None:
            append(first + number)
        text = json.dumps(cursor)
        began = time.process_time_ns()
        events, after = source.poll(json.loads(text))
        json.dumps(after)
        taken.append((time.process_time_ns() - began) / 1000)
        assert bool(events) == (append is not None)
        cursor = after
    return statistics.median(taken)


def read_source(
    make: Callable[[], MetricSource], steps: int, append: Callable[[int], None], polls: int = POLLS
) -> Cost:
    source = make()
    before, began = peak_mb(), time.process_time()
    events, cursor = drain(source, {})
    seconds, memory = time.process_time() - began, peak_mb() - before
    exact = is_exact(events, steps)
    idle = poll_cost(source, cursor, None, 0, polls)
    one = poll_cost(source, cursor, append, steps + 1, polls)
    return Cost(len(events), seconds, memory, idle, one, exact)


def read_jsonl(path: Path, steps: int, per_line: int) -> Cost:
    def append(step: int) -> None:
        write_lines(path, range(step, step + 1), per_line)

    return read_source(lambda: JsonlSource(path, "run"), steps, append)


def read_tensorboard(folder: Path, steps: int, per_event: int, tensors: bool) -> Cost:
    def append(step: int) -> None:
        write_events(folder, range(step, step + 1), per_event, tensors=tensors)

    return read_source(lambda: TensorBoardSource(folder, "run"), steps, append)


class _Unhurried(MlflowSource):
    """Without the second between two questions, which is no cost of ours."""

    def poll(self, cursor: Cursor) -> tuple[list[Any], Cursor]:
        self._next = -math.inf
        return super().poll(cursor)


def read_mlflow(uri: str, run_id: str, steps: int) -> Cost:
    def append(step: int) -> None:
        write_mlflow(uri, run_id, range(step, step + 1))

    from kamerton.tracking.mlflow_client import connect

    client = connect(uri)
    client.get_run(run_id)  # imports
    return read_source(lambda: _Unhurried(uri, run_id, client=client), steps, append, polls=5)


def read_store(path: Path, steps: int) -> Cost:
    """metrics.jsonl into the store: what ``kamerton runs watch`` does besides drawing."""
    from kamerton.smart_tuner.log_watcher import LogWatcher

    with MetricsStore(path.with_name("metrics.db")) as store:
        watcher = LogWatcher([JsonlSource(path, "run")])
        before, began = peak_mb(), time.process_time()
        count = sum(len(events) for events in watcher.collect(store))
        seconds, memory = time.process_time() - began, peak_mb() - before
        exact = all(len(store.series("run", name)) == steps for name in SERIES)
        idle, one = [], []
        for number in range(POLLS):
            began_ns = time.process_time_ns()
            list(watcher.collect(store))
            idle.append((time.process_time_ns() - began_ns) / 1000)
            write_lines(path, range(steps + 1 + number, steps + 2 + number))
            began_ns = time.process_time_ns()
            assert list(watcher.collect(store))
            one.append((time.process_time_ns() - began_ns) / 1000)
    return Cost(count, seconds, memory, statistics.median(idle), statistics.median(one), exact)


def json_loop(path: Path) -> Cost:
    before, began = peak_mb(), time.process_time()
    with path.open("rb") as file:
        rows = [json.loads(line) for line in file]
    seconds = time.process_time() - began
    return Cost(sum(len(row["values"]) for row in rows), seconds, peak_mb() - before)


def accumulator(folder: Path) -> Cost:
    from tensorboard.backend.event_processing import event_accumulator

    before, began = peak_mb(), time.process_time()
    found = event_accumulator.EventAccumulator(
        str(folder), size_guidance={"scalars": 0, "tensors": 0}
    )
    found.Reload()
    seconds = time.process_time() - began
    tags = found.Tags()
    count = sum(len(found.Scalars(tag)) for tag in tags["scalars"])
    count += sum(len(found.Tensors(tag)) for tag in tags["tensors"])
    taken = []
    for _ in range(20):
        began_ns = time.process_time_ns()
        found.Reload()
        taken.append((time.process_time_ns() - began_ns) / 1000)
    return Cost(count, seconds, peak_mb() - before, statistics.median(taken))


def in_child(function: Callable[..., Cost], *arguments: Any) -> Cost:
    """Run ``function`` in a fresh process, so that nothing is warm and its memory is its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_send, args=(theirs, function, arguments))
    child.start()
    theirs.close()
    try:
        cost: Cost = ours.recv()
    except EOFError:
        raise SystemExit(f"{function.__name__} failed") from None
    finally:
        child.join()
    return cost


def _send(place: Connection, function: Callable[..., Cost], arguments: tuple[Any, ...]) -> None:
    place.send(function(*arguments))


def measure(folder: Path, steps: int) -> dict[str, tuple[Cost, Cost | None]]:
    """Every reader's cost and its baseline's, by name."""
    rows: dict[str, tuple[Cost, Cost | None]] = {}
    for per_line in (10, 1):
        path = folder / f"lines-{per_line}" / "metrics.jsonl"
        path.parent.mkdir()
        write_lines(path, range(1, steps + 1), per_line)
        narrate(f"metrics.jsonl, {per_line} a line: {path.stat().st_size / 1e6:.1f} MB")
        base = in_child(json_loop, path)
        rows[f"metrics.jsonl, {per_line} a line"] = (
            in_child(read_jsonl, path, steps, per_line),
            base,
        )
        if per_line == 10:
            copy = folder / "store" / "metrics.jsonl"
            copy.parent.mkdir()
            write_lines(copy, range(1, steps + 1))
            rows["  the same into the store"] = in_child(read_store, copy, steps), base
    for name, per_event, tensors in (("10 an event", 10, False), ("1 an event", 1, False),
                                     ("1 an event, tensors", 1, True)):  # fmt: skip
        events = folder / name
        write_events(events, range(1, steps + 1), per_event, tensors=tensors)
        narrate(f"TensorBoard, {name}")
        base = in_child(accumulator, events)
        cost = in_child(read_tensorboard, events, steps, per_event, tensors)
        rows[f"TensorBoard, {name}"] = cost, base
    return rows


def measure_mlflow(folder: Path, steps: int) -> Cost | None:
    try:
        from kamerton.tracking.mlflow_client import connect
    except ImportError:
        return None
    narrate(f"MLflow: filling a database with {steps * len(SERIES)} points")
    uri = f"sqlite:///{folder}/mlflow.db"
    run_id = connect(uri).create_run("0").info.run_id
    write_mlflow(uri, run_id, range(1, steps + 1))
    return in_child(read_mlflow, uri, run_id, steps)


def show(name: str, cost: Cost, base: Cost | None) -> None:
    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    ratio = "" if base is None else f"{base.cpu_seconds / cost.cpu_seconds:.1f}"
    print(
        f"{name:<34} {cost.points:>7} {cost.cpu_seconds:>7.3f} "
        f"{number(base and base.cpu_seconds, '.3f'):>9} {ratio:>6} "
        f"{cost.memory_mb:>6.0f} {number(base and base.memory_mb, '.0f'):>9} "
        f"{number(cost.idle_us, '.0f'):>8} {number(cost.one_us, '.0f'):>8}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    points = given.points // 10 if given.quick else given.points
    steps = points // len(SERIES)
    with tempfile.TemporaryDirectory() as temporary:
        rows = measure(Path(temporary), steps)
        mlflow = measure_mlflow(Path(temporary), max(1, steps // MLFLOW_PART))
    print("\nCPU of a full read, its baseline's and how many times as fast; peak memory above the")
    print("start, its baseline's; CPU of a poll with nothing new and with a new line or event")
    print(
        f"{'':<34} {'points':>7} {'s':>7} {'base s':>9} {'ratio':>6} {'MB':>6} {'base MB':>9} "
        f"{'idle us':>8} {'one us':>8}"
    )
    for name, (cost, base) in rows.items():
        show(name, cost, base)
    if mlflow is not None:
        show("MLflow, sqlite", mlflow, None)
    missed = 0
    for name, (cost, _) in [*rows.items(), *([("MLflow", (mlflow, None))] if mlflow else [])]:
        if not cost.exact:
            missed += 1
            print(f"MISS   {name.strip()}: other points than were written")
        of_file = "MLflow" not in name and "store" not in name
        if of_file and not given.quick and cost.cpu_seconds >= MOST_SECONDS:
            missed += 1
            print(f"MISS   {name}: {cost.cpu_seconds:.2f} s (less than {MOST_SECONDS} s)")
    if not missed:
        print("PASS   all points exact" + ("" if given.quick else ", each file in under a second"))
    if given.json:
        found = {name: {"ours": asdict(cost), "baseline": base and asdict(base)}
                 for name, (cost, base) in rows.items()}  # fmt: skip
        found["MLflow"] = {"ours": mlflow and asdict(mlflow), "baseline": None}
        given.json.write_text(json.dumps(found, indent=2))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
