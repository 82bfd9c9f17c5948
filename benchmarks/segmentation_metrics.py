"""What a way of cutting did to speech whose place is known."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.segmentation_truth import speech_frames

_INSIDE_SECONDS = 0.03  # a limit this deep inside a phrase has cut it
_FRAME_SECONDS = 0.01
_REACH_SECONDS = 1.0  # a limit further from any edge of a phrase has no error, it is a cut


@dataclass(frozen=True, slots=True)
class Cutting:
    """What a method made of a recording, in seconds.

    ``kept`` are the clips that would be trained on, (K, 2), and ``cuts`` their limits, (C,);
    ``starts`` and ``ends`` are where it says that speech begins and ends at those limits, without
    margins. ``forced`` counts clips that were cut where no pause was, and rejected.
    """

    kept: NDArray[np.float64]
    cuts: NDArray[np.float64]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    forced: int = 0


@dataclass(frozen=True, slots=True)
class Score:
    """The numbers of one recording; sums over recordings are made of them by `total`."""

    bad_cuts: int
    cuts: int
    lost_frames: int
    speech_frames: int
    errors: tuple[float, ...]
    lengths: tuple[float, ...]
    forced: int

    @property
    def lost(self) -> float:
        """Share of speech that is in no kept clip."""
        return self.lost_frames / max(1, self.speech_frames)

    @property
    def error_median(self) -> float:
        """Of where speech is said to begin and end, seconds."""
        return float(np.median(self.errors)) if self.errors else float("nan")

    @property
    def error_p95(self) -> float:
        """Likewise, exceeded by one limit in twenty."""
        return float(np.quantile(self.errors, 0.95)) if self.errors else float("nan")

    def outside(self, shortest: float, longest: float) -> int:
        """Kept clips whose length breaks the limits; a sample's rounding does not."""
        return sum(not shortest - 1e-4 <= length <= longest + 1e-4 for length in self.lengths)


def judge(cutting: Cutting, phrases: NDArray[np.float64], seconds: float) -> Score:
    """Compare with the truth."""
    frames = round(seconds / _FRAME_SECONDS)
    speech = speech_frames(phrases, frames)
    kept = speech_frames(cutting.kept, frames) if len(cutting.kept) else np.zeros(frames, bool)
    depth = np.array([_depth(cut, phrases) for cut in np.unique(cutting.cuts)])
    errors = [
        *_distances(cutting.starts, phrases[:, 0]),
        *_distances(cutting.ends, phrases[:, 1]),
    ]
    return Score(
        bad_cuts=int((depth >= _INSIDE_SECONDS).sum()),
        cuts=len(depth),
        lost_frames=int((speech & ~kept).sum()),
        speech_frames=int(speech.sum()),
        errors=tuple(errors),
        lengths=tuple((cutting.kept[:, 1] - cutting.kept[:, 0]).tolist()),
        forced=cutting.forced,
    )


def _depth(cut: float, phrases: NDArray[np.float64]) -> float:
    """How deep inside a phrase a limit lies; negative outside."""
    return float(np.minimum(cut - phrases[:, 0], phrases[:, 1] - cut).max())


def _distances(found: NDArray[np.float64], edges: NDArray[np.float64]) -> list[float]:
    distance = np.abs(found[:, None] - edges[None, :]).min(axis=1) if len(found) else np.zeros(0)
    return [float(value) for value in distance if value < _REACH_SECONDS]


def total(scores: list[Score]) -> Score:
    """Several recordings as one."""
    return Score(
        bad_cuts=sum(score.bad_cuts for score in scores),
        cuts=sum(score.cuts for score in scores),
        lost_frames=sum(score.lost_frames for score in scores),
        speech_frames=sum(score.speech_frames for score in scores),
        errors=tuple(error for score in scores for error in score.errors),
        lengths=tuple(length for score in scores for length in score.lengths),
        forced=sum(score.forced for score in scores),
    )
