"""Messages, pictures and sound by a Telegram bot (core.telegram.org/bots/api)."""

from __future__ import annotations

import html
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

from kamerton.smart_tuner.channels.delivery import DeliveryError, Part
from kamerton.smart_tuner.channels.http import JSON_TYPE, Answer, post
from kamerton.smart_tuner.channels.message import Attached, Message, shortened, utf16_units
from kamerton.smart_tuner.channels.secret import Secret
from kamerton.tracking.redaction import MASK, Masker

# Both are counted in UTF-16 units after the markup was read.
MAX_TEXT: Final = 4096
MAX_CAPTION: Final = 1024
_MAX_PHOTO_BYTES: Final = 10 * 1000**2
# Method and field by the end of a file's name; sendAudio takes no wav, so that is a document.
_METHODS: Final = {
    "png": ("sendPhoto", "photo"), "jpg": ("sendPhoto", "photo"),
    "mp3": ("sendAudio", "audio"), "m4a": ("sendAudio", "audio"),
}  # fmt: skip
_DOCUMENT: Final = ("sendDocument", "document")


class TelegramChannel:
    """One chat; Telegram asks for at most one message a second there."""

    name = "telegram"
    limited = True
    spacing_seconds = 1.0

    def __init__(self, token: Secret, chat_id: str, base_url: str, timeout: float) -> None:
        self._token, self._chat, self._timeout = token, chat_id, timeout
        self._base = base_url.rstrip("/")

    def __repr__(self) -> str:
        return f"TelegramChannel(chat_id={self._chat!r}, base_url={self._base!r})"

    def secrets(self) -> Sequence[str]:
        """The bot's token, and what of it is no number of the bot."""
        token = self._token.reveal()
        return [token, token.partition(":")[2]]

    def parts(self, message: Message) -> Sequence[Part]:
        """The text with its first picture where it fits below one; other files follow."""
        files = [file for file in (newest.read() for newest in message.files) if file is not None]
        text = self._text(message, MAX_TEXT)
        if not files or utf16_units(f"{message.title}\n{message.body()}") > MAX_CAPTION:
            return [text, *(self._file(file, html.escape(file.caption)) for file in files)]
        first = self._file(files[0], marked_up(message, MAX_CAPTION), instead=text)
        return [first, *(self._file(file, html.escape(file.caption)) for file in files[1:])]

    def _text(self, message: Message, limit: int) -> Part:
        fields = {"chat_id": self._chat, "text": marked_up(message, limit), "parse_mode": "HTML"}
        body = json.dumps(fields, ensure_ascii=False)
        return Part(
            self._shown("sendMessage", body),
            lambda: self._call("sendMessage", body.encode("utf-8"), JSON_TYPE),
        )

    def _file(self, file: Attached, caption: str, instead: Part | None = None) -> Part:
        method, field = _METHODS.get(file.name.rpartition(".")[2].lower(), _DOCUMENT)
        if field == "photo" and len(file.data) > _MAX_PHOTO_BYTES:
            method, field = _DOCUMENT
        fields = {"chat_id": self._chat, "caption": caption, "parse_mode": "HTML"}
        about = json.dumps({**fields, field: file.name}, ensure_ascii=False)

        def send() -> None:
            body, content_type = multipart(fields, field, file)
            self._call(method, body, content_type)

        return Part(f"{self._shown(method, about)} ({len(file.data)} bytes)", send, instead)

    def _shown(self, method: str, body: str) -> str:
        return f"POST {self._base}/bot{MASK}/{method} {body}"

    def _call(self, method: str, body: bytes, content_type: str) -> None:
        address = Secret(f"{self._base}/bot{self._token.reveal()}/{method}")
        _require_ok(
            post(address, body, content_type, timeout=self._timeout), Masker(self.secrets())
        )


def _require_ok(answer: Answer, mask: Masker) -> None:
    """Telegram answers in JSON; whatever answers otherwise is not Telegram."""
    said = answer.json()
    parameters = said.get("parameters")
    wait = parameters.get("retry_after") if isinstance(parameters, dict) else None
    wait = max(0.0, float(wait)) if isinstance(wait, int | float) else None
    answer.require_success(retry_after=wait, said=mask(str(said.get("description", ""))[:200]))
    if said.get("ok") is not True:
        raise DeliveryError("the answer is not Telegram's")


def marked_up(message: Message, limit: int) -> str:
    """The message as HTML, its title bold; ``limit`` in UTF-16 units, as Telegram counts it."""
    title = shortened(message.title, limit)
    room = limit - utf16_units(title) - 1
    body = shortened(message.body(), room) if room > 1 else ""
    marked = f"<b>{html.escape(title, quote=False)}</b>"
    return f"{marked}\n{html.escape(body, quote=False)}" if body else marked


def multipart(fields: Mapping[str, str], name: str, file: Attached) -> tuple[bytes, str]:
    """A form with a file (RFC 7578): its body, and its content type."""
    boundary = f"kamerton-{secrets.token_hex(16)}"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        for key, value in fields.items()
    ]
    safe = "".join(sign if sign.isalnum() or sign in "._-" else "_" for sign in file.name)
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{safe}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = "".join(parts).encode("utf-8") + file.data + f"\r\n--{boundary}--\r\n".encode("ascii")
    return body, f"multipart/form-data; boundary={boundary}"
