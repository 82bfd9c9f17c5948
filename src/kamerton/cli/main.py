"""The `kamerton` command: wiring, and the one place where errors become messages and exit codes."""

import errno
import sys
from typing import Annotated

import typer
from typer.exceptions import Abort, Exit, TyperException

from kamerton import __version__
from kamerton.cli.alerts import alerts_app
from kamerton.cli.auto import add_auto_command
from kamerton.cli.cache import cache_app
from kamerton.cli.corrections import add_corrections_command
from kamerton.cli.export import add_export_command
from kamerton.cli.merge import add_merge_command
from kamerton.cli.output import narrate, print_error
from kamerton.cli.params import params_app
from kamerton.cli.pipeline import pipeline_app
from kamerton.cli.project import add_project_commands
from kamerton.cli.runs import runs_app
from kamerton.cli.stage_commands import add_stage_commands, join_section_pairs
from kamerton.cli.voice import add_voice_commands
from kamerton.core.errors import INTERRUPTED_EXIT_CODE, PipelineError, UsageError

# What the system refuses is no bug: it needs a message, not a traceback.
_OTHER_PLACE = "give it a place that you may read and write, or change its permissions"
_MORE_SPACE = "free some space: `kamerton doctor` shows how much there is"
_REFUSALS = {
    errno.EACCES: _OTHER_PLACE,
    errno.EPERM: _OTHER_PLACE,
    errno.EROFS: _OTHER_PLACE,
    errno.ENOTDIR: "a part of that path is a file: name another path",
    errno.ENOSPC: _MORE_SPACE,
    errno.EDQUOT: _MORE_SPACE,
}

app = typer.Typer(
    name="kamerton",
    help="From a folder of raw recordings to a served text-to-speech voice.",
    epilog="Start with `kamerton demo`, or `kamerton init my-voice` for your own recordings.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
add_stage_commands(app)
add_auto_command(app)
add_project_commands(app)
add_corrections_command(app)
add_merge_command(app)
add_voice_commands(app)
add_export_command(app)
app.add_typer(params_app, name="params", rich_help_panel="Project")
app.add_typer(alerts_app, name="alerts", rich_help_panel="Project")
app.add_typer(cache_app, name="cache", rich_help_panel="Project")
app.add_typer(runs_app, name="runs", rich_help_panel="Project")
app.add_typer(pipeline_app, name="pipeline", rich_help_panel="Kubernetes")


def _print_version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    del version


def run(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(exit_code(arguments))


def exit_code(arguments: list[str] | None = None) -> int:
    """Run the command line; every failure that is not a bug ends as a message and a code."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        result = app(join_section_pairs(given), standalone_mode=False)
    except PipelineError as error:
        print_error(error)
        return error.exit_code
    except Exit as stop:
        return stop.exit_code
    except TyperException as error:
        _print_wrong_call(error)
        return UsageError.exit_code
    except (KeyboardInterrupt, Abort):
        narrate("interrupted")
        return INTERRUPTED_EXIT_CODE
    except OSError as error:
        _print_refusal(error)
        return PipelineError.exit_code
    return result if isinstance(result, int) else 0


def _print_refusal(error: OSError) -> None:
    """Say what the system refused; a reader of our output that went away wants no message."""
    hint = _REFUSALS.get(error.errno or 0)
    if isinstance(error, BrokenPipeError):
        return
    if hint is None:
        raise error
    print_error(PipelineError(f"{error.filename or 'a file'}: {error.strerror}.", hint=hint))


def _print_wrong_call(error: TyperException) -> None:
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":  # a private class; its message is the help
        narrate(message)
        return
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "kamerton"
    print_error(UsageError(message, hint=f"`{command} --help` lists what it takes"))
