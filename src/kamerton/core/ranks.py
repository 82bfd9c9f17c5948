"""This process among those that a launcher such as torchrun started for one training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from kamerton.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Ranks:
    """Numbers that the launcher gave out.

    Attributes:
        rank: Of this process among all, from 0.
        size: How many there are.
        local_rank: Of this process among those of its machine.
        local_size: How many its machine has.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the one process that writes files and talks to services and people."""
        return self.rank == 0

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """What torchrun wrote down (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE).

        Without these, and where one process was started, it is the only one.

        Raises:
            UsageError: the numbers do not belong together.
        """
        try:
            size = int(environment.get("WORLD_SIZE", "1"))
            if size == 1:
                return cls()
            rank = int(environment["RANK"])
            found = cls(
                rank,
                size,
                int(environment.get("LOCAL_RANK", rank)),
                int(environment.get("LOCAL_WORLD_SIZE", size)),
            )
        except (KeyError, ValueError) as error:
            raise _wrong(environment) from error
        within = 0 <= found.rank < size and 0 <= found.local_rank < found.local_size <= size
        if not within:
            raise _wrong(environment)
        return found


def _wrong(environment: Mapping[str, str]) -> UsageError:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    given = ", ".join(f"{name}={environment.get(name, '(unset)')}" for name in names)
    return UsageError(
        f"the environment does not say which process of a training this is: {given}.",
        hint="start it with torchrun, or unset WORLD_SIZE",
    )
