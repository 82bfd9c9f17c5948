"""The words beside the progress bar."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kamerton.training.progress_note import FrameRate, ShownProgress, progress_note


def test_the_note_tells_phase_loss_attention_and_speed() -> None:
    note = progress_note(
        phase=1, phases=4, loss=0.5, attention=0.734, frames_per_second=12345.6
    )  # fmt: skip
    assert note == "learning (2/4)  loss 0.500  attention 0.73  12\u202f346 frames/s"


def test_what_is_not_known_or_not_worth_a_word_is_left_out() -> None:
    note = progress_note(phase=0, phases=1, loss=2.0, attention=0.0, frames_per_second=None)
    assert note == "loss 2.000  attention 0.00"


def test_the_speed_is_that_of_the_last_seconds() -> None:
    clock = [0.0]
    rate = FrameRate(lambda: clock[0])
    assert rate.took(100) is None  # how long that took is not known
    for _ in range(100):
        clock[0] += 2.0
        slow = rate.took(100)
    assert slow == pytest.approx(50.0)
    speeds = []
    for _ in range(100):
        clock[0] += 0.5
        speeds.append(rate.took(100))
    assert speeds == sorted(speeds)  # type: ignore[type-var]
    assert speeds[-1] == pytest.approx(200.0, rel=0.1)


def test_the_bar_is_given_the_note_of_every_step() -> None:
    shown: list[tuple[float, float, str]] = []
    progress = ShownProgress(lambda *report: shown.append(report), phases=3)
    for step in (1, 2):
        state: Any = SimpleNamespace(step=step, phase=SimpleNamespace(index=2), diagonality=0.5)
        result: Any = SimpleNamespace(losses=SimpleNamespace(total=0.25), frames=100)
        progress(state, result, 9)
    assert [report[:2] for report in shown] == [(1, 9), (2, 9)]
    assert shown[0][2] == "quality (3/3)  loss 0.250  attention 0.50"
    assert shown[1][2].endswith("frames/s")
