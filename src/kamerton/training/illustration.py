"""Pictures and sound of a run: of its evaluations, or as often as they are asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kamerton.audio.griffin_lim import griffin_lim
from kamerton.config.schema import AudioParams
from kamerton.config.train_section import MonitoringParams
from kamerton.report.figures import draw_matrix, new_figure, to_png
from kamerton.tracking import Tracker
from kamerton.training.evaluation import Example


def due(step: int, interval: int | None, *, evaluated: bool) -> bool:
    """Whether it is the turn of something that comes every ``interval`` steps.

    Args:
        step: Steps made.
        interval: None where it comes with every evaluation.
        evaluated: Whether this step was evaluated.
    """
    return evaluated if interval is None else step % interval == 0


def illustrate_when_due(
    tracker: Tracker, monitoring: MonitoringParams, audio: AudioParams, step: int, *,
    evaluated: Example | None, make: Callable[[], Example],
) -> None:  # fmt: skip
    """Hand over what is due at a step of the fixed sentence's pictures and sound.

    Args:
        tracker: Where they go.
        monitoring: How often they come.
        audio: How sound is made of mels.
        step: Steps made.
        evaluated: The example of this step's evaluation; None where there was none.
        make: Makes one, for a step that was not evaluated.
    """
    pictures = due(step, monitoring.figure_interval_steps, evaluated=evaluated is not None)
    sound = due(step, monitoring.sample_interval_steps, evaluated=evaluated is not None)
    if not pictures and not sound:
        return
    example = evaluated or make()
    if pictures:
        tracker.log_figure("attention", attention_picture(example.attention, example.text), step)
        tracker.log_figure("mel", mel_picture(example), step)
    if sound and example.spoken.shape[1] > 1:
        tracker.log_audio(
            "free-running", to_wave(example.spoken, audio), audio.sample_rate_hz, step
        )


def attention_picture(attention: NDArray[np.float32], text: str) -> bytes:
    """Attention (T, N) with time to the right, as PNG; the text's letters stand at the side."""
    figure, axes = new_figure(6, 3.4)
    draw_matrix(axes, attention.T, "decoder step", "symbol")
    axes.set_yticks(range(attention.shape[1]), [*text, "■"][: attention.shape[1]], fontsize=5)
    return to_png(figure)


def mel_picture(example: Example) -> bytes:
    """The true mel above the one read aloud, as PNG."""
    figure, axes = new_figure(6, 4, rows=2)
    draw_matrix(axes[0], example.truth, "", "mel channel", "recorded")
    draw_matrix(axes[1], example.spoken, "frame", "mel channel", "read aloud")
    return to_png(figure)


def to_wave(mel: NDArray[np.float32], audio: AudioParams) -> NDArray[np.float32]:
    """Log-mel (C, F) to sound within [-1, 1]."""
    return np.clip(griffin_lim(mel, audio), -1.0, 1.0)
