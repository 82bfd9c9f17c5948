"""E-mail by SMTP (RFC 5321), encrypted before the login."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any, Final

from kamerton.smart_tuner.channels.deadline import Deadline
from kamerton.smart_tuner.channels.delivery import DeliveryError, Part
from kamerton.smart_tuner.channels.http import network_reason
from kamerton.smart_tuner.channels.message import Attached, Message
from kamerton.smart_tuner.channels.secret import Secret

TLS_PORT: Final = 465  # encrypted from the first byte (RFC 8314)
_MAX_FILES_BYTES: Final = 15 * 1000**2  # many servers take 25 MB, and base64 adds a third
_MAX_SUBJECT: Final = 150
_READY: Final = 220  # what a server greets with


class EmailChannel:
    """One mail per message, to all recipients."""

    name = "e-mail"
    limited = True
    spacing_seconds = 0.0

    def __init__(
        self, host: str, port: int, sender: str, recipients: Sequence[str], timeout: float, *,
        starttls: bool, user: str = "", password: Secret | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        self._host, self._port, self._starttls = host, port, starttls
        self._sender, self._recipients, self._timeout = sender, list(recipients), timeout
        self._user, self._password, self._context = user, password, context

    def __repr__(self) -> str:
        return f"EmailChannel(host={self._host!r}, recipients={self._recipients})"

    def secrets(self) -> Sequence[str]:
        """The password."""
        return [self._password.reveal()] if self._password else []

    def parts(self, message: Message) -> Sequence[Part]:
        """One mail."""
        files = [file for file in (newest.read() for newest in message.files) if file is not None]
        mail = self._mail(message, files)
        names = ", ".join(file.name for file in files) or "none"
        shown = (
            f"mail by {self._host}:{self._port} from {self._sender} to "
            f"{', '.join(self._recipients)}: {mail['Subject']} (files: {names})"
        )
        return [Part(shown, lambda: self._send(mail))]

    def _mail(self, message: Message, files: Sequence[Attached]) -> EmailMessage:
        mail = EmailMessage()
        title = " ".join(message.title.split())  # a line end would begin another header
        run = f" {message.run}" if message.run else ""
        mail["Subject"] = f"[kamerton{run}] {title}"[:_MAX_SUBJECT]
        mail["From"], mail["To"] = self._sender, ", ".join(self._recipients)
        mail["Date"] = formatdate(message.time)
        # A domain of its own keeps the library from asking the network for this machine's name.
        mail["Message-ID"] = make_msgid(domain="kamerton.invalid")
        mail.set_content(f"{message.title}\n\n{message.body()}\n")
        room = _MAX_FILES_BYTES
        for file in files:
            room -= len(file.data)
            if room >= 0:
                main, sub = _TYPES.get(file.name.rpartition(".")[2].lower(), _ANY_TYPE)
                mail.add_attachment(file.data, maintype=main, subtype=sub, filename=file.name)
        return mail

    def _send(self, mail: EmailMessage) -> None:
        with Deadline(3 * self._timeout) as deadline:  # several exchanges, each with a timeout
            try:
                refused = self._talk(mail, deadline)
                if not refused:
                    return
                reason, retry = f"{len(refused)} recipients were refused", False
            except Exception as caught:  # what a server answers may repeat the login
                reason, retry = _reason(caught, self._timeout, deadline)
        raise DeliveryError(reason, retry=retry)  # outside, for it to have no context

    def _talk(self, mail: EmailMessage, deadline: Deadline) -> Mapping[str, object]:
        context = self._context
        if context is None and (self._starttls or self._port == TLS_PORT):
            context = self._context = ssl.create_default_context()  # slow: it reads all authorities
        name = socket.gethostname()  # the library's default may wait for a name server
        kind = _EncryptedServer if self._port == TLS_PORT else _Server
        server = kind(deadline, name, self._timeout, context)
        try:
            code, answer = server.connect(self._host, self._port)
            if code != _READY:
                raise smtplib.SMTPConnectError(code, answer)
            if self._starttls and self._port != TLS_PORT:
                server.ehlo_or_helo_if_needed()
                server.starttls(context=context)
                server.watch()
            if self._password is not None:
                server.login(self._user, self._password.reveal())
            refused = server.send_message(mail)
            with contextlib.suppress(smtplib.SMTPException, OSError):
                server.quit()  # the mail is taken, whatever comes now
            return refused
        finally:
            server.close()


_TYPES: Final = {"png": ("image", "png"), "wav": ("audio", "wav")}
_ANY_TYPE: Final = ("application", "octet-stream")


class _Server(smtplib.SMTP):
    """A server that is watched from before its greeting on."""

    def __init__(
        self, deadline: Deadline, name: str, timeout: float, context: ssl.SSLContext | None
    ) -> None:
        self._deadline, self._context = deadline, context
        super().__init__(local_hostname=name, timeout=timeout)

    def connect(self, host: str = "", port: int = 0, *rest: Any) -> tuple[int, bytes]:
        """Connect; the name is what a certificate must be of."""
        self._host = host
        return super().connect(host, port, *rest)

    def watch(self) -> None:
        """Watch the connection as it is now: encrypted, it is another."""
        if self.sock is not None:
            self._deadline.watch(self.sock)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connection = socket.create_connection((host, port), timeout)
        self._deadline.watch(connection)
        return connection


class _EncryptedServer(_Server):
    """The same, encrypted from the first byte."""

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connection = super()._get_socket(host, port, timeout)
        assert self._context is not None  # made for this port
        try:
            encrypted = self._context.wrap_socket(connection, server_hostname=host)
        except BaseException:
            connection.close()
            raise
        self._deadline.watch(encrypted)
        return encrypted


def _reason(error: Exception, timeout: float, deadline: Deadline) -> tuple[str, bool]:
    # The library tells of a connection that is closed where its timeout was over.
    if deadline.passed or isinstance(error.__context__, TimeoutError):
        return f"no answer within {timeout:g} s", True
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return "the server lacks what is asked for (STARTTLS, or a login)", False
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = [code for code, _ in error.recipients.values()]
        return "all recipients were refused", all(400 <= code < 500 for code in codes)
    if isinstance(error, smtplib.SMTPResponseException):
        return f"SMTP {error.smtp_code}", 400 <= error.smtp_code < 500
    if isinstance(error, smtplib.SMTPServerDisconnected):
        return "the connection was closed", True
    return network_reason(error, timeout, deadline)
