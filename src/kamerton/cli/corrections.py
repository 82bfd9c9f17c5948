"""`kamerton corrections`: a sheet of the clips that a person should listen to."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from kamerton.cli.output import narrate, print_json, print_pairs
from kamerton.core.files import read_jsonl, require_new, write_text
from kamerton.core.progress import shown_progress

if TYPE_CHECKING:
    from kamerton.data.given_texts.sheet import SheetRow

_EPILOG = (
    "Example: kamerton corrections --html reports/corrections.html. "
    "Next: save it as corrections.csv beside your recordings, then dvc repro"
)


def add_corrections_command(app: typer.Typer) -> None:
    """Add the command that writes the sheet."""
    app.command("corrections", rich_help_panel="Project", epilog=_EPILOG)(corrections)


def corrections(
    clips: Annotated[Path, typer.Option("--clips", help="Folder of clips.")] = Path("data/clips"),
    transcripts: Annotated[
        Path, typer.Option("--transcripts", help="transcripts.jsonl of those clips.")
    ] = Path("data/transcripts.jsonl"),
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV sheet to write.")] = Path(
        "reports/corrections.csv"
    ),
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Also write a page to listen, correct and save the CSV."),
    ] = None,
    only: Annotated[
        Literal["doubtful", "all"],
        typer.Option("--only", help="Doubtful: refused, unsure, or unlike a given text."),
    ] = "doubtful",
    below: Annotated[
        float,
        typer.Option("--below", help="Kept clips of lower mean log probability are doubtful."),
    ] = -0.7,
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="At most so many, worst first; 0 is all.")
    ] = 100,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Write a sheet of doubtful transcripts to correct by ear, worst first.

    Correct the column text, or empty it to drop the clip, and save the sheet as corrections.csv
    beside your recordings. A line counts if its text differs from the column recognised, or if its
    column accept says yes; lines that you did not touch stay as they were recognised. Earlier
    corrections are in the sheet again, so that it can replace the file they came from.
    """
    from kamerton.data.given_texts.sheet import choose_rows, render_sheet
    from kamerton.data.tables import read_clips, read_transcripts

    for path in filter(None, (output, html)):
        require_new(path, force=force)
    cut = read_clips(clips)
    read_transcripts(transcripts)  # names the line of a row that is wrong
    answers = {row["id"]: row for row in read_jsonl(transcripts, produced_by="transcribe")}
    rows = choose_rows(cut, answers, only=only, below=below, limit=limit or None)
    if html is not None:
        from kamerton.data.given_texts.sheet_page import render_sheet_page

        with shown_progress("corrections", quiet=quiet) as progress:
            write_text(html, render_sheet_page(clips, rows, progress))
    write_text(output, render_sheet(rows))
    _tell(_result(rows, output, html), as_json=as_json, quiet=quiet)


def _result(rows: Sequence["SheetRow"], output: Path, html: Path | None) -> dict[str, Any]:
    earlier = sum(row.accepted for row in rows)
    return {
        "to_correct": len(rows) - earlier,
        "corrected_earlier": earlier,
        "sheet": str(output),
        "page": str(html) if html else None,
    }


def _tell(result: dict[str, Any], *, as_json: bool, quiet: bool) -> None:
    if as_json:
        print_json(result)
        return
    shown = {name.replace("_", " "): value for name, value in result.items() if value is not None}
    print_pairs((name, str(value)) for name, value in shown.items())
    if not result["to_correct"]:
        narrate("nothing is doubtful; --only all lists every clip")
    elif not quiet:
        narrate("next: save it as corrections.csv beside your recordings, then dvc repro")
