"""What goes over the wire, what is made of every kind of trouble there, and that no secret is."""

from __future__ import annotations

import base64
import contextlib
import email
import email.policy
import io
import json
import logging
import pickle
import re
import ssl
import time
import traceback
import urllib.parse
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.config.tuner_sections import AlertParams
from kamerton.core.errors import ParamsError
from kamerton.smart_tuner.alert_manager import AlertManager, AlertPolicy
from kamerton.smart_tuner.channels.delivery import Channel, DeliveryError
from kamerton.smart_tuner.channels.http import address_fault, is_loopback
from kamerton.smart_tuner.channels.mail import EmailChannel
from kamerton.smart_tuner.channels.message import Message, Newest, shortened, utf16_units
from kamerton.smart_tuner.channels.opening import open_channels, require_alerts
from kamerton.smart_tuner.channels.secret import Secret
from kamerton.smart_tuner.channels.telegram import TelegramChannel
from kamerton.smart_tuner.channels.webhooks import SlackChannel, WebhookChannel
from tests.unit.smart_tuner.alert_servers import (
    MailServer,
    Reply,
    Server,
    certificate,
    closed_port,
    serving,
)

TOKEN = "1234567:AA+se/cret-Tok~en=x"
CHAT = "-100987"
MESSAGE = Message(
    kind="report", text="a < b & c > d", run="r1", step=50, total=200, fields={"loss": 0.123456}
)


def telegram(server: Server | str, timeout: float = 2.0) -> TelegramChannel:
    url = server if isinstance(server, str) else server.url
    return TelegramChannel(Secret(TOKEN), CHAT, url, timeout)


def send(channel: Channel, message: Message = MESSAGE) -> None:
    for part in channel.parts(message):
        part.send()


def outcome(channel: Channel, message: Message) -> DeliveryError | None:
    try:
        send(channel, message)
    except DeliveryError as error:
        return error
    return None


def refused(channel: Channel, message: Message = MESSAGE) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        send(channel, message)
    return caught.value


def forms(body: bytes, content_type: str) -> dict[str, Any]:
    """A form as the library for mail reads it, file contents with their names."""
    raw = b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body
    parsed = email.message_from_bytes(raw, policy=email.policy.HTTP)
    found: dict[str, Any] = {}
    for part in parsed.iter_parts():
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        file = part.get_filename()
        found[str(name)] = (file, payload) if file else payload.decode()  # type: ignore[union-attr]
    return found


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "figures").mkdir()
    (tmp_path / "samples").mkdir()
    for step in (9, 10, 50):
        (tmp_path / "figures" / f"attention-{step:08d}.png").write_bytes(b"\x89PNG%d" % step)
    (tmp_path / "samples" / "free-running-00000040.wav").write_bytes(b"RIFF\r\n--x\r\n")
    return tmp_path


def with_files(folder: Path, **changes: Any) -> Message:
    files = (Newest(folder / "figures", "attention-*.png"), Newest(folder / "samples", "*.wav"))
    given = {"kind": "report", "text": "training", "step": 50, "files": files, **changes}
    return Message(**given)


# Telegram.


def test_telegram_takes_text_with_its_signs_escaped() -> None:
    with serving() as server:
        send(telegram(server))
    (request,) = server.requests
    assert request.path == f"/bot{TOKEN}/sendMessage"
    assert request.json() == {
        "chat_id": CHAT,
        "parse_mode": "HTML",
        "text": "<b>report: a &lt; b &amp; c &gt; d</b>\nrun r1\nstep 50 of 200 (25%)\nloss 0.1235",
    }


