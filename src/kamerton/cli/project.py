"""Commands around a project: demo, init, doctor, check, measure."""

from pathlib import Path
from typing import Annotated

import typer

from kamerton.cli.output import narrate, print_json, print_pairs
from kamerton.core.errors import InputCorruptError, ToolMissingError
from kamerton.core.progress import shown_progress

_SHOWN_PROBLEMS = 40


def add_project_commands(app: typer.Typer) -> None:
    """Add the commands that make, check and inspect a project."""
    panel = "Project"
    app.command(
        "demo", rich_help_panel=panel, epilog="Next: kamerton say, or kamerton init my-voice"
    )(demo)
    app.command("init", rich_help_panel=panel, epilog="Example: kamerton init my-voice")(init)
    app.command("doctor", rich_help_panel=panel, epilog="Example: kamerton doctor --json")(doctor)
    app.command("check", rich_help_panel=panel, epilog="Example: kamerton check data/dataset")(
        check
    )
    app.command(
        "measure", rich_help_panel=panel, epilog="Example: kamerton measure --truth data/truth"
    )(measure)


def demo(
    corpus_only: Annotated[
        bool,
        typer.Option("--corpus-only", help="Only make the recordings; run `dvc repro` yourself."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the closing table as JSON.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Make the recordings again although they are there.")
    ] = False,
) -> None:
    """Make synthetic recordings, run all eight stages on them and show what came out.

    Works in the repository's root: its params.yaml is the demo's.
    """
    from kamerton.demo.run import make_recordings, reproduce, speak_sample
    from kamerton.demo.table import demo_table

    project = Path.cwd()
    with shown_progress("recordings", quiet=quiet) as progress:
        made = make_recordings(project, force=force, on_progress=progress)
    narrate(made)
    if corpus_only:
        return
    reproduce(project)
    sample = speak_sample(project)
    table = demo_table(project, sample=sample)
    if as_json:
        print_json(dict(table))
    else:
        print("\nKamerton demo")
        print_pairs(table)


def init(
    folder: Annotated[Path, typer.Argument(help="Folder to make the project in.")],
    force: Annotated[
        bool, typer.Option("--force", help="Replace project files that exist.")
    ] = False,
) -> None:
    """Make a voice project: pipeline.py, components, dvc.yaml, params.yaml and a DVC repository."""
    from kamerton.cli.init import make_project

    for line in make_project(folder, force=force):
        narrate(line)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Check everything that the stages need on this machine; each failure comes with its fix."""
    from kamerton.cli.doctor import diagnose

    findings = diagnose(Path.cwd())
    if as_json:
        print_json([finding.as_dict() for finding in findings])
    else:
        for finding in findings:
            fix = f"   fix: {finding.fix}" if finding.fix else ""
            print(f"{finding.status:<5} {finding.name:<18} {finding.detail}{fix}")
    missing = [finding for finding in findings if finding.status == "FAIL"]
    if missing:
        raise ToolMissingError(", ".join(finding.name for finding in missing), hint=missing[0].fix)


def check(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder.")] = Path("data/dataset"),
    deep: Annotated[
        bool, typer.Option("--deep", help="Read and decode every clip as well.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Compare a dataset's tables, card and shards with each other; list all that is wrong."""
    from kamerton.data.validation import check_dataset

    with shown_progress("check", quiet=quiet) as progress:
        found = check_dataset(dataset, deep=deep, on_progress=progress)
    told = found.as_dict()
    if as_json:
        print_json(told)
    else:
        for problem in found.problems[:_SHOWN_PROBLEMS]:
            print(problem)
        if more := len(found.problems[_SHOWN_PROBLEMS:]):
            print(f"and {more} more: --json lists all of them")
        print_pairs([(name, str(told[name])) for name in told if name != "problems"])
    if found.problems:
        count = len(found.problems)
        problem = "one thing is wrong" if count == 1 else f"{count} things are wrong"
        raise InputCorruptError(
            dataset,
            problem=f"{problem}; listed above.",
            hint="make it again: `kamerton dataset --force`, or restore it: `dvc checkout`",
        )


def measure(
    truth: Annotated[Path, typer.Option("--truth", help="Folder with truth.jsonl.")] = Path(
        "data/truth"
    ),
    clips: Annotated[Path, typer.Option("--clips", help="Folder of clips.")] = Path("data/clips"),
    transcripts: Annotated[Path, typer.Option("--transcripts", help="Transcripts of them.")] = Path(
        "data/transcripts.jsonl"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Score segmentation and transcription against the truth of a synthetic corpus."""
    from kamerton.demo.score import score_files

    score = score_files(truth, clips, transcripts)
    if as_json:
        print_json(score.metrics())
    else:
        print_pairs(score.summary())
