"""A curve as one line of text."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

BLOCKS: Final = "▁▂▃▄▅▆▇█"
PLAIN: Final = "_.-=*#"  # where the output takes no blocks
_WIDE: Final = 10.0  # highest over lowest from which a curve is drawn on a logarithmic scale


def sparkline(
    values: NDArray[np.float64],
    width: int,
    *,
    span: tuple[float, float] | None = None,
    blocks: str = BLOCKS,
) -> str:
    """One character per point, or per group of points where there are more than ``width``.

    A group is drawn at its median; ``!`` stands for one with a value that is not finite. Positive
    values that differ by more than ten times are drawn by their logarithms, for a loss falls far
    at first and what matters comes later.

    Args:
        values: (N,) in their order.
        width: Most characters.
        span: The values of the lowest and the highest sign; those of the curve where left out.
        blocks: The signs, lowest first.
    """
    groups = np.array_split(values, min(width, len(values))) if len(values) else []
    middles = np.array(
        [np.median(group[np.isfinite(group)]) if np.isfinite(group).any() else np.nan
         for group in groups]
    )  # fmt: skip
    signs = _signs(middles, span, len(blocks))
    return "".join(
        blocks[sign] if np.isfinite(group).all() else "!"
        for sign, group in zip(signs, groups, strict=True)
    )


def _signs(middles: NDArray[np.float64], span: tuple[float, float] | None, count: int) -> list[int]:
    """Which sign each value has; any for what is not finite."""
    finite = middles[np.isfinite(middles)]
    if not len(finite):
        return [0] * len(middles)
    low, high = span or (float(finite.min()), float(finite.max()))
    if span is None and low > 0 and high > _WIDE * low:
        middles, low, high = np.log(middles), float(np.log(low)), float(np.log(high))
    if high <= low:
        return [0] * len(middles)
    share = np.clip((np.nan_to_num(middles, nan=low) - low) / (high - low), 0.0, 1.0)
    return [min(count - 1, int(item * count)) for item in share]