def test_telegram_takes_the_newest_picture_with_the_text_and_sound_as_a_document(
    run: Path,
) -> None:
    with serving() as server:
        send(telegram(server), with_files(run))
    picture, sound = server.requests
    assert picture.path.endswith("/sendPhoto")
    form = forms(picture.body, picture.headers["Content-Type"])
    assert form["photo"] == ("attention-00000050.png", b"\x89PNG50")
    assert form["caption"].startswith("<b>report: training</b>\nstep 50")
    assert (form["chat_id"], form["parse_mode"]) == (CHAT, "HTML")
    assert sound.path.endswith("/sendDocument")
    form = forms(sound.body, sound.headers["Content-Type"])
    assert form["document"] == ("free-running-00000040.wav", b"RIFF\r\n--x\r\n")
    assert form["caption"] == "free-running-00000040.wav, of step 40"


def test_a_text_too_long_for_a_caption_is_sent_before_the_picture(run: Path) -> None:
    with serving() as server:
        send(telegram(server), with_files(run, text="ö" * 1500))
    assert [request.path.rpartition("/")[2] for request in server.requests] == [
        "sendMessage", "sendPhoto", "sendDocument",
    ]  # fmt: skip
    assert "ö" * 1500 in server.requests[0].json()["text"]


def test_a_picture_that_is_refused_does_not_take_its_text_with_it(run: Path) -> None:
    bad = Reply(400, b'{"ok": false, "description": "PHOTO_INVALID_DIMENSIONS"}')
    with serving(bad) as server, AlertManager([telegram(server)], _quick()) as manager:
        manager._boxes[0].channel.spacing_seconds = 0.0  # type: ignore[misc]
        files = (Newest(run / "figures", "*.png"),)
        manager.emit("report", "the text", files=files)
        assert manager.flush(3)
        assert manager.counts().sent == 1
    assert server.requests[1].path.endswith("/sendMessage")
    assert "the text" in server.requests[1].json()["text"]


def test_without_files_there_is_text_alone(tmp_path: Path) -> None:
    with serving() as server:
        send(telegram(server), with_files(tmp_path))
    assert [request.path.rpartition("/")[2] for request in server.requests] == ["sendMessage"]


@given(st.text(max_size=3000), st.text(alphabet="𝄞<&é\n", max_size=3000))
def test_no_text_is_longer_than_telegram_takes(title: str, body: str) -> None:
    from kamerton.smart_tuner.channels.telegram import marked_up

    message = Message(kind="nan", text=title, fields={"x": body, "y": body, "z": body})
    marked = marked_up(message, 1024)
    bare = re.sub("</?b>", "", marked).replace("&lt;", "<").replace("&gt;", ">")
    bare = bare.replace("&amp;", "&")
    assert len(bare.encode("utf-16-le")) // 2 <= 1024
    assert re.fullmatch(r"<b>[^<>]*</b>[^<>]*", marked, re.DOTALL)
    marked.encode("utf-8")  # no half of a pair is left


@given(st.text(), st.integers(1, 30))
def test_shortened_text_is_a_beginning_of_it(text: str, limit: int) -> None:
    text = text.encode("utf-8", "replace").decode("utf-8")
    cut = shortened(text, limit)
    assert utf16_units(cut) <= limit
    assert cut == text or (cut.endswith("…") and text.startswith(cut[:-1]))


@pytest.mark.parametrize(
    ("reply", "retry", "after", "said"),
    [
        (Reply(429, b'{"ok":false,"parameters":{"retry_after":7}}'), True, 7.0, "429"),
        (Reply(429, b"{}", {"Retry-After": "11"}), True, 11.0, "429"),
        (Reply(500, b"oops"), True, None, "500"),
        (Reply(502, b"[]"), True, None, "502"),
        (Reply(400, b'{"ok":false,"description":"chat not found"}'), False, None, "chat not found"),
        (Reply(401, b"{}"), False, None, "401"),
        (Reply(200, b"<html>log in to this network</html>"), True, None, "not Telegram's"),
        (Reply(how="close"), True, None, "closed"),
        (Reply(how="hang"), True, None, "no answer within 0.2 s"),
        (Reply(how="drip"), True, None, "no answer within 0.2 s"),
    ],
)
def test_every_trouble_has_its_words_and_its_wait(
    reply: Reply, retry: bool, after: float | None, said: str
) -> None:
    began = time.monotonic()
    with serving(reply) as server:
        error = refused(telegram(server, timeout=0.2))
    assert (error.retry, error.retry_after) == (retry, after)
    assert said in error.reason
    assert time.monotonic() - began < 2.0


