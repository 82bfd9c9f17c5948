"""The improvement plan of a run: what went wrong, what was done, in order, and what came of it.

It is read off the run's record, so it is as true after a kill as before, and written beside it as
JSON, Markdown and CSV.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from kamerton.core.files import write_json, write_text
from kamerton.tracking.metrics_file import Record, json_safe

STEM: Final = "improvement_plan"
PENDING: Final = "not judged yet"
HEADERS: Final = ("step", "by", "cause", "action", "effect", "before", "after")  # of a row's cells
# Reasons that quality control gives for undoing what made things worse, not just no better.
_HARMFUL: Final = frozenset(
    {"quality suffered", "quality is not finite", "the fault is worse", "its figure is gone"}
)
_ADVICE: Final = {
    "non_finite": "begin the next run with a learning rate of {rate} times this one's",
    "explosion": "begin the next run with a learning rate of {rate} times this one's",
    "divergence": "begin the next run with a learning rate of {rate} times this one's",
    "plateau": "look at train.learning_rate and min_learning_rate_share: the run stood still",
    "collapse": "raise train.guided_attention_weight: attention was found and lost again",
}


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One intervention.

    Attributes:
        number: From 1.
        step: When.
        by: recovery or quality_controller.
        cause: What was wrong.
        action: What was done.
        verdict: helped, no_effect, harmed, or that it is not judged yet.
        reverted: Whether it was undone.
        before: The figure that judged it, before; None where there is none.
        after: The same afterwards.
    """

    number: int
    step: int
    by: str
    cause: str
    action: str
    verdict: str = PENDING
    reverted: bool = False
    before: float | None = None
    after: float | None = None

    @property
    def cells(self) -> tuple[int | str | float | None, ...]:
        """The row for a table under ``HEADERS``."""
        by, cause = self.by.replace("_", " "), self.cause.replace("_", " ")
        effect = self.verdict.replace("_", " ") + (", undone" if self.reverted else "")
        return self.step, by, cause, self.action, effect, self.before, self.after


@dataclass(frozen=True, slots=True)
class ImprovementPlan:
    """What was done in a run, and what to do before the next.

    Attributes:
        rows: Interventions in their order.
        advice: Sentences for a person; empty where there was no trouble.
    """

    rows: tuple[PlanRow, ...]
    advice: tuple[str, ...]


def improvement_plan(records: Sequence[Record]) -> ImprovementPlan:
    """The plan of a run, from its metrics.jsonl."""
    rows: list[PlanRow] = []
    rate = 1.0
    for record in records:
        if record.kind != "event" or record.step is None:
            continue
        if row := _begun(record, len(rows) + 1):
            rows.append(row)
            values = record.fields.get("values") or {}
            rate = float(values.get("learning_rate_factor", rate))
        elif record.name in ("recovery_effect", "intervention_effect"):
            _judge(rows, record)
    causes = dict.fromkeys(row.cause for row in rows)
    share = f"{min(rate, 0.5):g}"
    advice = [_ADVICE[cause].format(rate=share) for cause in causes if cause in _ADVICE]
    harmful = [row for row in rows if row.verdict == "harmed"]
    advice += [f"do not expect much of this: {row.action} ({row.cause})" for row in harmful]
    return ImprovementPlan(tuple(rows), tuple(dict.fromkeys(advice)))


def _begun(record: Record, number: int) -> PlanRow | None:
    given, step = record.fields, record.step or 0
    if record.name == "recovery":
        return PlanRow(number, step, "recovery", str(given["cause"]), str(given["action"]))
    if record.name == "intervention":
        factor = _number(given, "factor")
        action = f"{given.get('parameter')} x {'?' if factor is None else f'{factor:.3g}'}"
        return PlanRow(number, step, "quality_controller", str(given.get("issue")), action)
    return None


def _judge(rows: list[PlanRow], record: Record) -> None:
    """Enter a verdict at the newest row that it can be of."""
    by = "recovery" if record.name == "recovery_effect" else "quality_controller"
    open_rows = [i for i, row in enumerate(rows) if row.by == by and row.verdict == PENDING]
    if not open_rows:
        return
    given = record.fields
    verdict = _verdict(given)
    before, after = _figures(given, verdict)
    values = asdict(rows[open_rows[-1]]) | {
        "verdict": verdict,
        "reverted": bool(given.get("reverted", given.get("outcome") == "reverted")),
        "before": before,
        "after": after,
    }
    rows[open_rows[-1]] = PlanRow(**values)


def _figures(given: dict[str, Any], verdict: str) -> tuple[float | None, float | None]:
    """The figure that judged it, before and after: the first that says what the verdict says."""
    pairs = [
        ("quality_before", "quality_after"),
        ("loss_before", "loss_after"),
        ("before", "after"),
    ]
    if "outcome" in given and not str(given.get("reason")).startswith("quality"):
        pairs = [("measured_before", "measured")]  # quality control looks at the fault itself
    found = [(_number(given, before), _number(given, after)) for before, after in pairs]
    for before, after in found:
        if before is not None and after is not None:
            fell = after < before
            if (verdict == "helped" and fell) or (verdict == "harmed" and not fell):
                return before, after
    return max(found, key=lambda pair: sum(value is not None for value in pair))


def _verdict(given: dict[str, Any]) -> str:
    """In one set of words: quality control says whether a change was kept, and why."""
    match given.get("outcome"):
        case "kept":
            return "helped"
        case "reverted":
            return "harmed" if given.get("reason") in _HARMFUL else "no_effect"
        case _:
            return str(given.get("verdict", PENDING))


def _number(given: dict[str, Any], name: str) -> float | None:
    value = given.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def as_markdown(plan: ImprovementPlan) -> str:
    """The plan for a person."""
    if not plan.rows:
        return "# Improvement plan\n\nNothing went wrong, and nothing was done.\n"
    head = "| # | step | by | cause | action | effect | before | after |\n" + "| --- " * 8 + "|\n"
    lines = [
        f"| {row.number} | {row.step} | {row.by} | {row.cause} | {row.action} "
        f"| {row.verdict}{', undone' if row.reverted else ''} "
        f"| {_shown(row.before)} | {_shown(row.after)} |\n"
        for row in plan.rows
    ]
    advice = "".join(f"- {sentence}\n" for sentence in plan.advice)
    text = f"# Improvement plan\n\n{head}{''.join(lines)}"
    return text + (f"\nBefore the next run:\n\n{advice}" if advice else "")


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def as_csv(plan: ImprovementPlan) -> str:
    """One row per intervention."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = [field.name for field in fields(PlanRow)]
    writer.writerow(names)
    writer.writerows([[getattr(row, name) for name in names] for row in plan.rows])
    return buffer.getvalue()


def write_plan(run: Path, plan: ImprovementPlan) -> None:
    """Write the plan into a run directory, in all three forms."""
    write_json(run / f"{STEM}.json", json_safe(asdict(plan)))
    write_text(run / f"{STEM}.md", as_markdown(plan))
    write_text(run / f"{STEM}.csv", as_csv(plan))
