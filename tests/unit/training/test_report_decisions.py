"""The part of the page that says how a run was steered is of its record."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from kamerton.report.curves import Panel, Timeline
from kamerton.report.page import Page
from kamerton.stopping import replay
from kamerton.tracking import JsonlTracker, Record, names, read_records
from kamerton.tracking.curves import read_curves
from kamerton.training import report_decisions as module

PLANNED = 400
TIMELINE = Timeline(400.0)
FORECAST = {"final_quality": 1.2, "low": 0.75, "high": 2.5, "level": 0.8, "runs": 3}


def fields_of(decision: Any) -> dict[str, Any]:
    votes = [
        {
            "voter": vote.voter,
            "group": vote.group,
            "score": vote.score,
            "confidence": vote.confidence,
            "reason": vote.reason,
        }
        for vote in decision.votes
    ]
    given = ("stop", "cause", "reason", "status", "overfitting")
    return {name: getattr(decision, name) for name in given} | {"votes": votes}  # fmt: skip


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """A run that settles and is ended by the real stop decision, and goes on for two more."""
    path: Path = tmp_path_factory.mktemp("run")
    losses = [0.6 + 2.0 * 0.8**index for index in range(100)]
    told = replay(losses, PLANNED, attention=[0.8] * 100, interval=4.0)
    assert told.stop_index is not None
    tracker = JsonlTracker(path)
    for index in range(told.stop_index + 3):
        decision = told.decisions[min(index, told.stop_index)]
        step, stop = 4 * (index + 1), index == told.stop_index
        tracker.log_event("decision", step=step, **fields_of(decision) | {"stop": stop})
        tracker.log_metrics(
            {
                names.VAL_MEL_LOSS: losses[index], names.ATTENTION_SCORE: 0.8,
                names.STOP_WAITED: decision.waited_steps,
                names.STOP_PATIENCE: decision.patience_steps,
                names.STOP_EVIDENCE: decision.evidence,
                names.OVERFITTING_RISK: decision.overfitting_score,
                names.stop_score("mann_kendall"): 0.25,
            },
            step,
        )  # fmt: skip
        if index == 9:
            tracker.log_event("forecast", step=step, **FORECAST)
    tracker.close("finished")
    return read_records(path / "metrics.jsonl")


def page_of(records: list[Record], monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Panel]]:
    drawn: list[Panel] = []
    monkeypatch.setattr(module, "draw_panels", lambda panels, _: drawn.extend(panels) or b"")
    page = Page("t")
    module.add_decisions(page, records, read_curves(records), TIMELINE)
    return page.render(), {panel.title.split(":")[0].split(" (")[0]: panel for panel in drawn}


def test_every_curve_is_of_the_record(
    records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, panels = page_of(records, monkeypatch)
    series = read_curves(records)
    waiting = panels["steps without a better evaluation"]
    assert waiting.curves["patience"] == series[names.STOP_PATIENCE]
    assert waiting.curves["steps without a better one"] == series[names.STOP_WAITED]
    evidence = panels["evidence"]
    assert evidence.curves["evidence for stopping"] == series[names.STOP_EVIDENCE]
    assert evidence.curves["overfitting risk"] == series[names.OVERFITTING_RISK]
    assert panels["votes"].curves["mann kendall"] == series[names.stop_score("mann_kendall")]
    _, values = panels["quality"].curves["quality"]
    assert values == pytest.approx([loss + 0.2 for loss in series[names.VAL_MEL_LOSS][1]])


def test_the_stop_the_best_and_the_forecast_are_marked(
    records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    html, panels = page_of(records, monkeypatch)
    (stop,) = [item.step for item in records if item.fields.get("stop")]
    last = max(item.step for item in records if item.step is not None)
    marks = {mark.kind: mark.step for mark in panels["quality"].marks}
    assert marks == {"best": last, "stopped": stop}  # it still falls by a hair
    interval = panels["quality"].interval
    assert interval is not None
    assert (interval.from_step, interval.to_step) == (40.0, TIMELINE.end)
    assert (interval.low, interval.middle, interval.high) == (0.75, 1.2, 2.5)
    assert "a quality of 1.20, between 0.75 and 2.50 in 80% of such runs" in html
    assert "known were 3 earlier runs" in html


def test_votes_at_the_stop_and_at_the_last_evaluation(
    records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    decisions = [item for item in records if item.name == "decision"]
    (stop,) = [item for item in decisions if item.fields["stop"]]
    html, _ = page_of(records, monkeypatch)
    assert html.count("<table>") == 2
    assert f"the votes at step {stop.step}, where it had to end" in html
    assert f"the votes at the last evaluation, step {decisions[-1].step}" in html
    for vote in stop.fields["votes"]:
        assert f"<td>{vote['voter'].replace('_', ' ')}</td>" in html
    # A run that was ended there has one table.
    ended, _ = page_of(records[: records.index(stop) + 1], monkeypatch)
    assert ended.count("<table>") == 1
    assert "It ends here, cause: " in ended


def test_a_run_that_nobody_steered_says_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    html, panels = page_of([Record("metrics", 0.0, 5, values={"x": 1.0})], monkeypatch)
    assert panels == {}
    assert "Whether to go on" not in html


def test_a_forecast_alone_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {names.VAL_MEL_LOSS: 1.0, names.ATTENTION_SCORE: 0.5}
    records = [Record("metrics", 0.0, 5, values=values),
               Record("event", 0.0, 5, name="forecast", fields=FORECAST | {"runs": 0})]  # fmt: skip
    html, panels = page_of(records, monkeypatch)
    assert panels["quality"].curves["quality"] == ([5.0], [1.5])
    assert "no earlier run" in html
    broken = [records[0], Record("event", 0.0, 5, name="forecast", fields={"low": None})]
    assert page_of(broken, monkeypatch)[1] == {}


def test_the_plan_is_a_table_of_interventions_and_nothing_is_written_raw() -> None:
    records = [
        Record("event", 0.0, 30, name="recovery",
               fields={"cause": "explosion", "action": "<b>went back</b>", "values": {}}),
        Record("event", 0.0, 50, name="recovery_effect",
               fields={"verdict": "helped", "reverted": False, "quality_before": 4.0,
                       "quality_after": 1.5}),
    ]  # fmt: skip
    page = Page("t")
    module.add_plan(page, records)
    assert "For the next run: begin the next run with a learning rate of 0.5 times" in page.render()
    cells = re.findall("<td.*?>(.*?)</td>", page.render())
    assert cells == ["30", "recovery", "explosion", "&lt;b&gt;went back&lt;/b&gt;", "helped",
                     "4.000", "1.500"]  # fmt: skip
    empty = Page("t")
    module.add_plan(empty, [])
    assert "Improvement plan" not in empty.render()
