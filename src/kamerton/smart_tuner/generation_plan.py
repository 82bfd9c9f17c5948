"""Where generations begin and end: one run's budget, cut into few long pieces."""

from dataclasses import dataclass
from typing import Final

from kamerton.config.tuner_sections import GenerationParams
from kamerton.core.errors import ParamsError

PROBE_EVALUATIONS: Final = 4  # what a score and its deviation are made of
_UNITS: Final = 4  # checkpoints per generation: what a kill costs at most


@dataclass(frozen=True, slots=True)
class GenerationPlan:
    """The warm loop as steps of one run, whose schedule never restarts.

    Attributes:
        total: The budget of the run, as of a trial.
        unit: Steps between checkpoints; every boundary is a multiple of it.
        starts: Where each generation begins.
        length: Of each.
        probe_interval: Steps between the evaluations of a cool-down.
    """

    total: int
    unit: int
    starts: tuple[int, ...]
    length: int
    probe_interval: int

    @classmethod
    def of(cls, params: GenerationParams, total: int) -> "GenerationPlan":
        """Lay the generations so that the last, with its cool-down, ends with the budget.

        Args:
            params: Their number and length.
            total: Steps of the run.

        Raises:
            ParamsError: they do not fit into the run.
        """
        unit = int(params.length_share * total / _UNITS)
        length = _UNITS * unit
        interval = max(1, round(params.probe_share * length / PROBE_EVALUATIONS))
        end = (total - PROBE_EVALUATIONS * interval) // max(1, unit) * unit
        starts = tuple(end - (params.count - index) * length for index in range(params.count))
        if params.count and (unit < 1 or starts[0] < unit):
            raise ParamsError(
                f"{params.count} generations of {params.length_share:g} of a run do not fit into "
                f"one of {total} steps: something must come before the first, and the cool-down "
                "after the last.",
                hint="lower tune.generations.count or length_share, or raise tune.trial_steps",
            )
        return cls(total, unit, starts, length, interval)

    def end(self, generation: int) -> int:
        """The step that a generation (from 0) ends at."""
        return self.starts[generation] + self.length

    def probe_end(self, generation: int) -> int:
        """The step of the last evaluation of its cool-down."""
        until = self.end(generation) + PROBE_EVALUATIONS * self.probe_interval
        return until // self.probe_interval * self.probe_interval

    def steps_before(self, generation: int, candidate: int, candidates: int) -> int:
        """Steps made before a candidate, both from 0, if each generation has ``candidates``."""
        each = [self.probe_end(index) - start for index, start in enumerate(self.starts)]
        return self.starts[0] + candidates * sum(each[:generation]) + candidate * each[generation]

    def steps(self, candidates: int) -> int:
        """Steps of the whole loop: the run up to the first, all candidates, and the end."""
        last = len(self.starts) - 1
        return self.steps_before(last, candidates, candidates) + self.total - self.end(last)
