"""The network's and the energy detector's scores as one: each where it can be trusted.

In a room with steady noise, energy finds the ends of words to the frame, where the network is late
by some 50 ms; in music, breath and traffic energy hears speech everywhere and the network does not.
How often energy claims speech far from any that the network hears tells which of the two it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FAR_FRAMES = 20  # further than 0.2 s from anything that might be speech ...
_MIGHT_BE_SPEECH = 0.3  # ... to the network
_BLOCK_FRAMES = 10  # the room is judged ten times a second ...
_REACH_BLOCKS = 100  # ... over 10 s to both sides ...
_PRIOR_FRAMES = 100  # ... and by the whole recording, where those hold little but speech
_LEAST_WEIGHT = 0.4  # the network's in a room where energy is never wrong
_TOLERATED_CLAIMS = 0.03  # false claims that noise alone gives rise to
_WEIGHT_PER_CLAIM = 2.0  # from 0.3 on the network decides alone


@dataclass(frozen=True, slots=True)
class Blend:
    """Scores (T,), and how far energy is distrusted, on average, from 0 to 1."""

    scores: NDArray[np.float32]
    distrust: float


def blend(neural: NDArray[np.float32], energy: NDArray[np.float32]) -> Blend:
    """One score per frame from two, (T,) each."""
    if not len(neural):
        return Blend(neural, 0.0)
    false_claims = np.repeat(_false_claims(neural, energy), _BLOCK_FRAMES)[: len(neural)]
    distrust = np.clip(_WEIGHT_PER_CLAIM * (false_claims - _TOLERATED_CLAIMS), 0.0, 1.0)
    weight = np.minimum(distrust + np.float32(_LEAST_WEIGHT), np.float32(1.0))
    return Blend(weight * (neural - energy) + energy, float(distrust.mean(dtype=np.float64)))


def _false_claims(neural: NDArray[np.float32], energy: NDArray[np.float32]) -> NDArray[np.float32]:
    """Energy's mean score around each block, over frames that are no speech for sure, (B,)."""
    silent = _window_sum(neural >= _MIGHT_BE_SPEECH, _FAR_FRAMES, np.int32) == 0
    starts = np.arange(0, len(neural), _BLOCK_FRAMES)
    claimed = np.add.reduceat(np.where(silent, energy, np.float32(0.0)), starts)
    frames = np.add.reduceat(silent, starts, dtype=np.int32)
    everywhere = claimed.sum(dtype=np.float64) / max(1, int(frames.sum()))
    claims = _window_sum(claimed, _REACH_BLOCKS, np.float64) + _PRIOR_FRAMES * everywhere
    near = _window_sum(frames, _REACH_BLOCKS, np.float64) + _PRIOR_FRAMES
    return np.asarray(claims / near, dtype=np.float32)


def _window_sum(values: NDArray[Any], reach: int, dtype: type[np.number[Any]]) -> NDArray[Any]:
    """Sum over the entries up to ``reach`` away, (T,)."""
    total = np.cumsum(np.pad(values, (reach + 1, reach)), dtype=dtype)
    return np.asarray(total[2 * reach + 1 :] - total[: -2 * reach - 1])
