"""`kamerton cache`: how much finished work is kept, and what may go."""

from pathlib import Path
from typing import Annotated

import typer

from kamerton.cli.output import print_json, print_pairs
from kamerton.core.cache import WorkCache
from kamerton.core.errors import InputMissingError

cache_app = typer.Typer(
    help="Finished work that stages need not do again.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
CacheFolder = Annotated[
    Path,
    typer.Option("--cache", envvar="KAMERTON_CACHE", help="Folder of finished work."),
]
_DEFAULT = Path(".kamerton")


@cache_app.command(epilog="Example: kamerton cache show. Next: kamerton cache prune")
def show(
    cache: CacheFolder = _DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show how many results are kept, and how much room they take."""
    sizes = _open(cache).sizes()
    if as_json:
        print_json({kind: {"entries": n, "bytes": size} for kind, (n, size) in sizes.items()})
    else:
        rows = [(kind, f"{n} results, {size / 1e6:.1f} MB") for kind, (n, size) in sizes.items()]
        print_pairs(rows or [(str(cache), "empty")])


@cache_app.command(epilog="Example: kamerton cache prune --unused-days 30")
def prune(
    unused_days: Annotated[
        float, typer.Option("--unused-days", min=0.0, help="Remove what was not used for so long.")
    ] = 30.0,
    cache: CacheFolder = _DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Remove results that no stage used for a while; they can be made again.

    Clips that were linked from the cache stay where they are.
    """
    removed = _open(cache).prune(unused_days)
    if as_json:
        print_json({"removed": removed})
    else:
        print_pairs([("removed", f"{removed} results")])


def _open(folder: Path) -> WorkCache:
    if not folder.is_dir():
        raise InputMissingError(
            folder,
            produced_by="you",
            hint="stages make it when they run; name another one with --cache",
        )
    return WorkCache(folder)
