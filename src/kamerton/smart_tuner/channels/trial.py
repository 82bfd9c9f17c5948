"""One message to every channel, to see whether it arrives."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from kamerton.smart_tuner.channels.delivery import Channel, DeliveryError
from kamerton.smart_tuner.channels.message import Message
from kamerton.tracking.redaction import Masker


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a message.

    Attributes:
        channel: Its name.
        requests: What was, or would be, sent, with secrets masked.
        sent: Whether all of it was taken.
        reason: Why not; "" where nothing went wrong.
        temporary: Whether another try may help.
        seconds: What it took.
    """

    channel: str
    requests: tuple[str, ...]
    sent: bool
    reason: str = ""
    temporary: bool = False
    seconds: float = 0.0

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def try_channel(channel: Channel, message: Message, *, dry: bool) -> Outcome:
    """Send ``message`` once, without further tries; ``dry`` only says what would be sent."""
    mask = Masker(channel.secrets())
    parts = channel.parts(message)
    requests = tuple(mask(part.shown) for part in parts)
    if dry:
        return Outcome(channel.name, requests, sent=False)
    began = time.monotonic()
    try:
        for part in parts:
            part.send()
    except DeliveryError as error:
        seconds = round(time.monotonic() - began, 2)
        return Outcome(channel.name, requests, False, mask(error.reason), error.retry, seconds)
    return Outcome(channel.name, requests, True, seconds=round(time.monotonic() - began, 2))


def try_channels(channels: Sequence[Channel], message: Message, *, dry: bool) -> list[Outcome]:
    """The same for all of them, one after the other."""
    return [try_channel(channel, message, dry=dry) for channel in channels]
