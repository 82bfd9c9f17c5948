"""Events in words."""

from __future__ import annotations

from typing import Any

from kamerton.tracking import Record
from kamerton.training.event_lines import Happening, happenings, words


def event(step: int | None, name: str, **fields: Any) -> Record:
    return Record("event", 1.0, step, name=name, fields=fields)


def test_every_kind_says_what_why_and_what_was_done() -> None:
    found = happenings(
        [
            event(0, "warm_start", source="/somewhere/best.pt", sha256="f" * 64,
                  taken=["a", "b"], fresh=["c"], left=[], new_rows=[]),
            event(10, "phase", phase=1, reason="goal"),
            event(20, "recovery", cause="plateau", action="let the learning rate rise anew",
                  values={"best_step": 5.0}),
            event(None, "tracking_trouble", place="TensorBoardTracker", reason="disk full"),
            event(None, "tracking_recovered", place="metrics.jsonl", attempts=3),
            event(30, "checkpoint_failed", reason="No space left on device", bytes_needed=9),
            event(31, "something_new", value=0.25, names=["x", "y"]),
        ]
    )  # fmt: skip
    assert found == [
        Happening(0, "warm start", "weights of ffffffffffff",
                  "taken 2, fresh 1, left 0, new rows 0"),
        Happening(10, "phase 2, learning", "the goal before it was met"),
        Happening(20, "recovery: no better evaluation for long", "best step 5",
                  "let the learning rate rise anew"),
        Happening(None, "TensorBoardTracker failed", "disk full", "tried again"),
        Happening(None, "metrics.jsonl works again"),
        Happening(30, "a checkpoint could not be written", "No space left on device",
                  "kept in memory, tried again"),
        Happening(31, "something new", "value 0.25, names x y"),
    ]  # fmt: skip


def test_what_is_ordinary_or_tells_of_interruptions_is_left_out() -> None:
    kept = [event(1, name) for name in ("best", "resumed", "ended", "effective", "control")]
    assert happenings([*kept, Record("metrics", 1.0, 1, values={"loss": 1.0})]) == []


def test_steps_skipped_in_a_row_are_one_line_even_where_something_was_done_between() -> None:
    found = happenings(
        [
            event(4, "non_finite_step", loss="nan", grad_norm="nan"),
            event(5, "non_finite_step", loss="inf", grad_norm="nan"),
            event(5, "recovery", cause="non_finite", action="halve the learning rate"),
            event(6, "non_finite_step", loss="inf", grad_norm="inf"),
            event(9, "non_finite_step", loss="nan", grad_norm="nan"),
        ]
    )
    assert [(line.step, line.what) for line in found] == [
        (4, "3 steps in a row not finite"), (5, "recovery: steps that are not finite"),
        (9, "a step was not finite"),
    ]  # fmt: skip
    assert found[0].why == "at last loss inf, gradient norm inf"


def test_nested_fields_are_read_as_words() -> None:
    assert words({"lr": {"owner": "phase", "value": 1e-4}, "none": []}) == (
        "lr (owner phase, value 0.0001), none none"
    )
