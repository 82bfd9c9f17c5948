"""What generations found: a tree of candidates, saved after each of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, Self

from kamerton.config.train_section import ChangeParams
from kamerton.core.errors import InputCorruptError
from kamerton.core.files import read_json, write_json

CandidateState = Literal["complete", "failed"]

FILE: Final = "generations.json"
CONTROL: Final = 0  # the number of the unchanged candidate
_FORMAT: Final = 1
_SCORED: Final = 3  # the last evaluations of a cool-down, whose mean is the score
_LEAST_SIGMA: Final = 5e-4  # J is about 1 for a baseline: nobody hears less


@dataclass(frozen=True, slots=True)
class Candidate:
    """One continuation of a parent.

    Attributes:
        number: In its generation; 0 is the unchanged control.
        delta: What it multiplied, by name; empty for the control.
        state: Whether it has a score.
        score: Mean objective of the last evaluations of its cool-down; lower is better.
        curve: Objective of its evaluations by step, before the cool-down.
        probe: The same in the cool-down.
        effective: What the trainer said it trained with: factor of all changes so far, by name.
        reason: Why it failed.
        run: Its run directory, below the study's folder.
        checkpoint_sha256: Of the state at its end, before the cool-down.
    """

    number: int
    delta: Mapping[str, float]
    state: CandidateState
    score: float | None = None
    curve: Mapping[int, float] = field(default_factory=dict)
    probe: Mapping[int, float] = field(default_factory=dict)
    effective: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    run: str = ""
    checkpoint_sha256: str = ""

    @property
    def words(self) -> str:
        """What it changed, for people."""
        return ", ".join(f"{name} × {factor:g}" for name, factor in self.delta.items()) or (
            "unchanged"
        )


@dataclass(frozen=True, slots=True)
class Generation:
    """Candidates of one parent, trained over the same steps.

    Attributes:
        number: From 1.
        from_step: Where they begin.
        to_step: Where they end, before the cool-down.
        parent: ``trunk`` or ``g1c2``: generation and number of the candidate gone on from.
        parent_sha256: Of its checkpoint.
        candidates: Finished ones, the control first.
        sigma: Deviation of the difference of two scores, from how they scatter; None until it
            is decided.
        accepted: The candidate to go on from; None until it is decided.
        reason: Why that one.
    """

    number: int
    from_step: int
    to_step: int
    parent: str
    parent_sha256: str
    candidates: tuple[Candidate, ...] = ()
    sigma: float | None = None
    accepted: int | None = None
    reason: str = ""

    @property
    def control(self) -> Candidate | None:
        """The unchanged one, if it is finished."""
        return next((item for item in self.candidates if item.number == CONTROL), None)

    @property
    def chosen(self) -> Candidate | None:
        """The one to go on from."""
        return next((item for item in self.candidates if item.number == self.accepted), None)

    @property
    def label(self) -> str:
        """What a child of the chosen one calls its parent."""
        return f"g{self.number}c{self.accepted}"

    def gain(self, candidate: Candidate) -> float | None:
        """By how many deviations a candidate beats the control; None where that is unknown."""
        control = self.control
        if None in (self.sigma, candidate.score) or control is None or control.score is None:
            return None
        assert self.sigma is not None and candidate.score is not None  # noqa: PT018
        return (control.score - candidate.score) / self.sigma


@dataclass(frozen=True, slots=True)
class GenerationTree:
    """The warm loop of one study.

    Attributes:
        key: What it depends on beside the study; another key is another loop.
        trial: Number of the trial that it goes on from.
        trial_objective: Objective of that trial.
        total_steps: Budget of the run.
        generations: So far.
        changes: What the accepted deltas make ``train.changes``, whether they are kept or not.
        objective: Of the run with these changes, to its end; None until it is made.
        kept: Whether the changes go into the best parameters.
        verdict: Why, in a sentence; "" until the loop is over.
        failed: Whether it ended because a trainer did, so that another attempt may help.
    """

    key: str
    trial: int
    trial_objective: float
    total_steps: int
    generations: tuple[Generation, ...] = ()
    changes: tuple[Mapping[str, float], ...] = ()
    objective: float | None = None
    kept: bool = False
    verdict: str = ""
    failed: bool = False

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return bool(self.verdict)

    @property
    def sigma(self) -> float:
        """The largest deviation of a difference that the generations found."""
        return max((item.sigma or 0.0 for item in self.generations), default=0.0)

    @property
    def best_changes(self) -> tuple[ChangeParams, ...]:
        """``train.changes`` of the best parameters: none that did not prove themselves."""
        return self.change_params if self.kept else ()

    @property
    def change_params(self) -> tuple[ChangeParams, ...]:
        """``changes`` as parameters."""
        return tuple(ChangeParams.model_validate(dict(item)) for item in self.changes)

    def with_generation(self, generation: Generation) -> Self:
        """The tree with its newest generation added or replaced."""
        others = tuple(item for item in self.generations if item.number != generation.number)
        return replace(self, generations=(*others, generation))

    def save(self, path: Path) -> None:
        """Write it; at every instant the file is whole."""
        write_json(path, {"format": _FORMAT, **asdict(self)})

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Undo ``save``; None where there is none.

        Raises:
            InputCorruptError: the file is not one.
        """
        if not path.is_file():
            return None
        record = read_json(path, produced_by="tune")
        try:
            if record.pop("format") != _FORMAT:
                return None
            generations = tuple(_generation(item) for item in record.pop("generations"))
            changes = tuple(record.pop("changes"))
            return cls(**record, generations=generations, changes=changes)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputCorruptError(
                path, problem=f"is not a tree of generations ({error})",
                hint="remove it to make the generations again",
            ) from error  # fmt: skip


