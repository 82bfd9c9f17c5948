"""The parameters of what steers a run, of the generations, and of the alerts."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kamerton.config.section import Section, Share

_Variable = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]


class QualityControlParams(Section):
    """What is done about faults that evaluations show, one bounded intervention at a time."""

    enabled: bool | None = Field(None, description="null: off, in quality on")
    interval_evaluations: int = Field(2, ge=1, description="evaluations between two looks")
    cooldown_evaluations: int = Field(
        6, ge=1, description="evaluations after an intervention before the next"
    )
    trial_evaluations: int = Field(
        4,
        ge=1,
        description="evaluations after which its effect is judged, and it is kept or undone",
    )
    max_factor: float = Field(
        4.0,
        gt=1.0,
        description="bound of what all interventions make of one value, and its inverse",
    )
    gradient_norm: float = Field(
        10.0, gt=0.0, description="gradient norm from which a step may be unstable"
    )
    gradient_factor: float = Field(
        5.0, gt=1.0, description="times the usual norm from which it is, three steps in a row"
    )

    def resolved(self, preset: str) -> Self:
        """The same with the preset's value where ``enabled`` is null."""
        enabled = preset == "quality" if self.enabled is None else self.enabled
        return self.model_copy(update={"enabled": enabled})


class BatchSizeParams(Section):
    """Larger batches where training is steady, smaller ones where it is not."""

    enabled: bool = Field(False, description="the batch size follows the training")
    increase_threshold: Share = Field(
        0.95, description="steadiness of the last 50 losses from which the batch grows by a quarter"
    )
    decrease_threshold: float = Field(
        2.0, gt=1.0, description="gradient norm over its median from which it shrinks by a fifth"
    )
    min_batch_size: int = Field(4, ge=1, description="it does not shrink below")
    max_batch_size: int = Field(48, ge=1, description="it does not grow above")

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.min_batch_size > self.max_batch_size:
            raise ValueError("min_batch_size must not be greater than max_batch_size")
        return self


class GenerationParams(Section):
    """The warm loop of the tuner: few long generations, each against an unchanged control."""

    count: int = Field(2, ge=0, le=20, description="generations after the trials; 0: none")
    candidates: int = Field(
        3, ge=2, le=16, description="runs per generation, the unchanged control among them"
    )
    length_share: float = Field(
        0.2, gt=0.0, le=0.5, description="length of a generation as a share of tune.trial_steps"
    )
    probe_share: float = Field(
        0.25, gt=0.0, le=1.0,
        description="cool-down before the comparison, as a share of a generation",
    )  # fmt: skip
    min_gain_sigmas: float = Field(
        2.0, ge=0.0, description="standard deviations by which a change must beat the control"
    )


class TelegramParams(Section):
    """A Telegram bot."""

    enabled: bool = Field(False, description="send alerts by Telegram")
    token_variable: _Variable = Field(
        "TELEGRAM_BOT_TOKEN", description="environment variable that holds the bot's token"
    )
    chat_id: str = Field(
        "", coerce_numbers_to_str=True, description="the chat to write to: its number, or @name"
    )
    base_url: str = Field("https://api.telegram.org", description="the Bot API's address")


class SlackParams(Section):
    """A Slack webhook."""

    enabled: bool = Field(False, description="send alerts to Slack")
    webhook_variable: _Variable = Field(
        "SLACK_WEBHOOK", description="environment variable that holds the webhook's whole URL"
    )


class EmailParams(Section):
    """A mail server."""

    enabled: bool = Field(False, description="send alerts by e-mail")
    recipients: tuple[str, ...] = Field((), description="who gets them")
    sender: str = Field("", description="the address they come from")
    host: str = Field("localhost", description="the mail server")
    port: int = Field(587, ge=1, le=65535, description="port of the mail server")
    starttls: bool = Field(
        True, description="encrypt before the login; port 465 is encrypted from its beginning"
    )
    user_variable: _Variable = Field(
        "SMTP_USER", description="environment variable that holds the user; unset: no login"
    )
    password_variable: _Variable = Field(
        "SMTP_PASSWORD", description="environment variable that holds the password"
    )


class WebhookParams(Section):
    """Any server that takes JSON."""

    enabled: bool = Field(False, description="send alerts as JSON by POST")
    url_variable: _Variable = Field(
        "KAMERTON_ALERT_WEBHOOK", description="environment variable that holds the URL"
    )


AlertKind = Literal[
    "started", "restarted", "phase", "milestone", "nan", "explosion", "collapse", "recovery",
    "stop", "best", "done", "failed", "report", "sample",
]  # fmt: skip


class AlertParams(Section):
    """Who is told what; secrets are only ever read from the environment."""

    events: tuple[AlertKind, ...] = Field(
        ("started", "restarted", "phase", "milestone", "nan", "explosion", "collapse", "recovery",
         "stop", "done", "failed", "report", "sample"),
        description="what is told",
    )  # fmt: skip
    report_interval_steps: int = Field(
        1000, ge=1, description="steps between reports with figures and a picture of attention"
    )
    sample_interval_steps: int = Field(5000, ge=1, description="steps between samples of speech")
    log: bool = Field(True, description="write alerts into the log, too")
    timeout_seconds: float = Field(
        10.0, gt=0.0, le=120.0, description="how long one request may take"
    )
    attempts: int = Field(3, ge=1, le=10, description="tries per request")
    max_per_minute: int = Field(20, ge=1, description="requests per channel and minute")
    dedupe_seconds: float = Field(
        300.0, ge=0.0, description="equal alerts within it are counted, and told of as one"
    )
    telegram: TelegramParams = Field(default_factory=TelegramParams, description="Telegram")
    slack: SlackParams = Field(default_factory=SlackParams, description="Slack")
    email: EmailParams = Field(default_factory=EmailParams, description="e-mail")
    webhook: WebhookParams = Field(default_factory=WebhookParams, description="a webhook")
