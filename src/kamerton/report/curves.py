"""Curves over the steps of a run: several small plots on one axis of time, with its phases.

The PNG of equal data is equal to the byte.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from kamerton.report.figures import COLOURS, MUTED, new_figure, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

Curve = tuple[Sequence[float], Sequence[float]]  # steps and values
MarkKind = Literal["best", "pruned", "stopped", "failed", "intervention", "accepted", "rejected"]

_INK: Final = "#1c2330"
_SOFT: Final = "#5b6472"
_BAND: Final = ("#ffffff", "#f1f4f9")
_MARK: Final = "#b3261e"
_FAINT: Final = "#c3c9d4"
_MOST_POINTS: Final = 1500  # of one curve: more than its pixels
_SMOOTH_FROM: Final = 60  # points from which noise hides the course of a curve
_SMOOTH_SHARE: Final = 0.02  # of the points, the memory of the smoothed curve
# Shape, colour and words of each kind of mark.
_MARKS: Final[Mapping[MarkKind, tuple[str, str, str]]] = {
    "best": ("*", "#1f5fae", "best"),
    "pruned": ("x", _MARK, "ended early by the search"),
    "stopped": ("s", "#c8641b", "ended by its stop controller"),
    "failed": ("X", "#1c2330", "failed"),
    "intervention": ("^", "#8247a5", "intervention"),
    "accepted": ("o", "#1d7f4f", "score, accepted"),
    "rejected": ("o", MUTED, "score, not accepted"),
}
_LEGEND: Final[Mapping[str, Any]] = {
    "fontsize": 7, "handlelength": 1.6, "borderaxespad": 0.2, "labelcolor": _INK, "frameon": False,
}  # fmt: skip
_TALL: Final = 5  # entries of a legend; more would cover half of a plot
_NEAR: Final = 0.045  # of either axis: names of marks closer than that would overlap


@dataclass(frozen=True, slots=True)
class Mark:
    """A place on a curve where something was decided.

    Attributes:
        step: Where.
        value: Of the curve there.
        kind: What.
        name: Short, written beside it; "" for none.
    """

    step: float
    value: float
    kind: MarkKind
    name: str = ""


@dataclass(frozen=True, slots=True)
class Interval:
    """What was foretold of a value: where it would lie at a later step.

    Attributes:
        from_step: When it was foretold.
        to_step: For when.
        low: Bound of the interval.
        middle: What is most to be expected.
        high: The other bound.
        name: For the legend.
    """

    from_step: float
    to_step: float
    low: float
    middle: float
    high: float
    name: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot.

    Attributes:
        title: What its values are.
        curves: By name; the first is drawn in the accent colour.
        noisy: Names of curves that are also drawn smoothed.
        dashed: Names of curves that are there to compare with.
        logarithmic: Whether the values are.
        limits: Of the values; None where the curves decide.
        faint: Names of curves that are only there to be compared with; one entry in the legend.
        marks: Decisions.
        interval: What was foretold; None for nothing.
    """

    title: str
    curves: Mapping[str, Curve]
    noisy: frozenset[str] = frozenset()
    dashed: frozenset[str] = frozenset()
    logarithmic: bool = False
    limits: tuple[float, float] | None = None
    faint: frozenset[str] = frozenset()
    marks: Sequence[Mark] = ()
    interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class Timeline:
    """What every plot shows of the run.

    Attributes:
        end: The last step.
        bands: Phases by name, each from a step to the next one's first.
        marks: Steps at which something was done about trouble.
        start: The first step.
    """

    end: float
    bands: Sequence[tuple[str, float]] = ()
    marks: Sequence[float] = ()
    start: float = 0.0


def draw_panels(
    panels: Sequence[Panel], timeline: Timeline, *, columns: int = 2, one_legend: bool = False
) -> bytes:
    """The panels that have curves, row by row, as PNG.

    Args:
        panels: What to draw.
        timeline: What all of them show.
        columns: Side by side, at most.
        one_legend: One for all, below them: for panels of the same names.
    """
    shown = [panel for panel in panels if any(steps for steps, _ in panel.curves.values())]
    columns = min(columns, max(1, len(shown)))
    rows = max(1, math.ceil(len(shown) / columns))
    figure, grid = new_figure(9.2, 0.35 + 2.35 * rows, rows=rows, columns=columns)
    figure.set_layout_engine("constrained", h_pad=0.08)  # or titles touch the numbers above them
    places: list[Any] = list(grid.flat) if rows * columns > 1 else [grid]
    entries: dict[str, Any] = {}
    for place, panel in zip(places, shown, strict=False):
        _draw_timeline(place, timeline, named=columns < 3)
        _draw_panel(place, panel, timeline)
        handles, words = place.get_legend_handles_labels()
        entries |= dict(zip(words, handles, strict=True))
        if not one_legend and (len(panel.curves) > 1 or panel.marks or panel.interval):
            place.legend(ncols=1 if len(words) <= _TALL else 2, **_LEGEND)
    if one_legend and entries:
        figure.legend(
            entries.values(), entries.keys(), loc="outside lower center", ncols=4, **_LEGEND
        )
    for place in places[len(shown) :]:
        place.set_axis_off()
    for place in places[len(shown) - columns : len(shown)]:
        place.set_xlabel("step", color=_SOFT, fontsize=8)
    return to_png(figure)


