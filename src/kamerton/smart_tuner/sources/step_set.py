"""Which steps of each series were given already, in a few numbers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Final

_MOST_RUNS: Final = 256

Runs = list[list[int]]  # [first, last, stride], ascending, not overlapping


class StepSet:
    """Sets of steps by series, kept as runs of equal stride: logs are regular.

    Exact while a series has at most ``_MOST_RUNS`` irregular pieces. Beyond that its oldest are
    taken for one piece without gaps, so that a step as old as that is taken for known.
    """

    def __init__(self, saved: Mapping[str, Sequence[Sequence[int]]] | None = None) -> None:
        """Go on from what ``as_json`` gave."""
        self._runs: dict[str, Runs] = {
            name: [list(run) for run in runs] for name, runs in (saved or {}).items()
        }

    def as_json(self) -> dict[str, Runs]:
        """The same as plain values."""
        return {name: [list(run) for run in runs] for name, runs in self._runs.items()}

    def add(self, name: str, step: int) -> bool:
        """Enter a step; False where it was there."""
        runs = self._runs.get(name)
        if not runs:
            self._runs[name] = [[step, step, 0]]
            return True
        last = runs[-1]
        ahead = step - last[1]
        if ahead > 0:
            if ahead == last[2]:
                last[1] = step
            elif last[0] == last[1]:
                last[1], last[2] = step, ahead
            else:
                runs.append([step, step, 0])
                self._limit(runs)
            return True
        return self._insert(runs, step)

    def last(self) -> int | None:
        """The highest step of all series; None where there is none."""
        return max((runs[-1][1] for runs in self._runs.values()), default=None)

    def has(self, name: str, step: int) -> bool:
        """Whether a step is there."""
        runs = self._runs.get(name, [])
        place = bisect_left(runs, step, key=lambda run: run[1])
        return place < len(runs) and _holds(runs[place], step)

    def _insert(self, runs: Runs, step: int) -> bool:
        """Enter a step that does not lie ahead of all others."""
        place = bisect_left(runs, step, key=lambda run: run[1])
        first, last, stride = runs[place]
        if _holds(runs[place], step):
            return False
        if step < first:
            runs.insert(place, [step, step, 0])
        else:  # within a run, between two of its steps
            below = step - (step - first) % stride
            above = below + stride
            pieces = [_run(first, below, stride), [step, step, 0], _run(above, last, stride)]
            runs[place : place + 1] = pieces
        self._limit(runs)
        return True

    @staticmethod
    def _limit(runs: Runs) -> None:
        while len(runs) > _MOST_RUNS:
            runs[:2] = [[runs[0][0], runs[1][1], 1]]

    def cut(self, step: int) -> bool:
        """Forget ``step`` and all after it; whether there were any."""
        changed = False
        for name, runs in list(self._runs.items()):
            if runs[-1][1] < step:
                continue
            changed = True
            while runs and runs[-1][0] >= step:
                runs.pop()
            if runs and runs[-1][1] >= step:
                first, _, stride = runs[-1]
                runs[-1] = _run(first, step - 1 - (step - 1 - first) % stride, stride)
            if not runs:
                del self._runs[name]
        return changed


def _holds(run: Sequence[int], step: int) -> bool:
    first, last, stride = run
    return step in (first, last) or (first < step < last and (step - first) % stride == 0)


def _run(first: int, last: int, stride: int) -> list[int]:
    return [first, last, stride if last > first else 0]
