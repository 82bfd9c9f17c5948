"""The processes that train together, one per device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class World:
    """This process among those that train together.

    Attributes:
        rank: Its number, from 0.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the one process that writes files and talks to services."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether any process says so; every process must ask at the same point."""
        return flag

    def barrier(self) -> None:
        """Wait until every process is here."""
