"""The picture of a stop benchmark: what each rule saves against how often it is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.stop_scoring import Score
from kamerton.report.figures import ACCENT, COLOURS, MUTED, new_figure, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST_SHOWN = 0.6  # share right; what is worse stands in the table alone
_LOOKS = (
    *((COLOURS[3], marker) for marker in "s^"),  # the median rule
    *((COLOURS[2], marker) for marker in "ov"),  # the specification's
    *((ACCENT, marker) for marker in "Dd"),  # ours
    (COLOURS[4], "*"),  # the oracle
)
_SHARE = " % of plan"


def draw(groups: Mapping[str, Mapping[str, Score]], names: Sequence[str]) -> bytes:
    """One plot per group of curves; fixed shares of patience are the line to be above. PNG."""
    figure, grid = new_figure(4.6 * len(groups), 4.4, columns=len(groups))
    places = list(grid.flat) if len(groups) > 1 else [grid]
    others = [name for name in names if not name.startswith("patience")]
    looks = dict(zip(others, _LOOKS, strict=False))
    handles: dict[str, Any] = {}
    for place, (title, scores) in zip(places, groups.items(), strict=True):
        shown = {n: s for n, s in scores.items() if n in names and s.right >= LEAST_SHOWN}
        _draw_patience(place, {n: s for n, s in shown.items() if n.startswith("patience")})
        for name in others:
            if name in shown:
                _mark(place, shown[name], *looks[name], name)
        place.axvline(0.97, color=MUTED, linewidth=0.7, linestyle=":")
        place.set(xlabel="share right", xlim=(LEAST_SHOWN, 1.02))
        place.set_title(title, fontsize=9)
        handles |= {
            label: handle for handle, label in zip(*place.get_legend_handles_labels(), strict=True)
        }
    places[0].set_ylabel("share of the plan saved")
    figure.legend(handles.values(), handles.keys(), fontsize=7, loc="outside lower center", ncols=4)
    return to_png(figure)


def _draw_patience(place: Axes, scores: Mapping[str, Score]) -> None:
    line = [one for name, one in scores.items() if name.endswith(_SHARE)]
    place.plot(
        [one.right for one in line], [one.saved for one in line],
        color=MUTED, linewidth=1.2, label="patience, share of the plan",
    )  # fmt: skip
    for name, one in scores.items():
        _mark(place, one, MUTED, ".", None)
        place.annotate(
            name.removeprefix("patience ").replace(_SHARE, " %"), (one.right, one.saved),
            xytext=(-4, -9), textcoords="offset points", fontsize=6.5, color=MUTED, ha="right",
        )  # fmt: skip


def _mark(place: Axes, one: Score, colour: str, marker: str, label: str | None) -> None:
    """A point with its intervals."""
    style: dict[str, Any] = {"color": colour, "elinewidth": 0.7, "markersize": 6}
    place.errorbar(
        one.right, one.saved, fmt=marker, label=label, **style,
        xerr=[[one.right - one.right_interval[0]], [one.right_interval[1] - one.right]],
        yerr=[[one.saved - one.saved_interval[0]], [one.saved_interval[1] - one.saved]],
    )  # fmt: skip
