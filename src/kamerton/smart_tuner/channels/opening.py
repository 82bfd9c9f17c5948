"""From the parameters and the environment to channels; what is missing is said before any work."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from kamerton.config.tuner_sections import AlertParams, EmailParams, TelegramParams
from kamerton.core.errors import ParamsError
from kamerton.smart_tuner.channels.delivery import Channel
from kamerton.smart_tuner.channels.http import address_fault, is_loopback
from kamerton.smart_tuner.channels.log import LogChannel
from kamerton.smart_tuner.channels.mail import TLS_PORT, EmailChannel
from kamerton.smart_tuner.channels.secret import Secret
from kamerton.smart_tuner.channels.telegram import TelegramChannel
from kamerton.smart_tuner.channels.webhooks import SlackChannel, WebhookChannel

_TOKEN = re.compile(r"[\w:.-]+")  # it becomes a part of an address
_AT = "tracking.alerts"


def require_alerts(params: AlertParams, environ: Mapping[str, str] | None = None) -> None:
    """Refuse alerts that could not be sent.

    Raises:
        ParamsError: a variable or a key is missing or wrong; all of them are named, no value is.
    """
    environ = os.environ if environ is None else environ
    faults = [
        *_telegram_faults(params.telegram, environ),
        *_address_faults("slack", params.slack.enabled, params.slack.webhook_variable, environ),
        *_address_faults("webhook", params.webhook.enabled, params.webhook.url_variable, environ),
        *_email_faults(params.email, environ),
    ]
    if faults:
        raise ParamsError(
            "alerts cannot be sent: " + "; ".join(faults) + ".",
            hint="set what is named (export NAME=…), or turn that channel off (enabled: false)",
        )


def open_channels(params: AlertParams, environ: Mapping[str, str] | None = None) -> list[Channel]:
    """The channels that are enabled; nothing is sent yet.

    Raises:
        ParamsError: see ``require_alerts``.
    """
    environ = os.environ if environ is None else environ
    require_alerts(params, environ)
    timeout = params.timeout_seconds
    channels: list[Channel] = [LogChannel()] if params.log else []
    telegram, slack, webhook = params.telegram, params.slack, params.webhook
    if telegram.enabled:
        token = Secret(_value(environ, telegram.token_variable))
        channels.append(TelegramChannel(token, telegram.chat_id, telegram.base_url, timeout))
    if slack.enabled:
        channels.append(SlackChannel(Secret(_value(environ, slack.webhook_variable)), timeout))
    if webhook.enabled:
        channels.append(WebhookChannel(Secret(_value(environ, webhook.url_variable)), timeout))
    if params.email.enabled:
        channels.append(_email(params.email, environ, timeout))
    return channels


def _email(params: EmailParams, environ: Mapping[str, str], timeout: float) -> EmailChannel:
    user = _value(environ, params.user_variable)
    password = Secret(_value(environ, params.password_variable)) if user else None
    return EmailChannel(
        params.host, params.port, params.sender, params.recipients, timeout,
        starttls=params.starttls, user=user, password=password,
    )  # fmt: skip


def _value(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "").strip()  # files of secrets often end with a line end


def _telegram_faults(params: TelegramParams, environ: Mapping[str, str]) -> list[str]:
    if not params.enabled:
        return []
    faults, token = [], _value(environ, params.token_variable)
    if not token:
        faults.append(f"the environment variable {params.token_variable} is not set")
    elif not _TOKEN.fullmatch(token):
        faults.append(f"{params.token_variable} holds what is no token of a bot")
    if not params.chat_id:
        faults.append(f"{_AT}.telegram.chat_id is empty")
    if fault := address_fault(params.base_url):
        faults.append(f"{_AT}.telegram.base_url {fault}")
    return faults


def _address_faults(
    name: str, enabled: bool, variable: str, environ: Mapping[str, str]
) -> list[str]:
    if not enabled:
        return []
    address = _value(environ, variable)
    if not address:
        return [f"the environment variable {variable} is not set ({_AT}.{name})"]
    fault = address_fault(address)
    return [f"the address in {variable} {fault} ({_AT}.{name})"] if fault else []


def _email_faults(params: EmailParams, environ: Mapping[str, str]) -> list[str]:
    if not params.enabled:
        return []
    faults = []
    if not params.recipients:
        faults.append(f"{_AT}.email.recipients is empty")
    if not params.sender:
        faults.append(f"{_AT}.email.sender is empty")
    addresses = [*params.recipients, params.sender]
    if any(not address.isprintable() or "," in address for address in addresses):
        faults.append(f"{_AT}.email holds what is no address")
    user = _value(environ, params.user_variable)
    if user and not _value(environ, params.password_variable):
        faults.append(
            f"the environment variable {params.password_variable} is not set, "
            f"but {params.user_variable} is"
        )
    if not f"{user}{_value(environ, params.password_variable)}".isascii():
        faults.append(f"the login in {params.user_variable} has letters that SMTP does not take")
    encrypted = params.starttls or params.port == TLS_PORT
    if user and not encrypted and not is_loopback(params.host):
        faults.append(f"{_AT}.email.starttls is off: the password would not be encrypted")
    return faults
