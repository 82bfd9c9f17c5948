"""`kamerton export`: a dataset as loose files for other programs."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from kamerton.cli.output import print_json, print_pairs
from kamerton.core.progress import shown_progress

_Format = Literal["ljspeech", "nemo", "hf-audiofolder"]


class _Split(StrEnum):
    """Lists of literals are more than the option parser knows."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


def add_export_command(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "export",
        rich_help_panel="Project",
        epilog="Example: kamerton export --format ljspeech -o export --rate 16000",
    )(export)


def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    form: Annotated[_Format, typer.Option("--format", help="What is to read it.")] = "ljspeech",
    dataset: Annotated[Path, typer.Option("--dataset", help="Dataset folder.")] = Path(
        "data/dataset"
    ),
    split: Annotated[
        list[_Split] | None,
        typer.Option("--split", help="Only this split; repeatable.", show_default="all of them"),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option("--rate", metavar="HZ", help="Resample.", show_default="as it is"),
    ] = None,
    sound: Annotated[
        Literal["wav", "flac"], typer.Option("--sound", help="Kind of the sound files.")
    ] = "wav",
    audio_root: Annotated[
        str | None,
        typer.Option(
            "--audio-root",
            help="Put before file names in NeMo's manifests, such as the folder's absolute path.",
            show_default="relative to the manifest",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Write a dataset as loose sound files, with tables for LJSpeech, NeMo or Hugging Face."""
    from kamerton.data.export import Wish, export_dataset
    from kamerton.data.manifest import SPLITS

    chosen = tuple(name for name in SPLITS if not split or name in split)
    wish = Wish(form, chosen, rate, sound, audio_root)
    with shown_progress("export", quiet=quiet) as progress:
        done = export_dataset(dataset, output, wish, force=force, on_progress=progress)
    if as_json:
        print_json(done.as_dict())
    else:
        print_pairs([(name, str(value)) for name, value in done.as_dict().items()])
