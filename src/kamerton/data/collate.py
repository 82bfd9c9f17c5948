"""Utterances of unequal length to the arrays of one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded arrays. Shapes use: B batch, N symbols, F frames, C mel channels.

    Attributes:
        symbols: Symbol ids, (B, N), 0 on padding.
        symbol_lengths: (B,).
        frames: Log-mel frames, (B, F, C), 0 on padding.
        frame_lengths: (B,).
    """

    symbols: NDArray[np.int64]
    symbol_lengths: NDArray[np.int64]
    frames: NDArray[np.float32]
    frame_lengths: NDArray[np.int64]


def collate(
    symbols: Sequence[Sequence[int] | NDArray[np.int64]],
    frames: Sequence[NDArray[np.float32]],
    *,
    multiple: int = 1,
) -> Batch:
    """Pad to the longest of the batch, frames further to a multiple of ``multiple``.

    Args:
        symbols: Symbol ids of each utterance.
        frames: Log-mel frames of each utterance, (F, C).
        multiple: The reduction factor of the model.
    """
    symbol_lengths = np.array([len(ids) for ids in symbols], dtype=np.int64)
    frame_lengths = np.array([len(mel) for mel in frames], dtype=np.int64)
    longest = -(-int(frame_lengths.max()) // multiple) * multiple
    padded_symbols = np.zeros((len(symbols), int(symbol_lengths.max())), dtype=np.int64)
    padded_frames = np.zeros((len(frames), longest, frames[0].shape[1]), dtype=np.float32)
    for row, (ids, mel) in enumerate(zip(symbols, frames, strict=True)):
        padded_symbols[row, : len(ids)] = ids
        padded_frames[row, : len(mel)] = mel
    return Batch(padded_symbols, symbol_lengths, padded_frames, frame_lengths)
