"""One function per stage: paths and parameters in, files and a typed report out."""

import importlib
from collections.abc import Callable
from typing import Any, Protocol

from kamerton.stages.spec import STAGES


class StageReport(Protocol):
    """What every stage says about its work."""

    @property
    def partial(self) -> bool:
        """Whether inputs had to be left out (they are listed in the outputs)."""

    def metrics(self) -> dict[str, float]:
        """Flat figures for Kubeflow's Metrics table and ``--json``."""

    def summary(self) -> list[tuple[str, str]]:
        """A few (name, value) lines for a person."""


def stage_function(name: str) -> Callable[..., Any]:
    """The function of the stage ``name``; only now are its heavy imports made."""
    return getattr(importlib.import_module(f"kamerton.stages.{STAGES[name].name}"), name)  # type: ignore[no-any-return]
