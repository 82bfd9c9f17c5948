"""`kamerton auto`: analyze, tune and train in one go."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from kamerton.cli.help_text import flowing
from kamerton.cli.output import narrate, print_json, print_pairs
from kamerton.cli.stage_commands import (
    Overrides,
    ParamsFile,
    SectionsJson,
    StageCall,
    split_section_pair,
)
from kamerton.config.loading import load_params
from kamerton.config.schema import Params
from kamerton.core.errors import UsageError
from kamerton.core.ranks import Ranks
from kamerton.stages import StageReport
from kamerton.stages.auto import STAGES_OF, AutoPaths, ByHand, Mode, auto, checked
from kamerton.stages.spec import STAGES

_PLACES = "Reads and writes"


_DEFAULTS = {
    f"{stage}/{port.name}": Path(port.default) for stage in STAGES for port in STAGES[stage].ports
}


def _place(option: str, text: str) -> Any:
    return typer.Option(option, help=text, rich_help_panel=_PLACES)


def add_auto_command(app: typer.Typer) -> None:
    """Add `kamerton auto`."""
    app.command(
        "auto",
        rich_help_panel="Stages",
        epilog="Example: kamerton auto --mode auto --trials 10. Next: kamerton evaluate",
    )(auto_command)


@flowing
def auto_command(
    mode: Annotated[
        Mode,
        typer.Option(
            "--mode",
            help="auto: analyze, tune, train. train: without the search. optimize: without the "
            "training.",
        ),
    ] = "auto",
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Trials, instead of tune.trials.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Epochs, instead of the recommendation.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=1, help="Utterances in a batch; it is not searched."),
    ] = None,
    dataset: Annotated[Path, _place("--dataset", "dataset folder")] = _DEFAULTS["analyze/dataset"],
    analysis: Annotated[Path, _place("--analysis", "analysis.json")] = _DEFAULTS[
        "analyze/analysis"
    ],
    analysis_report: Annotated[
        Path, _place("--analysis-report", "HTML page on quality and complexity")
    ] = _DEFAULTS["analyze/report"],
    best_params: Annotated[Path, _place("--best-params", "best_params.yaml")] = _DEFAULTS[
        "tune/best_params"
    ],
    trials_csv: Annotated[
        Path, _place("--trials-csv", "trials.csv, one row per trial")
    ] = _DEFAULTS["tune/trials"],
    tuning_report: Annotated[Path, _place("--tuning-report", "HTML page on the study")] = _DEFAULTS[
        "tune/report"
    ],
    model: Annotated[Path, _place("--model", "folder of the exported voice")] = _DEFAULTS[
        "train/model"
    ],
    training_report: Annotated[
        Path, _place("--training-report", "HTML page on the training run")
    ] = _DEFAULTS["train/report"],
    runs: Annotated[Path, _place("--runs", "folder of resumable work, kept between runs")] = Path(
        "runs"
    ),
    params: ParamsFile = None,
    overrides: Overrides = None,
    params_json: SectionsJson = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Measure the dataset again and begin a new training run."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be run, as JSON.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Analyze a dataset, search for hyperparameters and train, in one go.

    What was interrupted goes on when the same command is run again, and finished work is not done
    again. Values given here beat what the analysis recommends and what the search finds.
    """
    if Ranks.of_environment().size > 1:
        raise UsageError(
            "`kamerton auto` runs in one process.",
            hint="run `kamerton auto --mode optimize`, then train: `torchrun … -m kamerton train`",
        )
    loaded = load_params(
        params,
        overrides=overrides or [],
        sections=[split_section_pair(pair) for pair in params_json or []],
    )
    places = AutoPaths(
        dataset, analysis, analysis_report, best_params, trials_csv, tuning_report, model,
        training_report, runs,
    )  # fmt: skip
    by_hand = ByHand(trials, epochs, batch_size)
    if dry_run:
        checked(mode, places, loaded, by_hand)
        names = AutoPaths.__dataclass_fields__
        told = {name: str(getattr(places, name)) for name in names}
        print_json({"stages": STAGES_OF[mode], "paths": told, "by_hand": by_hand.names()})
        return

    def run_stage(
        name: str, paths: Mapping[str, Path], params: Params, *, force: bool,
        options: Mapping[str, Any],
    ) -> StageReport:  # fmt: skip
        call = StageCall(STAGES[name], dict(paths), dict(options), params, force, quiet)
        return call.run()  # type: ignore[no-any-return]

    report = auto(
        mode, places, loaded, run_stage=run_stage, by_hand=by_hand, force=force,
        say=(lambda _text: None) if quiet else narrate,
    )  # fmt: skip
    if as_json:
        print_json(report.as_dict())
        return
    print_pairs(report.summary())
    if not quiet:
        narrate(f"next: {STAGES[STAGES_OF[mode][-1]].next_command}")
