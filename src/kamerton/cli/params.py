"""`kamerton params`: show, check and explain the parameters."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kamerton.cli.output import narrate, print_json
from kamerton.cli.stage_commands import Overrides, ParamsFile
from kamerton.config.docs import reference
from kamerton.config.loading import leaves, load_params
from kamerton.core.errors import UsageError
from kamerton.core.files import write_text

params_app = typer.Typer(help="Show, check and explain params.yaml.", no_args_is_help=True)


def _value(tree: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        tree = tree[key]
    return tree


@params_app.command("show", epilog="Example: kamerton params show train -S train.batch_size=16")
def show(
    section: Annotated[
        str | None, typer.Argument(help="One section or key; all by default.")
    ] = None,
    params: ParamsFile = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Print the effective parameters, defaults included."""
    import yaml

    values: Any = load_params(params, overrides=overrides or []).model_dump(
        mode="json", exclude_none=False
    )
    if section is not None:
        known = [leaf.name for leaf in leaves()]
        if section not in known and not any(name.startswith(f"{section}.") for name in known):
            raise UsageError(
                f"there is no parameter '{section}'", hint="`kamerton params docs` lists them all"
            )
        values = _value(values, section)
    if as_json:
        print_json(values)
    else:
        print(yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip())


@params_app.command("check", epilog="Example: kamerton params check --params params.yaml")
def check(params: ParamsFile = None, overrides: Overrides = None) -> None:
    """Validate params.yaml; every fault is shown at once with its line."""
    load_params(params or Path("params.yaml"), overrides=overrides or [])
    narrate("parameters are valid")


@params_app.command("docs", epilog="Example: kamerton params docs -o docs/reference/params.md")
def docs(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write there instead of printing.")
    ] = None,
) -> None:
    """Print the reference of every parameter as Markdown."""
    text = reference()
    if output is None:
        print(text, end="")
    else:
        write_text(output, text)
