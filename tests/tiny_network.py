"""A network so small that whole properties can be tried on it, and batches for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kamerton.model.tacotron2.architecture import Architecture
from kamerton.model.tacotron2.convolution import MaskedBatchNorm
from kamerton.model.tacotron2.model import Tacotron2, steps_of

SYMBOLS, MELS = 9, 7
KINDS = ("location_sensitive", "dynamic_convolution", "forward")


def tiny_network(reduction: int = 2, **changes: Any) -> Tacotron2:
    """Weights by seed 1, batch statistics as after some training, no dropout but the prenet's."""
    torch.manual_seed(1)
    sizes: dict[str, Any] = {
        "symbols": SYMBOLS, "mels": MELS, "reduction_factor": reduction, "symbol_embedding": 6,
        "encoder_embedding_dim": 10, "encoder_convolutions": 2, "prenet_dim": 8,
        "attention_rnn_dim": 12, "decoder_rnn_dim": 14, "attention_dim": 6, "location_filters": 3,
        "location_kernel": 5, "postnet_dim": 9, "postnet_convolutions": 3, "encoder_dropout": 0.0,
        "attention_dropout": 0.0, "decoder_dropout": 0.0, "postnet_dropout": 0.0,
    }  # fmt: skip
    model = Tacotron2(Architecture(**{**sizes, **changes}))
    for module in model.modules():
        if isinstance(module, MaskedBatchNorm):
            module.running_mean.normal_()
            module.running_variance.uniform_(0.5, 2.0)
    return model


def utterances_of(
    symbol_lengths: Sequence[int], frame_lengths: Sequence[int]
) -> list[tuple[Tensor, Tensor]]:
    """Random texts (N,) and frames (F, C) of these lengths."""
    generator = torch.Generator().manual_seed(3)
    return [
        (
            torch.randint(1, SYMBOLS, (symbols,), generator=generator),
            torch.randn(frames, MELS, generator=generator),
        )
        for symbols, frames in zip(symbol_lengths, frame_lengths, strict=True)
    ]


def batch_of(
    items: Sequence[tuple[Tensor, Tensor]], *, extra_symbols: int = 0, extra_frames: int = 0,
    filler: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Symbols, their lengths, frames, their lengths; ``filler`` on the padding of frames."""
    symbol_lengths = torch.tensor([len(symbols) for symbols, _ in items])
    frame_lengths = torch.tensor([len(frames) for _, frames in items])
    symbols = torch.zeros(len(items), int(symbol_lengths.max()) + extra_symbols, dtype=torch.long)
    frames = torch.full((len(items), int(frame_lengths.max()) + extra_frames, MELS), filler)
    for row, (ids, mel) in enumerate(items):
        symbols[row, : len(ids)] = ids
        frames[row, : len(mel)] = mel
    return symbols, symbol_lengths, frames, frame_lengths


def masks_for(model: Tacotron2, rows: int, frames: int) -> Tensor:
    """Prenet masks (T, rows, layers, channels) that begin alike for any number of frames."""
    steps = int(steps_of(frames, model.architecture.reduction_factor))
    generator = torch.Generator().manual_seed(4)
    most = max(64, steps)
    drawn = [model.decoder.prenet.draw_masks(most, generator=generator) for _ in range(rows)]
    return torch.stack(drawn, dim=1)[:steps]
