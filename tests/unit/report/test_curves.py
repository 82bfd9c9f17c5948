"""Curves: what is drawn is what was given, whatever it is."""

from __future__ import annotations

import io
import math

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kamerton.report import curves as module
from kamerton.report.curves import (
    Interval,
    Mark,
    Panel,
    Timeline,
    _drawable,
    _smoothed,
    draw_panels,
)

CURVE = ([1.0, 2.0, 3.0], [1.0, 4.0, 2.0])


def picture(panels: list[Panel], timeline: Timeline) -> np.ndarray:
    return np.asarray(matplotlib.image.imread(io.BytesIO(draw_panels(panels, timeline))))


def figure(monkeypatch: pytest.MonkeyPatch, *panels: Panel, **how: object):
    """The matplotlib figure that would become a picture."""
    monkeypatch.setattr(module, "to_png", lambda drawn: drawn)
    return draw_panels(panels, Timeline(3.0, start=1.0), **how)


def test_marks_are_drawn_where_they_are_with_names_that_do_not_overlap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    marks = [
        Mark(1.0, 1.0, "best", "5"), Mark(1.01, 1.0, "pruned", "6"), Mark(3.0, 2.0, "pruned", "7"),
        Mark(2.0, math.nan, "failed", "8"),
    ]  # fmt: skip
    (axes,) = figure(monkeypatch, Panel("loss", {"a": CURVE}, marks=marks)).axes
    single = [line for line in axes.lines if len(line.get_xdata()) == 1]
    drawn = [(line.get_xdata()[0], line.get_marker()) for line in single]
    assert drawn == [(1.0, "*"), (1.01, "x"), (3.0, "x")]
    assert [text.get_text() for text in axes.texts] == ["5", "7"]
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert words == ["a", "best", "ended early by the search"]


def test_an_interval_is_what_was_foretold(monkeypatch: pytest.MonkeyPatch) -> None:
    interval = Interval(1.5, 3.0, 0.5, 1.0, 2.5, "foretold, 80%")
    (axes,) = figure(monkeypatch, Panel("quality", {"a": CURVE}, interval=interval)).axes
    (area,) = axes.collections
    corners = area.get_paths()[0].vertices
    assert corners.min(axis=0).tolist() == [1.5, 0.5]
    assert corners.max(axis=0).tolist() == [3.0, 2.5]
    assert list(axes.lines[-1].get_ydata()) == [1.0, 1.0]
    assert "foretold, 80%" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_faint_curves_share_an_entry_and_panels_may_share_a_legend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = {"best": CURVE, "x": CURVE, "y": CURVE}
    panel = Panel("loss", names, faint=frozenset("xy"))
    together = figure(monkeypatch, panel, panel, one_legend=True)
    (legend,) = together.legends
    assert [text.get_text() for text in legend.get_texts()] == ["best", "others"]
    assert [axes.get_legend() for axes in together.axes] == [None, None]
    assert together.axes[0].get_xlim() == (1.0, 3.0)
    apart = figure(monkeypatch, panel, panel)
    assert apart.legends == []
    assert all(axes.get_legend() for axes in apart.axes)


def test_equal_data_is_equal_to_the_byte() -> None:
    panel = Panel("loss", {"a": CURVE, "b": CURVE}, noisy=frozenset("a"), logarithmic=True)
    timeline = Timeline(3.0, [("alignment", 0.0), ("learning", 2.0)], [1.5])
    assert draw_panels([panel], timeline) == draw_panels([panel], timeline)


@pytest.mark.parametrize(
    "other",
    [Timeline(3.0, [("alignment", 0.0), ("learning", 2.0)]), Timeline(3.0, (), [1.5]),
     Timeline(4.0)],
)  # fmt: skip
def test_phases_and_interventions_are_seen(other: Timeline) -> None:
    panel = Panel("loss", {"a": CURVE})
    assert draw_panels([panel], other) != draw_panels([panel], Timeline(3.0))


def test_a_panel_without_a_curve_takes_no_place() -> None:
    timeline = Timeline(3.0)
    one = [Panel("loss", {"a": CURVE})]
    assert draw_panels([*one, Panel("none", {})], timeline) == draw_panels(one, timeline)
    assert picture(one * 3, timeline).shape[0] > picture(one * 2, timeline).shape[0]
    assert draw_panels([], timeline).startswith(b"\x89PNG")


@given(values=st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=30),
       logarithmic=st.booleans())  # fmt: skip
def test_only_points_that_can_be_drawn_are(values: list[float], logarithmic: bool) -> None:
    curve = ([float(step) for step in range(len(values))], values)
    steps, kept = _drawable(curve, Panel("x", {}, logarithmic=logarithmic))
    expected = [
        (step, value) for step, value in zip(*curve, strict=True)
        if math.isfinite(value) and (value > 0 or not logarithmic)
    ]  # fmt: skip
    assert list(zip(steps, kept, strict=True)) == expected


@settings(max_examples=3)
@given(value=st.sampled_from([math.nan, math.inf, -math.inf, 0.0]))
def test_a_run_that_diverged_is_drawn(value: float) -> None:
    panel = Panel("loss", {"a": ([1.0, 2.0], [1.0, value])}, logarithmic=True)
    assert draw_panels([panel], Timeline(2.0)).startswith(b"\x89PNG")


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    steps = [float(step) for step in range(100_000)]
    kept, _ = _drawable((steps, steps), Panel("x", {}))
    assert 1000 <= len(kept) <= 1502
    assert (kept[0], kept[-1]) == (steps[0], steps[-1])


def test_smoothing_keeps_a_constant_and_follows_a_step() -> None:
    assert _smoothed([3.0] * 200) == pytest.approx([3.0] * 200)
    smooth = _smoothed([0.0] * 200 + [1.0] * 200)
    assert smooth[199] == 0.0
    assert smooth[200:] == sorted(smooth[200:])
    assert smooth[-1] == pytest.approx(1.0, abs=1e-6)
