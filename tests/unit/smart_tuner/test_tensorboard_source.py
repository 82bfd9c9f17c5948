"""The reader of event files against TensorBoard's own, and against cut files."""

import math
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kamerton.smart_tuner.sources import MetricEvent, TensorBoardSource
from kamerton.tracking.tensorboard import TensorBoardTracker
from tests.unit.smart_tuner.reading import Points, Reader

pytest.importorskip("tensorboard")


def own_reader(folder: Path) -> Points:
    """What tensorboard's accumulator says: everything kept, scalars of both styles."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    points: Points = {}
    for tag in found.Tags()["scalars"]:
        for event in found.Scalars(tag):
            points.setdefault((tag, event.step), event.value)
    for tag in found.Tags()["tensors"]:
        for item in found.Tensors(tag):
            array = tensor_util.make_ndarray(item.tensor_proto)
            if array.shape == () and array.dtype.kind in "fiu":
                points.setdefault((tag, item.step), float(array))
    return {
        key: value if math.isfinite(float(value)) else str(value) for key, value in points.items()
    }


def tensor_event(step: int, tag: str, tensor: Any) -> Any:
    from tensorboard.compat.proto import event_pb2, summary_pb2

    value = summary_pb2.Summary.Value(tag=tag, tensor=tensor)
    value.metadata.plugin_data.plugin_name = "scalars"
    return event_pb2.Event(wall_time=1.5, step=step, summary=summary_pb2.Summary(value=[value]))


def write_events(path: Path, events: list[Any]) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    with path.open("ab") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())
        writer.flush()


def test_scalars_of_both_styles_are_read_and_nothing_else(tmp_path: Path) -> None:
    from tensorboard.compat.proto import event_pb2
    from tensorboard.util.tensor_util import make_tensor_proto

    tracker = TensorBoardTracker(tmp_path)
    tracker.log_params({"train": {"steps": 5}})
    tracker.log_metrics({"loss": 0.5, "длина": -2.0, "wild": math.nan}, 3)
    tracker.log_metrics({"loss": math.inf, "zero": 0.0}, 300_000_000_000)
    tracker.log_figure("attention", b"\x89PNG" + bytes(30_000), 3)
    tracker.log_audio("sample", np.zeros(800, np.float32), 8000, 3)
    tracker.log_event("best", step=3, quality=1.0)
    tracker.close("finished")
    tensors = [
        make_tensor_proto(0.25, dtype="float32"),
        make_tensor_proto(1e-300, dtype="float64"),
        make_tensor_proto(-7, dtype="int64"),
        make_tensor_proto(9, dtype="int32"),
        make_tensor_proto([1.0, 2.0]),
        make_tensor_proto([[1.0]]),
        make_tensor_proto("text"),
    ]
    for value in (0.125, 0.0):  # values that lie in their own field, as some writers have them
        own = make_tensor_proto(0.0, dtype="float32")
        own.tensor_content = b""
        del own.float_val[:]
        own.float_val.append(value)
        tensors.append(own)
    events: list[Any] = [event_pb2.Event(wall_time=1.0, file_version="brain.Event:2")]
    events += [tensor_event(5, f"tensor{place}", item) for place, item in enumerate(tensors)]
    write_events(tmp_path / "events.out.tfevents.99999999999999.host", events)

    reader = Reader(TensorBoardSource(tmp_path, "run"))
    reader.poll()

    expected = own_reader(tmp_path)
    assert reader.points == expected
    assert len(expected) == 5 + 6
    assert expected["wild", 3] == "nan"
    event = next(item for item in reader.events if isinstance(item, MetricEvent))
    assert event.run == "run"
    assert event.time > 1e9


@settings(max_examples=40)
@given(
    sessions=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 15)), min_size=1, max_size=4),
    cuts=st.lists(st.integers(1, 400), max_size=25),
    seed=st.integers(0, 99),
)
def test_any_slices_of_event_files_give_what_tensorboard_reads(
    tmp_path_factory: pytest.TempPathFactory,
    sessions: list[tuple[int, int]],
    cuts: list[int],
    seed: int,
) -> None:
    made, shown = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("shown")
    values, step = random.Random(seed), 0
    for number, (points, back) in enumerate(sessions):
        step = max(0, step - back)
        tracker = TensorBoardTracker(made, resume_step=step if number else None)
        for _ in range(points):
            step += 1
            tracker.log_metrics({"loss": values.random(), "grad": values.random()}, step)
            if values.random() < 0.2:
                tracker.log_figure("mel", b"\x89PNG" + bytes(120), step)
        tracker.close("stopped")
    reader = Reader(TensorBoardSource(shown, "run"))
    sizes = iter(cuts)
    for path in sorted(made.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            size = next(sizes, len(data))
            with (shown / path.name).open("ab") as file:
                file.write(data[at : at + size])
            at += size
            reader.poll()
    assert reader.points == own_reader(made)
    assert reader.poll() == 0


def test_a_large_record_is_passed_over_without_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kamerton.smart_tuner.sources.tensorboard._CHUNK_BYTES", 4096)
    tracker = TensorBoardTracker(tmp_path)
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.log_figure("mel", b"\x89PNG" + bytes(50_000), 1)
    tracker.log_metrics({"loss": 2.0}, 2)
    tracker.close("finished")
    reader = Reader(TensorBoardSource(tmp_path, "run"))
    reader.poll()
    assert reader.points == {("loss", 1): 1.0, ("loss", 2): 2.0}


def test_a_record_that_is_no_event_costs_itself_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = TensorBoardTracker(tmp_path)
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.close("finished")
    path = next(tmp_path.iterdir())
    good = path.read_bytes()
    junk = b"\x2a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
    record = struct.pack("<QI", len(junk), 0) + junk + bytes(4)
    path.write_bytes(record + good)
    reader = Reader(TensorBoardSource(tmp_path, "run"))
    reader.poll()
    assert reader.points == {("loss", 1): 1.0}
    assert "cannot be read" in caplog.text
    assert Reader(TensorBoardSource(tmp_path / "absent", "run")).poll() == 0