def _generation(record: dict[str, Any]) -> Generation:
    return Generation(**{**record, "candidates": tuple(map(_candidate, record["candidates"]))})


def _candidate(record: dict[str, Any]) -> Candidate:
    curves = {
        name: {int(step): float(value) for step, value in record[name].items()}
        for name in ("curve", "probe")
    }
    return Candidate(**{**record, **curves})


def score_of(probe: Mapping[int, float]) -> float:
    """The mean of the last objectives of a cool-down: less of a lottery than the best."""
    last = [probe[step] for step in sorted(probe)][-_SCORED:]
    return sum(last) / len(last)


def sigma_of(probes: Sequence[Mapping[int, float]]) -> float:
    """The deviation of the difference of two objectives, from how the probes scatter.

    Each probe still falls; what scatters about its straight line is the noise of one evaluation,
    pooled over all candidates. That of a mean is less, so this asks for more than it must.
    """
    squares, freedom = 0.0, 0
    for probe in probes:
        if len(probe) > 2:
            squares += _about_line(probe)
            freedom += len(probe) - 2
    return max(_LEAST_SIGMA, math.sqrt(2 * squares / freedom) if freedom else 0.0)


def _about_line(points: Mapping[int, float]) -> float:
    """Sum of the squares of what the best straight line leaves."""
    count = len(points)
    middle, mean = sum(points) / count, sum(points.values()) / count
    spread = sum((step - middle) ** 2 for step in points)
    slope = sum((step - middle) * (value - mean) for step, value in points.items()) / spread
    return sum((value - mean - slope * (step - middle)) ** 2 for step, value in points.items())


def decided(generation: Generation, min_gain_sigmas: float) -> Generation:
    """The generation with its sigma and the candidate to go on from.

    A change is accepted only where it beats the control by more than ``min_gain_sigmas``
    deviations; else the control is.
    """
    complete = [item for item in generation.candidates if item.state == "complete"]
    sigma = sigma_of([item.probe for item in complete])
    judged = replace(generation, sigma=sigma)
    gains = {
        item.number: gain
        for item in complete
        if item.number != CONTROL and (gain := judged.gain(item)) is not None
    }
    best = max(gains, key=lambda number: (gains[number], -number), default=None)
    if best is None:
        return replace(judged, accepted=CONTROL, reason="no changed candidate has a score")
    winner = next(item for item in complete if item.number == best)
    words = f"{winner.words} beat the control by {gains[best]:.1f} σ"
    if gains[best] > min_gain_sigmas:
        return replace(judged, accepted=best, reason=f"{words}, more than {min_gain_sigmas:g}")
    reason = f"{words} at best, not more than {min_gain_sigmas:g}"
    if gains[best] <= 0:
        reason = f"no change beat the control; {winner.words} came closest"
    return replace(judged, accepted=CONTROL, reason=reason)
