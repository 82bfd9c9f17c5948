"""A finished run, as the history keeps it: read from its directory, added once."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import yaml

from kamerton.core.errors import PipelineError
from kamerton.core.files import read_json
from kamerton.smart_tuner.history import Descriptors, History, RunOutcome
from kamerton.tracking import RunDirectory, RunStatus, names, read_records
from kamerton.tracking.quality import quality_of

NEAR_BEST: Final = 0.02  # of the range from the first evaluation to the best
_KEPT_PARAMS: Final = ("batch_size", "accumulation", "learning_rate", "preset", "weight_decay")

_log = logging.getLogger("kamerton.train")


def record_run(
    run: RunDirectory, history: Path, *, analysis: Path, card: Mapping[str, Any],
    total_steps: int, steps_per_epoch: int, ended: str = "budget",
) -> bool:  # fmt: skip
    """Add a finished run to the history; whether it is there now.

    A history that cannot be written is warned of: the run itself is well.

    Args:
        run: Its directory.
        history: The history file.
        analysis: The analysis of what it learned from.
        card: That dataset's card.
        total_steps: Its budget.
        steps_per_epoch: Optimiser steps.
        ended: ``budget``, or why it ended before.
    """
    try:
        outcome = outcome_of(
            run, read_json(analysis, produced_by="analyze"), card,
            total_steps=total_steps, steps_per_epoch=steps_per_epoch, ended=ended,
        )  # fmt: skip
        History(history).add_run(outcome)
    except (PipelineError, OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("%s teaches later recommendations nothing: %s", run.path, error)
        return False
    return True


def outcome_of(
    run: RunDirectory, analysis: Mapping[str, Any], card: Mapping[str, Any], *,
    total_steps: int, steps_per_epoch: int, ended: str,
) -> RunOutcome:  # fmt: skip
    """What a finished run teaches.

    Raises:
        ValueError: it has no evaluation to go by.
        HistoryError, KeyError: the analysis lacks something.
    """
    curve = quality_curve(run.metrics_file)
    if not curve:
        raise ValueError("its record holds no evaluation")
    best_step, best = min(curve, key=lambda point: (point[1], point[0]))
    status = run.status()
    recommended = int(analysis["recommended_epochs"])
    return RunOutcome(
        run_id=run.path.name,
        dataset_sha256=str(card["content_sha256"]),
        descriptors=Descriptors.of(analysis, card),
        rule_epochs=int(analysis.get("rule_epochs", recommended)),
        recommended_epochs=recommended,
        planned_epochs=total_steps / steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        planned_steps=total_steps,
        steps=status.step,
        best_step=best_step,
        near_best_step=near_best_step(curve),
        quality=best,
        ended=ended,
        warm_started=_origin(run).get("warm_start_sha256") is not None,
        minutes=_minutes(status),
        curve=tuple(curve),
        params=_params(run),
        finished=status.updated,
    )


def quality_curve(metrics_file: Path) -> list[tuple[int, float]]:
    """(step, figure of merit) of every evaluation that gave numbers, in order of steps."""
    evaluations: dict[int, dict[str, float]] = {}
    for record in read_records(metrics_file):
        if record.kind == "metrics" and record.step is not None:
            evaluations.setdefault(record.step, {}).update(record.values)
    wanted = {names.VAL_MEL_LOSS, names.ATTENTION_SCORE}
    curve = [
        (step, quality_of(values))
        for step, values in sorted(evaluations.items())
        if wanted <= values.keys()
    ]
    return [(step, value) for step, value in curve if math.isfinite(value)]


def near_best_step(curve: Sequence[tuple[int, float]], share: float = NEAR_BEST) -> int:
    """The first step whose value is within ``share`` of the best, of the range of the curve.

    The range is from the first value to the best: it has no unit, so that curves of any measure
    can be compared.
    """
    best = min(value for _, value in curve)
    enough = best + share * (curve[0][1] - best)
    return next(step for step, value in curve if value <= enough)


def _minutes(status: RunStatus) -> float:
    try:
        begun, ended = map(datetime.fromisoformat, (status.started, status.updated))
    except ValueError:
        return 0.0
    return round((ended - begun).total_seconds() / 60.0, 2)


def _origin(run: RunDirectory) -> dict[str, Any]:
    """What the run noted of what it is made from."""
    return read_json(run.path / "origin.json", produced_by="train")


def _params(run: RunDirectory) -> dict[str, Any]:
    values = yaml.safe_load((run.path / "params.yaml").read_text("utf-8"))["train"]
    return {name: values[name] for name in _KEPT_PARAMS if name in values}
