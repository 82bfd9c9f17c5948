"""Slack's incoming webhooks, and any server that takes JSON."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kamerton.smart_tuner.channels.delivery import Part
from kamerton.smart_tuner.channels.http import JSON_TYPE, host_of, post
from kamerton.smart_tuner.channels.message import Message, plain, shortened
from kamerton.smart_tuner.channels.secret import Secret
from kamerton.tracking.metrics_file import json_safe
from kamerton.tracking.redaction import MASK

_MAX_SLACK_TEXT: Final = 4000  # what Slack advises; it cuts at 40,000
_MIN_SECRET_CHARS: Final = 6  # shorter parts of an address are words such as "v1"


class _Hook:
    """POST of JSON to an address that nobody may see."""

    name = "webhook"
    limited = True

    def __init__(self, address: Secret, timeout: float) -> None:
        self._address, self._timeout = address, timeout
        self._host = host_of(address.reveal())

    def __repr__(self) -> str:
        return f"{type(self).__name__}(host={self._host!r})"

    def secrets(self) -> Sequence[str]:
        """The address, and every part of it that may be a key to it."""
        url = self._address.reveal()
        parsed = urllib.parse.urlsplit(url)
        values = [value for _, value in urllib.parse.parse_qsl(parsed.query)]
        pieces = [*parsed.path.split("/"), *values, parsed.query, parsed.path.strip("/")]
        login = [parsed.password] if parsed.password else []
        return [url, *login, *(piece for piece in pieces if len(piece) >= _MIN_SECRET_CHARS)]

    def _part(self, value: Mapping[str, Any]) -> Part:
        body = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)

        def send() -> None:
            data = body.encode("utf-8", "replace")
            post(self._address, data, JSON_TYPE, timeout=self._timeout).require_success()

        return Part(f"POST to {self._host}/{MASK} {body}", send)


class SlackChannel(_Hook):
    """Text alone: these webhooks take no files."""

    name = "slack"
    spacing_seconds = 1.0  # what Slack allows a webhook

    def parts(self, message: Message) -> Sequence[Part]:
        """One request."""
        text = shortened(f"{message.title}\n{message.body()}".rstrip(), _MAX_SLACK_TEXT)
        # Slack's own three; https://docs.slack.dev/messaging/formatting-message-text
        for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
            text = text.replace(sign, entity)
        return [self._part({"text": text, "mrkdwn": False})]


class WebhookChannel(_Hook):
    """The event as it is, for programs."""

    spacing_seconds = 0.0

    def parts(self, message: Message) -> Sequence[Part]:
        """One request; numbers that JSON has not are strings."""
        fields = {str(name): value for name, value in message.fields.items()}
        value = {
            "kind": message.kind, "text": plain(message.text), "run": message.run,
            "step": message.step, "total": message.total, "time": round(message.time, 3),
            "repeats": message.repeats, "fields": json_safe(fields),
        }  # fmt: skip
        return [self._part(value)]
