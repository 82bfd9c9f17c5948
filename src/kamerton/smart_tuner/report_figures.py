"""Pictures of a study: the objective against the budget, and against each dimension."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from kamerton.config.search_space import Choice, Dimension, yaml_text
from kamerton.report.curves import number_plainly
from kamerton.report.figures import ACCENT, COLOURS, MUTED, WARM, new_figure, to_png
from kamerton.smart_tuner.report_story import STATE_WORDS, StudyStory
from kamerton.smart_tuner.trials import TrialResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RED: Final = COLOURS[4]
_GREEN: Final = COLOURS[2]
_MOST_NUMBERED: Final = 40  # trials whose numbers have room
_LONG: Final = 9  # letters that a choice may have below its column


def progress(story: StudyStory) -> bytes:
    """Every trial where the study stood when it ended, in steps, and the best so far."""
    figure, axes = new_figure(9.2, 3.6)
    ends = dict(
        zip(
            (item.number for item in story.results),
            accumulate(story.steps(item) for item in story.results),
            strict=True,
        )
    )
    scored = [item for item in story.results if item.objective is not None]
    for state, face in (("complete", ACCENT), ("pruned", "none")):
        found = [item for item in scored if item.state == state and item.number]
        _dots(axes, found, ends, facecolors=face, edgecolors=ACCENT, label=STATE_WORDS[state])
    _dots(axes, [item for item in scored if item.number == 0], ends, marker="D", color=WARM,
          label="baseline: unchanged parameters")  # fmt: skip
    _dots(axes, [item for item in scored if story.is_from_history(item)], ends, s=130,
          facecolors="none", edgecolors=_GREEN, linewidths=1.2, label="from history")  # fmt: skip
    end = _draw_best_so_far(axes, story, ends)
    failed = [ends[item.number] for item in story.results if item.state == "failed"]
    if failed:  # they have no objective: along the upper edge
        axes.scatter(failed, [0.97] * len(failed), marker="x", color=_RED, label="failed",
                     transform=axes.get_xaxis_transform())  # fmt: skip
    if len(scored) <= _MOST_NUMBERED:
        for item in scored:
            axes.annotate(
                str(item.number), (ends[item.number], item.objective or 0.0), xytext=(5, 4),
                textcoords="offset points", fontsize=7, color=MUTED,
            )  # fmt: skip
    axes.set_xlim(0, 1.03 * max(1, end))
    axes.margins(y=0.12)
    axes.set(xlabel="optimiser steps made by the study", ylabel="objective")
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return to_png(figure)


def _dots(axes: Axes, found: Sequence[TrialResult], ends: dict[int, int], **how: Any) -> None:
    if found:
        steps = [ends[item.number] for item in found]
        scores = [item.objective or 0.0 for item in found]
        axes.scatter(steps, scores, **how)


def _draw_best_so_far(axes: Axes, story: StudyStory, ends: dict[int, int]) -> int:
    """The line that falls with every better complete trial; returns where the study ended."""
    complete = [item for item in story.results if item.state == "complete"]
    steps = [ends[item.number] for item in complete]
    so_far = list(accumulate((item.objective or 0.0 for item in complete), min))
    end = max(ends.values(), default=0)
    tree = story.tree
    if tree is not None:
        end += story_steps_of_generations(story)
        if tree.objective is not None:
            axes.scatter([end], [tree.objective], marker="P", s=60, color="#8247a5",
                         label="after the generations")  # fmt: skip
            steps, so_far = [*steps, end], [*so_far, min(so_far[-1], tree.objective)]
    steps, so_far = [*steps, end], [*so_far, so_far[-1]]  # on to the end
    axes.step(steps, so_far, where="post", color=ACCENT, linewidth=1.0, label="best so far")
    return end


def story_steps_of_generations(story: StudyStory) -> int:
    """The optimiser steps that the generations cost, cool-downs included."""
    tree = story.tree
    if tree is None or not tree.generations:
        return 0
    steps = tree.generations[0].from_step  # the trunk
    for generation in tree.generations:
        for candidate in generation.candidates:
            end = max([*candidate.curve, *candidate.probe], default=generation.from_step)
            steps += end - generation.from_step
    if tree.objective is not None:
        steps += tree.total_steps - tree.generations[-1].to_step
    return steps


def slices(story: StudyStory) -> bytes:
    """The objective of each trial against its value of each dimension, one small plot each."""
    space = story.tune.search_space
    columns = min(4, len(space))
    rows = math.ceil(len(space) / columns)
    figure, grid = new_figure(9.2, 0.2 + 2.3 * rows, rows=rows, columns=columns)
    places: list[Axes] = list(grid.flat) if rows * columns > 1 else [grid]
    scored = [item for item in story.results if item.objective is not None]
    for index, (axes, (name, dimension)) in enumerate(zip(places, space.items(), strict=False)):
        _draw_slice(axes, story, scored, name, dimension)
        if index % columns == 0:
            axes.set_ylabel("objective", fontsize=8)
    for axes in places[len(space) :]:
        axes.set_axis_off()
    return to_png(figure)


def _draw_slice(
    axes: Axes, story: StudyStory, scored: Sequence[TrialResult], name: str, dimension: Dimension
) -> None:
    values = [item.params.get(name) for item in scored]
    labels: list[str] = []
    if dimension.choices is not None or not all(_is_number(value) for value in values):
        labels = list(dict.fromkeys(map(yaml_text, [*(dimension.choices or ()), *values])))
        places = [float(labels.index(yaml_text(value))) for value in values]
    else:
        places = [float(value) for value in values if isinstance(value, int | float)]
    for item, place in zip(scored, places, strict=True):
        baseline, best = item.number == 0, item.number == story.best.number
        colour = WARM if baseline else ACCENT
        face = colour if item.state == "complete" else "none"
        marker = "*" if best else "D" if baseline else "o"
        axes.scatter([place], [item.objective or 0.0], marker=marker, s=95 if best else 22,
                     facecolors=face, edgecolors=colour, zorder=3 if best else 2)  # fmt: skip
    if labels:
        axes.set_xticks(range(len(labels)), [_cut(label) for label in labels])
        axes.set_xlim(-0.6, len(labels) - 0.4)
    elif dimension.log:
        axes.set_xscale("log")
        number_plainly(axes.xaxis)
    axes.set_title(name.partition(".")[2] or name, loc="left", fontsize=8, fontweight="bold")
    axes.tick_params(labelsize=7)


def _is_number(value: Choice) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cut(label: str) -> str:
    return label if len(label) <= _LONG else f"{label[: _LONG - 1]}…"
