"""The improvement plan says what was done, in order, and what came of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.config.tuner_sections import QualityControlParams
from kamerton.smart_tuner.quality_controller import QualityController
from kamerton.tracking import names
from kamerton.tracking.hooks import EvalFacts, Note
from kamerton.tracking.improvement_plan import (
    PENDING,
    as_csv,
    as_markdown,
    improvement_plan,
    write_plan,
)
from kamerton.tracking.metrics_file import Record


def event(name: str, step: int, **fields: Any) -> Record:
    return Record("event", 0.0, step, name=name, fields=fields)


EXPLOSION = event("recovery", 30, cause="explosion", action="went back",
                  values={"learning_rate_factor": 0.25})  # fmt: skip
HELPED = event("recovery_effect", 50, cause="explosion", verdict="helped", reverted=False,
               quality_before=4.0, quality_after=1.5)  # fmt: skip
TURNED = event("intervention", 60, issue="attention_diffuse", parameter="guided_attention_weight",
               factor=1.5)  # fmt: skip
HARMED = event("intervention_effect", 80, verdict="harmed", reverted=True, before=0.4, after=0.2)


def test_interventions_stand_in_order_with_their_verdicts() -> None:
    plan = improvement_plan([EXPLOSION, HELPED, TURNED, HARMED])
    assert [(row.number, row.step, row.by, row.verdict, row.reverted) for row in plan.rows] == [
        (1, 30, "recovery", "helped", False), (2, 60, "quality_controller", "harmed", True),
    ]  # fmt: skip
    assert (plan.rows[0].before, plan.rows[0].after) == (4.0, 1.5)
    assert any("0.25 times" in sentence for sentence in plan.advice)
    assert any("guided_attention_weight x 1.5" in sentence for sentence in plan.advice)


def test_a_verdict_belongs_to_the_newest_of_its_kind() -> None:
    later = event("recovery", 90, cause="collapse", action="made anew", values={})
    plan = improvement_plan([EXPLOSION, TURNED, later, HELPED])
    assert [row.verdict for row in plan.rows] == [PENDING, PENDING, "helped"]


def test_without_trouble_there_is_nothing_to_do() -> None:
    plan = improvement_plan([event("best", 10), Record("metrics", 0.0, 10, values={"x": 1.0})])
    assert plan.rows == plan.advice == ()
    assert "nothing was done" in as_markdown(plan)


def test_all_three_files_say_the_same(tmp_path: Path) -> None:
    plan = improvement_plan([EXPLOSION, HELPED, TURNED])
    write_plan(tmp_path, plan)
    as_json = json.loads((tmp_path / "improvement_plan.json").read_text())
    text = (tmp_path / "improvement_plan.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["action"] for row in as_json["rows"]] == [row["action"] for row in rows]
    text = (tmp_path / "improvement_plan.md").read_text()
    assert all(row["action"] in text for row in rows)


@given(st.lists(st.sampled_from([EXPLOSION, HELPED, TURNED, HARMED]), max_size=12))
def test_rows_are_the_interventions_whatever_happens_between(records: list[Record]) -> None:
    plan = improvement_plan(records)
    made = [record for record in records if record.name in ("recovery", "intervention")]
    assert [row.step for row in plan.rows] == [record.step for record in made]
    judged = sum(row.verdict != PENDING for row in plan.rows)
    assert judged <= len(records) - len(made)
    assert len(as_csv(plan).splitlines()) == len(plan.rows) + 1


def told_by_quality_control(
    entropy: tuple[float, float], quality: tuple[float, float]
) -> tuple[list[Record], Note]:
    """What the real controller notes of a change, and its note of what came of it.

    Args:
        entropy: Of attention, before the change and after it.
        quality: The figure of merit, likewise.
    """
    controller = QualityController(QualityControlParams(enabled=True))
    changed = False
    records: list[Record] = []
    for count in range(1, 12):
        values = {names.FORCED + names.ATTENTION_ENTROPY: entropy[changed]}
        facts = EvalFacts(step=10 * count, total=10**4, phase=2, values=values,
                          quality=quality[changed])  # fmt: skip
        for action in controller.on_eval(facts):
            if isinstance(action, Note) and action.event.startswith("intervention"):
                records.append(event(action.event, facts.step, **action.fields))
                changed = True
                if action.event == "intervention_effect":
                    return records, action
    raise AssertionError("nothing came of it")


@pytest.mark.parametrize(
    ("entropy", "quality", "verdict", "reverted", "figures"),
    [
        ((0.9, 0.7), (1.0, 1.0), "helped", False, (0.9, 0.7)),
        ((0.9, 0.9), (1.0, 1.0), "no_effect", True, (0.9, 0.9)),
        ((0.8, 0.9), (1.0, 1.0), "harmed", True, (0.8, 0.9)),
        ((0.9, 0.7), (1.0, 2.0), "harmed", True, (1.0, 2.0)),
    ],
)
def test_what_quality_control_says_of_its_changes_is_understood(
    entropy: tuple[float, float], quality: tuple[float, float], verdict: str, reverted: bool,
    figures: tuple[float, float],
) -> None:  # fmt: skip
    records, note = told_by_quality_control(entropy, quality)
    (row,) = improvement_plan(records).rows
    assert (row.verdict, row.reverted) == (verdict, reverted)
    assert (row.before, row.after) == figures
    assert row.cause == note.fields["issue"] == "attention_diffuse"
    assert row.action == "guided_attention_weight x 2"
    assert row.cells[4] == verdict.replace("_", " ") + (", undone" if reverted else "")
