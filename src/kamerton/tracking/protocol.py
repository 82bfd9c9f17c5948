"""What training tells about itself, without knowing who writes it down."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

RunState = Literal["running", "finished", "stopped", "failed"]
EndState = Literal["finished", "stopped", "failed"]


class Tracker(Protocol):
    """A place that a run is recorded in.

    Steps never decrease within one process. A caller may log several sets of metrics at one step,
    each name once.
    """

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record the resolved parameters, nested by section; values that look secret are masked."""

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers measured at ``step``; a value that is not finite is kept as such."""

    def log_event(self, kind: str, *, step: int | None = None, **fields: Any) -> None:
        """Record that something happened ("resumed", "best"), with fields that JSON can hold."""

    def log_figure(self, name: str, png: bytes, step: int) -> None:
        """Record a picture, encoded as PNG."""

    def log_audio(self, name: str, wave: NDArray[np.float32], rate_hz: int, step: int) -> None:
        """Record sound: mono, in [-1, 1]."""

    def log_text(self, name: str, text: str, step: int) -> None:
        """Record a piece of text."""

    def flush(self) -> None:
        """Make everything logged so far readable by other processes."""

    def close(self, state: EndState) -> None:
        """Flush, record how the run ended and release what is held."""


class Follower(Protocol):
    """A service that reads the run directory in the background and sends it on.

    It takes no calls from training, so it can neither slow nor fail it.
    """

    def wake(self) -> None:
        """Look now instead of at the next interval."""

    def close(self, state: EndState) -> None:
        """Send what is left, within a bounded time, and record how the run ended."""
