"""`kamerton alerts test`: what it sends, what it says, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from kamerton.cli import main
from tests.unit.smart_tuner.alert_servers import Reply, serving

TOKEN = "1234567:s3cr3t-s3cr3t"


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> object:
    monkeypatch.chdir(tmp_path)
    for name in ("SLACK_WEBHOOK", "TELEGRAM_BOT_TOKEN", "KAMERTON_ALERT_WEBHOOK"):
        monkeypatch.delenv(name, raising=False)

    def run(alerts: dict[str, object], *arguments: str, **environ: str) -> tuple[int, str, str]:
        text = yaml.safe_dump({"tracking": {"alerts": alerts}})
        (tmp_path / "params.yaml").write_text(text)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        code = main.exit_code(["alerts", "test", "--params", "params.yaml", *arguments])
        captured = capfd.readouterr()
        assert "s3cr3t" not in captured.out + captured.err
        return code, captured.out, captured.err

    return run


def both(url: str) -> dict[str, object]:
    telegram = {"enabled": True, "chat_id": -7, "base_url": url}
    return {"telegram": telegram, "slack": {"enabled": True}, "timeout_seconds": 0.5}


def test_one_message_goes_by_every_channel(call) -> None:  # type: ignore[no-untyped-def]
    with serving() as server:
        hook = f"{server.url}/services/s3cr3t-s3cr3t"
        code, out, _ = call(both(server.url), TELEGRAM_BOT_TOKEN=TOKEN, SLACK_WEBHOOK=hook)
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [["telegram", "sent"], ["slack", "sent"]]
    first, second = server.requests
    assert first.path == f"/bot{TOKEN}/sendMessage"
    assert first.json()["chat_id"] == "-7"
    assert second.path == "/services/s3cr3t-s3cr3t"


def test_a_channel_that_fails_is_told_with_its_reason(call) -> None:  # type: ignore[no-untyped-def]
    said = b'{"ok": false, "description": "chat not found"}'
    with serving(Reply(400, said)) as server:
        hook = f"{server.url}/services/s3cr3t-s3cr3t"
        environ = {"TELEGRAM_BOT_TOKEN": TOKEN, "SLACK_WEBHOOK": hook}
        code, out, err = call(both(server.url), "--json", **environ)
    assert code == 1
    telegram, slack = json.loads(out)["channels"]
    assert (telegram["sent"], slack["sent"]) == (False, True)
    assert telegram["reason"] == "HTTP 400, chat not found"
    assert not telegram["temporary"]
    assert "no alert arrived by: telegram." in err
    assert len(server.requests) == 2  # one try each


def test_a_dry_run_shows_everything_and_sends_nothing(call) -> None:  # type: ignore[no-untyped-def]
    with serving() as server:
        hook = f"{server.url}/services/s3cr3t-s3cr3t"
        environ = {"TELEGRAM_BOT_TOKEN": TOKEN, "SLACK_WEBHOOK": hook}
        code, out, err = call(both(server.url), "--dry-run", **environ)
    assert code == 0
    assert not server.requests
    assert f"POST {server.url}/bot***/sendMessage" in out
    assert "nothing was sent" in err


def test_what_is_missing_is_named(call) -> None:  # type: ignore[no-untyped-def]
    code, _, err = call(both("http://127.0.0.1:1"), TELEGRAM_BOT_TOKEN=TOKEN)
    assert code == 3
    assert "the environment variable SLACK_WEBHOOK is not set" in err


def test_without_a_channel_there_is_nothing_to_try(call) -> None:  # type: ignore[no-untyped-def]
    code, _, err = call({})
    assert code == 3
    assert "no channel is enabled" in err
