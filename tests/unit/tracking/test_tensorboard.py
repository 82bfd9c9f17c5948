import io
import subprocess
import sys
import wave as wave_format
from pathlib import Path

import numpy as np
import pytest

from kamerton.report.figures import new_figure, to_png
from kamerton.tracking.tensorboard import TensorBoardTracker

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
