"""Sample-rate conversion, whole or streaming, with soxr's delay taken out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def resample(wave: NDArray[np.float32], from_hz: int, to_hz: int) -> NDArray[np.float32]:
    """Convert a mono wave; sample 0 stays at time 0."""
    if from_hz == to_hz:
        return np.asarray(wave, dtype=np.float32)
    converter = StreamResampler(from_hz, to_hz)
    return np.concatenate([converter.feed(wave), converter.finish()])


class StreamResampler:
    """Converts a mono stream block by block, to the same samples as in one piece.

    Blocks that come out are late (the filter waits for its future), never shifted: output sample
    n belongs to input time ``n / to_hz``, whatever the block sizes.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        import soxr

        self._soxr = None
        if from_hz != to_hz:
            self._soxr = soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32", quality="HQ")

    def feed(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the next samples and return what is ready."""
        block = np.ascontiguousarray(block, dtype=np.float32)
        if self._soxr is None:
            return block
        return np.asarray(self._soxr.resample_chunk(block), dtype=np.float32)

    def finish(self) -> NDArray[np.float32]:
        """Return what is left; the stream ends here."""
        nothing = np.zeros(0, dtype=np.float32)
        if self._soxr is None:
            return nothing
        return np.asarray(self._soxr.resample_chunk(nothing, last=True), dtype=np.float32)


def shared_grid_hz(from_hz: int, to_hz: int) -> int:
    """How often per second sample instants of both rates coincide."""
    return math.gcd(from_hz, to_hz)
