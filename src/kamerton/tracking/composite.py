"""Several trackers as one, of which none can end the run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kamerton.tracking.protocol import EndState, Follower, Tracker
from kamerton.tracking.trouble import Trouble, first_line


class CompositeTracker:
    """Passes every call on; a tracker that fails is reported once, and the run goes on.

    Its first failure is also an event in the other trackers, so that the record says why a place
    holds less than it should.
    """

    def __init__(self, trackers: Sequence[Tracker], followers: Sequence[Follower] = ()) -> None:
        self._trackers = tuple(trackers)
        self._followers = tuple(followers)
        self._troubles: dict[int, Trouble] = {}
        self._step: int | None = None

    def _each(self, action: Callable[[Any], None], members: Sequence[Tracker | Follower]) -> None:
        for member in members:
            try:
                action(member)
            # Whatever a tracker raises, a run of hours must not die of its bookkeeping.
            except Exception as error:
                self._failed(member, error)

    def _failed(self, member: Tracker | Follower, error: Exception) -> None:
        name = type(member).__name__
        trouble = self._troubles.setdefault(id(member), Trouble(name))
        trouble.begins(error)
        if trouble.count == 1:
            reason = first_line(error)
            others = [tracker for tracker in self._trackers if tracker is not member]
            self._each(
                lambda tracker: tracker.log_event(
                    "tracking_trouble", step=self._step, place=name, reason=reason
                ),
                others,
            )

    @property
    def failures(self) -> int:
        """Calls that a tracker did not take."""
        return sum(trouble.count for trouble in self._troubles.values())

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record the resolved parameters."""
        self._each(lambda tracker: tracker.log_params(params), self._trackers)

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers measured at ``step``."""
        self._step = step
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
