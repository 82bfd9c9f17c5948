"""POST to an address that is itself a secret."""

from __future__ import annotations

import base64
import email.utils
import functools
import http.client
import ipaddress
import json
import socket
import ssl
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any, Final

from kamerton import __version__
from kamerton.smart_tuner.channels.deadline import Deadline
from kamerton.smart_tuner.channels.delivery import DeliveryError
from kamerton.smart_tuner.channels.secret import Secret

_MAX_ANSWER_BYTES: Final = 1 << 16
_SLOWEST_BYTES_PER_SECOND: Final = 50_000  # what an upload is given time for
_RETRIED: Final = (408, 425, 429)
JSON_TYPE: Final = "application/json; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said: status, seconds it asks to wait, and the beginning of the body."""

    status: int
    retry_after: float | None
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body's object; empty where it is none."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def require_success(self, *, retry_after: float | None = None, said: str = "") -> None:
        """Pass for 2xx.

        Args:
            retry_after: What the body asks for, which goes before the header.
            said: The body's own words, which hold no secret.

        Raises:
            DeliveryError: the server did not take it.
        """
        if 200 <= self.status < 300:
            return
        wait = self.retry_after if retry_after is None else retry_after
        reason = f"HTTP {self.status}" + (f", {said}" if said else "")
        if 300 <= self.status < 400:
            reason += ": it redirects, which is not followed"
        retry = self.status >= 500 or self.status in _RETRIED
        raise DeliveryError(reason, retry=retry, retry_after=wait)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its name alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address_fault(url: str) -> str:
    """What is wrong with an address to write to; "" for nothing. It is not repeated."""
    try:
        parsed = urllib.parse.urlsplit(url)
        host, _ = parsed.hostname, parsed.port
    except ValueError:
        return "is no valid address"
    if not host or any(letter.isspace() or not letter.isprintable() for letter in url):
        return "is no valid address"
    if parsed.scheme == "https" or (parsed.scheme == "http" and is_loopback(host)):
        return ""
    return "must begin with https:// (http:// is for this machine alone)"


def host_of(url: str) -> str:
    """The part of an address that may be shown."""
    return urllib.parse.urlsplit(url).hostname or "?"


def post(address: Secret, body: bytes, content_type: str, *, timeout: float) -> Answer:
    """POST ``body``; nothing is followed to another address.

    Args:
        address: https://, or http:// on this machine; a login in it is sent as such.
        body: Contents.
        content_type: Their type.
        timeout: Seconds for it all, and more for a large body.

    Raises:
        DeliveryError: there was no answer.
    """
    with Deadline(timeout + len(body) / _SLOWEST_BYTES_PER_SECOND) as deadline:
        try:
            return _post(address.reveal(), body, content_type, timeout, deadline)
        except Exception as caught:  # urllib's own hold the address, so none of them goes on
            reason, retry = network_reason(caught, timeout, deadline)
    raise DeliveryError(reason, retry=retry)  # outside, for it to have no context


def _post(url: str, body: bytes, content_type: str, timeout: float, deadline: Deadline) -> Answer:
    url, login = _without_login(url)
    headers = {"Content-Type": content_type, "User-Agent": f"kamerton/{__version__}", **login}
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")
    with _opener(deadline, plain=url.startswith("http:")).open(request, timeout=timeout) as answer:
        start = answer.read(_MAX_ANSWER_BYTES)
        if deadline.passed:  # what was read is what came until then
            raise TimeoutError
        if answer.length and len(start) < _MAX_ANSWER_BYTES:
            raise http.client.IncompleteRead(start)
        return Answer(answer.status, _seconds(answer.headers.get("Retry-After")), start)


def _opener(deadline: Deadline, *, plain: bool) -> urllib.request.OpenerDirector:
    """Neither follows redirects nor raises for what a server answers.

    Without TLS it goes past proxies: they would see what is in the address.
    """
    opener = urllib.request.OpenerDirector()
    opener.add_handler(urllib.request.ProxyHandler({} if plain else None))
    opener.add_handler(_Plain(deadline))
    opener.add_handler(_Encrypted(deadline))
    opener.add_handler(urllib.request.UnknownHandler())
    return opener


@functools.cache
def _trusted() -> ssl.SSLContext:
    """The authorities of this machine; reading them takes long, so it is done once."""
    return ssl.create_default_context()


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_PlainConnection, self._deadline), req)


class _Encrypted(urllib.request.HTTPSHandler):
    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_EncryptedConnection, self._deadline), req)


class _PlainConnection(http.client.HTTPConnection):
    def __init__(self, deadline: Deadline, host: str, **how: Any) -> None:
        super().__init__(host, **how)
        self._deadline = deadline

    def connect(self) -> None:
        super().connect()
        self._deadline.watch(self.sock)


class _EncryptedConnection(http.client.HTTPSConnection):
    def __init__(self, deadline: Deadline, host: str, **how: Any) -> None:
        super().__init__(host, context=_trusted(), **how)
        self._deadline = deadline

    def connect(self) -> None:
        super().connect()
        self._deadline.watch(self.sock)


def _without_login(url: str) -> tuple[str, dict[str, str]]:
    """The address as urllib takes it, and its user and password as a header."""
    parsed = urllib.parse.urlsplit(url)
    if parsed.username is None:
        return url, {}
    user = urllib.parse.unquote(parsed.username)
    password = urllib.parse.unquote(parsed.password or "")
    token = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
    host = parsed.netloc.rpartition("@")[2]
    return parsed._replace(netloc=host).geturl(), {"Authorization": f"Basic {token}"}


def _seconds(header: str | None) -> float | None:
    """What Retry-After says (RFC 9110, 10.2.3): seconds, or a date."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None


def network_reason(error: BaseException, timeout: float, deadline: Deadline) -> tuple[str, bool]:
    """Words of ours for what went wrong on the way, and whether to try again."""
    cause = getattr(error, "reason", None)
    error = cause if isinstance(cause, BaseException) else error
    if deadline.passed or isinstance(error, TimeoutError):
        return f"no answer within {timeout:g} s", True
    if isinstance(error, ssl.SSLCertVerificationError):
        return "its certificate is not trusted", False
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused", True
    if isinstance(error, socket.gaierror):
        return "its name is not known", True
    if isinstance(error, http.client.HTTPException | ConnectionError):
        return "the connection was closed", True
    return type(error).__name__, isinstance(error, OSError)
