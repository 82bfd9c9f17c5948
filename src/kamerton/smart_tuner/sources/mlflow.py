"""A run of an MLflow server or database as a source of points."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from kamerton.core.errors import ToolMissingError
from kamerton.smart_tuner.sources.protocol import Cursor, Event, MetricEvent
from kamerton.smart_tuner.sources.step_set import StepSet
from kamerton.tracking.mlflow_client import connect
from kamerton.tracking.trouble import Pause, Trouble, first_line

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_LEAST_SECONDS: Final = 1.0
_REST: Final = 9.0  # times what an answer took, before the next question
_DATABASE_INFINITY: Final = 1.7976931348623157e308  # what MLflow's database keeps infinities as


class MlflowSource:
    """Asks for a run's latest values, and for the history of those series whose latest moved.

    MLflow cannot be asked for points since a step, and a whole history takes fifth parts of a
    second where the latest values take a hundredth. Between two questions passes at least a
    second, and so much that answering takes a tenth of the time at most. A server that is away is
    no error: it is told once and asked again at growing intervals.
    """

    kind = "mlflow"

    def __init__(
        self,
        uri: str,
        run_id: str,
        run: str = "",
        *,
        interval_seconds: float = _LEAST_SECONDS,
        client: MlflowClient | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the MLflow run ``run_id``.

        Args:
            uri: MLflow's tracking URI.
            run_id: MLflow's id of the run.
            run: Our name of it; the id where left out.
            interval_seconds: Between two questions, at least a second.
            client: Where to ask; a new one of ``uri`` where left out.
            now: Tells the time.
        """
        self.run = run or run_id
        self._uri, self._run_id, self._client, self._now = uri, run_id, client, now
        self._interval_seconds = max(_LEAST_SECONDS, interval_seconds)
        self._next = -math.inf
        self._pause = Pause(now)
        self._trouble = Trouble(f"MLflow at {uri}")

    def poll(self, cursor: Cursor) -> tuple[list[Event], Cursor]:
        """What is new; see ``MetricSource.poll``.

        Raises:
            ToolMissingError: mlflow is not installed.
        """
        if self._now() < self._next or not self._pause.over:
            return [], cursor
        asked = self._now()
        self._next = asked + self._interval_seconds
        try:
            answer = self._ask(cursor)
        except ToolMissingError:
            raise
        # A server may fail in any way; whoever trains does not depend on it.
        except Exception as error:
            self._trouble.begins(RuntimeError(first_line(error)))
            self._pause.failed()
            return [], cursor
        self._trouble.ends()
        self._pause.reset()
        self._next = max(self._next, self._now() + _REST * (self._now() - asked))
        return answer

    def _ask(self, cursor: Cursor) -> tuple[list[Event], Cursor]:
        if self._client is None:
            self._client = connect(self._uri)
        latest = {
            item.key: [item.step, item.timestamp]
            for item in self._client.get_run(self._run_id).data._metric_objs
        }
        known = cursor.get("latest", {})
        moved = [name for name, place in latest.items() if known.get(name) != place]
        if not moved:
            return [], cursor
        steps = StepSet(cursor.get("steps"))
        points = [point for name in sorted(moved) for point in self._history(name, steps)]
        points.sort(key=lambda point: point.step)
        return list(points), {"latest": latest, "steps": steps.as_json()}

    def _history(self, name: str, steps: StepSet) -> list[MetricEvent]:
        """New points of a series; of several at one step the first that was sent counts."""
        assert self._client is not None  # connected before
        history: list[Any] = self._client.get_metric_history(self._run_id, name)
        history.sort(key=lambda item: (item.step, item.timestamp))
        return [
            MetricEvent(
                self.run, item.step, None, name, _value(item.value), item.timestamp / 1000.0
            )
            for item in history
            if steps.add(name, item.step)
        ]


def _value(stored: float) -> float:
    if abs(stored) >= _DATABASE_INFINITY:
        return math.copysign(math.inf, stored)
    return stored