def test_nobody_there() -> None:
    error = refused(telegram(f"http://127.0.0.1:{closed_port()}"))
    assert error.retry
    assert "refused" in error.reason


def test_a_date_to_come_again_at() -> None:
    from email.utils import formatdate

    date = formatdate(time.time() + 100, usegmt=True)
    with serving(Reply(503, b"", {"Retry-After": date})) as server:
        error = refused(telegram(server))
    assert error.retry_after == pytest.approx(100, abs=3)


# Slack and webhooks.


def test_slack_takes_escaped_text() -> None:
    with serving(usual=Reply(200, b"ok")) as server:
        send(SlackChannel(Secret(f"{server.url}/services/T0/B0/abcdefgh"), 2.0))
    (request,) = server.requests
    assert request.path == "/services/T0/B0/abcdefgh"
    assert request.json()["text"].startswith("report: a &lt; b &amp; c &gt; d\nrun r1\n")


def test_a_webhook_takes_the_event_as_it_is() -> None:
    fields = {"loss": float("nan"), "step": 3, "deep": {"x": [float("inf")]}}
    message = Message(kind="nan", text="a < b", run="r1", step=3, total=9, fields=fields)
    with serving(usual=Reply(204, b"")) as server:
        send(WebhookChannel(Secret(f"{server.url}/in?key=abcdefgh"), 2.0), message)
    (request,) = server.requests
    assert request.path == "/in?key=abcdefgh"
    value = json.loads(request.body, parse_constant=lambda name: pytest.fail(name))
    assert value == {
        "kind": "nan", "text": "a < b", "run": "r1", "step": 3, "total": 9, "time": 0.0,
        "repeats": 0, "fields": {"loss": "nan", "step": 3, "deep": {"x": ["inf"]}},
    }  # fmt: skip


