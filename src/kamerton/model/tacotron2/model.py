"""The whole acoustic model: symbols to mel frames."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kamerton.model.tacotron2.decoder import Decoded, Decoder
from kamerton.model.tacotron2.encoder import Encoder
from kamerton.model.tacotron2.postnet import Postnet


@dataclass(frozen=True, slots=True)
class Architecture:
    """Every size that shapes the weights, and the dropouts. The defaults are the paper's."""

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

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``model.json`` stores them."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Predicted:
    """A teacher-forced prediction; mel values are normalised, see ``Tacotron2.normalise``.

    Attributes:
        before: Frames before the postnet, (B, F, C).
        after: Frames after it, (B, F, C).
        gate_logits: Whether a frame is the last, (B, F).
        attention: Weights, (B, T, N), with T = F / r.
        coarse: What the coarse decoder that trains beside the first makes; None without one.
        noise_divergence: What learned noise widths cost, a number; None without any.
    """

    before: Tensor
    after: Tensor
    gate_logits: Tensor
    attention: Tensor
    coarse: Decoded | None = None
    noise_divergence: Tensor | None = None

    def widened(self) -> Predicted:
        """The same in single precision, as losses need it."""
        return Predicted(
            self.before.float(), self.after.float(), self.gate_logits.float(),
            self.attention.float(), self.coarse and self.coarse.widened(),
            None if self.noise_divergence is None else self.noise_divergence.float(),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spoken:
    """A free-running result.

    Attributes:
        frames: Log-mel frames in the units of the data, (B, F, C), zero past each length.
        lengths: Frames of each utterance, (B,).
        attention: Weights, (B, T, N).
        stopped: Whether the gate ended the utterance, rather than the limit, (B,).
    """

    frames: Tensor
    lengths: Tensor
    attention: Tensor
    stopped: Tensor


def valid_positions(lengths: Tensor, size: int) -> Tensor:
    """1.0 on the first ``lengths[b]`` of ``size`` positions, (B, size), where ``lengths`` is."""
    return (torch.arange(size, device=lengths.device) < lengths[:, None]).float()


def steps_of(frames: Tensor | int, reduction: int) -> Any:
    """Decoder steps that hold so many frames: rounded up."""
    return (frames + reduction - 1) // reduction


class Tacotron2(nn.Module):
    """Tacotron 2: encoder, attention, decoder, postnet.

    Mel values are normalised channel by channel with the training set's mean and deviation, which
    are part of the weights, so that the losses of all channels count alike.

    Shapes use: B batch, N symbols, F frames, C mel channels, r reduction, T = ceil(F / r) steps.
    """

    mel_mean: Tensor
    mel_deviation: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = architecture
        self.architecture = architecture
        self.encoder = Encoder(
            a.symbols, a.symbol_embedding, a.encoder_embedding_dim,
            convolutions=a.encoder_convolutions, kernel=a.encoder_kernel,
            dropout=a.encoder_dropout,
        )  # fmt: skip
        self.decoder = Decoder(
            a.mels, a.encoder_embedding_dim, reduction=a.reduction_factor, prenet=a.prenet_dim,
            prenet_dropout=a.prenet_dropout, attention_lstm=a.attention_rnn_dim,
            decoder_lstm=a.decoder_rnn_dim, attention=a.attention_dim,
            filters=a.location_filters, kernel=a.location_kernel,
            attention_dropout=a.attention_dropout, decoder_dropout=a.decoder_dropout,
        )  # fmt: skip
        self.postnet = Postnet(
            a.mels, a.postnet_dim, convolutions=a.postnet_convolutions,
            kernel=a.postnet_kernel, dropout=a.postnet_dropout,
        )  # fmt: skip
        self.register_buffer("mel_mean", torch.zeros(a.mels))
        self.register_buffer("mel_deviation", torch.ones(a.mels))

    def set_mel_statistics(self, mean: Tensor, deviation: Tensor) -> None:
        """Take the training set's mean and deviation of every mel channel, (C,) each."""
        self.mel_mean.copy_(mean)
        self.mel_deviation.copy_(deviation.clamp(min=1e-3))

    def normalise(self, frames: Tensor) -> Tensor:
        """Log-mel frames (..., C) to mean 0 and deviation 1 per channel."""
        return (frames - self.mel_mean) / self.mel_deviation

    def restore(self, frames: Tensor) -> Tensor:
        """Undo ``normalise``."""
        return frames * self.mel_deviation + self.mel_mean

    def forward(
        self,
        symbols: Tensor,
        symbol_lengths: Tensor,
        frames: Tensor,
        frame_lengths: Tensor,
        *,
        masks: Tensor | None = None,
    ) -> Predicted:
        """Predict each frame from the text and the true frames before it.

        Args:
            symbols: Symbol ids, (B, N), 0 on padding.
            symbol_lengths: (B,).
            frames: Normalised true frames, (B, F, C); any F at least as long as the longest.
            frame_lengths: (B,).
            masks: Prenet masks (T, B, layers, channels); drawn here when left out.

        Returns:
            The prediction, padded to T r frames.
        """
        r = self.architecture.reduction_factor
        steps = steps_of(frames.shape[1], r)
        real = valid_positions(frame_lengths, steps * r)
        # Whatever the caller left on padding, the decoder sees zeros there.
        frames = functional.pad(frames, (0, 0, 0, steps * r - frames.shape[1]))
        frames = frames * real.unsqueeze(2)
        valid = valid_positions(symbol_lengths, symbols.shape[1])
        if masks is None:
            masks = self.decoder.prenet.draw_masks(steps, symbols.shape[0]).to(frames.device)
        memory = self.encoder(symbols, symbol_lengths.cpu(), valid)
        decoded = self.decoder(memory, valid, frames, masks)
        after = self.postnet(decoded.frames, real)
        return Predicted(decoded.frames, after, decoded.gate_logits, decoded.attention)

    @torch.no_grad()
    def speak(
        self,
        symbols: Tensor,
        symbol_lengths: Tensor,
        *,
        max_frames: Tensor,
        seeds: list[int],
        gate_threshold: float = 0.5,
    ) -> Spoken:
        """Speak a batch of texts, free-running.

        An utterance comes out the same alone and in any batch: its prenet noise is drawn from its
        own seed.

        Args:
            symbols: Symbol ids, (B, N), 0 on padding.
            symbol_lengths: (B,).
            max_frames: Frames after which each utterance is cut, (B,), at least 1.
            seeds: One per utterance.
            gate_threshold: Probability at which a frame counts as the last.
        """
        r = self.architecture.reduction_factor
        valid = valid_positions(symbol_lengths, symbols.shape[1])
        max_steps = steps_of(max_frames, r)
        masks = self._inference_masks(int(max_steps.max()), seeds)
        memory = self.encoder(symbols, symbol_lengths.cpu(), valid)
        decoded, lengths, stopped = self.decoder.generate(
            memory, valid, masks, max_steps, gate_threshold
        )
        lengths = torch.minimum(lengths, max_frames)
        real = valid_positions(lengths, decoded.frames.shape[1])
        frames = self.restore(self.postnet(decoded.frames, real)) * real.unsqueeze(2)
        return Spoken(frames, lengths, decoded.attention, stopped)

    def _inference_masks(self, steps: int, seeds: list[int]) -> Tensor:
        """Prenet masks (steps, B, layers, channels), row by row from each utterance's seed."""
        prenet = self.decoder.prenet
        drawn = [
            prenet.draw_masks(steps, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
        return torch.stack(drawn, dim=1).to(self.mel_mean.device)
