"""As much of a recording as a picture of its cuts needs: a kilobyte, whatever its length."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kamerton.audio.activity import FRAMES_PER_SECOND

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from kamerton.data.segmentation import SegmentedSource

COLUMNS = 400
FLOOR_DB = -80.0
_STEPS = 255.0


@dataclass(frozen=True, slots=True)
class SourceView:
    """Level and speech over time, in at most `COLUMNS` equal parts.

    ``level_db`` is the peak of each part in dB of full scale, no less than `FLOOR_DB`; ``speech``
    its share of speech, 0 to 1.
    """

    seconds: float
    level_db: NDArray[np.float32]
    speech: NDArray[np.float32]

    def as_dict(self) -> dict[str, Any]:
        """A short JSON object; levels are rounded to a third of a dB."""
        level = 1.0 - self.level_db / FLOOR_DB
        return {"seconds": self.seconds, "level": _pack(level), "speech": _pack(self.speech)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SourceView:
        """What `as_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError: it did not.
        """
        level = _unpack(values["level"])
        return cls(float(values["seconds"]), FLOOR_DB * (1.0 - level), _unpack(values["speech"]))


def view_source(done: SegmentedSource) -> SourceView:
    """Reduce a recording to its picture."""
    peak, frames = done.analysis.levels.peak, len(done.mask)
    starts = np.unique(np.arange(COLUMNS) * frames // COLUMNS)
    lengths = np.diff(np.append(starts, frames))
    highest = np.maximum.reduceat(peak, starts)
    level_db = 20.0 * np.log10(np.clip(highest, 10.0 ** (FLOOR_DB / 20.0), 1.0))
    return SourceView(
        seconds=frames / FRAMES_PER_SECOND,
        level_db=level_db.astype(np.float32),
        speech=(np.add.reduceat(done.mask.astype(np.float32), starts) / lengths).astype(np.float32),
    )


def _pack(shares: NDArray[np.float32]) -> str:
    """Values from 0 to 1 as one byte each, in base64."""
    return base64.b64encode(np.rint(shares * _STEPS).astype(np.uint8).tobytes()).decode("ascii")


def _unpack(text: str) -> NDArray[np.float32]:
    values = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    return values.astype(np.float32) / np.float32(_STEPS)
