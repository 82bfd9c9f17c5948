"""`kamerton alerts`: see whether alerts arrive before a run depends on them."""

import time
from typing import Annotated

import typer

from kamerton.cli.help_text import flowing
from kamerton.cli.output import narrate, print_json, print_pairs
from kamerton.cli.stage_commands import Overrides, ParamsFile
from kamerton.config.loading import load_params
from kamerton.core.errors import ParamsError, PipelineError

alerts_app = typer.Typer(help="Try the alerts of a project.", no_args_is_help=True)

_EPILOG = (
    "Example: kamerton alerts test -S tracking.alerts.telegram.enabled=true "
    "-S tracking.alerts.telegram.chat_id=-1001234567890. "
    "Next: kamerton train tells you what happens"
)


@alerts_app.callback()
def _group() -> None:
    """Try the alerts of a project."""


@alerts_app.command("test", epilog=_EPILOG)
@flowing
def try_alerts(
    params: ParamsFile = None,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be sent, secrets masked.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Send one message by every channel that is enabled, and say what became of it.

    Tokens and addresses are read from the environment variables that the parameters name. Ends
    with 0 if all took it, 1 if one did not, and 3 if something is missing or nothing is enabled.
    """
    from kamerton.smart_tuner.channels.message import Message, one_line
    from kamerton.smart_tuner.channels.opening import open_channels
    from kamerton.smart_tuner.channels.trial import try_channels

    given = load_params(params, overrides=overrides or []).tracking.alerts
    channels = [channel for channel in open_channels(given) if channel.limited]
    if not channels:
        raise ParamsError(
            "no channel is enabled: alerts go to the log alone.",
            hint="set tracking.alerts.telegram.enabled: true, or another channel's",
        )
    message = Message(kind="test", text="alerts of this project arrive here", time=time.time())
    outcomes = try_channels(channels, message, dry=dry_run)
    if as_json:
        print_json({"dry_run": dry_run, "channels": [outcome.as_dict() for outcome in outcomes]})
    elif dry_run:
        print_pairs((each.channel, request) for each in outcomes for request in each.requests)
        narrate("nothing was sent")
    else:
        print_pairs(
            (each.channel, "sent" if each.sent else one_line(f"failed: {each.reason}"))
            for each in outcomes
        )
    failed = [outcome.channel for outcome in outcomes if not outcome.sent]
    if failed and not dry_run:
        raise PipelineError(
            f"no alert arrived by: {', '.join(failed)}.",
            hint="see docs/how-to/alerts.md for what each channel needs",
        )
