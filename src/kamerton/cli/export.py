"""`kamerton export`: a dataset as loose files for other programs, a voice as ONNX graphs."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from kamerton.cli.output import print_json, print_pairs
from kamerton.core.progress import shown_progress

_Format = Literal["ljspeech", "nemo", "hf-audiofolder", "onnx"]


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
        epilog="Examples: kamerton export --format ljspeech -o export --rate 16000, "
        "kamerton export --format onnx -o models/voice-onnx",
    )(export)


def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    form: Annotated[_Format, typer.Option("--format", help="What is to read it.")] = "ljspeech",
    dataset: Annotated[Path, typer.Option("--dataset", help="Dataset folder.")] = Path(
        "data/dataset"
    ),
    model: Annotated[Path, typer.Option("--model", help="Voice folder, for onnx.")] = Path(
        "models/voice"
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
    """Write a dataset as loose sound files with tables, or a voice as graphs for ONNX Runtime."""
    if form == "onnx":
        _export_voice(model, output, force=force, as_json=as_json)
        return
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


def _export_voice(model: Path, output: Path, *, force: bool, as_json: bool) -> None:
    from kamerton.model.onnx.export import export_onnx

    compared = export_onnx(model, output, force=force)
    if as_json:
        print_json([asdict(item) for item in compared])
        return
    for item in compared:
        print_pairs(
            [
                ("decoder step", item.precision),
                ("log-mel difference", f"{item.mel_difference_typical:.2g} typically, "
                 f"{item.mel_difference:.2g} at most"),
                ("diagonality", f"{item.diagonality:.2f}; PyTorch {item.torch_diagonality:.2f}"),
            ]
        )  # fmt: skip
