"""openai-whisper's own network, as small as the demo's closed vocabulary allows."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from whisper.model import ModelDimensions, Whisper, sinusoids

from kamerton.demo.toy_whisper import tokens
from kamerton.demo.vocabulary import WORDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STATE: Final = 96
HEADS: Final = 4
ENCODER_LAYERS: Final = 2
DECODER_LAYERS: Final = 2
GUIDED_HEADS: Final = 2
MELS: Final = 80
AUDIO_POSITIONS: Final = 1500  # 30 s at 50 a second
TEXT_POSITIONS: Final = 448

# The decoder's last layer norm is held at 1 in this channel, so that a row of the output matrix
# can be given a constant logit. Export uses it to silence the tokens that were never trained.
CONSTANT_CHANNEL: Final = STATE - 1
POSITION_SCALE, TIME_SCALE = 0.1, 0.2  # of the sinusoids that the decoder starts from


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
        self._projected: dict[str, Tensor] = {}
        listening = self.whisper.decoder.blocks[-1].cross_attn
        for part in ("query", "key"):
            getattr(listening, part).register_forward_hook(partial(self._keep, part))
        self._initialise()

    def _initialise(self) -> None:
        decoder = self.whisper.decoder
        with torch.no_grad():
            decoder.token_embedding.weight.normal_(std=0.05)
            self._place_in_time()
            decoder.token_embedding.weight[:, CONSTANT_CHANNEL] = 0.0
            decoder.ln.weight[CONSTANT_CHANNEL] = 0.0
            decoder.ln.bias[CONSTANT_CHANNEL] = 1.0
        for parameter in self._held_parameters():
            parameter.register_hook(_without_constant_channel)  # type: ignore[no-untyped-call]

    def _place_in_time(self) -> None:
        """Give the decoder's positions and times the shape of the encoder's positions.

        A time then says by itself where to listen, and what is heard there which time it is:
        both are products with the same sinusoids. And a distance between two words is the same
        anywhere in the text, so that what is learned from short texts holds in long ones.
        """
        decoder = self.whisper.decoder
        times = sinusoids(AUDIO_POSITIONS + 1, STATE)[:: AUDIO_POSITIONS // (tokens.TIMESTAMPS - 1)]
        decoder.token_embedding.weight[tokens.FIRST_TIMESTAMP :] = TIME_SCALE * times
        decoder.positional_embedding.copy_(POSITION_SCALE * sinusoids(TEXT_POSITIONS, STATE))

    def start_from(self, checkpoint: Path) -> None:
        """Take over what an exported checkpoint of this network knows about sounds and words.

        Not its sense of time and place: see :meth:`_place_in_time`. The CTC head, which no
        checkpoint holds, starts anew.
        """
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        state = {name: value.float() for name, value in saved["model_state_dict"].items()}
        name = "decoder.token_embedding.weight"
        state[name] = state[name][torch.tensor(tokens.full_ids())]
        self.whisper.load_state_dict(state)
        with torch.no_grad():
            self._place_in_time()
            self.whisper.decoder.token_embedding.weight[:, CONSTANT_CHANNEL] = 0.0

    def _held_parameters(self) -> Iterator[nn.Parameter]:
        decoder = self.whisper.decoder
        yield decoder.token_embedding.weight
        yield decoder.ln.weight
        yield decoder.ln.bias

    def encode(self, mel: Tensor, places: Tensor | None = None) -> Tensor:
        """Encoder output (B, E, state) for mel (B, 80, F), F even and at most 3000.

        Whisper's own forward insists on windows of exactly 30 s; shorter ones make training
        affordable. ``places`` (B,) says where in such a window each of them lies, in encoder
        positions; without it they lie at its start.
        """
        encoder = self.whisper.encoder
        x = nn.functional.gelu(encoder.conv1(mel))
        x = nn.functional.gelu(encoder.conv2(x)).permute(0, 2, 1)  # (B, E, state)
        positions = torch.arange(x.shape[1])
        if places is not None:
            positions = positions + places[:, None]  # (B, E)
        x = x + encoder.positional_embedding[positions]
        for block in encoder.blocks:
            x = block(x)
        encoded: Tensor = encoder.ln_post(x)
        return encoded

    def forward(
        self, mel: Tensor, text: Tensor, places: Tensor | None = None, *, settled: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Logits of the next token (B, L, V) and of the CTC head (B, E, 1 + words).

        While the head is new beside a trained encoder (not ``settled``), it learns alone.
        """
        encoded = self.encode(mel, places)
        logits: Tensor = self.whisper.decoder(text, encoded)
        return logits, self.ctc(encoded if settled else encoded.detach())

    def _keep(self, part: str, _module: nn.Module, _given: object, output: Tensor) -> None:
        self._projected[part] = output

    @staticmethod
    def _guided(projected: Tensor) -> Tensor:
        heads = projected.float().view(*projected.shape[:2], HEADS, STATE // HEADS)
        return heads[:, :, :GUIDED_HEADS]

    def attention(self) -> Tensor:
        """Log share (B, guided heads, L, E) of the last :meth:`forward`'s attention to the sound.

        Of the last decoder layer, whose first heads training guides to what is to be written.
        """
        query, key = (self._guided(self._projected[part]) for part in ("query", "key"))
        scores = torch.einsum("blhd,behd->bhle", query, key) / math.sqrt(query.shape[-1])
        return scores.log_softmax(dim=-1)

    @torch.no_grad()
    def recognise(
        self, mel: Tensor, *, longest: int = 32, timestamps: bool = False
    ) -> list[list[int]]:
        """Greedy decoding of mel (B, 80, F): compact ids of words and, if wanted, times."""
        encoded = self.encode(mel)
        prompt = [tokens.SOT] if timestamps else [tokens.SOT, tokens.NO_TIMESTAMPS]
        text = torch.tensor([prompt]).repeat(len(mel), 1)
        for _ in range(longest):
            logits = self.whisper.decoder(text, encoded)[:, -1]
            text = torch.cat([text, logits.argmax(dim=-1, keepdim=True)], dim=1)
            if bool((text == tokens.EOT).any(dim=1).all()):
                break
        return [_until_eot(row) for row in text[:, len(prompt) :].tolist()]


def _until_eot(ids: list[int]) -> list[int]:
    end = ids.index(tokens.EOT) if tokens.EOT in ids else len(ids)
    specials = (tokens.SOT, tokens.NO_SPEECH, tokens.NO_TIMESTAMPS)
    return [token for token in ids[:end] if token not in specials]


def _without_constant_channel(gradient: Tensor) -> Tensor:
    held = gradient.clone()
    held[..., CONSTANT_CHANNEL] = 0.0
    return held
