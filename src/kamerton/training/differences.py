"""What is not as it was when a run was begun, and whether the run can go on without it.

surroundings  code, torch, threads, device: the run goes on, and only the last bits are others
hot           may change in the middle of a run: learning rate, weights of losses, dropouts
warm          change what a step or the budget is: a new run, which may begin with the weights
cold          another network, other data or other noise: a new run
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from kamerton.config.change_classes import ChangeClass, class_of
from kamerton.config.schema import Params
from kamerton.config.yaml_source import read_yaml
from kamerton.core.errors import PipelineError
from kamerton.tracking import RunDirectory
from kamerton.training.fingerprint import Origin, decisive_params
from kamerton.training.meaning import changes

PARAMS_FILE: Final = "params.yaml"
Changes = Mapping[str, tuple[Any, Any]]

# Names that a person knows, for what origin.json says.
_WORDS: Final = {
    "content_sha256": "the dataset", "total_steps": "the budget in steps", "code": "the code",
    "torch": "the version of torch", "threads": "the number of threads (train.threads)",
    "device": "the device", "cpu": "the processor's instructions",
    "processes": "the number of processes", "warm_start_sha256": "--warm-start",
    "batching": "what is equal among batches (train.batching)", "trial": "--trial",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Differences:
    """Between a run as it is recorded and what is asked for; (old, new) by name.

    Attributes:
        decisive: What makes it another run, or another from here on.
        surroundings: What it runs on.
        noted: Whether the run's record could be read.
    """

    decisive: Changes = field(default_factory=dict)
    surroundings: Changes = field(default_factory=dict)
    noted: bool = True

    @property
    def same(self) -> bool:
        """Whether nothing decisive differs."""
        return self.noted and not self.decisive

    @property
    def hot_only(self) -> bool:
        """Whether the run can go on with what is asked."""
        return self.noted and self.classes <= {"hot"}

    @property
    def classes(self) -> set[ChangeClass]:
        """Of the decisive differences."""
        return {class_of(name, *values) for name, values in self.decisive.items()}

    def words(self, *, limit: int) -> str:
        """The decisive differences by name and class, the gravest first."""
        order = ("cold", "warm", "hot")
        kinds = {name: class_of(name, *values) for name, values in self.decisive.items()}
        named = sorted(kinds, key=lambda name: order.index(kinds[name]))
        shown = [f"{in_words(name)} ({kinds[name]})" for name in named[:limit]]
        more = [f"and {len(named) - limit} more"] if len(named) > limit else []
        return ", ".join(shown + more) or "something that it did not note"


def differences(run: RunDirectory, params: Params, origin: Origin) -> Differences:
    """Compare the record of ``run`` with resolved parameters and an origin."""
    try:
        then = Origin.read(run.path)
        recorded = read_yaml(run.path / PARAMS_FILE).values
        old = _decisive(recorded)
    except (PipelineError, OSError):
        return Differences(noted=False)
    found = {name: (was, now) for name, was, now in changes(old, decisive_params(params))}
    found |= dict(_changed(then.decisive(), origin.decisive()))
    return Differences(found, dict(_changed(then.surroundings(), origin.surroundings())))


def in_words(name: str) -> str:
    """A name as a person knows it."""
    return _WORDS.get(name, name)


def _decisive(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What was recorded, with today's defaults for parameters that were not known then."""
    sections = {name: recorded.get(name, {}) for name in ("train", "audio", "text")}
    try:
        params = Params.model_validate(sections)
    except ValidationError:
        return sections
    return decisive_params(params.model_copy(update={"train": params.train.resolved()}))


def _changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in now.items():
        unknown = name == "batching" and then[name] is None  # older than the field
        if then[name] != value and not unknown:
            yield name, (then[name], value)
