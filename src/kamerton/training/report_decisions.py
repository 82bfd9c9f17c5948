"""The part of a run's page that says how it was steered: decisions, votes, the improvement plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kamerton.report.curves import Curve, Interval, Mark, Panel, Timeline, draw_panels
from kamerton.report.page import Page
from kamerton.report.votes import add_votes, decision_words
from kamerton.tracking import Record, names
from kamerton.tracking.improvement_plan import HEADERS, improvement_plan
from kamerton.tracking.quality import quality_of


def add_decisions(
    page: Page, records: Sequence[Record], curves: Mapping[str, Curve], timeline: Timeline
) -> None:
    """Whether the run had to go on, evaluation by evaluation, and who voted how in the end."""
    decisions = [record for record in records if record.name == "decision"]
    interval = _forecast(records, timeline)
    if not decisions and interval is None:
        return
    last = decisions[-1] if decisions else None
    stop = next((item for item in decisions if item.fields.get("stop")), None)
    told = "" if last is None else decision_words(last.step, last.fields)
    page.section("Whether to go on", told)
    if interval is not None:
        page.text(_forecast_words(records))
    panels = [_quality(curves, stop, interval), *_evidence(curves)]
    panels = [panel for panel in panels if panel.curves]
    if panels:
        page.figure(
            draw_panels(panels, timeline),
            "the figure that the best checkpoint has least of; a run ends where the wait meets "
            "the patience, which evidence for stopping makes shorter",
        )
    if stop is not None and stop is not last:
        add_votes(page, stop.fields, f"the votes at step {stop.step}, where it had to end")
    if last is not None:
        add_votes(page, last.fields, f"the votes at the last evaluation, step {last.step}")


def _quality(
    curves: Mapping[str, Curve], stop: Record | None, interval: Interval | None
) -> Panel:  # fmt: skip
    """The figure of merit of each evaluation, where it ended, and what was foretold of it."""
    parts = [curves.get(name) for name in (names.VAL_MEL_LOSS, names.ATTENTION_SCORE)]
    found: dict[str, Curve] = {}
    marks: list[Mark] = []
    if all(parts):
        losses, attention = (dict(zip(*part, strict=True)) for part in parts if part)
        quality = {
            step: quality_of(
                {names.VAL_MEL_LOSS: loss, names.ATTENTION_SCORE: attention[step]}
            )
            for step, loss in losses.items()
            if step in attention
        }  # fmt: skip
        found = {"quality": (list(quality), list(quality.values()))}
        best = min(quality, key=lambda step: quality[step], default=None)
        if best is not None:
            marks = [Mark(best, quality[best], "best")]
        if stop is not None and stop.step in quality:
            marks.append(Mark(stop.step, quality[stop.step], "stopped"))
    return Panel("quality: mel loss + 1 - diagonality", found, marks=marks, interval=interval)


def _evidence(curves: Mapping[str, Curve]) -> list[Panel]:
    waiting = {
        "steps without a better one": curves.get(names.STOP_WAITED),
        "patience": curves.get(names.STOP_PATIENCE),
    }
    evidence = {
        "evidence for stopping": curves.get(names.STOP_EVIDENCE),
        "overfitting risk": curves.get(names.OVERFITTING_RISK),
    }
    scores = {
        name.removeprefix(names.STOP_SCORE).replace("_", " "): curve
        for name, curve in curves.items()
        if name.startswith(names.STOP_SCORE)
    }
    limits = (-1.05, 1.05)
    return [
        _panel("steps without a better evaluation", waiting, dashed=frozenset({"patience"})),
        _panel("evidence (1 stop, -1 go on) and risk", evidence, limits=limits),
        _panel("votes: score times confidence", scores, limits=limits),
    ]


def _panel(title: str, curves: Mapping[str, Curve | None], **how: Any) -> Panel:
    return Panel(title, {name: curve for name, curve in curves.items() if curve}, **how)


def _forecast(records: Sequence[Record], timeline: Timeline) -> Interval | None:
    """What was foretold of the final quality, from the evaluation that told it."""
    told = _told(records)
    if told is None or told.step is None:
        return None
    try:
        low, middle, high = (float(told.fields[key]) for key in ("low", "final_quality", "high"))
        share = float(told.fields["level"])
    except (KeyError, TypeError, ValueError):
        return None
    name = f"foretold, {share:.0%}"
    return Interval(float(told.step), timeline.end, low, middle, high, name)


def _told(records: Sequence[Record]) -> Record | None:
    return next((record for record in records if record.name == "forecast"), None)


def _forecast_words(records: Sequence[Record]) -> str:
    told = _told(records)
    fields = told.fields if told else {}
    runs = int(fields.get("runs", 0))
    known = f"{runs} earlier runs" if runs else "no earlier run, only what runs usually do"
    return (
        f"At step {told.step if told else 0} it was foretold that the run would end with a quality "
        f"of {float(fields['final_quality']):.2f}, between {float(fields['low']):.2f} and "
        f"{float(fields['high']):.2f} in {float(fields['level']):.0%} of such runs; known were "
        f"{known}."
    )


def add_plan(page: Page, records: Sequence[Record]) -> None:
    """What was done about trouble, and what came of it."""
    plan = improvement_plan(records)
    if not plan.rows:
        return
    page.section(
        "Improvement plan",
        "What was done in the middle of the run about trouble, and whether it helped; what did "
        "harm was undone.",
    )
    if plan.advice:
        page.text(f"For the next run: {'; '.join(plan.advice)}.")
    page.table(
        HEADERS,
        [row.cells for row in plan.rows],
        "every intervention with its effect; also improvement_plan.json, .md and .csv",
    )