def test_a_login_in_the_address_is_sent_as_a_header() -> None:
    with serving() as server:
        url = server.url.replace("http://", "http://me:p%40ss@")
        send(WebhookChannel(Secret(url + "/in"), 2.0))
    basic = server.requests[0].headers["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(basic) == b"me:p@ss"
    assert server.requests[0].headers["Host"] == server.url.removeprefix("http://")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    with serving() as other, serving(Reply(status, b"", {"Location": other.url})) as server:
        error = refused(WebhookChannel(Secret(f"{server.url}/secret-path"), 2.0))
    assert not error.retry
    assert "redirects" in error.reason
    assert not other.requests


def test_an_address_on_this_machine_goes_past_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as proxy, serving() as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("no_proxy", "")
        send(WebhookChannel(Secret(f"{server.url}/x"), 2.0))
        assert (len(server.requests), len(proxy.requests)) == (1, 0)


@pytest.mark.parametrize(
    ("url", "fine"),
    [
        ("https://hooks.example/x", True), ("http://127.0.0.1:8/x", True),
        ("http://localhost/x", True), ("http://[::1]:3/x", True), ("http://hooks.example/x", False),
        ("http://127.0.0.1.example/x", False), ("http://10.0.0.1/", False), ("ftp://x/y", False),
        ("https://", False), ("", False), ("https://a b/", False), ("https://x:99999/", False),
        ("http://localhost@hooks.example/", False), ("file:///etc/passwd", False),
    ],
)  # fmt: skip
def test_only_encrypted_addresses_or_this_machine(url: str, fine: bool) -> None:
    assert (address_fault(url) == "") is fine
    assert not is_loopback("example.org")


def test_tls_is_checked(tmp_path: Path) -> None:
    """A certificate that nobody vouches for gets nothing."""
    context, _ = certificate(tmp_path)
    with serving() as server:
        server.server.socket = context.wrap_socket(server.server.socket, server_side=True)
        url = server.url.replace("http://", "https://")
        error = refused(WebhookChannel(Secret(f"{url}/x"), 2.0))
    assert "certificate" in error.reason
    assert not error.retry
    assert not server.requests


# E-mail.


@contextlib.contextmanager
def mail_server(*args: Any, **kwargs: Any) -> Iterator[MailServer]:
    server = MailServer(*args, **kwargs)
    try:
        yield server
    finally:
        server.close()


def mailer(server: MailServer, context: ssl.SSLContext | None = None, **changes: Any) -> Channel:
    given = {"starttls": False, "context": context, **changes}
    recipients = ["a@example.org", "b@example.org"]
    return EmailChannel("127.0.0.1", server.port, "k@example.org", recipients, 2.0, **given)


def read_mail(data: bytes) -> EmailMessage:
    parsed = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    return parsed


def test_a_mail_has_text_and_files(run: Path) -> None:
    with mail_server() as server:
        send(mailer(server), with_files(run, text="längst\nSubject: evil", run="r1"))
    ((recipients, data),) = server.mails
    assert recipients == ["a@example.org", "b@example.org"]
    mail = read_mail(data)
    assert mail["Subject"] == "[kamerton r1] report: längst Subject: evil"
    body = mail.get_body(("plain",))
    assert body is not None
    assert "step 50" in body.get_content()
    files = {part.get_filename(): part.get_payload(decode=True) for part in mail.iter_attachments()}
    assert files["attention-00000050.png"] == b"\x89PNG50"
    assert files["free-running-00000040.wav"] == b"RIFF\r\n--x\r\n"


@pytest.mark.parametrize("implicit", [False, True])
def test_the_login_is_encrypted(
    tmp_path: Path, implicit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = certificate(tmp_path)
    with mail_server(theirs, implicit=implicit) as server:
        if implicit:
            monkeypatch.setattr("kamerton.smart_tuner.channels.mail.TLS_PORT", server.port)
        login = {"user": "me", "password": Secret("pw-pw-pw")}
        send(mailer(server, ours, starttls=not implicit, **login))
        assert server.encrypted == [True]
        assert base64.b64decode(server.logins[0]) == b"\0me\0pw-pw-pw"
        assert len(server.mails) == 1


@pytest.mark.parametrize(
    ("answers", "retry", "said"),
    [
        ({"GREETING": "421 busy"}, True, "421"), ({"MAIL": "550 no"}, False, "550"),
        ({"RCPT": "450 later"}, True, "refused"), ({"RCPT": "550 never"}, False, "refused"),
        ({"DATA": "452 full"}, True, "452"),
    ],
)  # fmt: skip
def test_what_a_mail_server_says(answers: dict[str, str], retry: bool, said: str) -> None:
    with mail_server(answers=answers) as server:
        error = refused(mailer(server))
    assert error.retry is retry
    assert said in error.reason


def test_no_mail_without_the_encryption_that_was_asked_for() -> None:
    with mail_server() as server:
        login = {"user": "me", "password": Secret("pw-pw-pw")}
        error = refused(mailer(server, starttls=True, **login))
        assert "STARTTLS" in error.reason
        assert not server.logins
        assert not server.mails


def test_a_mail_server_that_hangs() -> None:
    with serving(usual=Reply(how="hang")) as hanging:
        port = hanging.server.server_address[1]
        channel = EmailChannel("127.0.0.1", port, "k@x", ["a@x"], 0.2, starttls=False)
        assert "no answer within 0.2 s" in refused(channel).reason


# Opening.

ENABLED = {
    "log": False,
    "telegram": {"enabled": True, "chat_id": -5, "base_url": "https://telegram.example"},
    "slack": {"enabled": True},
    "webhook": {"enabled": True},
    "email": {"enabled": True, "recipients": ["a@x"], "sender": "k@x"},
}
ENVIRON = {
    "TELEGRAM_BOT_TOKEN": "1:abcdefghij\n",
    "SLACK_WEBHOOK": "https://hooks.example/a",
    "KAMERTON_ALERT_WEBHOOK": "http://localhost:1/b",
    "SMTP_USER": "me",
    "SMTP_PASSWORD": "pw",
}


def test_channels_are_those_that_are_enabled() -> None:
    everything = open_channels(AlertParams.model_validate(ENABLED), ENVIRON)
    assert [channel.name for channel in everything] == ["telegram", "slack", "webhook", "e-mail"]
    assert everything[0].secrets()[0] == "1:abcdefghij"
    assert [channel.name for channel in open_channels(AlertParams(), {})] == ["log"]
    assert open_channels(AlertParams(log=False), {}) == []


@pytest.mark.parametrize("missing", ENVIRON.keys() - {"SMTP_USER"})
def test_a_variable_that_is_missing_is_named(missing: str) -> None:
    environ = {name: value for name, value in ENVIRON.items() if name != missing}
    with pytest.raises(ParamsError, match=f"{missing} is not set"):
        require_alerts(AlertParams.model_validate(ENABLED), environ)


def test_all_faults_are_told_at_once_and_no_value() -> None:
    params = {**ENABLED, "telegram": {"enabled": True, "base_url": "http://plain.example"},
              "email": {"enabled": True, "host": "mail.example", "starttls": False}}  # fmt: skip
    environ = {**ENVIRON, "SLACK_WEBHOOK": "http://hooks.example/s3cret",
               "TELEGRAM_BOT_TOKEN": "s3cret/../x y"}  # fmt: skip
    with pytest.raises(ParamsError) as caught:
        require_alerts(AlertParams.model_validate(params), environ)
    text = f"{caught.value.message} {caught.value.hint}"
    for part in ("chat_id", "base_url", "SLACK_WEBHOOK", "TELEGRAM_BOT_TOKEN", "recipients",
                 "sender", "starttls is off"):  # fmt: skip
        assert part in text
    assert "s3cret" not in text


# Secrets: all failures, with everything that anybody could see of them.

SECRETS = {"telegram": TOKEN, "webhook": "S3cret Path/+x=y&z", "slack": "T0aaaaaa/B0bbbbbb/S3cr3t",
           "e-mail": "p ss/w0rd+=&<>\"'"}  # fmt: skip


def exposed(text: str, secret: str) -> bool:
    """Whether ``secret`` stands in a text: as it is, quoted, or in anything that is base64."""
    texts = [text, urllib.parse.unquote(text), urllib.parse.unquote_plus(text)]
    if any(secret in each for each in texts):
        return True
    for each in texts:
        for run in re.findall(r"[A-Za-z0-9+/_-]{8,}", each):
            for start in range(4):
                piece = run[start:].replace("-", "+").replace("_", "/")
                piece = piece[:-1] if len(piece) % 4 == 1 else piece
                piece += "=" * (-len(piece) % 4)
                if secret.encode() in base64.b64decode(piece):
                    return True
    return False


def test_the_search_for_secrets_finds_them() -> None:
    secret = "p ss/wörd+=&"
    encoded = base64.b64encode(b"me:" + secret.encode()).decode()
    for text in (f"x{secret}y", urllib.parse.quote(secret), urllib.parse.quote_plus(secret),
                 f"Basic {encoded}", f"?q={encoded}"):  # fmt: skip
        assert exposed(text, secret)
    assert not exposed("nothing here at all " * 5, secret)


def _quick(**changes: Any) -> AlertPolicy:
    given = {"per_minute": 1000, "dedupe_seconds": 0.0, "backoff_seconds": 0.01, "attempts": 2,
             "flush_seconds": 1.0, **changes}  # fmt: skip
    return AlertPolicy(**given)


def _all_channels(server: Server, mail: MailServer, timeout: float) -> list[Channel]:
    path = urllib.parse.quote(SECRETS["webhook"], safe="/")
    channels: list[Channel] = [
        TelegramChannel(Secret(TOKEN), CHAT, server.url, timeout),
        WebhookChannel(Secret(f"{server.url}/in/{path}"), timeout),
        SlackChannel(Secret(f"{server.url}/services/{SECRETS['slack']}"), timeout),
        EmailChannel("127.0.0.1", mail.port, "k@x", ["a@x"], timeout, starttls=False,
                     user="me", password=Secret(SECRETS["e-mail"])),
    ]  # fmt: skip
    for channel in channels:
        channel.spacing_seconds = 0.0
    return channels


_ECHO = json.dumps({"ok": False, "description": f"bad bot{TOKEN}", "url": SECRETS["slack"]})


@pytest.mark.parametrize(
    "reply",
    [
        Reply(how="hang"), Reply(how="close"), Reply(how="drip"), Reply(500, _ECHO.encode()),
        Reply(429, _ECHO.encode(), {"Retry-After": "0"}), Reply(404, _ECHO.encode()),
        Reply(302, b"", {"Location": f"https://evil.example/{TOKEN}"}), Reply(200, b"\xff{"),
        Reply(200, b"", {"Content-Length": "bad"}),
    ],
    ids=lambda reply: f"{reply.how}-{reply.status}-{len(reply.headers)}",
)  # fmt: skip
def test_no_failure_tells_a_secret(
    reply: Reply, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], run: Path
) -> None:
    seen = io.StringIO()
    password = SECRETS["e-mail"]
    echo = {"AUTH": f"535 no {base64.b64encode(password.encode()).decode()}"}
    caplog.set_level(logging.DEBUG)
    with serving(usual=reply) as server, mail_server(answers=echo) as mail:
        channels = _all_channels(server, mail, timeout=0.1)
        manager = AlertManager(channels, _quick(), run="r1")
        told = f"{TOKEN} {SECRETS['slack']} {password} {base64.b64encode(TOKEN.encode()).decode()}"
        files = (Newest(run / "figures", "*.png"),)
        manager.emit("failed", told, {"why": told}, step=1, files=files)
        manager.flush(3)
        manager.close()
        message = Message(kind="failed", text=told, run="r1", step=1)
        for channel in channels:
            print(channel, repr(channel), vars(channel), file=seen)
            if (error := outcome(channel, message)) is not None:
                assert error.__context__ is None
                traceback.print_exception(error, file=seen)
                print(repr(error), error.args, file=seen)
        print(manager.counts(), manager._mask, file=seen)
    out = capfd.readouterr()
    text = f"{seen.getvalue()}\n{caplog.text}\n{out.out}\n{out.err}"
    assert manager.counts().sent + manager.counts().failed == len(channels)
    for secret in SECRETS.values():
        assert not exposed(text, secret), secret
    assert "S3cret%20Path" not in text
    # What others are told is masked, too; mail alone was never sent here.
    for request in server.requests[:3]:
        for name, secret in SECRETS.items():
            if name != "telegram" or "bot" not in request.path:
                assert not exposed(request.body.decode("utf-8", "replace"), secret)


def test_a_secret_does_not_go_into_files() -> None:
    secret = Secret("hunter2")
    assert f"{secret} {secret!r} {[secret]} {secret:}" == "*** *** [***] ***"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_the_newest_file_is_that_of_the_last_step(tmp_path: Path) -> None:
    newest = Newest(tmp_path, "*.png")
    assert newest.read() is None
    for name in ("attention-00000900.png", "attention-00001000.png", "attention-100000000.png"):
        (tmp_path / name).write_bytes(name.encode())
    found = newest.read()
    assert found is not None
    assert (found.step, found.data) == (100000000, b"attention-100000000.png")
    assert Newest(tmp_path / "none", "*").read() is None
