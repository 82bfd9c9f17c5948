"""Every size that shapes the network. Without torch, for those who only read it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Architecture:
    """Every size that shapes the weights, and the dropouts. The defaults are the paper's.

    A size of 0 leaves out what it is the size of: the vector of a speaker, the coarse decoder.
    """

    symbols: int
    mels: int = 80
    reduction_factor: int = 1
    symbol_embedding: int = 512
    encoder_embedding_dim: int = 512
    encoder_convolutions: int = 3
    encoder_kernel: int = 5
    encoder_dropout: float = 0.5
    prenet_dim: int = 256
    prenet_dropout: float = 0.5
    attention_rnn_dim: int = 1024
    decoder_rnn_dim: int = 1024
    attention_dim: int = 128
    location_filters: int = 32
    location_kernel: int = 31
    attention_dropout: float = 0.1
    decoder_dropout: float = 0.1
    postnet_dim: int = 512
    postnet_convolutions: int = 5
    postnet_kernel: int = 5
    postnet_dropout: float = 0.5
    attention: str = "location_sensitive"
    speakers: int = 1
    speaker_embedding_dim: int = 0
    double_decoder_reduction: int = 0
    recurrent_noise: str = "output"
    variational: str = "gal"
    spectral_dropout: float = 0.0

    @property
    def chooses_speaker(self) -> bool:
        """Whether who speaks makes a difference."""
        return self.speakers > 1 and self.speaker_embedding_dim > 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``model.json`` stores them."""
        return asdict(self)

    def for_inference(self) -> Architecture:
        """The same network without what only training needs.

        Zoneout stays: its expectation is part of what the network computes.
        """
        zoneout = self.recurrent_noise == "zoneout"
        return replace(
            self, double_decoder_reduction=0,
            recurrent_noise="zoneout" if zoneout else "output",
        )  # fmt: skip