def _draw_timeline(axes: Axes, timeline: Timeline, *, named: bool) -> None:
    starts = [start for _, start in timeline.bands]
    ends = [*starts[1:], timeline.end][: len(starts)]
    for index, ((name, start), end) in enumerate(zip(timeline.bands, ends, strict=True)):
        axes.axvspan(start, end, color=_BAND[index % 2], linewidth=0, zorder=0)
        if index:
            axes.axvline(start, color="#c9d0dc", linewidth=0.8, zorder=0.5)
        # A name wider than its band would cross into the next.
        if named and end - start > 0.011 * len(name) * timeline.end:
            axes.text(
                (start + end) / 2, 1.0, name, transform=axes.get_xaxis_transform(), ha="center",
                va="bottom", fontsize=6.5, color=MUTED,
            )  # fmt: skip
    for mark in timeline.marks:
        axes.axvline(mark, color=_MARK, linewidth=0.9, linestyle=(0, (2, 2)), zorder=0.6)


def _draw_panel(axes: Axes, panel: Panel, timeline: Timeline) -> None:
    colours = iter(COLOURS * (1 + len(panel.curves) // len(COLOURS)))
    for name, curve in panel.curves.items():
        steps, values = _drawable(curve, panel)
        if not steps:
            continue
        if name in panel.faint:
            axes.plot(steps, values, color=_FAINT, linewidth=0.9, zorder=1.5)
            continue
        colour = _SOFT if name in panel.dashed else next(colours)
        style = (0, (4, 2)) if name in panel.dashed else "-"
        if name in panel.noisy and len(steps) >= _SMOOTH_FROM:
            axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.28)
            values = _smoothed(values)
        marker = "o" if len(steps) == 1 else None
        axes.plot(
            steps, values, label=name, color=colour, linestyle=style, linewidth=1.5,
            marker=marker, markersize=3,
        )  # fmt: skip
    axes.set_title(panel.title, loc="left", fontsize=9, fontweight="bold", color=_INK, pad=12)
    axes.set_xlim(timeline.start, timeline.end)
    axes.tick_params(labelsize=7.5, colors=_SOFT, length=2)
    if panel.interval is not None:
        _draw_interval(axes, panel.interval)
    if panel.logarithmic:
        axes.set_yscale("log")
        number_plainly(axes.yaxis)
    if panel.limits is not None:
        axes.set_ylim(*panel.limits)
    if panel.faint & panel.curves.keys():
        axes.plot([], [], color=_FAINT, linewidth=0.9, label="others")
    _draw_marks(axes, panel)


def _draw_interval(axes: Axes, interval: Interval) -> None:
    steps = [interval.from_step, interval.to_step]
    axes.fill_between(
        steps, interval.low, interval.high, color=MUTED, alpha=0.22, linewidth=0,
        label=interval.name,
    )  # fmt: skip
    axes.plot(steps, [interval.middle] * 2, color=MUTED, linewidth=1.0, linestyle=(0, (1, 1.5)))


def _draw_marks(axes: Axes, panel: Panel) -> None:
    """Each kind once in the legend, and names where they do not lie on each other."""
    seen: set[MarkKind] = set()
    named: list[tuple[float, float]] = []
    for mark in panel.marks:
        if not math.isfinite(mark.value) or (panel.logarithmic and mark.value <= 0):
            continue
        shape, colour, words = _MARKS[mark.kind]
        label = None if mark.kind in seen else words
        seen.add(mark.kind)
        axes.plot(
            [mark.step], [mark.value], marker=shape, color=colour, linestyle="none",
            markersize=9 if shape == "*" else 5.5, label=label, clip_on=False,
            zorder=3.5 if mark.kind == "accepted" else 3,
        )  # fmt: skip
        place = axes.transLimits.transform(axes.transScale.transform((mark.step, mark.value)))
        x, y = float(place[0]), float(place[1])
        free = all(abs(x - a) > _NEAR or abs(y - b) > _NEAR for a, b in named)
        if mark.name and free:
            named.append((x, y))
            axes.annotate(
                mark.name, (mark.step, mark.value), xytext=(-5, 3), textcoords="offset points",
                ha="right", fontsize=6.5, color=_SOFT,
            )  # fmt: skip


def number_plainly(axis: Axis) -> None:
    """Plain numbers on a logarithmic axis, at 1, 2 and 5 of each decade that has room for them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    wide = high > 50.0 * low
    axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _drawable(curve: Curve, panel: Panel) -> tuple[list[float], list[float]]:
    """Finite points (positive ones on a logarithmic axis), thinned out evenly."""
    points = [
        (step, value)
        for step, value in zip(*curve, strict=True)
        if math.isfinite(value) and (value > 0 or not panel.logarithmic)
    ]
    stride = math.ceil(len(points) / _MOST_POINTS) or 1
    kept = [*points[:-1:stride], *points[-1:]]
    return [step for step, _ in kept], [value for _, value in kept]


def _smoothed(values: Sequence[float]) -> list[float]:
    """An exponential mean over a fiftieth of the points, without the pull of the first."""
    keep = 1.0 - 1.0 / max(2.0, _SMOOTH_SHARE * len(values))
    total = weight = 0.0
    smooth = []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1.0
        smooth.append(total / weight)
    return smooth
