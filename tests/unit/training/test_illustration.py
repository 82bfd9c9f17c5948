"""Pictures and sound come when they are due, and are read for where nothing was evaluated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kamerton.config.schema import AudioParams
from kamerton.config.train_section import MonitoringParams
from kamerton.training.evaluation import Example
from kamerton.training.illustration import due, illustrate_when_due

AUDIO = AudioParams(
    sample_rate_hz=8000, fft_samples=256, window_samples=256, hop_samples=64, mel_channels=16,
    mel_fmax_hz=4000.0,
)  # fmt: skip


class Noting:
    """A tracker that notes what it is given and when."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, int]] = []

    def log_figure(self, name: str, png: bytes, step: int) -> None:
        assert png.startswith(b"\x89PNG")
        self.taken.append((name, step))

    def log_audio(self, name: str, wave: Any, rate_hz: int, step: int) -> None:
        assert rate_hz == 8000
        assert np.abs(wave).max() <= 1.0
        self.taken.append((name, step))


def example(frames: int = 6) -> Example:
    mel = np.zeros((16, frames), np.float32)
    return Example("ab", np.full((2, 3), 1 / 3, np.float32), mel, mel, mel)


@pytest.mark.parametrize("evaluated", [True, False])
def test_without_an_interval_it_is_due_with_every_evaluation(evaluated: bool) -> None:
    assert [due(step, None, evaluated=evaluated) for step in (1, 7)] == [evaluated] * 2


def test_with_an_interval_it_is_due_by_steps_alone() -> None:
    for evaluated in (True, False):
        found = [step for step in range(1, 10) if due(step, 3, evaluated=evaluated)]
        assert found == [3, 6, 9]


def steps_by_name(figures: int | None, samples: int | None) -> tuple[dict[str, list[int]], int]:
    """Twelve steps, evaluated at every fourth."""
    monitoring = MonitoringParams(
        figure_interval_steps=figures, sample_interval_steps=samples
    )  # fmt: skip
    tracker, made = Noting(), []

    def make() -> Example:
        made.append(1)
        return example()

    for step in range(1, 13):
        illustrate_when_due(
            tracker, monitoring, AUDIO, step,  # type: ignore[arg-type]
            evaluated=example() if step % 4 == 0 else None, make=make,
        )  # fmt: skip
    names = dict.fromkeys(name for name, _ in tracker.taken)
    return {name: [s for n, s in tracker.taken if n == name] for name in names}, len(made)


def test_by_default_every_evaluation_is_illustrated_and_nothing_is_read_again() -> None:
    assert steps_by_name(None, None) == (
        {"attention": [4, 8, 12], "mel": [4, 8, 12], "free-running": [4, 8, 12]}, 0,
    )  # fmt: skip


def test_each_comes_at_its_own_interval_and_one_reading_serves_both() -> None:
    steps, made = steps_by_name(3, 6)
    assert steps == {"attention": [3, 6, 9, 12], "mel": [3, 6, 9, 12], "free-running": [6, 12]}
    assert made == 3  # the twelfth step was evaluated


def test_one_frame_makes_no_sound() -> None:
    tracker = Noting()
    illustrate_when_due(
        tracker, MonitoringParams(), AUDIO, 1,  # type: ignore[arg-type]
        evaluated=example(frames=1), make=example,
    )  # fmt: skip
    assert [name for name, _ in tracker.taken] == ["attention", "mel"]
