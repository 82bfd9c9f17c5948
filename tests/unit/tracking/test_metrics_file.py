import errno
import io
import json
import math
import os
import time
import wave as wave_format
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.tracking import JsonlTracker, MetricsCursor, Record, read_records
from kamerton.tracking.metrics_file import encode_wav, last_events

VALUES = st.dictionaries(st.sampled_from(["a", "b", "c/d"]), st.floats(), min_size=1)


def steps_of(path: Path, name: str = "loss") -> list[int]:
    return [r.step for r in read_records(path) if name in r.values and r.step is not None]


@given(values=VALUES, step=st.integers(0, 10**9), time=st.floats(0, 4e9))
def test_a_line_reads_back_as_it_was_written(
    values: dict[str, float], step: int, time: float
) -> None:
    record = Record("metrics", round(time, 3), step, values=values)
    line = record.line()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    json.loads(line, parse_constant=pytest.fail)  # NaN is not JSON
    found = Record.parse(line)
    assert found is not None
    assert found.step == step
    for name, value in values.items():
        assert found.values[name] == value or math.isnan(value)


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[]\n", b"1\n", b'{"kind":"metrics"}\n',
     b'{"kind":"metrics","time":1,"values":3}\n',
     b'{"kind":"m","time":1,"step":1,"values":{"a":"big"}}\n',
     b"\xff\xfe\n"],
)  # fmt: skip
def test_what_is_no_record_is_none(line: bytes) -> None:
    assert Record.parse(line) is None


def test_everything_logged_is_read_back(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path)
    tracker.log_params({"train": {"token": "abcdefgh", "steps": 5}})
    tracker.log_metrics({"loss": np.float32(0.5), "grad_norm": math.inf}, 1)
    tracker.log_metrics({}, 1)
    tracker.log_event("best", step=1, value=0.5)
    tracker.log_figure("attention", b"png", 1)
    tracker.log_audio("sample", np.zeros(8, np.float32), 8000, 1)
    tracker.log_text("note", "hello", 1)
    tracker.close("finished")
    records = read_records(tmp_path / "metrics.jsonl")
    assert [r.kind for r in records] == [
        "params", "metrics", "event", "figure", "audio", "text", "event"
    ]  # fmt: skip
    assert records[0].fields == {"train": {"token": "***", "steps": 5}}
    assert records[1].values == {"loss": 0.5, "grad_norm": math.inf}
    assert (tmp_path / records[3].file).read_bytes() == b"png"
    assert (tmp_path / records[4].file).stat().st_size == 44 + 16
    assert records[-1].fields == {"state": "finished"}


def test_lines_are_there_before_any_flush(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path)
    tracker.log_metrics({"loss": 1.0}, 1)
    assert steps_of(tmp_path / "metrics.jsonl") == [1]
    tracker.close("finished")


@given(
    written=st.integers(0, 12),
    resumed=st.integers(0, 12),
    tail=st.sampled_from(["", '{"kind', "x"]),
)
def test_after_a_resume_every_step_is_recorded_once(
    tmp_path_factory: pytest.TempPathFactory, written: int, resumed: int, tail: str
) -> None:
    resumed = min(resumed, written)
    folder = tmp_path_factory.mktemp("run")
    path = folder / "metrics.jsonl"
    tracker = JsonlTracker(folder)
    cursor, seen = MetricsCursor(path), []
    for step in range(1, written + 1):
        tracker.log_metrics({"loss": float(step)}, step)
    seen += cursor.poll()
    with path.open("a") as file:  # killed within a line
        file.write(tail)
    again = JsonlTracker(folder, resume_step=resumed)
    seen += cursor.poll()
    for step in range(resumed + 1, 15):
        again.log_metrics({"loss": float(step)}, step)
    seen += cursor.poll()
    again.close("finished")
    tracker.close("stopped")
    seen += cursor.poll()

    assert steps_of(path) == list(range(1, 15))
    assert [r.step for r in seen if "loss" in r.values] == list(range(1, 15))
    resumes = [r for r in read_records(path) if r.name == "resumed"]
    assert resumes[0].fields["dropped_lines"] == written - resumed + bool(tail)


def test_a_resume_that_drops_nothing_leaves_the_file_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tracker = JsonlTracker(tmp_path)
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.close("stopped")
    cursor, before = MetricsCursor(path), path.stat().st_ino
    cursor.poll()
    again = JsonlTracker(tmp_path, resume_step=1)
    again.log_metrics({"loss": 2.0}, 2)
    again.close("finished")
    assert path.stat().st_ino == before
    assert [record.step for record in cursor.poll() if record.values] == [2]


