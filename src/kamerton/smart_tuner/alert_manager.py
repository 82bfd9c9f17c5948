"""AlertManager: tells people what happens, and never costs a training its time or its life.

Whoever tells something only puts it into queues. One daemon thread per channel sends it, so that a
server that hangs keeps nothing from the others, also at the end: it limits the rate, tries again as
servers ask for it, and counts what does not get through. Equal alerts are told once and then summed
up. Delivery is at least once: a server that took a message and did not say so gets
it again.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final, Self, get_args

from kamerton.config.tuner_sections import AlertKind, AlertParams
from kamerton.core.errors import PipelineError
from kamerton.smart_tuner.channels.delivery import Channel, DeliveryError
from kamerton.smart_tuner.channels.message import Message, Newest
from kamerton.smart_tuner.channels.opening import open_channels
from kamerton.smart_tuner.channels.outbox import Outbox
from kamerton.tracking.redaction import Masker, secrets_of
from kamerton.tracking.trouble import Trouble

_LOG = logging.getLogger("kamerton.alerts")
_NUMBER = re.compile(r"[-+]?\d[\d.,]*(?:e[-+]?\d+)?", re.IGNORECASE)
_MAX_TEXT: Final = 10_000
_MAX_KEYS: Final = 200
# Each is told by itself: two are never the same.
_NEVER_EQUAL: Final = frozenset({"report", "sample", "started", "restarted", "done", "failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertPolicy:
    """How much is sent, how often, and how long is tried.

    Attributes:
        left_out: Kinds that are not told.
        queue_size: Messages that may wait for each channel.
        attempts: Tries of one request.
        per_minute: Requests to a channel within any 60 s.
        dedupe_seconds: How long equal alerts are only counted.
        backoff_seconds: Wait before the second try; doubled from try to try.
        flush_seconds: How long an end may take, of all channels together.
    """

    left_out: frozenset[str] = frozenset()
    queue_size: int = 100
    attempts: int = 3
    per_minute: int = 20
    dedupe_seconds: float = 300.0
    backoff_seconds: float = 1.0
    flush_seconds: float = 5.0

    @classmethod
    def of(cls, params: AlertParams) -> AlertPolicy:
        """As the parameters say; kinds that are no event of theirs are always told."""
        return cls(
            left_out=frozenset(get_args(AlertKind)) - set(params.events),
            attempts=params.attempts, per_minute=params.max_per_minute,
            dedupe_seconds=params.dedupe_seconds,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class AlertCounts:
    """What became of the messages, per channel they were meant for.

    Attributes:
        sent: Taken whole.
        failed: Given up, or taken in part.
        dropped: Left out, for want of room or, at the end, of time.
        repeated: Counted in a digest in place of being told.
        waiting: Still to be sent.
    """

    sent: int = 0
    failed: int = 0
    dropped: int = 0
    repeated: int = 0
    waiting: int = 0


@dataclass(slots=True)
class _Repeats:
    """Alerts that equal one that was told."""

    until: float
    last: Message
    count: int = 0


class AlertManager:
    """A queue and a thread for each channel, between what happens and whoever should know.

    ``emit`` may be called by any thread, takes microseconds and raises nothing.
    """

    def __init__(
        self, channels: Sequence[Channel], policy: AlertPolicy | None = None, *,
        run: str = "", secrets: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Begin to send.

        Args:
            channels: Where to; none makes this a manager that does nothing.
            policy: How much and how often.
            run: Named in every message.
            secrets: What no message may hold, besides what the channels know.
        """
        policy = policy or AlertPolicy()
        self._policy, self._run = policy, run
        self._boxes = [
            Outbox(channel, size=policy.queue_size, attempts=policy.attempts,
                   per_minute=policy.per_minute, backoff=policy.backoff_seconds)
            for channel in channels
        ]  # fmt: skip
        known = [secret for channel in channels for secret in channel.secrets()]
        self._mask = Masker([*known, *secrets])
        self._troubles = {id(box): Trouble(f"alerts by {box.channel.name}") for box in self._boxes}
        self._repeats: dict[str, _Repeats] = {}
        self._sent = self._failed = self._dropped = self._repeated = 0
        lock = threading.Lock()
        self._changed = threading.Condition(lock)  # told when something was sent
        self._news = {id(box): threading.Condition(lock) for box in self._boxes}  # or is to be
        self._ends_at: float | None = None  # what waits is sent until then, and nothing is taken
        self._abandoned = False
        self._threads = [
            threading.Thread(
                target=self._work, args=(box,), name=f"alerts-{box.channel.name}", daemon=True
            )
            for box in self._boxes
        ]
        for thread in self._threads:
            thread.start()

    @classmethod
    def opened(
        cls, params: AlertParams, run: str, environ: Mapping[str, str] | None = None
    ) -> Self:
        """As the parameters say, with secrets from the environment.

        Args:
            params: Section ``tracking.alerts``.
            run: Named in every message.
            environ: Variables; those of this process where left out.

        Raises:
            ParamsError: a variable is missing; see ``channels.opening.require_alerts``, which says
                so before a run is begun.
        """
        environ = os.environ if environ is None else environ
        channels = open_channels(params, environ)
        return cls(channels, AlertPolicy.of(params), run=run, secrets=secrets_of(environ))

    @property
    def remote(self) -> bool:
        """Whether any channel leaves this process."""
        return any(box.channel.limited for box in self._boxes)

    def counts(self) -> AlertCounts:
        """What became of the messages so far."""
        with self._changed:
            return AlertCounts(
                self._sent, self._failed, self._dropped, self._repeated,
                sum(map(len, self._boxes)),
            )  # fmt: skip

    def emit(
        self, kind: str, text: str, fields: Mapping[str, Any] | None = None, *,
        step: int | None = None, total: int | None = None, key: str | None = None,
        files: Sequence[Newest] = (),
    ) -> None:  # fmt: skip
        """Tell something, as soon as it is its turn; whatever goes wrong is not the caller's.

        Args:
            kind: One of the parameters' events, or another word.
            text: A sentence.
            fields: Figures by name.
            step: Steps made.
            total: The budget.
            key: Alerts of equal keys are told once; the kind and the text without its numbers
                where left out.
            files: What to send with it; read when it is sent.
        """
        if not self._threads or kind in self._policy.left_out:
            return
        try:
            message = Message(
                kind=kind, text=text[:_MAX_TEXT], run=self._run, step=step, total=total,
                fields=dict(fields or {}), files=tuple(files), time=time.time(),
            )  # fmt: skip
            if self._policy.dedupe_seconds == 0:
                key = None
            elif key is None and kind not in _NEVER_EQUAL:
                key = f"{kind}:{_NUMBER.sub('#', message.text)}"
            with self._changed:
                self._take(message, key)
        except Exception as error:  # a run does not end by what is said of it
            _LOG.warning("an alert (%s) was not taken: %s", kind, type(error).__name__)

    def _take(self, message: Message, key: str | None) -> None:
        if self._ends_at is not None:
            self._dropped += len(self._boxes)
            return
        if key is not None:
            known = self._repeats.get(key)
            if known is not None:  # the sender removes those that are over
                known.count += 1
                known.last = message
                self._repeated += 1
                return
            if len(self._repeats) < _MAX_KEYS:
                until = time.monotonic() + self._policy.dedupe_seconds
                self._repeats[key] = _Repeats(until, message)
        self._queue(message)

    def _queue(self, message: Message) -> None:
        for box in self._boxes:
            # Else its sender is at work, or waits for a turn that this does not bring nearer.
            news = box.empty
            self._dropped += box.add(message)
            if news:
                self._news[id(box)].notify()

    def _sum_up(self, now: float) -> None:
        """Tell of repeats whose time is over; at the end, of all."""
        closing = self._ends_at is not None
        for key, known in list(self._repeats.items()):
            if now < known.until and not closing:
                continue
            if known.count == 0 or closing:
                del self._repeats[key]
            if known.count:
                text = f"{known.count} more like it: {known.last.text}"
                self._queue(replace(known.last, text=text, repeats=known.count))
                known.until, known.count = now + self._policy.dedupe_seconds, 0

    def _work(self, box: Outbox) -> None:
        """Send what waits for one channel, until it is closed and nothing is left."""
        while self._await_turn(box):
            try:
                self._send(box)
            except Exception as error:  # a fault of ours; the thread must live
                self._settle(box, DeliveryError(type(error).__name__, retry=False))

    def _await_turn(self, box: Outbox) -> bool:
        """Wait until a request may be made, and begin it; False at the end."""
        with self._changed:
            while True:
                now = time.monotonic()
                self._sum_up(now)
                turn = box.turn(now)
                if self._abandoned or (self._ends_at is not None and turn > self._ends_at):
                    return False
                if turn <= now:
                    box.begin(now)
                    return True
                ends = (known.until for known in self._repeats.values())
                until = min(turn, *ends) if self._repeats else turn
                self._news[id(box)].wait(None if until == float("inf") else max(0.0, until - now))

    def _send(self, box: Outbox) -> None:
        """Make one request, without the lock: this may take long."""
        message = box.current
        assert message is not None  # begun before
        trouble = None
        if box.parts is None:
            box.parts = deque(box.channel.parts(self._masked(message)))
        try:
            if box.parts:
                box.parts[0].send()
        except DeliveryError as error:
            trouble = DeliveryError(
                self._mask(error.reason), retry=error.retry, retry_after=error.retry_after
            )
        self._settle(box, trouble)

    def _settle(self, box: Outbox, trouble: DeliveryError | None) -> None:
        """Count what came of a request, and say so where that is news."""
        with self._changed:
            whole = box.failed(trouble, time.monotonic()) if trouble else box.sent()
            self._sent += whole is True
            self._failed += whole is False
            self._changed.notify_all()
        record = self._troubles[id(box)]
        if whole is False and trouble is not None:
            record.begins(trouble)
        elif whole:
            record.ends("what failed until then is not told")

    def _masked(self, message: Message) -> Message:
        """The message without any secret that is known."""
        fields = {
            self._mask(str(name)): value if _is_number(value) else self._mask(str(value))
            for name, value in message.fields.items()
        }
        run = self._mask(message.run)
        return replace(message, text=self._mask(message.text), run=run, fields=fields)

    def flush(self, seconds: float) -> bool:
        """Wait until nothing waits, or ``seconds`` are over; whether all is sent."""
        with self._changed:
            return self._changed.wait_for(
                lambda: all(box.empty for box in self._boxes), timeout=seconds
            )

    def close(self) -> None:
        """Send what waits, within the policy's time; take nothing more.

        Reports and the like are left out where many wait, for what ended the run to get through.
        """
        threads, self._threads = self._threads, []
        if not threads:
            return
        with self._changed:
            ends_at = self._ends_at = time.monotonic() + self._policy.flush_seconds
            self._dropped += sum(box.hurry() for box in self._boxes)
            self._wake()
        for thread in threads:
            thread.join(max(0.0, ends_at - time.monotonic()))
        with self._changed:
            self._abandoned = True
            left = sum(map(len, self._boxes))
            self._dropped += left
            for box in self._boxes:
                box.clear()
            self._wake()
        if left:
            _LOG.warning("%d alerts were not sent before the end", left)

    def _wake(self) -> None:
        """Let every sender, and whoever waits for them, look again; the caller holds the lock."""
        for waits in (self._changed, *self._news.values()):
            waits.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float)


def failure_text(error: BaseException) -> str:
    """An error in one line: our own messages with their fix, of others the first line."""
    if isinstance(error, PipelineError):
        return f"{error.message} Fix: {error.hint}"
    return f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}"
