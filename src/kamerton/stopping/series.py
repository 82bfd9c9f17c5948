"""What is kept of a curve: bounded, so that a decision costs the same late in a run as early."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class WholeCurve:
    """The whole curve as at most ``capacity`` block means; blocks double in size when it is full.

    Up to ``capacity`` evaluations each is its own block, so nothing is lost of a short run.
    """

    def __init__(self, capacity: int = 64) -> None:
        self._capacity = capacity
        self._size = 1
        self._steps: list[float] = []
        self._means: list[float] = []
        self._pending: list[float] = [0.0, 0.0, 0.0]  # sum of steps, sum of values, how many

    def add(self, step: float, value: float) -> None:
        """Take one finite value."""
        pending = self._pending
        pending[0] += step
        pending[1] += value
        pending[2] += 1
        if pending[2] < self._size:
            return
        self._steps.append(pending[0] / pending[2])
        self._means.append(pending[1] / pending[2])
        self._pending = [0.0, 0.0, 0.0]
        if len(self._means) == self._capacity:
            self._steps = [sum(pair) / 2 for pair in zip(*[iter(self._steps)] * 2, strict=True)]
            self._means = [sum(pair) / 2 for pair in zip(*[iter(self._means)] * 2, strict=True)]
            self._size *= 2

    def arrays(self) -> tuple[Floats, Floats]:
        """Mean step and mean value of the full blocks, oldest first; both (n,)."""
        return np.asarray(self._steps), np.asarray(self._means)

    def state(self) -> dict[str, Any]:
        """Everything, as plain JSON values."""
        return {
            "size": self._size,
            "steps": list(self._steps),
            "means": list(self._means),
            "pending": list(self._pending),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Undo ``state``."""
        self._size = int(state["size"])
        self._steps = [float(step) for step in state["steps"]]
        self._means = [float(mean) for mean in state["means"]]
        self._pending = [float(number) for number in state["pending"]]


class RecentBlocks:
    """The means of the last ``keep`` blocks of ``size`` values; a value that is None is left out.

    A block in which nothing was known is None.
    """

    def __init__(self, size: int, keep: int) -> None:
        self._size = size
        self._keep = keep
        self._means: list[float | None] = []
        self._sum = 0.0
        self._known = 0
        self._seen = 0

    def add(self, value: float | None) -> bool:
        """Take one value; True when it completed a block."""
        self._seen += 1
        if value is not None:
            self._sum += value
            self._known += 1
        if self._seen < self._size:
            return False
        self._means.append(self._sum / self._known if self._known else None)
        del self._means[: -self._keep]
        self._sum, self._known, self._seen = 0.0, 0, 0
        return True

    def known(self) -> Floats:
        """The blocks in which something was known, oldest first, (n,)."""
        return np.asarray([mean for mean in self._means if mean is not None], dtype=np.float64)

    def state(self) -> dict[str, Any]:
        """Everything, as plain JSON values."""
        return {
            "size": self._size,
            "means": list(self._means),
            "sum": self._sum,
            "known": self._known,
            "seen": self._seen,
        }

    def forget(self) -> None:
        """Know nothing of what was taken; a block that has begun goes on, and ends with others."""
        self._means = []
        self._sum, self._known = 0.0, 0

    def restore(self, state: Mapping[str, Any]) -> None:
        """Undo ``state``; means of blocks of another size say nothing here, and are forgotten."""
        if state.get("size", self._size) != self._size:
            self.forget()
            self._seen = 0
            return
        self._means = [None if mean is None else float(mean) for mean in state["means"]]
        self._sum = float(state["sum"])
        self._known = int(state["known"])
        self._seen = int(state["seen"])
