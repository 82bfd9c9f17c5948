"""What the alert manager asks of a channel, and what a channel says when it does not work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from kamerton.smart_tuner.channels.message import Message


class DeliveryError(Exception):
    """A channel did not take a part; the text holds no secret.

    Attributes:
        reason: What happened, in a few words.
        retry: Whether another try may help.
        retry_after: Seconds that the server asks to wait; None where it asks for none.
    """

    def __init__(
        self, reason: str, *, retry: bool = True, retry_after: float | None = None
    ) -> None:
        super().__init__(reason)
        self.reason, self.retry, self.retry_after = reason, retry, retry_after


@dataclass(frozen=True, slots=True)
class Part:
    """One request of a message: it is made whole, or tried again whole.

    Attributes:
        shown: What it sends and where to, with secrets masked.
        send: Makes it; raises DeliveryError.
        instead: Made where this one is refused for good, so that no text goes with its picture.
    """

    shown: str
    send: Callable[[], None]
    instead: Part | None = None


class Channel(Protocol):
    """A way to a person.

    Attributes:
        name: For logs.
        limited: Whether ``max_per_minute`` holds for it.
        spacing_seconds: From one request to the next, at least.
    """

    name: str
    limited: bool
    spacing_seconds: float

    def parts(self, message: Message) -> Sequence[Part]:
        """The requests of a message in their order; files are read here."""

    def secrets(self) -> Sequence[str]:
        """What must not be written anywhere."""
