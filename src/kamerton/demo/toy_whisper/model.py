"""openai-whisper's own network, as small as the demo's closed vocabulary allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from whisper.model import ModelDimensions, Whisper

from kamerton.demo.toy_whisper import tokens
from kamerton.demo.vocabulary import WORDS

if TYPE_CHECKING:
    from collections.abc import Iterator

STATE: Final = 96
HEADS: Final = 4
ENCODER_LAYERS: Final = 2
DECODER_LAYERS: Final = 2
MELS: Final = 80
AUDIO_POSITIONS: Final = 1500  # 30 s at 50 a second
TEXT_POSITIONS: Final = 448

# The decoder's last layer norm is held at 1 in this channel, so that a row of the output matrix
# can be given a constant logit. Export uses it to silence the tokens that were never trained.
CONSTANT_CHANNEL: Final = STATE - 1
_USED_POSITIONS = 64  # longer texts are never seen


def dimensions(vocabulary: int) -> ModelDimensions:
    """Whisper's description of this network with ``vocabulary`` output tokens."""
    return ModelDimensions(
        n_mels=MELS,
        n_audio_ctx=AUDIO_POSITIONS,
        n_audio_state=STATE,
        n_audio_head=HEADS,
        n_audio_layer=ENCODER_LAYERS,
        n_vocab=vocabulary,
        n_text_ctx=TEXT_POSITIONS,
        n_text_state=STATE,
        n_text_head=HEADS,
        n_text_layer=DECODER_LAYERS,
    )


class ToyWhisper(nn.Module):
    """Whisper with the compact vocabulary, and a CTC head that only training uses.

    The head makes the encoder spell words by itself (Watanabe et al. 2017, joint CTC/attention),
    which gives the cross-attention something to align to within minutes.

    Shapes use: B batch, F mel frames, E = F / 2 encoder positions, L text length, V vocabulary.
    """

    def __init__(self) -> None:
        super().__init__()
        self.whisper = Whisper(dimensions(tokens.COMPACT_SIZE))
        self.ctc = nn.Linear(STATE, 1 + len(WORDS))  # 0 is the blank
        self._initialise()

    def _initialise(self) -> None:
        decoder = self.whisper.decoder
        with torch.no_grad():
            decoder.positional_embedding.zero_()
            decoder.positional_embedding[:_USED_POSITIONS].normal_(std=0.02)
            decoder.token_embedding.weight.normal_(std=0.05)
            decoder.token_embedding.weight[:, CONSTANT_CHANNEL] = 0.0
            decoder.ln.weight[CONSTANT_CHANNEL] = 0.0
            decoder.ln.bias[CONSTANT_CHANNEL] = 1.0
        for parameter in self._held_parameters():
            parameter.register_hook(_without_constant_channel)  # type: ignore[no-untyped-call]

    def _held_parameters(self) -> Iterator[nn.Parameter]:
        decoder = self.whisper.decoder
        yield decoder.token_embedding.weight
        yield decoder.ln.weight
        yield decoder.ln.bias

    def encode(self, mel: Tensor) -> Tensor:
        """Encoder output (B, E, state) for mel (B, 80, F), F even and at most 3000.

        Whisper's own forward insists on windows of exactly 30 s; shorter ones make training
        affordable.
        """
        encoder = self.whisper.encoder
        x = nn.functional.gelu(encoder.conv1(mel))
        x = nn.functional.gelu(encoder.conv2(x)).permute(0, 2, 1)  # (B, E, state)
        x = x + encoder.positional_embedding[: x.shape[1]]
        for block in encoder.blocks:
            x = block(x)
        encoded: Tensor = encoder.ln_post(x)
        return encoded

    def forward(self, mel: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the next token (B, L, V) and of the CTC head (B, E, 1 + words)."""
        encoded = self.encode(mel)
        logits: Tensor = self.whisper.decoder(text, encoded)
        return logits, self.ctc(encoded)

    @torch.no_grad()
    def recognise(self, mel: Tensor, *, longest: int = 32) -> list[list[int]]:
        """Greedy decoding without timestamps of mel (B, 80, F): compact ids, specials left out."""
        encoded = self.encode(mel)
        text = torch.tensor([[tokens.SOT, tokens.NO_TIMESTAMPS]]).repeat(len(mel), 1)
        for _ in range(longest):
            best = self.whisper.decoder(text, encoded)[:, -1].argmax(dim=-1)
            text = torch.cat([text, best.unsqueeze(1)], dim=1)
            if bool((text == tokens.EOT).any(dim=1).all()):
                break
        return [_until_eot(row) for row in text[:, 2:].tolist()]


def _until_eot(ids: list[int]) -> list[int]:
    end = ids.index(tokens.EOT) if tokens.EOT in ids else len(ids)
    return [token for token in ids[:end] if token < len(WORDS)]


def _without_constant_channel(gradient: Tensor) -> Tensor:
    held = gradient.clone()
    held[..., CONSTANT_CHANNEL] = 0.0
    return held
