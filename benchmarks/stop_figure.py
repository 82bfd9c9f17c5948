"""The picture of a stop benchmark: what each rule saves against how often it is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.stop_scoring import Score
from kamerton.report.figures import ACCENT, MUTED, WARM, new_figure, to_png


def draw(groups: Mapping[str, Mapping[str, Score]], names: Sequence[str]) -> bytes:
    """One plot per group of curves; fixed patience is the line to be above. PNG."""
    figure, grid = new_figure(5.2 * len(groups), 4.2, columns=len(groups))
    places = list(grid.flat) if len(groups) > 1 else [grid]
    for place, (title, scores) in zip(places, groups.items(), strict=True):
        shown = [name for name in names if name in scores]
        line = [scores[name] for name in shown if name.endswith("of plan")]
        place.plot([s.right for s in line], [s.saved for s in line], color=MUTED, linewidth=1.2)
        for name in shown:
            one = scores[name]
            ours = name.startswith("ours")
            colour = ACCENT if ours else MUTED if "patience" in name[:8] else WARM
            place.errorbar(
                one.right,
                one.saved,
                xerr=[[one.right - one.right_interval[0]], [one.right_interval[1] - one.right]],
                yerr=[[one.saved - one.saved_interval[0]], [one.saved_interval[1] - one.saved]],
                fmt="o",
                color=colour,
                markersize=6 if ours else 4,
                elinewidth=0.8,
            )
            place.annotate(
                name, (one.right, one.saved), xytext=(4, 4), textcoords="offset points",
                fontsize=6.5, color=colour,
            )  # fmt: skip
        place.axvline(0.97, color=MUTED, linewidth=0.7, linestyle=":")
        place.set(xlabel="share right", ylabel="share of the plan saved")
        place.set_title(title, fontsize=9)
    return to_png(figure)
