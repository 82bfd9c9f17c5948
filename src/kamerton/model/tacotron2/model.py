"""The whole acoustic model: symbols to mel frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from kamerton.model.prenet_noise import prenet_masks
from kamerton.model.tacotron2.architecture import Architecture
from kamerton.model.tacotron2.decoder import Decoded, Decoder
from kamerton.model.tacotron2.encoder import Encoder
from kamerton.model.tacotron2.postnet import Postnet


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


def _padded(frames: Tensor, size: int) -> Tensor:
    """Frames (B, F, C) with zeros to ``size``."""
    return functional.pad(frames, (0, 0, 0, size - frames.shape[1]))


def _cleared(frames: Tensor, real: Tensor) -> Tensor:
    """Frames (B, F, C) with zeros where ``real`` (B, F) is 0, whatever was there, NaN too."""
    return frames.masked_fill(real.unsqueeze(2) == 0, 0.0)


def _decoder(a: Architecture, reduction: int) -> Decoder:
    return Decoder(
        a.mels, a.encoder_embedding_dim, reduction=reduction, prenet=a.prenet_dim,
        prenet_dropout=a.prenet_dropout, attention_lstm=a.attention_rnn_dim,
        decoder_lstm=a.decoder_rnn_dim, attention=a.attention_dim,
        filters=a.location_filters, kernel=a.location_kernel,
        attention_dropout=a.attention_dropout, decoder_dropout=a.decoder_dropout,
        attention_kind=a.attention, noise=a.recurrent_noise, variational=a.variational,
        spectral_dropout=a.spectral_dropout,
    )  # fmt: skip


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
        self.decoder = _decoder(a, a.reduction_factor)
        self.postnet = Postnet(
            a.mels, a.postnet_dim, convolutions=a.postnet_convolutions,
            kernel=a.postnet_kernel, dropout=a.postnet_dropout,
        )  # fmt: skip
        dim = a.speaker_embedding_dim
        self.speaker_embedding = nn.Embedding(a.speakers, dim) if dim else None
        self.speaker_projection = (
            nn.Linear(dim, a.encoder_embedding_dim, bias=False) if dim else None
        )
        self.coarse = (
            _decoder(a, a.double_decoder_reduction) if a.double_decoder_reduction else None
        )
        if self.coarse is not None:
            self.coarse.gate.requires_grad_(False)  # where speech ends, the first decoder says
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
        speakers: Tensor | None = None,
    ) -> Predicted:
        """Predict each frame from the text and the true frames before it.

        Args:
            symbols: Symbol ids, (B, N), 0 on padding.
            symbol_lengths: (B,).
            frames: Normalised true frames, (B, F, C); any F at least as long as the longest.
            frame_lengths: (B,).
            masks: Prenet masks (T, B, layers, channels); drawn here when left out.
            speakers: Number of each utterance's speaker, (B,); None is the first.

        Returns:
            The prediction, padded to T r frames.
        """
        r = self.architecture.reduction_factor
        steps = steps_of(frames.shape[1], r)
        real = valid_positions(frame_lengths, steps * r)
        frames = _cleared(_padded(frames, steps * r), real)
        valid = valid_positions(symbol_lengths, symbols.shape[1])
        if masks is None:
            masks = self.decoder.prenet.draw_masks(steps, symbols.shape[0], device=frames.device)
        memory = self.encode(symbols, symbol_lengths, valid, speakers)
        decoded = self.decoder(memory, valid, frames, masks)
        coarse = self._coarse(memory, valid, frames)
        after = self.postnet(decoded.frames, real)
        return Predicted(
            decoded.frames, after, decoded.gate_logits, decoded.attention, coarse,
            self._noise_divergence(),
        )  # fmt: skip

    def _noise_divergence(self) -> Tensor | None:
        """What learned widths of noise cost, in all decoders that are trained; None without any."""
        decoders = [self.decoder] if self.coarse is None else [self.decoder, self.coarse]
        parts = [part for d in decoders if (part := d.noise_divergence()) is not None]
        return torch.stack(parts).sum() if parts else None

    def encode(
        self, symbols: Tensor, lengths: Tensor, valid: Tensor, speakers: Tensor | None
    ) -> Tensor:
        """Encodings of text and speaker, (B, N, M), zero on padding."""
        memory: Tensor = self.encoder(symbols, lengths.cpu(), valid)
        return self.with_speaker(memory, valid, speakers)

    def with_speaker(self, memory: Tensor, valid: Tensor, speakers: Tensor | None) -> Tensor:
        """Encodings (B, N, M) with the vectors of their speakers added, zero on padding."""
        if self.speaker_embedding is None or self.speaker_projection is None:
            return memory
        if speakers is None:
            speakers = valid.new_zeros(valid.shape[0], dtype=torch.long)
        vectors: Tensor = self.speaker_projection(self.speaker_embedding(speakers))  # (B, M)
        return memory + vectors.unsqueeze(1) * valid.unsqueeze(2)

    def _coarse(self, memory: Tensor, valid: Tensor, frames: Tensor) -> Decoded | None:
        """What the coarse decoder makes of frames (B, T r, C); it only helps in training.

        A decoder that makes more frames at once leans more on the text, so its attention is
        aligned sooner, and the first decoder's is held to it (Gölge 2020, double decoder
        consistency). It is given T2 r2 frames, rounded up.
        """
        if self.coarse is None or not self.training:
            return None
        steps = steps_of(frames.shape[1], self.coarse.reduction)
        masks = self.coarse.prenet.draw_masks(steps, len(frames), device=frames.device)
        decoded: Decoded = self.coarse(
            memory, valid, _padded(frames, steps * self.coarse.reduction), masks
        )
        return decoded

    @torch.no_grad()
    def speak(
        self,
        symbols: Tensor,
        symbol_lengths: Tensor,
        *,
        max_frames: Tensor,
        seeds: list[int],
        gate_threshold: float = 0.5,
        speakers: Tensor | None = None,
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
            speakers: Number of each utterance's speaker, (B,); None is the first.
        """
        r = self.architecture.reduction_factor
        valid = valid_positions(symbol_lengths, symbols.shape[1])
        max_steps = steps_of(max_frames, r)
        masks = self._inference_masks(int(max_steps.max()), seeds)
        memory = self.encode(symbols, symbol_lengths, valid, speakers)
        decoded, lengths, stopped = self.decoder.generate(
            memory, valid, masks, max_steps, gate_threshold
        )
        stopped = stopped & (lengths <= max_frames)  # a gate that opened after the cut is none
        lengths = torch.minimum(lengths, max_frames)
        real = valid_positions(lengths, decoded.frames.shape[1])
        # What it went on saying while others had not ended is nobody's business.
        frames = self.restore(self.postnet(_cleared(decoded.frames, real), real))
        frames = _cleared(frames, real)
        return Spoken(frames, lengths, decoded.attention, stopped)

    def _inference_masks(self, steps: int, seeds: list[int]) -> Tensor:
        """Prenet masks (steps, B, layers, channels), row by row from each utterance's seed."""
        prenet = self.decoder.prenet
        drawn = [
            prenet_masks(
                seed, steps, layers=len(prenet.layers), channels=prenet.channels,
                dropout=prenet.dropout,
            )
            for seed in seeds
        ]  # fmt: skip
        return torch.from_numpy(np.stack(drawn, axis=1)).to(self.mel_mean.device)
