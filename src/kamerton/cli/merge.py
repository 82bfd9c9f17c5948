"""`kamerton merge`: join what several machines made of parts of the recordings."""

from pathlib import Path
from typing import Annotated

import typer

from kamerton.cli.output import print_json, print_pairs
from kamerton.core.errors import UsageError
from kamerton.core.files import output_directory, require_apart, require_new, write_jsonl

_CLIPS = Path("data/clips")


def add_merge_command(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "merge",
        rich_help_panel="Project",
        epilog="Example: kamerton merge --clips parts/0 --clips parts/1 -o data/clips. "
        "Next: kamerton transcribe",
    )(merge)


def merge(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder or transcripts.jsonl to write.")
    ],
    clips: Annotated[
        list[Path] | None,
        typer.Option(
            "--clips",
            help="Clips folder of one part; repeat it. With --transcripts: the merged clips "
            f"(default {_CLIPS}).",
            show_default=False,
        ),
    ] = None,
    transcripts: Annotated[
        list[Path] | None,
        typer.Option(
            "--transcripts", help="transcripts.jsonl of one part; repeat it.", show_default=False
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="HTML page on the whole to write.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace outputs that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Join the results of `segment --shard I/N`, or of transcribing them.

    The outcome is what one machine would have written, byte for byte.
    """
    if transcripts:
        _merge_transcripts(transcripts, clips or [_CLIPS], output, force=force, as_json=as_json)
    elif clips:
        _merge_clips(clips, output, report, force=force, as_json=as_json)
    else:
        raise UsageError("There is nothing to merge.", hint="name each part: --clips FOLDER")


def _merge_clips(
    parts: list[Path], output: Path, report: Path | None, *, force: bool, as_json: bool
) -> None:
    from kamerton.data.merging import merge_clips
    from kamerton.data.tables import AUDIO_FOLDER
    from kamerton.stages.segment import SegmentReport, write_report

    require_apart(output, *parts, inside=False)
    if report is not None:
        require_new(report, force=force)
        require_apart(report, *parts)
    with output_directory(output, force=force) as folder:
        (folder / AUDIO_FOLDER).mkdir()
        tables = merge_clips(parts, folder)
        result = SegmentReport.of(tables)
        if report is not None:
            write_report(report, result, tables)
    if as_json:
        print_json({"output": str(output), "metrics": result.metrics(), "partial": result.partial})
    else:
        print_pairs(result.summary())


def _merge_transcripts(
    parts: list[Path], clips: list[Path], output: Path, *, force: bool, as_json: bool
) -> None:
    from kamerton.data.merging import merge_transcripts

    if len(clips) > 1:
        raise UsageError(
            "Transcripts are joined for one clips folder, the merged one.",
            hint="merge the clips first, then name that folder: --clips FOLDER",
        )
    require_new(output, force=force)
    require_apart(output, *parts, clips[0])
    rows = merge_transcripts(parts, clips[0])
    write_jsonl(output, rows)
    if as_json:
        print_json({"output": str(output), "transcripts": len(rows)})
    else:
        print_pairs([("transcripts", str(len(rows)))])
