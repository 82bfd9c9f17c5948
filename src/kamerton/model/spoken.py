"""What an acoustic model says, whatever runs it.

Shapes use: B batch, N symbols, T decoder steps, F frames, C mel channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SpokenArrays:
    """A free-running result; as ``tacotron2.model.Spoken``, in numpy.

    Attributes:
        frames: Log-mel frames in the units of the data, (B, F, C), zero past each length.
        lengths: Frames of each utterance, (B,).
        attention: Weights, (B, T, N).
        stopped: Whether the gate ended the utterance, rather than the limit, (B,).
    """

    frames: NDArray[np.float32]
    lengths: NDArray[np.int64]
    attention: NDArray[np.float32]
    stopped: NDArray[np.bool_]


class AcousticModel(Protocol):
    """Text to mel frames, free-running."""

    def speak(
        self,
        symbols: NDArray[np.int64],
        symbol_lengths: NDArray[np.int64],
        *,
        max_frames: NDArray[np.int64],
        seeds: Sequence[int],
        gate_threshold: float = 0.5,
        speakers: NDArray[np.int64] | None = None,
    ) -> SpokenArrays:
        """Speak a batch of texts, each as it would be spoken alone.

        Args:
            symbols: Symbol ids, (B, N), 0 on padding.
            symbol_lengths: (B,).
            max_frames: Frames after which each utterance is cut, (B,), at least 1.
            seeds: Of each utterance's prenet noise.
            gate_threshold: Probability at which a frame counts as the last.
            speakers: Number of each utterance's speaker, (B,); None is the first.
        """
