"""`kamerton runs replay`: where the stop decision would have ended a recorded run, and why."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kamerton.cli.output import print_json, print_pairs
from kamerton.core.errors import UsageError
from kamerton.core.files import write_bytes
from kamerton.smart_tuner.channels.message import one_line
from kamerton.tracking.metrics_file import json_safe

_TABLES = frozenset({".csv", ".tsv", ".txt"})


def replay_command(
    file: Annotated[
        Path,
        typer.Argument(
            help="A run folder, its metrics.jsonl, a folder of TensorBoard events, or a CSV of "
            "step,value[,attention]."
        ),
    ],
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric", help="Which series; lower is better.",
            show_default="quality (val_mel_loss + 1 - attention), or the validation loss",
        ),
    ] = None,
    planned: Annotated[
        int | None,
        typer.Option(
            "--planned", min=1, help="The budget in steps.", show_default="as recorded, or the last"
        ),
    ] = None,
    params_file: Annotated[
        Path | None,
        typer.Option(
            "--params", help="A params.yaml with train.early_stopping.",
            show_default="the run's own, or the defaults"
        ),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="Draw the curve and the decision there, as PNG.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:  # fmt: skip
    """Say where the stop decision would have ended a recorded run, why, and what it keeps."""
    from kamerton.config.loading import load_params
    from kamerton.smart_tuner.recorded_curve import read_curve
    from kamerton.smart_tuner.replay_report import draw_replay, replay_curve, replay_facts

    if metric is not None and file.suffix.lower() in _TABLES:
        raise UsageError(
            f"--metric has no use with {file}: a table has one series, its second column.",
            hint="leave it out",
        )
    params = None if params_file is None else load_params(params_file).train.early_stopping
    curve = read_curve(file, metric=metric)
    if planned is not None and planned < curve.steps[-1]:
        raise UsageError(
            f"--planned {planned} is less than the last step of {file}, {curve.steps[-1]}.",
            hint="give the budget that the run had when it began",
        )
    played = replay_curve(curve, planned=planned, params=params)
    facts = replay_facts(played)
    if figure is not None:
        write_bytes(figure, draw_replay(played))
    if as_json:
        print_json(json_safe(facts))
    else:
        _show(facts)


def _show(facts: dict[str, Any]) -> None:
    stop = facts["stop"]
    pairs = [
        ("curve", f"{facts['metric']}, {facts['evaluations']} evaluations"),
        ("plan", f"{facts['planned_steps']} steps ({facts['planned_from']})"),
    ]
    if stop is None:
        pairs.append(("stop", "never: it would have gone on to the end of the record"))
    else:
        pairs += [("stop", f"step {stop['step']}, {stop['cause']}"), ("why", stop["reason"])]
    best = facts["checkpoint"]
    pairs += [
        ("keeps", f"the checkpoint of step {best['step']}, {facts['metric']} {best['value']:.4g}"),
        ("best of all", f"step {facts['best']['step']}, {facts['best']['value']:.4g}"),
        ("saved", f"{facts['saved_steps']} steps, {facts['saved_share']:.1%} of the plan"),
    ]
    if facts["regret"] is not None:
        pairs.append(("lost by it", f"{facts['regret']:.2%} of the range of the curve"))
    print_pairs((name, one_line(text)) for name, text in pairs)
    print(f"\nwhat the voters said at step {facts['decided_step']}")
    print(f"  {'voter':<18}{'score':>7}{'confidence':>12}  reason")
    for vote in facts["votes"]:
        print(f"  {vote['voter']:<18}{vote['score']:>+7.2f}{vote['confidence']:>12.2f}"
              f"  {one_line(vote['reason'])}")  # fmt: skip
