"""What waits for one channel, and when its next turn is."""

from __future__ import annotations

from collections import deque
from typing import Final

from kamerton.smart_tuner.channels.delivery import Channel, DeliveryError, Part
from kamerton.smart_tuner.channels.message import Message

# What may be left out where there is no room or no time: others like it come by themselves.
UNIMPORTANT: Final = frozenset({"report", "sample", "best", "milestone", "phase"})
_LAST_MESSAGES: Final = 3  # as many as the seconds of an end leave time for
_MINUTE: Final = 60.0
_MAX_WAIT_SECONDS: Final = 3600.0  # whatever a server asks for
_MAX_PAUSE_SECONDS: Final = 60.0


class Outbox:
    """Messages for a channel in their order; whoever calls holds the manager's lock.

    A failure makes this channel wait, and no other.
    """

    def __init__(
        self, channel: Channel, *, size: int, attempts: int, per_minute: int, backoff: float
    ) -> None:
        self.channel = channel
        # Apart, so that room is made without a search; numbers keep the order of the two.
        self._important: deque[tuple[int, Message]] = deque()
        self._unimportant: deque[tuple[int, Message]] = deque()
        self._number = 0
        self.current: Message | None = None  # the one being sent; no overflow takes it
        self.parts: deque[Part] | None = None  # those of it that are left; None: not made yet
        self._size, self._attempts, self._backoff = size, attempts, backoff
        self._per_minute = per_minute if channel.limited else 0
        self._recent: deque[float] = deque()  # when the last requests were made
        self._not_before = self._pause = 0.0
        self._tried = 0
        self._incomplete = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing to send."""
        return self.current is None and not self._important and not self._unimportant

    @property
    def waiting(self) -> int:
        """Messages besides the one that is being sent."""
        return len(self._important) + len(self._unimportant)

    def __len__(self) -> int:
        return self.waiting + (self.current is not None)

    def add(self, message: Message) -> int:
        """Let a message wait; how many had to go for it: the oldest unimportant, or the oldest."""
        queue = self._unimportant if message.kind in UNIMPORTANT else self._important
        queue.append((self._number, message))
        self._number += 1
        if self.waiting <= self._size:
            return 0
        (self._unimportant or self._important).popleft()
        return 1

    def hurry(self) -> int:
        """Leave out what there is no time for at the end; how many."""
        surplus = min(len(self._unimportant), max(0, self.waiting - _LAST_MESSAGES))
        for _ in range(surplus):
            self._unimportant.popleft()
        return surplus

    def clear(self) -> None:
        """Leave out all that waits."""
        self._important.clear()
        self._unimportant.clear()

    def _oldest(self) -> Message:
        queues = [queue for queue in (self._important, self._unimportant) if queue]
        return min(queues, key=lambda queue: queue[0][0]).popleft()[1]

    def turn(self, now: float) -> float:
        """When its next request may be made; infinity where nothing waits."""
        if self.empty:
            return float("inf")
        turn = self._not_before
        if self._recent:
            turn = max(turn, self._recent[-1] + self.channel.spacing_seconds)
        while self._recent and self._recent[0] <= now - _MINUTE:
            self._recent.popleft()
        if self._per_minute and len(self._recent) >= self._per_minute:
            turn = max(turn, self._recent[-self._per_minute] + _MINUTE)
        return turn

    def begin(self, now: float) -> None:
        """Its next request is being made."""
        if self.current is None:
            self.current = self._oldest()
        self._recent.append(now)

    def sent(self) -> bool | None:
        """A part was taken.

        Returns:
            None where more parts follow; else whether the whole message was taken.
        """
        self._pause = 0.0
        return self._next_part()

    def failed(self, error: DeliveryError, now: float) -> bool | None:
        """A part was not taken: try it again, take another for it, or give it up.

        Returns:
            As ``sent`` does.
        """
        self._tried += 1
        wait = self._backoff * 2 ** (self._tried - 1)
        if error.retry_after is not None:
            wait = max(wait, min(error.retry_after, _MAX_WAIT_SECONDS))
        if error.retry:
            self._not_before = now + wait
            if self._tried < self._attempts:
                return None
            # A channel that does not work is asked more rarely.
            self._pause = min(_MAX_PAUSE_SECONDS, max(2 * self._pause, 5 * self._backoff))
            self._not_before = max(self._not_before, now + self._pause)
        instead = self.parts[0].instead if self.parts else None
        if instead is not None and self.parts is not None and not error.retry:
            self.parts[0] = instead
            self._tried = 0
            return None
        self._incomplete = True
        return self._next_part(rest=not error.retry)

    def _next_part(self, *, rest: bool = True) -> bool | None:
        self._tried = 0
        if self.parts:
            self.parts.popleft()
        if self.parts and rest:
            return None
        whole = not self._incomplete
        self.current, self.parts, self._incomplete = None, None, False
        return whole
