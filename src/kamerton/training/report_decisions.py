"""The part of a run's page that says how it was steered: decisions, votes, the improvement plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from kamerton.report.curves import Curve, Panel, Timeline, draw_panels
from kamerton.report.page import Page
from kamerton.tracking import Record, names
from kamerton.tracking.improvement_plan import improvement_plan

_STATUS_WORDS: Final = {
    "not_converged": "has not converged", "converging": "is converging",
    "converged": "has converged", "diverging": "is diverging", "stalled": "is stalled",
}  # fmt: skip


def add_decisions(
    page: Page, records: Sequence[Record], curves: Mapping[str, Curve], timeline: Timeline
) -> None:
    """Whether the run had to go on, evaluation by evaluation, and who voted how at the last."""
    decisions = [record for record in records if record.name == "decision"]
    if not decisions:
        return
    last = decisions[-1].fields
    status = _STATUS_WORDS.get(str(last.get("status")), str(last.get("status")))
    page.section(
        "Whether to go on",
        f"After step {decisions[-1].step} the run {status}; the risk of overfitting is "
        f"{last.get('overfitting')}. {last.get('reason', '')}",
    )
    waiting = {
        "steps without a better one": curves.get(names.STOP_WAITED),
        "patience": curves.get(names.STOP_PATIENCE),
    }
    evidence = {
        "evidence for stopping": curves.get(names.STOP_EVIDENCE),
        "overfitting risk": curves.get(names.OVERFITTING_RISK),
    }
    panels = [
        _panel("steps without a better evaluation", waiting, dashed=frozenset({"patience"})),
        _panel("evidence (1 stop, -1 go on) and risk", evidence, limits=(-1.05, 1.05)),
    ]
    panels = [panel for panel in panels if panel.curves]
    if panels:
        page.figure(draw_panels(panels, timeline), "a run ends where the wait meets the patience")
    page.table(
        ("voter", "group", "score", "confidence", "why"),
        [_vote_row(vote) for vote in last.get("votes", ())],
        "the votes at the last evaluation: 1 stop, -1 go on, 0 no opinion",
    )


def _panel(title: str, curves: Mapping[str, Curve | None], **how: Any) -> Panel:
    return Panel(title, {name: curve for name, curve in curves.items() if curve}, **how)


def _vote_row(vote: Mapping[str, Any]) -> tuple[Any, ...]:
    group = str(vote.get("group") or "informs only").replace("_", " ")
    voter = str(vote.get("voter")).replace("_", " ")
    return voter, group, vote.get("score"), vote.get("confidence"), vote.get("reason")


def add_plan(page: Page, records: Sequence[Record]) -> None:
    """What was done about trouble, and what came of it."""
    plan = improvement_plan(records)
    if not plan.rows:
        return
    page.section("Improvement plan", " ".join(f"{advice}." for advice in plan.advice))
    page.table(
        ("step", "by", "cause", "action", "effect", "before", "after"),
        [
            (row.step, row.by.replace("_", " "), row.cause.replace("_", " "), row.action,
             row.verdict.replace("_", " ") + (", undone" if row.reverted else ""),
             row.before, row.after)
            for row in plan.rows
        ],
        "every intervention with its effect; also improvement_plan.json, .md and .csv",
    )  # fmt: skip
