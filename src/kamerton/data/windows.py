"""Several clips in one window of Whisper's 30 s, so that its encoder runs once for all of them.

The encoder always hears 30 s, silence included, and is most of the work for a clip of a few
seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW_SECONDS = 30.0  # what the encoder hears
FULL_SECONDS = 29.0  # of clips and silences; a tail of silence lets the answer end
GAP_SECONDS = 0.5  # of silence between two clips


@dataclass(frozen=True, slots=True)
class Place:
    """Where a clip lies in its window, in seconds."""

    start_seconds: float
    end_seconds: float

    @property
    def seconds(self) -> float:
        """Length of the clip."""
        return self.end_seconds - self.start_seconds

    def overlap(self, start_seconds: float, end_seconds: float) -> float:
        """Seconds that an interval shares with the clip; 0 where they do not meet."""
        return max(0.0, min(end_seconds, self.end_seconds) - max(start_seconds, self.start_seconds))


def pack(
    seconds: Sequence[float], *, full: float = FULL_SECONDS, gap: float = GAP_SECONDS
) -> list[tuple[int, ...]]:
    """Positions of clips by window: the longest first, each into the first window with room.

    Clips of a window are in their own order, as they were said. A clip too long to share a window
    has one of its own. The result depends on the lengths and their order alone.
    """
    windows: list[list[int]] = []
    used: list[float] = []
    for position in sorted(range(len(seconds)), key=lambda index: (-seconds[index], index)):
        needed = gap + seconds[position]
        fit = next((at for at, sum_ in enumerate(used) if sum_ + needed <= full), None)
        if fit is None:
            windows.append([position])
            used.append(seconds[position])
        else:
            windows[fit].append(position)
            used[fit] += needed
    return [tuple(sorted(window)) for window in windows]


def lay(seconds: Sequence[float], *, gap: float = GAP_SECONDS) -> tuple[Place, ...]:
    """Places of clips that follow each other with silence between."""
    places: list[Place] = []
    start = 0.0
    for length in seconds:
        places.append(Place(start, start + length))
        start += length + gap
    return tuple(places)


def join_waves(
    waves: Sequence[NDArray[np.float32]], rate_hz: int, *, gap: float = GAP_SECONDS
) -> NDArray[np.float32]:
    """One wave of all, silence between them; the samples of each are untouched."""
    silence = np.zeros(round(gap * rate_hz), dtype=np.float32)
    parts: list[NDArray[np.float32]] = []
    for wave in waves:
        parts += [wave, silence]
    return np.concatenate(parts[:-1]) if parts else np.zeros(0, dtype=np.float32)
