"""Figures of speed: what is counted, and that each reading begins anew."""

from pathlib import Path

import pytest
import torch

from kamerton.tracking import names
from kamerton.training import speed as speed_module
from kamerton.training.speed import Speedometer
from kamerton.training.step import StepResult


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(speed_module.time, "perf_counter", lambda: now[0])
    return now


def result(frames: int, padded: int) -> StepResult:
    return StepResult(None, 1.0, True, frames=frames, padded_frames=padded)  # type: ignore[arg-type]


def test_frames_padding_and_waiting_since_the_last_reading(clock: list[float]) -> None:
    speed = Speedometer(torch.device("cpu"))
    for frames, padded, seconds, waited in ((300, 400, 2.0, 0.5), (500, 600, 2.0, 0.5)):
        with speed.step():
            clock[0] += seconds
        speed.took(result(frames, padded), waited)
        clock[0] += 100.0  # an evaluation: not counted
    values = speed.read()
    assert values[names.FRAMES_PER_SECOND] == pytest.approx(800 / 4)
    assert values[names.PADDING_SHARE] == pytest.approx(1 - 800 / 1000)
    assert values[names.DATA_WAIT_SHARE] == pytest.approx(0.25)
    assert names.DEVICE_MEMORY_MB not in values
    with speed.step():
        clock[0] += 1.0
    speed.took(result(50, 50), 0.0)
    assert speed.read()[names.FRAMES_PER_SECOND] == pytest.approx(50)


def test_memory_is_the_most_that_was_resident() -> None:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("the kernel's own figure is not at hand")
    found = Speedometer(torch.device("cpu")).read()[names.MEMORY_MB]
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    assert found == pytest.approx(int(line.split()[1]) / 1024, rel=0.02)
