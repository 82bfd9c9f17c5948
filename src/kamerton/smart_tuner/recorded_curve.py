"""The validation curve of a finished run, from whatever recorded it.

A run folder or its ``metrics.jsonl``, a folder of TensorBoard event files, or a CSV of
``step,value[,attention]``, with or without a line of names.
"""

from __future__ import annotations

import csv
import logging
import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Final

from pydantic import ValidationError

from kamerton.config.schema import TrainParams
from kamerton.config.yaml_source import read_yaml
from kamerton.core.errors import (
    InputCorruptError,
    InputEmptyError,
    InputMissingError,
    PipelineError,
    UsageError,
)
from kamerton.smart_tuner.early_stop import NOTHING, Recovered
from kamerton.smart_tuner.sources.protocol import Cursor, MetricEvent, MetricSource, Rewind
from kamerton.stopping import Observation
from kamerton.tracking import names, read_records
from kamerton.tracking.quality import quality_of

QUALITY: Final = "quality"  # the figure of merit, made of others
_DEFAULTS: Final = (QUALITY, names.VAL_MEL_LOSS, names.VAL_LOSS)
_EVENT_FILES: Final = "events.out.tfevents.*"
_CSV_FORM: Final = "write one line per evaluation: step,value or step,value,attention"
_FORMS: Final = "give a run folder, a metrics.jsonl, a folder of TensorBoard events or a CSV"

# What an evaluation knows besides, by field of an observation.
_PARTS: Final = {
    "attention": names.ATTENTION_SCORE,
    "premature": names.PREMATURE_STOPPING,
    "runaway": names.RUNAWAY_SHARE,
    "gate_f1": names.GATE_F1,
    "monotonicity": names.ATTENTION_MONOTONICITY,
}

Series = dict[int, float]  # value by step

