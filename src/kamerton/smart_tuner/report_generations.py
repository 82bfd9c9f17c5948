"""The page's part on generations: the tree as a picture, their curves, and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from kamerton.report.curves import Curve, Mark, MarkKind, Panel, Timeline, draw_panels
from kamerton.report.figures import ACCENT, COLOURS, MUTED, new_figure, to_png
from kamerton.report.page import Page
from kamerton.smart_tuner.generation_tree import CONTROL, Candidate, Generation, GenerationTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PER_ROW: Final = 3  # generations side by side in one picture; more would be too small to read
_INK: Final = "#1c2330"
_EDGE: Final = "#9aa3b2"
_CHOSEN_FACE: Final = "#eaf2fc"
_FAILED: Final = COLOURS[4]
_BOX: Final = (0.87, 0.76)  # of a column and of a row


def add_generations(page: Page, tree: GenerationTree, trial: Mapping[int, float]) -> None:
    """What generations tried, what of it was kept, and why.

    Args:
        page: To add to.
        tree: The generations.
        trial: Objective by step of the trial that they go on from.
    """
    page.section(
        "Generations",
        f"The best trial ({tree.trial}) was gone on with several times from one checkpoint: "
        "unchanged, which is the control, and with something changed. All are scored after the "
        "same cool-down. A change is gone on with only where it beats the control by more than "
        "noise, in standard deviations σ of their difference; and all of them are kept only where "
        "the whole run is better with them than without.",
    )
    if tree.verdict:
        page.verdict(_sentence(tree.verdict), True if tree.kept else None)
    if not tree.generations:
        return
    for first in range(0, len(tree.generations), _PER_ROW):
        part = tree.generations[first : first + _PER_ROW]
        last = first + len(part) == len(tree.generations)
        numbers = f"{part[0].number} to {part[-1].number}" if len(part) > 1 else f"{part[0].number}"
        page.figure(
            draw_tree(tree, part, last=last),
            f"generations {numbers}: each column goes on from what was accepted in the one before "
            "it (bold); σ is the difference to the control, more is better",
        )
    start = tree.generations[0].from_step
    page.figure(
        draw_panels(
            [generation_panel(tree, trial)], Timeline(float(tree.total_steps), start=start)
        ),
        "the objective of what was gone on with, of the trial it came from, and of every candidate "
        "with its cool-down; dots are the scores after it, lower is better",
    )
    page.table(
        ("generation", "steps", "from", "candidate", "change", "score", "σ to control",
         "accepted", "trained with", "why"),
        [_row(each, item) for each in tree.generations for item in each.candidates],
        "lower scores are better; the change of a candidate multiplies what came before it",
    )  # fmt: skip


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def _row(generation: Generation, item: Candidate) -> tuple[Any, ...]:
    gain = None if item.number == CONTROL else generation.gain(item)
    accepted = item.number == generation.accepted
    effective = ", ".join(f"{_plain(name)} × {value:g}" for name, value in item.effective.items())
    return (
        str(generation.number), f"{generation.from_step}–{generation.to_step}",
        generation.parent, f"g{generation.number}c{item.number}", _plain(item.words),
        None if item.score is None else f"{item.score:.4f}",
        None if gain is None else _sigmas(gain),
        "yes" if accepted else "",
        effective or (None if item.state == "failed" else "unchanged"),
        item.reason or (_plain(generation.reason) if accepted else ""),
    )  # fmt: skip


def _sigmas(gain: float) -> str:
    return f"{round(gain, 1) + 0.0:+.1f}"  # no "-0.0"


def _plain(name: str) -> str:
    return name.replace("_", " ")


def generation_panel(tree: GenerationTree, trial: Mapping[int, float]) -> Panel:
    """Objective by step: what was gone on with in one line, every other candidate faintly.

    Args:
        tree: The generations.
        trial: Objective by step of the trial that they go on from, to compare with.
    """
    start = tree.generations[0].from_step
    gone_on: dict[int, float] = {}
    curves: dict[str, Curve] = {}
    marks: list[Mark] = []
    for generation in tree.generations:
        for item in generation.candidates:
            label = f"g{generation.number}c{item.number}"
            curves[label] = _curve({**item.curve, **item.probe})
            chosen = item.number == generation.accepted
            gone_on |= item.curve if chosen else {}
            if item.score is not None and item.probe:
                kind: MarkKind = "accepted" if chosen else "rejected"
                marks.append(Mark(float(max(item.probe)), item.score, kind, label))
    whole = f"trial {tree.trial}"
    faint = frozenset(curves)
    later = {step: value for step, value in trial.items() if step >= start}
    lines = {"gone on with": _curve(gone_on), whole: _curve(later), **curves}
    return Panel(
        "objective along the generations", lines, dashed=frozenset({whole}), faint=faint,
        marks=sorted(marks, key=lambda mark: mark.kind),
    )  # fmt: skip


def _curve(points: Mapping[int, float]) -> Curve:
    return list(map(float, points)), list(points.values())


def draw_tree(tree: GenerationTree, part: Sequence[Generation], *, last: bool) -> bytes:
    """Some generations as boxes and lines, from the one that the first goes on from.

    Args:
        tree: All of it.
        part: Generations side by side.
        last: Whether the run to the end of the budget follows them.
    """
    final = last and tree.objective is not None
    columns = 1 + len(part) + final
    rows = max(len(generation.candidates) for generation in part)
    figure, axes = new_figure(max(4.6, 2.0 * columns), 0.5 + 0.85 * rows)
    axes.set_axis_off()
    axes.grid(visible=False)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.4, -0.75)
    parent = (0.0, (rows - 1) / 2)
    _box(axes, parent, _parent_words(tree, part[0]), chosen=True)
    for column, generation in enumerate(part, start=1):
        heading = f"generation {generation.number}: to step {generation.to_step}"
        axes.text(column, -0.6, heading, ha="center", fontsize=7, color=MUTED)
        parent = _draw_generation(axes, generation, column, parent)
    if final:
        place = (columns - 1.0, parent[1])
        words = f"whole run: {tree.objective:.4f}\n{'kept' if tree.kept else 'not kept'}"
        _line(axes, parent, place, chosen=True)
        _box(axes, place, words, chosen=tree.kept)
    return to_png(figure)


def _parent_words(tree: GenerationTree, first: Generation) -> str:
    if first.number == 1:
        return f"trial {tree.trial}\nup to step {first.from_step}"
    return f"{first.parent}\nat step {first.from_step}"


def _draw_generation(
    axes: Axes, generation: Generation, column: int, parent: tuple[float, float]
) -> tuple[float, float]:
    """Boxes of all candidates and lines from their parent; returns where the accepted one is."""
    follows = parent
    for row, item in enumerate(generation.candidates):
        chosen, place = item.number == generation.accepted, (float(column), float(row))
        _line(axes, parent, place, chosen=chosen)
        failed = item.state == "failed"
        _box(axes, place, _words(generation, item), chosen=chosen, failed=failed)
        follows = place if chosen else follows
    return follows


def _words(generation: Generation, item: Candidate) -> str:
    changes = _plain(item.words).replace(", ", "\n")
    if item.score is None:
        return f"{changes}\nfailed"
    gain = generation.gain(item)
    against = "" if gain is None or item.number == CONTROL else f"  {_sigmas(gain)} σ"
    return f"{changes}\n{item.score:.4f}{against}"


def _line(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], *, chosen: bool
) -> None:  # fmt: skip
    left, right = start[0] + _BOX[0] / 2, end[0] - _BOX[0] / 2
    middle = (left + right) / 2
    axes.plot(
        [left, middle, middle, right], [start[1], start[1], end[1], end[1]],
        color=ACCENT if chosen else _EDGE, linewidth=1.8 if chosen else 0.9,
        zorder=1.5 if chosen else 1,
    )  # fmt: skip


def _box(
    axes: Axes, place: tuple[float, float], words: str, *, chosen: bool, failed: bool = False
) -> None:
    from matplotlib.patches import Rectangle

    edge = _FAILED if failed else ACCENT if chosen else _EDGE
    axes.add_patch(
        Rectangle(
            (place[0] - _BOX[0] / 2, place[1] - _BOX[1] / 2), *_BOX,
            facecolor=_CHOSEN_FACE if chosen else "white", edgecolor=edge,
            linewidth=1.6 if chosen else 0.9, zorder=2,
        )
    )  # fmt: skip
    axes.text(
        *place, words, ha="center", va="center", fontsize=6.6, color=_INK,
        fontweight="bold" if chosen else "normal", zorder=3, linespacing=1.25,
    )  # fmt: skip
