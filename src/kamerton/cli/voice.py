"""`kamerton say`: hear the champion."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from kamerton.cli.output import narrate, print_json
from kamerton.cli.stage_commands import Overrides, ParamsFile
from kamerton.config.loading import load_params
from kamerton.core.files import require_new


def add_voice_commands(app: typer.Typer) -> None:
    """Add the commands that speak."""
    app.command(
        "say",
        rich_help_panel="Voice",
        epilog='Example: kamerton say "the red river runs" -o out.wav. Next: kamerton runs list',
    )(say)


def say(
    text: Annotated[str, typer.Argument(help="What to say, in the voice's language.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="WAV file to write.")] = Path(
        "voice.wav"
    ),
    model: Annotated[
        Path | None,
        typer.Option("--model", help="An exported model folder instead of the champion."),
    ] = None,
    engine: Annotated[
        Literal["auto", "torch", "onnx", "onnx-int8"],
        typer.Option("--engine", help="What runs the voice; auto: what its folder was made for."),
    ] = "auto",
    speaker: Annotated[
        str | None,
        typer.Option("--speaker", help="Who speaks, in a voice of several; default: its first."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    params: ParamsFile = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Speak a text with the registry's champion (or a given model) into a WAV file."""
    from kamerton.serving.synthesizer import speak

    require_new(output, force=force)
    settings = load_params(params, overrides=overrides or [])
    spoken = speak(text, output, model=model, params=settings, speaker=speaker, engine=engine)
    if as_json:
        print_json(spoken.as_dict())
    else:
        print(output)
        narrate(f"{spoken.seconds:.1f} s by {spoken.voice}")
