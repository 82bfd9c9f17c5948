"""What voters look at: one state of a curve, in the units that rules are written in."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from kamerton.stopping.series import Floats


def _nothing() -> Floats:
    return np.empty(0)


@dataclass(frozen=True, slots=True)
class View:
    """A curve up to one check.

    Attributes:
        step: Of the evaluation.
        planned: Steps of the whole plan.
        blocks: Of the length of those in ``recent``, how many make a plan.
        evaluations: How many with a finite value there were.
        start: The first value.
        best: The lowest.
        span: How far the curve came down, the unit of every threshold; where it never did, how
            far it went. 0 for a constant one.
        noise: Standard deviation of a block mean about its course; 0 where it is not known.
        recent: The last block means, oldest first, (m,).
        steps: Of the whole curve's blocks, (n,).
        values: Of the whole curve's blocks, (n,).
        attention: The last block means of diagonality, (a,).
        attention_best: The highest block mean of diagonality; None where there is none.
        monotonicity: The last; None where it is not known.
        train: The last block means of the training loss, (b,).
        premature: The last block means, (c,).
        runaway: The last block means, (d,).
        gate_f1: The last block means, (e,).
    """

    step: float
    planned: float
    blocks: float
    evaluations: int
    start: float
    best: float
    span: float
    noise: float
    recent: Floats
    steps: Floats
    values: Floats
    attention: Floats = field(default_factory=_nothing)
    attention_best: float | None = None
    monotonicity: float | None = None
    train: Floats = field(default_factory=_nothing)
    premature: Floats = field(default_factory=_nothing)
    runaway: Floats = field(default_factory=_nothing)
    gate_f1: Floats = field(default_factory=_nothing)

    @property
    def share(self) -> float:
        """How much of the plan is over."""
        return self.step / self.planned


def block_noise(means: Floats) -> float:
    """Standard deviation of block means about a smooth course, from their second differences.

    A straight trend leaves no trace in second differences, whose variance is six times that of
    white noise. The median keeps a jump from counting.
    """
    if means.size < 5:
        return 0.0
    second = np.diff(means, 2)
    return float(1.4826 * np.median(np.abs(second)) / np.sqrt(6.0))
