"""Several trackers as one, of which none can end the run."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kamerton.tracking.protocol import EndState, Follower, Tracker

_log = logging.getLogger(__name__)


class CompositeTracker:
    """Passes every call on; a tracker that fails is reported once, and the run goes on."""

    def __init__(self, trackers: Sequence[Tracker], followers: Sequence[Follower] = ()) -> None:
        self._trackers = tuple(trackers)
        self._followers = tuple(followers)
        self._failures: dict[int, int] = {}

    def _each(self, action: Callable[[Any], None], members: Sequence[Tracker | Follower]) -> None:
        for member in members:
            try:
                action(member)
            # Whatever a tracker raises, a run of hours must not die of its bookkeeping.
            except Exception as error:
                failures = self._failures.get(id(member), 0)
                self._failures[id(member)] = failures + 1
                if not failures:
                    name = type(member).__name__
                    _log.warning(
                        "%s failed and is ignored from here on where it fails: %s", name, error
                    )

    @property
    def failures(self) -> int:
        """Calls that a tracker did not take."""
        return sum(self._failures.values())

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record the resolved parameters."""
        self._each(lambda tracker: tracker.log_params(params), self._trackers)

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers measured at ``step``."""
        self._each(lambda tracker: tracker.log_metrics(values, step), self._trackers)

    def log_event(self, kind: str, *, step: int | None = None, **fields: Any) -> None:
        """Record that something happened."""
        self._each(lambda tracker: tracker.log_event(kind, step=step, **fields), self._trackers)

    def log_figure(self, name: str, png: bytes, step: int) -> None:
        """Record a picture."""
        self._each(lambda tracker: tracker.log_figure(name, png, step), self._trackers)

    def log_audio(self, name: str, wave: NDArray[np.float32], rate_hz: int, step: int) -> None:
        """Record sound."""
        self._each(lambda tracker: tracker.log_audio(name, wave, rate_hz, step), self._trackers)

    def log_text(self, name: str, text: str, step: int) -> None:
        """Record text."""
        self._each(lambda tracker: tracker.log_text(name, text, step), self._trackers)

    def flush(self) -> None:
        """Make everything readable by others, and let followers look."""
        self._each(lambda tracker: tracker.flush(), self._trackers)
        self._each(lambda follower: follower.wake(), self._followers)

    def close(self, state: EndState) -> None:
        """Close the trackers first, so that followers find the whole record."""
        self._each(lambda tracker: tracker.close(state), self._trackers)
        self._each(lambda follower: follower.close(state), self._followers)
