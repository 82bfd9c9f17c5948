"""`kamerton runs advise`: why so many epochs, and what today's history makes of it."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from kamerton.cli.help_text import flowing
from kamerton.cli.output import print_json, print_pairs
from kamerton.cli.stage_commands import Overrides, ParamsFile
from kamerton.config.loading import load_params
from kamerton.config.schema import AnalyzeParams, Params
from kamerton.core.errors import InputCorruptError
from kamerton.core.files import read_json
from kamerton.core.progress import shown_progress
from kamerton.data.epoch_rule import Recommendation
from kamerton.smart_tuner.channels.message import one_line
from kamerton.smart_tuner.epoch_advisor import EpochAdvice, EpochAdvisor
from kamerton.smart_tuner.history import Descriptors

_AGAIN = "make it again: `kamerton analyze --force`"


@flowing
def advise(
    source: Annotated[
        Path, typer.Argument(help="analysis.json, or a dataset folder, which is then measured.")
    ] = Path("data/analysis.json"),
    history: Annotated[
        Path | None,
        typer.Option(
            "--history", help="History to ask.", show_default="analyze.history of the analysis"
        ),
    ] = None,
    params: ParamsFile = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Explain how many epochs are recommended: rule, factors, earlier runs, confidence.

    Shows what the analysis says and what the history says now; nothing is written. Parameters
    count for a dataset folder only: an analysis has its own.
    """
    if source.is_dir():
        analysis = _measured(source, load_params(params, overrides=overrides or []), quiet=quiet)
    else:
        analysis = read_json(source, produced_by="analyze")
    now = _advice_now(source, analysis, history)
    try:
        told, lines = _as_dict(analysis, now), _lines(analysis, now)
    except (KeyError, TypeError, ValueError) as error:
        raise _incomplete(source, error) from error
    if as_json:
        print_json(told)
    else:
        print_pairs((name, one_line(text)) for name, text in lines)


def _measured(dataset: Path, params: Params, *, quiet: bool) -> dict[str, Any]:
    from kamerton.stages.analyze import analyze

    with (
        tempfile.TemporaryDirectory(prefix="kamerton-advise-") as scratch,
        shown_progress("analyze", quiet=quiet) as progress,
    ):
        found = Path(scratch) / "analysis.json"
        analyze(dataset, found, Path(scratch) / "page.html", params, on_progress=progress)
        return read_json(found, produced_by="analyze")


def _advice_now(source: Path, analysis: Mapping[str, Any], history: Path | None) -> EpochAdvice:
    """The rule of the analysis, corrected by the history as it is now.

    Raises:
        InputCorruptError: the analysis is not one, or of an earlier version.
    """
    try:
        rule = Recommendation(
            base_epochs=analysis["base_epochs"],
            recommended_epochs=analysis["rule_epochs"],
            confidence=analysis["rule_confidence"],
            size=analysis["size"],
            quality=analysis["quality"]["label"],
            reasons=tuple(analysis["rule_reasons"]),
        )
        params = AnalyzeParams.model_validate(analysis["params"])
        descriptors = Descriptors(**analysis["descriptors"])
        sha256 = str(analysis["dataset_sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise _incomplete(source, error) from error
    if history is not None:
        params = params.model_copy(update={"history": str(history)})
    return EpochAdvisor.of(params).advise(rule, descriptors, sha256)


def _incomplete(source: Path, error: Exception) -> InputCorruptError:
    """An analysis of an earlier version, say, in words."""
    lacks = f"it has no '{error.args[0]}'" if isinstance(error, KeyError) else "it has other values"
    problem = f"does not say how its recommendation came about: {lacks}"
    return InputCorruptError(source, problem=problem, hint=_AGAIN)


def _as_dict(analysis: Mapping[str, Any], now: EpochAdvice) -> dict[str, Any]:
    return {
        "dataset_sha256": analysis["dataset_sha256"],
        "descriptors": analysis["descriptors"],
        "analysis": {
            "recommended_epochs": analysis["recommended_epochs"],
            "confidence": analysis["confidence"],
            "reasons": analysis["reasons"],
            "history": analysis["history"],
        },
        "rule": asdict(now.rule),
        "factors": {
            "size": analysis["size"],
            "quality": analysis["quality"]["label"],
            "complexity": analysis["complexity"]["label"],
        },
        "now": {
            "recommended_epochs": now.recommended_epochs,
            "confidence": now.confidence,
            "reasons": list(now.reasons),
            "history": now.correction.as_dict(),
        },
    }


def _lines(analysis: Mapping[str, Any], now: EpochAdvice) -> list[tuple[str, str]]:
    quality, complexity = analysis["quality"], analysis["complexity"]
    lines = [
        ("in the analysis", f"{analysis['recommended_epochs']} epochs"),
        ("now", f"{now.recommended_epochs} epochs"),
        ("confidence (heuristic)", f"{now.confidence:.2f}, {now.rule.confidence:.2f} by the rule"),
        ("size", f"{analysis['hours']:.2f} h: {analysis['size'].replace('_', ' ')}"),
        ("quality", f"{quality['score']:.2f}: {quality['label']}"),
        ("complexity", f"×{complexity['multiplier']:.1f}: {complexity['label']}"),
        *(("because", reason) for reason in now.reasons),
    ]
    for lesson in now.correction.lessons:
        near = "this dataset" if lesson.same_dataset else f"unlike by {lesson.distance:.1f}"
        count = "" if lesson.runs == 1 else f" and {lesson.runs - 1} more"
        lines.append(
            (
                "earlier run",
                f"{lesson.source}{count} ({near}): within 2 % of its best after "
                f"{lesson.near_best_epochs:.0f} epochs, {lesson.rule_epochs} by the rule: "
                f"×{lesson.ratio:.2f}",
            )
        )
    if now.recommended_epochs != analysis["recommended_epochs"]:
        lines.append(("to use it", "`kamerton analyze --force`"))
    return lines
