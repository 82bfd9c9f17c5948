"""Each point once, over restarts, torn tails, rotation and resumed steps."""

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kamerton.smart_tuner.sources import JsonlSource, MetricEvent, RunEvent
from kamerton.smart_tuner.sources.step_set import StepSet
from kamerton.tracking import JsonlTracker
from tests.unit.smart_tuner.reading import Points, Reader


def line(step: int, values: dict[str, Any], when: float) -> bytes:
    raw = {"kind": "metrics", "step": step, "time": when, "values": values}
    return json.dumps(raw).encode() + b"\n"


def naive(data: bytes) -> Points:
    """The points that a whole file has: the first of each name and step that is not void."""
    points: Points = {}
    for row in data.split(b"\n")[:-1]:
        raw = json.loads(row)
        if raw["kind"] == "metrics":
            for name, value in raw["values"].items():
                points.setdefault((name, raw["step"]), value)
        elif raw["kind"] == "event":
            points = {key: value for key, value in points.items() if key[1] <= raw["step"]}
    return points


def replace(path: Path, data: bytes, *, in_place: bool) -> None:
    if in_place:
        path.write_bytes(data)
        return
    path.with_name("new").write_bytes(data)
    os.replace(path.with_name("new"), path)


class Writer:
    """Writes a log as a trainer does, and what happens to logs besides."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path, self.random = path, random.Random(seed)
        self.data = b'{"kind": "params", "step": null, "time": 0.5}\n'
        self.shown = 0  # bytes of the data that readers may see: the tail may be torn
        self.step, self.clock = 0, 1.0
        path.write_bytes(self.data)

    def write(self, count: int) -> None:
        for _ in range(count):
            self.step += self.random.choice((1, 1, 1, 5))
            self.clock += 0.25
            values: dict[str, Any] = {
                "train": self.random.random(),
                "grad": self.random.choice((1.0, "nan", "inf")),
            }
            self.data += line(self.step, values, self.clock)
            if self.random.random() < 0.3:
                self.clock += 0.25
                self.data += line(self.step, {"val": self.random.random()}, self.clock)

    def show(self, torn: int) -> None:
        end = max(0, len(self.data) - torn)
        with self.path.open("rb+") as file:
            file.seek(0, os.SEEK_END)
            at = file.tell()
            file.write(self.data[at:end])

    def resume(self, back: int, *, in_place: bool, told: bool) -> None:
        """Go on from an earlier step, as JsonlTracker does, or without a word of it."""
        self.step = max(0, self.step - back)
        kept = b""
        for row in self.data.splitlines(keepends=True):
            step = json.loads(row)["step"]
            kept += row if step is None or step <= self.step else b""
        self.clock += 1.0
        if told:
            raw = {"kind": "event", "name": "resumed", "step": self.step, "time": self.clock}
            kept += json.dumps(raw).encode() + b"\n"
        self.data = kept
        replace(self.path, kept, in_place=in_place)


ACTIONS = st.one_of(
    st.tuples(st.just("write"), st.integers(1, 30), st.integers(0, 90)),
    st.tuples(st.just("resume"), st.integers(0, 40), st.integers(0, 3)),
    st.tuples(st.just("poll"), st.just(0), st.just(0)),
)


@settings(max_examples=100)
@given(actions=st.lists(ACTIONS, max_size=14), seed=st.integers(0, 1000))
def test_any_slices_of_a_log_give_what_one_read_of_it_gives(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int, int]], seed: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    writer, reader = Writer(path, seed), Reader(JsonlSource(path, "run"))
    for kind, amount, option in actions:
        if kind == "write":
            writer.write(amount)
            writer.show(torn=option)
        elif kind == "resume":
            writer.resume(amount, in_place=bool(option & 1), told=bool(option & 2))
        else:
            reader.poll()
            seen = path.read_bytes()
            assert reader.points == naive(seen[: seen.rfind(b"\n") + 1])
    writer.show(torn=0)
    reader.poll()
    assert reader.points == naive(path.read_bytes())
    assert reader.poll() == 0
    whole = Reader(JsonlSource(path, "run"))
    whole.poll()
    assert whole.points == reader.points


def test_a_resumed_run_gives_only_what_it_makes_again(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path)
    for step in range(1, 401):
        tracker.log_metrics({"loss": float(step)}, step)
    tracker.close("stopped")
    reader = Reader(JsonlSource(tmp_path / "metrics.jsonl", "run"))
    reader.poll()

    resumed = JsonlTracker(tmp_path, resume_step=395)
    resumed.log_metrics({"loss": -1.0}, 396)
    given_again = reader.poll()

    assert reader.rewinds == 1
    assert reader.points[("loss", 396)] == -1.0
    assert max(step for _, step in reader.points) == 396
    # The resumed line, the new point, and those between the mark before and the step.
    assert given_again <= 12
    resumed.close("finished")


def test_a_step_whose_evaluation_is_made_again_is_as_the_file_has_it(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path)
    for step in range(1, 11):
        tracker.log_metrics({"loss": float(step)}, step)
    tracker.log_event("evaluating", step=10)
    tracker.log_metrics({"val": 1.0}, 10)
    tracker.flush()
    reader = Reader(JsonlSource(tmp_path / "metrics.jsonl", "run"))
    reader.poll()
    assert reader.points[("val", 10)] == 1.0

    JsonlTracker(tmp_path, resume_step=10, unevaluated=True).log_metrics({"val": 2.0}, 10)
    reader.poll()

    assert reader.points[("val", 10)] == 2.0
    assert reader.points[("loss", 10)] == 10.0


def test_a_rotated_log_goes_on_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = b"".join(line(step, {"loss": 1.0}, step) for step in range(1, 6))
    path.write_bytes(first)
    reader = Reader(JsonlSource(path, "run"))
    reader.poll()
    path.rename(tmp_path / "metrics.jsonl.1")
    assert reader.poll() == 0  # absent for a moment
    path.write_bytes(line(5, {"val": 2.0}, 5.5) + line(6, {"loss": 2.0}, 6))
    assert reader.poll() == 2
    assert reader.rewinds == 0
    assert reader.points == {("loss", step): 1.0 for step in range(1, 6)} | {
        ("val", 5): 2.0,
        ("loss", 6): 2.0,
    }


def test_what_was_read_line_by_line_is_void_from_the_step_that_a_run_goes_back_to(
    tmp_path: Path,
) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [line(step, {"loss": 1.0}, step) for step in range(1, 151)]
    for back in (37, 140):
        reader = Reader(JsonlSource(path, "run"))
        for count in range(1, len(rows) + 1):
            path.write_bytes(b"".join(rows[:count]))
            reader.poll()
        replace(path, b"".join(rows[:-back]), in_place=True)
        reader.poll()
        assert len(reader.points) == len(rows) - back
        assert len(reader.cursor["marks"]) < 30


def test_a_run_that_says_it_went_back_voids_what_nobody_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"".join(line(step, {"loss": 1.0}, step) for step in range(1, 6)))
    reader = Reader(JsonlSource(path, "run"))
    reader.poll()
    with path.open("ab") as file:
        file.write(b'{"kind": "event", "name": "resumed", "step": 3, "time": 9.0}\n')
        file.write(line(4, {"loss": 2.0}, 10.0))
    reader.poll()
    assert reader.points == {("loss", 1): 1.0, ("loss", 2): 1.0, ("loss", 3): 1.0, ("loss", 4): 2.0}


def test_another_run_in_the_same_place_replaces_what_it_makes_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"".join(line(step, {"loss": 1.0}, step) for step in range(1, 6)))
    reader = Reader(JsonlSource(path, "run"))
    reader.poll()
    replace(path, line(2, {"loss": 7.0}, 100.0), in_place=True)
    reader.poll()
    assert reader.points == {("loss", 1): 1.0, ("loss", 2): 7.0}
    replace(path, line(2, {"loss": 8.0}, 101.5), in_place=True)  # the last step of before
    reader.poll()
    assert reader.points == {("loss", 1): 1.0, ("loss", 2): 8.0}
    replace(path, line(1, {"other": 9.0}, 102.0), in_place=True)  # no name in common
    reader.poll()
    assert reader.points == {("other", 1): 9.0}


def test_trials_that_end_out_of_order_are_all_given(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"")
    reader = Reader(JsonlSource(path, "study"))
    for number in (0, 3, 1, 2, 2, 0):
        with path.open("ab") as file:
            file.write(line(number, {"objective": 1.0}, 1.0 + number))
        reader.poll()
    assert [key[1] for key in reader.points] == [0, 3, 1, 2]


def test_events_epochs_and_foreign_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [
        line(1, {"epoch": 3.0, "loss": 1.0}, 1.0),
        b"not json\n",
        b'{"kind": "metrics", "step": 2, "time": 1}\n',
        b'{"kind": "metrics", "step": 2, "time": 1, "values": {"loss": "many"}}\n',
        line(2, {"val": 1.0}, 2.0),
        b'{"kind": "event", "step": 2, "time": 3.0, "name": "best", "fields": {"quality": 0.5}}\n',
        b'{"kind": "event", "step": null, "time": 4.0, "name": "ended", "fields": {}}\n',
        b'{"kind": "figure", "step": 2, "time": 4.0, "name": "attention", "file": "x"}\n',
    ]
    path.write_bytes(b"".join(rows))
    reader = Reader(JsonlSource(path, "run"))
    reader.poll()
    points = [event for event in reader.events if isinstance(event, MetricEvent)]
    assert [(event.name, event.epoch) for event in points] == [
        ("epoch", 3.0),
        ("loss", 3.0),
        ("val", 3.0),  # evaluations tell no epoch: it is that of the step before
    ]
    events = [event for event in reader.events if isinstance(event, RunEvent)]
    assert [(event.step, event.name) for event in events] == [(2, "best"), (None, "ended")]
    assert events[0].fields == {"quality": 0.5}
    # Lines without a step are not given again either, where what stands before them changed.
    replace(path, b"".join([*rows[:4], *rows[6:], line(3, {"loss": 1.0}, 9.0)]), in_place=False)
    before = len(reader.events)
    reader.poll()
    assert "ended" not in [getattr(event, "name", "") for event in reader.events[before:]]


def test_an_idle_log_is_not_even_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(line(1, {"loss": 1.0}, 1.0))
    os.utime(path, (1.0, 1.0))
    reader = Reader(JsonlSource(path, "run"))
    reader.poll()
    monkeypatch.setattr("kamerton.smart_tuner.sources.anchors.tail_of", None)
    assert reader.poll() == 0
    assert Reader(JsonlSource(tmp_path / "absent", "run")).poll() == 0


STEPS = st.lists(st.integers(-5, 60), max_size=80)


@given(batches=st.lists(st.tuples(STEPS, st.integers(-10, 70)), max_size=5))
def test_a_step_set_is_a_set(batches: list[tuple[list[int], int]]) -> None:
    ours, plain = StepSet(), set[int]()
    for steps, cut in batches:
        for step in steps:
            assert ours.has("loss", step) == (step in plain)
            assert ours.add("loss", step) == (step not in plain)
            plain.add(step)
        assert ours.last() == max(plain, default=None)
        assert ours.cut(cut) == any(step >= cut for step in plain)
        plain = {step for step in plain if step < cut}
        ours = StepSet(json.loads(json.dumps(ours.as_json())))
    assert {step for step in range(-20, 80) if ours.has("loss", step)} == plain


def test_a_step_set_of_a_regular_log_is_small() -> None:
    ours = StepSet()
    for step in [1, *range(10, 100_000, 10)]:
        assert ours.add("loss", step)
    assert len(json.dumps(ours.as_json())) < 60
    wild = StepSet()
    for step in range(2000):
        wild.add("loss", step * step)
    assert len(json.dumps(wild.as_json())) < 10_000
    assert not wild.add("loss", 1999 * 1999)
