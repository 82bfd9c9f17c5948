"""Figures in one look; the PNG of equal data is equal to the byte."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kamerton.core.errors import ToolMissingError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACCENT = "#1f5fae"
WARM = "#c8641b"
MUTED = "#8a93a3"
COLOURS = (ACCENT, WARM, "#1d7f4f", "#8247a5", "#b3261e", MUTED)

_LOOK: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#5b6472",
    "axes.grid": True,
    "grid.color": "#e4e7ed",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "image.cmap": "magma",
}


def new_figure(
    width: float = 8, height: float = 3, *, rows: int = 1, columns: int = 1
) -> "tuple[Figure, Any]":
    """A figure (inches) with one axes, or a grid of them; drawn without any display."""
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ToolMissingError("matplotlib", extra="report") from error
    with mpl.rc_context(_LOOK):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        return figure, figure.subplots(rows, columns)


def to_png(figure: "Figure", *, dots_per_inch: int = 110) -> bytes:
    """The figure as PNG without time or version inside."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return buffer.getvalue()


def histogram(
    values: Iterable[float], xlabel: str, *, bins: int = 30, ylabel: str = "clips"
) -> bytes:
    """Counts of one quantity."""
    figure, axes = new_figure(height=2.6)
    axes.hist(list(values), bins=bins, color=ACCENT)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return to_png(figure)


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    ylabel: str,
    *,
    log_y: bool = False,
    height: float = 3,
) -> bytes:
    """Curves by name, each (x, y)."""
    figure, axes = new_figure(height=height)
    for index, (name, (x, y)) in enumerate(series.items()):
        axes.plot(x, y, label=name, color=COLOURS[index % len(COLOURS)], linewidth=1.4)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if log_y:
        axes.set_yscale("log")
    if len(series) > 1:
        axes.legend()
    return to_png(figure)


def draw_matrix(axes: "Axes", matrix: Any, xlabel: str, ylabel: str, title: str = "") -> None:
    """A matrix as a picture with its first row at the bottom (mels, attention)."""
    axes.imshow(matrix, origin="lower", aspect="auto", interpolation="nearest")
    axes.grid(visible=False)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)


def image(
    matrix: Any, xlabel: str, ylabel: str, *, title: str = "", width: float = 8, height: float = 3
) -> bytes:
    """One matrix as a picture."""
    figure, axes = new_figure(width, height)
    draw_matrix(axes, matrix, xlabel, ylabel, title)
    return to_png(figure)


def bars(values: Mapping[str, float], xlabel: str, *, limit: float | None = None) -> bytes:
    """Horizontal bars by name, the first on top."""
    figure, axes = new_figure(height=0.6 + 0.32 * max(1, len(values)))
    axes.barh(list(values), list(values.values()), color=ACCENT)
    axes.invert_yaxis()
    axes.set(xlabel=xlabel)
    if limit is not None:
        axes.set_xlim(0, limit)
    return to_png(figure)
