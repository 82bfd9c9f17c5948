import errno
import io
import os
import shutil
import subprocess
import sys
import wave as wave_format
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kamerton.report.figures import new_figure, to_png
from kamerton.tracking import CompositeTracker, JsonlTracker, read_records
from kamerton.tracking.tensorboard import TensorBoardTracker
from kamerton.tracking.trouble import Pause

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def read(folder: Path) -> "accumulator.EventAccumulator":
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return events


def test_scalars_pictures_sound_and_text_are_read_back(tmp_path: Path) -> None:
    figure, _ = new_figure(2, 1)
    png = to_png(figure)
    wave = np.sin(np.arange(800) / 5).astype(np.float32)
    tracker = TensorBoardTracker(tmp_path)
    tracker.log_params({"train": {"steps": 5}})
    for step in (1, 2):
        tracker.log_metrics({"val_loss": 1 / step, "lr": 0.1}, step)
    tracker.log_figure("attention", png, 2)
    tracker.log_audio("sample", wave, 16000, 2)
    tracker.log_event("best", step=2, value=3)
    tracker.flush()  # readable while the run goes on

    events = read(tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("val_loss")] == [(1, 1.0), (2, 0.5)]
    image = events.Images("attention")[0]
    assert image.encoded_image_string == png
    assert (image.width, image.height) == (220, 110)
    sound = events.Audio("sample")[0]
    assert (sound.sample_rate, sound.length_frames) == (16000, 800)
    with wave_format.open(io.BytesIO(sound.encoded_audio_string)) as file:
        assert file.getnframes() == 800
    assert b"steps: 5" in events.Tensors("params")[0].tensor_proto.string_val[0]
    assert events.Tensors("event/best")[0].step == 2
    tracker.close("finished")


def test_a_resumed_run_replaces_the_steps_it_makes_again(tmp_path: Path) -> None:
    first = TensorBoardTracker(tmp_path)
    for step in range(1, 6):
        first.log_metrics({"loss": float(step)}, step)
    first.close("stopped")
    second = TensorBoardTracker(tmp_path, resume_step=3)
    for step in range(4, 8):
        second.log_metrics({"loss": 10.0 + step}, step)
    second.close("finished")
    found = [(event.step, event.value) for event in read(tmp_path).Scalars("loss")]
    assert found == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 14.0), (5, 15.0), (6, 16.0), (7, 17.0)]


def test_neither_torch_nor_tensorflow_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from kamerton.tracking.tensorboard import TensorBoardTracker\n"
        f"tracker = TensorBoardTracker(Path({str(tmp_path)!r}))\n"
        "tracker.log_metrics({'a': 1.0}, 1); tracker.close('finished')\n"
        "print([name for name in ('torch', 'tensorflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def scalars(folder: Path, name: str = "loss") -> dict[int, float]:
    return {event.step: event.value for event in read(folder).Scalars(name)}


def test_a_file_in_place_of_the_folder_is_told_and_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "tensorboard"
    folder.write_text("in the way")
    tracker = TensorBoardTracker(folder)
    for step in (1, 2):
        with pytest.raises(OSError, match="tensorboard"):
            tracker.log_metrics({"loss": float(step)}, step)
    with pytest.raises(OSError, match="cannot be written"):
        tracker.flush()
    folder.unlink()
    end_pause(tracker)
    tracker.log_metrics({"loss": 3.0}, 3)
    tracker.close("finished")
    assert scalars(folder) == {1: 1.0, 2: 2.0, 3: 3.0}


def end_pause(tracker: TensorBoardTracker) -> None:
    """As if the time until the next attempt had passed."""
    assert not tracker._pause.over
    tracker._pause.reset()


def test_a_folder_that_vanishes_is_noticed_at_the_next_flush_and_made_again(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "tensorboard"
    tracker = TensorBoardTracker(folder)
    tracker.log_metrics({"loss": 1.0}, 1)
    shutil.rmtree(folder)
    tracker.log_metrics({"loss": 2.0}, 2)
    with pytest.raises(FileNotFoundError, match="gone"):
        tracker.flush()
    end_pause(tracker)
    tracker.log_metrics({"loss": 3.0}, 3)
    tracker.flush()
    tracker.close("finished")
    assert scalars(folder) == {1: 1.0, 2: 2.0, 3: 3.0}


def test_a_full_disk_tears_one_file_and_the_next_has_its_scalars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = TensorBoardTracker(tmp_path, resume_step=0)
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.flush()
    for step in (2, 3):
        tracker.log_metrics({"loss": float(step)}, step)

    class Full:
        """Takes a part of what is written, then nothing."""

        def __init__(self, file: Any) -> None:
            self.file, self.room = file, 20

        def write(self, data: bytes) -> int:
            if not self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            taken, self.room = self.room, 0
            return int(self.file.write(bytes(data[:taken])))

        def close(self) -> None:
            self.file.close()

    assert tracker._file is not None
    monkeypatch.setattr(tracker._file, "_file", Full(tracker._file._file))
    with pytest.raises(OSError, match="No space"):
        tracker.flush()
    with pytest.raises(OSError, match="cannot be written"):  # not tried again at once
        tracker.log_metrics({"loss": 4.0}, 4)
    end_pause(tracker)
    tracker.log_metrics({"loss": 5.0}, 5)
    tracker.close("finished")
    assert scalars(tmp_path) == {step: float(step) for step in range(1, 6)}
    assert len(list(tmp_path.iterdir())) == 2


def test_a_run_with_a_broken_folder_is_told_once_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    tracker = CompositeTracker(
        [JsonlTracker(tmp_path), TensorBoardTracker(tmp_path / "tensorboard")]
    )
    for step in range(1, 30):
        tracker.log_metrics({"loss": 1.0}, step)
        tracker.flush()
    tracker.close("finished")
    assert len(caplog.records) == 1
    assert len([r for r in read_records(tmp_path / "metrics.jsonl") if r.kind == "metrics"]) == 29


def test_attempts_come_at_growing_intervals() -> None:
    clock = [0.0]
    pause = Pause(lambda: clock[0])
    waited = []
    for _ in range(8):
        assert pause.over
        pause.failed()
        before = clock[0]
        while not pause.over:
            clock[0] += 0.5
        waited.append(clock[0] - before)
    assert waited == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    pause.reset()
    pause.failed()
    clock[0] += 1.0
    assert pause.over
