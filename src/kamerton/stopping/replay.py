"""Where the controller would have stopped a finished curve: no state, no files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kamerton.config.stopping_section import EarlyStoppingParams
from kamerton.stopping.controller import StopController
from kamerton.stopping.types import Decision, Observation, Replay


def replay(
    values: Sequence[float],
    planned_epochs: float,
    attention: Sequence[float | None] | None = None,
    *,
    params: EarlyStoppingParams | None = None,
    interval: float | None = None,
    schedule_drops: Sequence[float] = (),
    epochs: Sequence[float] | None = None,
    train_losses: Sequence[float | None] | None = None,
    learning_rates: Sequence[float | None] | None = None,
) -> Replay:
    """Feed a curve to a controller until it stops; the same values give the same answer.

    Args:
        values: What is minimised, one per evaluation; may hold NaN and infinities.
        planned_epochs: The plan, in epochs, or in the unit of ``epochs``.
        attention: Free-running diagonality at each evaluation; None where there is none.
        params: The defaults where None.
        interval: Epochs between evaluations; None: 1, or the median distance of ``epochs``.
        schedule_drops: Epochs at which the learning rate is known to drop.
        epochs: Of each evaluation, rising; None: every ``interval`` from the first on.
        train_losses: Of the stretch before each evaluation.
        learning_rates: At each evaluation.

    Returns:
        The stop, the checkpoint with the lowest finite value up to it (0 where there is none), and
        every decision.

    Raises:
        ValueError: a series has another length than ``values``, or the plan is not above 0.
    """
    count = len(values)
    for name, series in (
        ("attention", attention),
        ("epochs", epochs),
        ("train_losses", train_losses),
        ("learning_rates", learning_rates),
    ):
        if series is not None and len(series) != count:
            raise ValueError(f"{name} has {len(series)} values and the curve {count}")
    every = interval or _interval(epochs)
    steps = [every * (index + 1) for index in range(count)] if epochs is None else list(epochs)
    controller = StopController(
        params or EarlyStoppingParams(), planned_epochs, every, schedule_drops
    )
    decisions: list[Decision] = []
    for index, value in enumerate(values):
        decisions.append(
            controller.observe(
                Observation(
                    step=steps[index],
                    value=float(value),
                    attention=attention[index] if attention is not None else None,
                    train_loss=train_losses[index] if train_losses is not None else None,
                    learning_rate=learning_rates[index] if learning_rates is not None else None,
                )
            )
        )
        if decisions[-1].stop:
            break
    stop = len(decisions) - 1 if decisions and decisions[-1].stop else None
    return Replay(stop, _lowest(values[: len(decisions)]), tuple(decisions))


def _interval(epochs: Sequence[float] | None) -> float:
    if epochs is None or len(epochs) < 2:
        return 1.0
    distance = float(np.median(np.diff(np.asarray(epochs, dtype=np.float64))))
    return distance if distance > 0.0 else 1.0


def _lowest(values: Sequence[float]) -> int:
    """Index of the first lowest finite value; 0 where there is none."""
    known = np.asarray(values, dtype=np.float64)
    finite = np.where(np.isfinite(known), known, np.inf)
    return int(np.argmin(finite)) if finite.size else 0