_log = logging.getLogger("kamerton.tuner")


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What besides its evaluations the decision knew in a run of ours.

    Attributes:
        train: The run's resolved parameters; None where they are not known.
        recoveries: What was done, and had been done, by each intervention; steps rising.
    """

    train: TrainParams | None = None
    recoveries: tuple[Recovered, ...] = ()

    def recovered_before(self, step: float) -> Recovered:
        """What had been done before an evaluation."""
        return next((one for one in reversed(self.recoveries) if one.step < step), NOTHING)


@dataclass(frozen=True, slots=True)
class RecordedCurve:
    """One run's evaluations, in order of their steps.

    Attributes:
        metric: What the values are.
        observations: What the stop decision would have seen, steps rising; at least one.
        planned: The budget in steps; None where the record does not tell.
        lived: What else a run of ours knew.
    """

    metric: str
    observations: tuple[Observation, ...]
    planned: int | None = None
    lived: Circumstances = field(default_factory=Circumstances)

    @property
    def steps(self) -> list[int]:
        """Of the evaluations."""
        return [int(one.step) for one in self.observations]

    @property
    def values(self) -> list[float]:
        """What is minimised; not finite where an evaluation gave no number."""
        return [one.value for one in self.observations]


def read_curve(path: Path, *, metric: str | None = None) -> RecordedCurve:
    """The curve that ``path`` holds.

    Args:
        path: See the module.
        metric: Which series; by default the figure of merit, or the validation loss.

    Raises:
        InputMissingError: there is nothing at ``path``.
        InputEmptyError: it holds no evaluation.
        InputCorruptError: a CSV that cannot be read.
        UsageError: it has no such metric, or is of no form that is known.
    """
    if not path.exists():
        raise InputMissingError(path, produced_by="you", hint=_FORMS)
    if path.is_dir() and (path / "metrics.jsonl").exists():
        path = path / "metrics.jsonl"
    if path.is_dir():
        return _of_series(path, _read_events(path), metric)
    if path.suffix.lower() == ".jsonl":
        series, planned, recoveries = _read_record(path)
        lived = Circumstances(_train_params(path.parent / "params.yaml"), recoveries)
        return replace(_of_series(path, series, metric), planned=planned, lived=lived)
    if path.suffix.lower() in {".csv", ".tsv", ".txt"}:
        return _read_csv(path)
    raise UsageError(f"{path} is of no form that can be replayed.", hint=_FORMS)


def _train_params(path: Path) -> TrainParams | None:
    """Those of the run whose parameters are at ``path``; None where they cannot be had."""
    if not path.is_file():
        return None
    try:
        given = read_yaml(path).values.get("train", {})
        return TrainParams.model_validate(given).resolved()
    except (PipelineError, ValidationError) as error:
        _log.warning("%s is not read, so the defaults are replayed: %s", path, error)
        return None


def _read_record(path: Path) -> tuple[dict[str, Series], int | None, tuple[Recovered, ...]]:
    """Series, budget and interventions of a run."""
    series: dict[str, Series] = {}
    planned = None
    recoveries: list[Recovered] = []
    for record in read_records(path):
        if record.step is None:
            continue
        for name, value in record.values.items():
            series.setdefault(name, {})[record.step] = value
        if record.kind == "event" and record.name == "decision":
            planned = record.fields.get("planned_steps", planned)
        if record.kind == "event" and record.name == "recovery":
            values = record.fields.get("values") or {}
            count = int(values.get("recoveries", 0))
            # Taking a plateau's restart back is the end of one that was made before.
            taken_back = record.fields.get("cause") == "plateau" and "restart_step" in values
            if not taken_back:
                reset = recoveries[-1].attention_reset_step if recoveries else 0
                reset = record.step if "tensors_reset" in values else reset
                recoveries.append(Recovered(count, record.step, reset))
    return series, None if planned is None else int(planned), tuple(recoveries)


def _read_events(path: Path) -> dict[str, Series]:
    """Scalars of a folder of event files, or of ``tensorboard`` in it."""
    folders = [folder for folder in (path, path / "tensorboard") if any(folder.glob(_EVENT_FILES))]
    if not folders:
        raise InputEmptyError(path, wanted="metrics.jsonl nor event files", hint=_FORMS)
    from kamerton.smart_tuner.sources.tensorboard import TensorBoardSource

    return _drain(TensorBoardSource(folders[0], run=path.name))


def _drain(source: MetricSource) -> dict[str, Series]:
    series: dict[str, Series] = {}
    cursor: Cursor = {}
    while True:
        events, later = source.poll(cursor)
        for event in events:
            if isinstance(event, MetricEvent):
                series.setdefault(event.name, {})[event.step] = event.value
            elif isinstance(event, Rewind):
                series = {
                    name: {step: value for step, value in points.items() if step < event.step}
                    for name, points in series.items()
                }
        if later == cursor:
            return series
        cursor = later


def _of_series(path: Path, series: Mapping[str, Series], metric: str | None) -> RecordedCurve:
    known = dict(series)
    wanted = (names.VAL_MEL_LOSS, names.ATTENTION_SCORE)
    if all(name in known for name in wanted) and QUALITY not in known:
        both = sorted(known[wanted[0]].keys() & known[wanted[1]].keys())
        known[QUALITY] = {
            step: quality_of({name: known[name][step] for name in wanted}) for step in both
        }
    known = {name: points for name, points in known.items() if points}
    if not known:
        raise InputEmptyError(path, wanted="evaluations", hint="name the record of a run that has")
    chosen = metric or next((name for name in _DEFAULTS if name in known), None)
    if chosen is None or chosen not in known:
        asked = f"'{metric}'" if metric else "validation loss"
        raise UsageError(
            f"{path} has no {asked}; it has {', '.join(sorted(known)[:20])}.",
            hint="name one of them with --metric",
        )
    return RecordedCurve(chosen, _observations(known[chosen], known))


def _observations(values: Series, known: Mapping[str, Series]) -> tuple[Observation, ...]:
    """Evaluations with all that was recorded at their steps.

    The training loss is the mean of what was recorded since the one before, and the learning rate
    the last that was.
    """
    found: list[Observation] = []
    losses = deque(sorted(known.get(names.TRAIN_LOSS, {}).items()))
    rates = deque(sorted(known.get(names.LEARNING_RATE, {}).items()))
    rate: float | None = None
    for step, value in sorted(values.items()):
        since = [loss for _, loss in _taken(losses, step) if math.isfinite(loss)]
        rate = next((last for _, last in reversed([*_taken(rates, step)])), rate)
        found.append(
            Observation(
                step=step,
                value=value,
                train_loss=fmean(since) if since else None,
                learning_rate=rate,
                **{part: _number(known.get(name, {}).get(step)) for part, name in _PARTS.items()},
            )
        )
    return tuple(found)


def _taken(points: deque[tuple[int, float]], until: int) -> Iterator[tuple[int, float]]:
    """Takes from the left what was recorded up to a step."""
    while points and points[0][0] <= until:
        yield points.popleft()


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _read_csv(path: Path) -> RecordedCurve:
    rows: list[tuple[float, float, float]] = []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _bad(path, f"is not text: {error.reason}") from error
    metric = "value"
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    for number, cells in enumerate(csv.reader(text.splitlines(), delimiter=delimiter), start=1):
        if not any(cell.strip() for cell in cells):
            continue
        numbers = _numbers(cells)
        if numbers is None and number == 1 and len(cells) > 1:
            metric = cells[1].strip() or metric
            continue
        if numbers is None:
            raise _bad(path, f"line {number}, {','.join(cells)[:60]!r}, is not step,value")
        if rows and numbers[0] <= rows[-1][0]:
            raise _bad(path, f"line {number}: step {numbers[0]:g} does not follow {rows[-1][0]:g}")
        rows.append(numbers)
    if not rows:
        raise InputEmptyError(path, wanted="evaluations", hint=_CSV_FORM)
    observations = [
        Observation(step=int(step), value=value, attention=_number(attention))
        for step, value, attention in rows
    ]
    return RecordedCurve(metric, tuple(observations))


def _numbers(cells: list[str]) -> tuple[float, float, float] | None:
    """Step, value and attention; an empty value or attention is NaN."""
    if not 2 <= len(cells) <= 3:
        return None
    try:
        step, *rest = (float(cell) if cell.strip() else math.nan for cell in cells)
    except ValueError:
        return None
    if not math.isfinite(step) or step < 0 or step != int(step):
        return None
    return step, rest[0], rest[1] if len(rest) > 1 else math.nan


def _bad(path: Path, problem: str) -> InputCorruptError:
    return InputCorruptError(path, problem=problem, hint=_CSV_FORM)
