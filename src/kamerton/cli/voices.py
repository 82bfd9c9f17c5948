"""`kamerton runs voices`: the finished voices that the registry beside the runs lists."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from kamerton.cli.help_text import flowing
from kamerton.cli.output import narrate, print_json
from kamerton.core.errors import UsageError
from kamerton.smart_tuner.registry import REGISTRY_FOLDER, ModelRegistry, Stage

_HASH_CHARS = 12


@flowing
def voices(
    identifier: Annotated[
        str | None, typer.Argument(help="Beginning of a voice's hash, to give it a stage.")
    ] = None,
    stage: Annotated[
        Stage | None, typer.Option("--stage", help="The stage to give it; one voice is production.")
    ] = None,
    runs: Annotated[Path, typer.Option("--runs", help="Folder of runs.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Finished voices, newest last: figure of merit (lower is better), stage, run.

    The best of each dataset is `staging`, and its files are in the registry's folder.
    """
    registry = ModelRegistry(runs / REGISTRY_FOLDER)
    if (identifier is None) != (stage is None):
        raise UsageError(
            "a stage is given to one voice: both are needed.",
            hint="kamerton runs voices HASH --stage production",
        )
    if identifier is not None and stage is not None:
        registry.set_stage(identifier, stage)
    entries = registry.entries()
    if as_json:
        print_json([asdict(entry) for entry in entries])
        return
    if not entries:
        narrate(f"{runs} lists no voice yet: a training that is finished adds one")
    for entry in entries:
        version = f"  MLflow version {entry.mlflow_version}" if entry.mlflow_version else ""
        print(
            f"{entry.sha256[:_HASH_CHARS]}  {entry.key}  {entry.quality:8.4f}  {entry.stage:<10} "
            f"{entry.run}{version}"
        )