def test_a_torn_line_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind":"metrics","step":1,"time":1,"values":{"loss":1}}\n{"kind":"met')
    tracker = JsonlTracker(tmp_path)
    tracker.log_metrics({"loss": 2.0}, 2)
    tracker.close("finished")
    assert steps_of(path) == [1, 2]


@given(cuts=st.lists(st.integers(0, 400), max_size=8))
def test_a_reader_sees_each_line_once_however_the_file_grows(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    lines = b"".join(Record("metrics", 1.0, step, values={"a": 1.0}).line() for step in range(8))
    path.write_bytes(b"")
    cursor, seen = MetricsCursor(path), []
    with path.open("ab") as file:
        for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(lines)], strict=True):
            file.write(lines[start:end])
            file.flush()
            seen += cursor.poll(limit=3)
    while more := cursor.poll(limit=3):
        seen += more
    assert [record.step for record in seen] == list(range(8))


def test_a_reader_can_go_on_where_another_stopped(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path)
    path = tmp_path / "metrics.jsonl"
    tracker.log_metrics({"a": 1.0, "b": 1.0}, 1)
    first = MetricsCursor(path)
    first.poll()
    tracker.log_metrics({"a": 2.0}, 2)
    second = MetricsCursor(path, offset=first.offset, seen=first.seen)
    assert [record.step for record in second.poll()] == [2]
    tracker.close("finished")
    assert MetricsCursor(tmp_path / "none.jsonl").poll() == []


