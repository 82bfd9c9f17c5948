"""One command per stage, built from the table of stages."""

import contextlib
import inspect
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from kamerton.cli.output import narrate, print_json, print_pairs
from kamerton.config.loading import load_params
from kamerton.config.schema import Params
from kamerton.core.errors import PARTIAL_EXIT_CODE
from kamerton.core.executor import Executor, parse_executor_input
from kamerton.core.files import file_lock, require_apart, sha256_path
from kamerton.core.process import PARENT_MARKER, end_with_parent
from kamerton.core.progress import shown_progress
from kamerton.core.ranks import Ranks
from kamerton.stages import stage_function
from kamerton.stages.spec import STAGES, StageSpec

_PANEL = "Parameters"
ParamsFile = Annotated[
    Path | None,
    typer.Option(
        "--params",
        help="Parameter file; params.yaml of this folder unless --params-json is given.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-S",
        metavar="SECTION.KEY=VALUE",
        help="Override one parameter; repeatable.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
SectionsJson = Annotated[
    list[str] | None,
    typer.Option(
        "--params-json",
        metavar="SECTION JSON",
        help="One section as a JSON object; repeatable.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
_OPTIONS: dict[str, tuple[Any, Any]] = {
    "cache": (
        Annotated[
            Path,
            typer.Option(
                "--cache",
                envvar="KAMERTON_CACHE",
                help="Folder of finished work: only what changed is done again.",
            ),
        ],
        Path(".kamerton"),
    ),
    "workers": (
        Annotated[
            int, typer.Option("--workers", min=0, help="Processes at work; 0 is one per core.")
        ],
        0,
    ),
    "shard": (
        Annotated[
            str | None,
            typer.Option(
                "--shard",
                metavar="I/N",
                help="Do part I of N (from 0) of the recordings; join with `kamerton merge`.",
            ),
        ],
        None,
    ),
    "runs": (
        Annotated[
            Path, typer.Option("--runs", help="Folder of resumable work, kept between runs.")
        ],
        Path("runs"),
    ),
    "resume": (
        Annotated[
            bool,
            typer.Option(
                "--resume",
                help="Continue the newest unfinished run; hot parameters may be others.",
            ),
        ],
        False,
    ),
    "warm_start": (
        Annotated[
            Path | None,
            typer.Option(
                "--warm-start",
                metavar="PATH",
                help="Begin with the weights of a checkpoint, run directory or exported voice.",
            ),
        ],
        None,
    ),
    "trial": (
        Annotated[
            bool, typer.Option("--trial", help="A short run of a search: prints name=value lines.")
        ],
        False,
    ),
    "require": (
        Annotated[bool, typer.Option("--require", help="End with 6 when a gate is not met.")],
        False,
    ),
}


@dataclass(frozen=True, slots=True)
class StageCall:
    """A stage with everything it was asked to do."""

    spec: StageSpec
    paths: dict[str, Path]
    options: dict[str, Any]
    params: Params
    force: bool
    quiet: bool

    def effective_params(self) -> dict[str, Any]:
        """The sections that the stage reads, as it will see them."""
        everything = self.params.model_dump(mode="json")
        return {section: everything[section] for section in self.spec.sections}

    def describe(self) -> dict[str, Any]:
        """What would be read and written, with what, for ``--dry-run``."""
        return {
            "stage": self.spec.name,
            "reads": {port.name: str(self.paths[port.name]) for port in self.spec.inputs},
            "writes": {port.name: str(self.paths[port.name]) for port in self.spec.outputs},
            "missing": sorted(p.name for p in self.spec.inputs if not self.paths[p.name].exists()),
            "existing": sorted(p.name for p in self.spec.outputs if self.paths[p.name].exists()),
            "options": {name: str(value) for name, value in self.options.items()},
            "params": self.effective_params(),
        }

    @property
    def ranks(self) -> Ranks:
        """This process among those that a launcher started; only training knows of others."""
        return Ranks.of_environment() if self.spec.name == "train" else Ranks()

    def _lock(self) -> Path:
        """One lock per place written to, outside of it: DVC hashes what is inside."""
        target = self.paths[self.spec.outputs[0].name].absolute()
        name = f"kamerton-{os.getuid()}-{sha256_path(target)[:16]}.lock"
        return Path(tempfile.gettempdir()) / name

    def run(self) -> Any:
        """Run the stage function with a progress display and return its report."""
        if PARENT_MARKER in os.environ:
            end_with_parent()
        # A trial writes no port, only its run directory, which has a lock of its own: it must not
        # wait for a training of the same project.
        trial, main = bool(self.options.get("trial")), self.ranks.main
        inputs = [self.paths[port.name] for port in self.spec.inputs]
        for port in () if trial else self.spec.outputs:
            require_apart(self.paths[port.name], *inputs)
        with (
            contextlib.nullcontext() if trial or not main else file_lock(self._lock()),
            shown_progress(self.spec.name, quiet=self.quiet or not main) as progress,
        ):
            function = stage_function(self.spec.name)
            return function(
                **self.paths,
                params=self.params,
                force=self.force,
                on_progress=progress,
                **self.options,
            )


def join_section_pairs(arguments: Sequence[str]) -> list[str]:
    """Make one word of ``--params-json SECTION JSON``.

    Pipelines pass the JSON as an argument of its own (a placeholder has to be one); the option
    parser knows repeatable options of one word only.
    """
    joined: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--params-json" and len(rest) > 1 and rest[0].isidentifier():
            section, text = rest.pop(0), rest.pop(0)
            joined += [word, f"{section} {text}"]
        else:
            joined.append(word)
    return joined


def split_section_pair(value: str) -> tuple[str, str]:
    """``"train {...}"`` as section and JSON text."""
    section, _, text = value.partition(" ")
    return section, text


def _finish(
    call: StageCall, executor: Executor | None, *, as_json: bool, allow_partial: bool
) -> None:
    report = call.run()
    if not call.ranks.main:  # it has nothing to tell that the main process does not
        return
    metrics = report.metrics()
    if executor is not None:
        executor.finish(metrics, metadata={"stage": call.spec.name})
    if as_json:
        print_json(
            {
                "stage": call.spec.name,
                "outputs": {port.name: str(call.paths[port.name]) for port in call.spec.outputs},
                "metrics": metrics,
                "partial": report.partial,
            }
        )
    elif not call.options.get("trial"):  # a trial's stdout belongs to its name=value lines
        print_pairs(report.summary())
        if not call.quiet and call.spec.next_command:
            narrate(f"next: {call.spec.next_command}")
    if report.partial and not allow_partial:
        narrate("done, with inputs left out; they are listed above and in the outputs")
        raise typer.Exit(PARTIAL_EXIT_CODE)


def _run_command(spec: StageSpec, values: dict[str, Any]) -> None:
    params = load_params(
        values["params"],
        overrides=values["overrides"] or [],
        sections=[split_section_pair(pair) for pair in values["params_json"] or []],
    )
    call = StageCall(
        spec=spec,
        paths={port.name: values[port.name] for port in spec.ports},
        options={name: values[name] for name in spec.options},
        params=params,
        force=values["force"],
        quiet=values["quiet"],
    )
    given = values["executor_input"] if call.ranks.main else None
    executor = parse_executor_input(given) if given else None
    if values["dry_run"]:
        print_json(call.describe())
        return
    if executor is not None:
        executor.prepare()
    _finish(call, executor, as_json=values["json"], allow_partial=values["allow_partial"])


def _parameters(spec: StageSpec) -> list[inspect.Parameter]:
    fields: list[tuple[str, Any, Any]] = []
    for port in spec.ports:
        panel = "Reads" if port in spec.inputs else "Writes"
        option = typer.Option(port.option, help=port.help, rich_help_panel=panel)
        fields.append((port.name, Annotated[Path, option], Path(port.default)))
    fields += [(name, *_OPTIONS[name]) for name in spec.options]
    flag = {
        "force": "Replace outputs that exist.",
        "dry_run": "Only print what would be read, written and used, as JSON.",
        "json": "Print the result as JSON.",
        "quiet": "No progress.",
        "allow_partial": "End with 0, not 7, when recordings had to be left out (segment).",
    }
    fields += [
        ("params", ParamsFile, None),
        ("overrides", Overrides, None),
        ("params_json", SectionsJson, None),
    ]
    for name, text in flag.items():
        names = [f"--{name.replace('_', '-')}"] + (["-q"] if name == "quiet" else [])
        fields.append((name, Annotated[bool, typer.Option(*names, help=text)], False))
    executor = typer.Option(
        "--executor-input", metavar="JSON", help="Set by Kubeflow Pipelines.", hidden=True
    )
    fields.append(("executor_input", Annotated[str | None, executor], None))
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(name, keyword, default=default, annotation=kind)
        for name, kind, default in fields
    ]


def _epilog(spec: StageSpec) -> str:
    flags = " ".join(f"{port.option} {port.default}" for port in spec.ports)
    section = spec.sections[0]
    return (
        f"Example: kamerton {spec.name} {flags} -S {section}.KEY=VALUE. Next: {spec.next_command}"
    )


def _command(spec: StageSpec) -> Any:
    def command(**values: Any) -> None:
        _run_command(spec, values)

    parameters = _parameters(spec)
    command.__name__ = spec.name
    command.__doc__ = spec.summary
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def add_stage_commands(app: typer.Typer) -> None:
    """Add a command for every stage, in the order of the pipeline."""
    for spec in STAGES.values():
        app.command(spec.name, epilog=_epilog(spec), rich_help_panel="Stages")(_command(spec))
