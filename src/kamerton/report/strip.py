"""A recording as a strip: its level over time, where somebody speaks, and the clips cut from it.

Drawn as SVG, a few kilobytes each, because a page may show many and a plotting library takes a
tenth of a second for one.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from kamerton.report.figures import WARM

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MARGIN, _WIDTH = 44.0, 956.0  # the names of the levels stand left of the picture
_BARS, _HEIGHT, _FOOT = 12.0, 96.0, 18.0
_TICK_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)
_MOST_TICKS = 12
_GRID_DB = (-20, -40, -60)


def draw_strip(
    seconds: float,
    level_db: Sequence[float],
    speech: Sequence[float],
    kept: Iterable[tuple[float, float]],
    rejected: Iterable[tuple[float, float]],
    *,
    floor_db: float,
) -> str:
    """An SVG element.

    Args:
        seconds: length of the recording.
        level_db: peaks of equal parts in dB of full scale, from ``floor_db`` to 0.
        speech: the share of speech in each of those parts.
        kept: clips as (start, end) in seconds.
        rejected: likewise.
        floor_db: the level at the bottom.
    """
    seconds = max(seconds, 1e-3)
    parts = [
        *_speech(speech),
        _level(level_db, floor_db),
        *_grid(floor_db),
        *_bars(kept, seconds, "var(--accent)"),
        *_bars(rejected, seconds, "var(--bad)"),
        *_ticks(seconds),
    ]
    box = f"{-_MARGIN:g} 0 {_MARGIN + _WIDTH:g} {_BARS + _HEIGHT + _FOOT:g}"
    return f'<svg viewBox="{box}" width="100%" role="img">{"".join(parts)}</svg>'


def _y(level_db: float, floor_db: float) -> float:
    return _BARS + _HEIGHT * min(1.0, max(0.0, level_db / floor_db))


def _speech(speech: Sequence[float]) -> list[str]:
    column = _WIDTH / max(1, len(speech))
    parts, position = [], 0
    for spoken, group in groupby(share >= 0.5 for share in speech):
        size = sum(1 for _ in group)
        if spoken:
            parts.append(
                f'<rect x="{position * column:.1f}" y="{_BARS:g}" width="{size * column:.1f}" '
                f'height="{_HEIGHT:g}" fill="var(--accent)" opacity=".16"/>'
            )
        position += size
    return parts


def _grid(floor_db: float) -> list[str]:
    return [
        f'<path d="M-4 {_y(level, floor_db):.1f}H{_WIDTH:g}" stroke="var(--soft)" opacity=".4"/>'
        f'<text x="-8" y="{_y(level, floor_db) + 4:.1f}" text-anchor="end" font-size="11" '
        f'fill="var(--soft)">{level} dB</text>'
        for level in _GRID_DB
        if level > floor_db
    ]


def _level(level_db: Sequence[float], floor_db: float) -> str:
    column = _WIDTH / max(1, len(level_db))
    bottom = _BARS + _HEIGHT
    heights = "".join(
        f"V{_y(float(level), floor_db):.1f}H{(place + 1) * column:.1f}"
        for place, level in enumerate(level_db)
    )
    return f'<path d="M0 {bottom:g}{heights}V{bottom:g}Z" fill="{WARM}"/>'


def _bars(spans: Iterable[tuple[float, float]], seconds: float, colour: str) -> list[str]:
    scale = _WIDTH / seconds
    return [
        f'<rect x="{start * scale:.1f}" y="0" width="{max(1.0, (end - start) * scale - 1.0):.1f}" '
        f'height="{_BARS - 3:g}" fill="{colour}"/>'
        for start, end in spans
    ]


def _ticks(seconds: float) -> list[str]:
    step = next((s for s in _TICK_SECONDS if seconds / s <= _MOST_TICKS), _TICK_SECONDS[-1])
    bottom = _BARS + _HEIGHT
    parts = []
    for number in range(int(seconds // step) + 1):
        x = number * step * _WIDTH / seconds
        anchor = "start" if number == 0 else "end" if x > _WIDTH - 20.0 else "middle"
        parts.append(
            f'<path d="M{x:.1f} {bottom:g}v4" stroke="var(--soft)"/>'
            f'<text x="{x:.1f}" y="{bottom + 15:g}" text-anchor="{anchor}" font-size="11" '
            f'fill="var(--soft)">{_clock(number * step)}</text>'
        )
    return parts


def _clock(seconds: int) -> str:
    return f"{seconds} s" if seconds < 60 else f"{seconds // 60}:{seconds % 60:02d}"
