"""`kamerton runs`: what is in the runs folder."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kamerton.cli.advise import advise
from kamerton.cli.output import print_json, print_pairs
from kamerton.cli.replay import replay_command
from kamerton.cli.voices import voices
from kamerton.cli.watch import watch
from kamerton.core.errors import PipelineError, ToolMissingError, UsageError
from kamerton.core.progress import shown_progress
from kamerton.tracking.metrics_file import read_records
from kamerton.tracking.run_directory import RunDirectory, list_runs

runs_app = typer.Typer(help="List, inspect and repeat training runs.", no_args_is_help=True)
runs_app.command("advise", epilog="Example: kamerton runs advise data/analysis.json --json")(advise)
runs_app.command("voices", epilog="Example: kamerton runs voices --json")(voices)
runs_app.command("watch", epilog="Example: kamerton runs watch last --once")(watch)
RunsFolder = Annotated[Path, typer.Option("--runs", help="Folder of runs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
runs_app.command("replay", epilog="Example: kamerton runs replay runs/ID --figure replay.png")(
    replay_command
)


def _row(run: RunDirectory) -> dict[str, Any]:
    return {"id": run.path.name, "live": run.live, **run.status().as_json()}


def find_run(runs: Path, identifier: str) -> RunDirectory:
    """The run with ``identifier`` as its id or in it, or the newest for ``last``.

    Raises:
        UsageError: none, or more than one.
    """
    known = list_runs(runs)
    if identifier == "last" and known:
        return known[0]
    found = [run for run in known if identifier == run.path.name] or [
        run for run in known if identifier in run.path.name
    ]
    if len(found) != 1:
        count = "no run" if not found else f"{len(found)} runs"
        raise UsageError(
            f"{count} in {runs} with '{identifier}' in the id.",
            hint="`kamerton runs list` shows them",
        )
    return found[0]


@runs_app.command("list", epilog="Next: kamerton runs show last")
def list_command(runs: RunsFolder = Path("runs"), as_json: AsJson = False) -> None:
    """Runs, newest first."""
    rows = [_row(run) for run in list_runs(runs)]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        state = "running" if row["live"] else row["state"]
        state = "killed" if state == "running" and not row["live"] else state
        print(f"{row['id']:<48} {state:<9} step {row['step']:<7} {row['reason']}".rstrip())


@runs_app.command("show", epilog="Example: kamerton runs show last --json")
def show(
    identifier: Annotated[str, typer.Argument(help="Part of the run's id, or 'last'.")] = "last",
    runs: RunsFolder = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """One run: where it stands and its last figures."""
    run = find_run(runs, identifier)
    last: dict[str, Any] = {}
    if run.metrics_file.exists():
        for record in read_records(run.metrics_file):
            last.update(record.values)
    row = _row(run) | {"metrics": last}
    if as_json:
        print_json(row)
        return
    pairs = [(key, str(value)) for key, value in row.items() if key not in {"metrics", "facts"}]
    print_pairs(pairs + [(key, str(value)) for key, value in (row["facts"] | last).items()])


@runs_app.command("repro", epilog="Example: kamerton runs repro last --steps 50")
def repro(
    identifier: Annotated[str, typer.Argument(help="Part of the run's id, or 'last'.")] = "last",
    runs: RunsFolder = Path("runs"),
    steps: Annotated[int, typer.Option("--steps", min=1, help="How many steps to repeat.")] = 20,
    dataset: Annotated[
        Path | None,
        typer.Option("--dataset", help="Where its dataset is now.", show_default="where it was"),
    ] = None,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Repeat a run's first steps from its record and compare the losses, bit for bit.

    Ends with 0 where all are equal and with 1 where one is not.
    """
    run = find_run(runs, identifier)
    try:
        from kamerton.training.repro import reproduce
    except ImportError as error:
        raise ToolMissingError("torch", extra="train") from error
    with shown_progress("repro", quiet=quiet) as progress:
        result = reproduce(run, steps=steps, dataset=dataset, on_progress=progress)
    if as_json:
        print_json(result.as_json())
    else:
        pairs = [("run", str(run.path)), ("steps repeated", str(result.steps))]
        pairs += [(f"other {d.what}", f"{d.now}, was {d.then}") for d in result.surroundings]
        figures = f"{result.compared_values} of {len(result.compared_steps)} steps"
        pairs.append(("figures", f"{figures}: {'equal, bit for bit' if result.equal else 'not'}"))
        print_pairs(pairs)
    if result.first is not None:
        step, what = result.first
        raise PipelineError(
            f"at step {step}, {what.what} is {what.now} and was {what.then}.",
            hint="repeat it with the same code, packages and machine; what differs is shown above"
            if result.surroundings
            else "on a GPU sums are not always made in the same order; on a CPU please report this",
        )
