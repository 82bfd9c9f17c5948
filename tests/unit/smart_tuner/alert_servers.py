"""Servers on this machine that take alerts, or behave as badly as servers do."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TELEGRAM_OK = b'{"ok": true, "result": {}}'


@dataclass
class Request:
    """What a server was sent."""

    path: str
    headers: dict[str, str]
    body: bytes
    time: float

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    """What a server does next: answer, or ``hang``, ``close`` or ``drip`` a byte now and then."""

    status: int = 200
    body: bytes = TELEGRAM_OK
    headers: dict[str, str] = field(default_factory=dict)
    how: str = "answer"


class Server:
    """An HTTP server; replies in the order given, then with ``usual``."""

    def __init__(self, *replies: Reply, usual: Reply | None = None) -> None:
        self.replies, self.usual = list(replies), usual or Reply()
        self.requests: list[Request] = []
        self.over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.handle(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                """A client that hangs up is what some tests are about."""

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length", 0))
        body = handler.rfile.read(length)
        reply = self.replies.pop(0) if self.replies else self.usual
        self.requests.append(Request(handler.path, dict(handler.headers), body, time.monotonic()))
        if reply.how == "hang":
            self.over.wait(20)
        elif reply.how == "close":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")
            handler.close_connection = True
        elif reply.how == "drip":
            with contextlib.suppress(OSError):
                handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                while not self.over.wait(0.02):
                    handler.wfile.write(b"x")
        else:
            handler.send_response(reply.status)
            for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(reply.body)

    def close(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(2)


@contextlib.contextmanager
def serving(*replies: Reply, usual: Reply | None = None) -> Iterator[Server]:
    server = Server(*replies, usual=usual)
    try:
        yield server
    finally:
        server.close()


def closed_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


class MailServer:
    """SMTP as far as a client needs it: EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA."""

    def __init__(
        self, context: ssl.SSLContext | None = None, *, implicit: bool = False,
        answers: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.mails: list[tuple[list[str], bytes]] = []
        self.logins: list[str] = []
        self.encrypted: list[bool] = []
        self.answers = answers or {}
        self.context, self.implicit = context, implicit
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    outer.talk(self.request)

        class Threads(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        self.server = Threads(("127.0.0.1", 0), Handler)
        self.port = int(self.server.server_address[1])
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def talk(self, plain: socket.socket) -> None:  # noqa: PLR0912 - one branch per verb
        connection: Any = plain
        if self.implicit:
            assert self.context
            connection = self.context.wrap_socket(plain, server_side=True)
        stream = connection.makefile("rwb")

        def say(line: str) -> None:
            stream.write(line.encode() + b"\r\n")
            stream.flush()

        say(self.answers.get("GREETING", "220 here"))
        encrypted, rcpt = self.implicit, []
        while line := stream.readline():
            verb = line[:4].decode().upper().strip()
            if verb in self.answers:
                say(self.answers[verb])
            elif verb == "EHLO":
                lines = ["here", "AUTH PLAIN"]
                if self.context and not encrypted:
                    lines.insert(1, "STARTTLS")
                for place, text in enumerate(lines):
                    say(f"250{' ' if place == len(lines) - 1 else '-'}{text}")
            elif verb == "STAR":
                say("220 go")
                assert self.context
                connection = self.context.wrap_socket(plain, server_side=True)
                stream, encrypted = connection.makefile("rwb"), True
            elif verb == "AUTH":
                self.logins.append(line.decode().split()[2])
                self.encrypted.append(encrypted)
                say("235 in")
            elif verb == "RCPT":
                rcpt.append(line.decode().split(":", 1)[1].strip(" <>\r\n"))
                say("250 ok")
            elif verb == "DATA":
                say("354 go on")
                data = b""
                while (row := stream.readline()) not in (b".\r\n", b""):
                    data += row
                self.mails.append((rcpt, data))
                rcpt = []
                say("250 taken")
            elif verb == "QUIT":
                say("221 bye")
                break
            else:
                say("250 ok")
        stream.close()
        connection.close()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(2)


def certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate of 127.0.0.1, and a client's that trusts it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "server.pem", folder / "server.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form, encoding = serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM
    secret.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem, secret)
    client = ssl.create_default_context(cafile=str(pem))
    return server, client
