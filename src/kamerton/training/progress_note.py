"""The words beside the progress bar: where a run stands, in one short line."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from kamerton.core.progress import Progress
from kamerton.training.state import TrainState
from kamerton.training.step import StepResult

PHASE_NAMES: Final = ("alignment", "learning", "quality", "fine-tuning")
_MEMORY_SECONDS: Final = 10.0  # over which the speed is a mean, newer steps weighing more


def progress_note(
    *, phase: int, phases: int, loss: float, attention: float, frames_per_second: float | None
) -> str:
    """One line.

    Args:
        phase: Index of the phase, from 0.
        phases: How many there are; fewer than two are not worth a word.
        loss: Of the last step.
        attention: Free-running diagonality of the last evaluation.
        frames_per_second: Mel frames trained on; None where nothing was measured yet.
    """
    parts = [f"loss {loss:.3f}", f"attention {attention:.2f}"]
    if phases > 1:
        parts.insert(0, f"{PHASE_NAMES[phase]} ({phase + 1}/{phases})")
    if frames_per_second is not None:
        parts.append(f"{frames_per_second:,.0f} frames/s".replace(",", "\u202f"))
    return "  ".join(parts)


class FrameRate:
    """Frames per second as one sees them pass: evaluations and saving count."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last: float | None = None
        self._frames = self._seconds = 0.0

    def took(self, frames: int) -> float | None:
        """Count the frames of a step that is over; the speed, once there are two."""
        now, last = self._now(), self._last
        self._last = now
        if last is None:
            return None
        seconds = max(now - last, 1e-9)
        # An exponential window: what was measured longer ago counts less.
        fade = 0.5 ** (seconds / _MEMORY_SECONDS)
        self._frames = fade * self._frames + frames
        self._seconds = fade * self._seconds + seconds
        return self._frames / self._seconds


class ShownProgress:
    """Reports every step with phase, loss, attention and speed."""

    def __init__(self, report: Progress, *, phases: int) -> None:
        self._report, self._phases, self._rate = report, phases, FrameRate()

    def __call__(self, state: TrainState, result: StepResult, total: int) -> None:
        """Report a step that is over, and saved where its turn was."""
        note = progress_note(
            phase=state.phase.index, phases=self._phases, loss=float(result.losses.total),
            attention=state.diagonality, frames_per_second=self._rate.took(result.frames),
        )  # fmt: skip
        self._report(state.step, total, note)