def test_wav_bytes_hold_the_wave() -> None:
    wave = np.array([0.0, 0.5, -0.5, 1.0, -1.0, 7.0], np.float32)
    with wave_format.open(io.BytesIO(encode_wav(wave, 16000))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        samples = np.frombuffer(file.readframes(6), "<i2")
    np.testing.assert_allclose(samples / 32767, np.clip(wave, -1, 1), atol=1e-4)


class FailingDisk:
    """``os.write`` on a disk that takes a few bytes more and then none, until it has room again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: list[int], error: int) -> None:
        self.room, self.error = room, error
        self._real = os.write
        monkeypatch.setattr("kamerton.tracking.metrics_file.os.write", self.write)

    def write(self, file: int, data: bytes | bytearray) -> int:
        if not self.room:
            return self._real(file, data)
        room = self.room.pop(0)
        if room == 0:
            raise OSError(self.error, os.strerror(self.error))
        return self._real(file, bytes(data[:room]))


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@given(room=st.lists(st.sampled_from([0, 0, 0, 1, 7, 200]), min_size=1, max_size=12))
def test_a_disk_in_trouble_delays_lines_and_loses_none(
    error: int, room: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        tracker = JsonlTracker(folder)
        disk = FailingDisk(patch, room, error)
        cursor, seen = MetricsCursor(folder / "metrics.jsonl"), []
        for step in range(1, 20):
            tracker.log_metrics({"loss": float(step)}, step)
            seen += cursor.poll()
        tracker.close("finished")
        seen += cursor.poll()
        assert not disk.room
    data = (folder / "metrics.jsonl").read_bytes()
    assert all(Record.parse(line) for line in data.splitlines(keepends=True))
    assert steps_of(folder / "metrics.jsonl") == list(range(1, 20))
    assert [r.step for r in seen if "loss" in r.values] == list(range(1, 20))


def test_trouble_with_the_disk_is_told_once_and_so_is_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = JsonlTracker(tmp_path)
    disk = FailingDisk(monkeypatch, [0] * 3, errno.ENOSPC)
    for step in range(1, 5):
        tracker.log_metrics({"loss": 1.0}, step)
    disk.room = [0] * 2
    for step in range(5, 9):
        tracker.log_metrics({"loss": 1.0}, step)
    tracker.close("finished")
    messages = [record.getMessage() for record in caplog.records]
    assert len([text for text in messages if "No space left" in text]) == 1
    assert len([text for text in messages if "works again" in text]) == 1
    events = [r.name for r in read_records(tmp_path / "metrics.jsonl") if r.kind == "event"]
    assert events == ["tracking_recovered", "tracking_recovered", "ended"]


def test_a_disk_that_stays_full_ends_the_run_in_bounded_time_and_says_what_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("kamerton.tracking.metrics_file._CLOSE_SECONDS", 0.3)
    tracker = JsonlTracker(tmp_path)
    tracker.log_metrics({"loss": 1.0}, 1)
    FailingDisk(monkeypatch, [0] * 100_000, errno.ENOSPC)
    tracker.log_metrics({"loss": 1.0}, 2)
    tracker.flush()
    started = time.monotonic()
    tracker.close("finished")
    assert time.monotonic() - started < 3.0
    assert "2 lines" in caplog.text  # the point and the end
    assert steps_of(tmp_path / "metrics.jsonl") == [1]


def test_a_sync_that_fails_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = JsonlTracker(tmp_path)

    def broken(_file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("kamerton.tracking.metrics_file.os.fsync", broken)
        tracker.log_metrics({"loss": 1.0}, 1)
        tracker.flush()
        tracker.flush()
    tracker.close("finished")
    assert len([r for r in caplog.records if "Input/output error" in r.getMessage()]) == 1
    assert steps_of(tmp_path / "metrics.jsonl") == [1]


def test_pictures_and_sound_that_cannot_be_written_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "figures").write_text("not a folder")
    tracker = JsonlTracker(tmp_path)
    tracker.log_figure("attention", b"png", 1)
    tracker.log_figure("attention", b"png", 2)
    tracker.log_audio("sample", np.zeros(8, np.float32), 8000, 2)
    tracker.log_metrics({"loss": 1.0}, 2)
    tracker.close("finished")
    assert tracker.lost_files == 2
    assert len(caplog.records) == 1
    kinds = [record.kind for record in read_records(tmp_path / "metrics.jsonl")]
    assert kinds == ["audio", "metrics", "event"]


def test_the_newest_events_are_found_among_many_numbers(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert last_events(path, 3) == []
    tracker = JsonlTracker(tmp_path)
    for step in range(1, 40):
        tracker.log_metrics({"loss": 1.0}, step)
        if step % 10 == 0:
            tracker.log_event("best", step=step)
    assert [event.step for event in last_events(path, 3)] == [10, 20, 30]
    assert [event.step for event in last_events(path, 2)] == [20, 30]
    tracker.close("finished")


def test_events_of_one_name_at_one_step_are_told_apart_by_what_they_say(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tracker, cursor = JsonlTracker(tmp_path), MetricsCursor(tmp_path / "metrics.jsonl")
    for reason in ("first", "second", "first"):  # the third is the first, written again
        tracker.log_event("trouble", step=3, reason=reason)
    assert [record.fields["reason"] for record in cursor.poll()] == ["first", "second"]
    tracker.log_event("trouble", step=4, reason="first")
    assert [record.step for record in cursor.poll()] == [4]
    tracker.close("stopped")
    cursor.poll()

    # Killed and gone on from step 2: what a reader had is not new when it is made again.
    again = JsonlTracker(tmp_path, resume_step=2)
    for step, reason in ((3, "first"), (3, "second"), (4, "first"), (4, "other")):
        again.log_event("trouble", step=step, reason=reason)
    again.close("finished")
    fresh = [record for record in cursor.poll() if record.name == "trouble"]
    assert [(record.step, record.fields["reason"]) for record in fresh] == [(4, "other")]
    whole = [record for record in read_records(path) if record.name == "trouble"]
    assert [(record.step, record.fields["reason"]) for record in whole] == [
        (3, "first"), (3, "second"), (4, "first"), (4, "other"),
    ]  # fmt: skip
    assert len(cursor.seen) < 10  # what is behind does not pile up


def test_numbers_that_are_not_finite_are_kept_in_events(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path)
    tracker.log_event("recovery", step=1, values={"norm": math.inf, "all": [1.0, math.nan]})
    tracker.close("finished")
    record = next(r for r in read_records(tmp_path / "metrics.jsonl") if r.name == "recovery")
    assert record.fields == {"values": {"norm": "inf", "all": [1.0, "nan"]}}


@pytest.mark.parametrize("unevaluated", [True, False])
def test_what_an_interrupted_evaluation_recorded_is_dropped(
    tmp_path: Path, unevaluated: bool
) -> None:
    path = tmp_path / "metrics.jsonl"
    tracker = JsonlTracker(tmp_path)
    tracker.log_metrics({"train_loss": 1.0}, 4)
    tracker.log_event("evaluating", step=4)
    for _ in range(2):  # interrupted twice
        tracker.log_event("best", step=4, quality=0.5)
        tracker.log_metrics({"val_loss": 1.0}, 4)
        tracker.close("stopped")
        tracker = JsonlTracker(tmp_path, resume_step=4, unevaluated=unevaluated)
    tracker.close("finished")
    lines = [Record.parse(line) for line in path.read_bytes().splitlines()]
    told = [r.name or next(iter(r.values)) for r in lines if r is not None and r.name != "ended"]
    evaluation = [] if unevaluated else ["best", "val_loss"]
    assert told == ["train_loss", "evaluating", *(2 * [*evaluation, "resumed"])]
