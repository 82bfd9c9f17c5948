"""The trained network as a checkpoint that unmodified openai-whisper loads."""

from __future__ import annotations

import io
import zipfile
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import torch

from kamerton.core.files import write_bytes
from kamerton.demo.toy_whisper import tokens
from kamerton.demo.toy_whisper.model import CONSTANT_CHANNEL, STATE, dimensions

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from kamerton.demo.toy_whisper.model import ToyWhisper

UNUSED_LOGIT: Final = -30.0  # e^-30: all 50 000 of them together weigh 5e-9
_EMBEDDING = "decoder.token_embedding.weight"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # zip's first day: the same weights give the same file


def full_state(model: ToyWhisper) -> dict[str, Tensor]:
    """Whisper's own state dict with the English vocabulary of 51864 tokens, float32.

    Trained rows keep their weights and logits. All others are zero but for one channel, in which
    the decoder's last layer norm always gives 1: their logit is ``UNUSED_LOGIT`` whatever is said.
    """
    state = {name: value.detach().clone() for name, value in model.whisper.state_dict().items()}
    embedding = torch.zeros(tokens.FULL_SIZE, STATE)
    embedding[:, CONSTANT_CHANNEL] = UNUSED_LOGIT
    embedding[torch.tensor(tokens.full_ids())] = state[_EMBEDDING]
    state[_EMBEDDING] = embedding
    return state


def save_checkpoint(model: ToyWhisper, path: Path) -> None:
    """Write half-precision weights, deflated.

    PyTorch stores its zip members uncompressed but reads deflated ones as well; 50 000 equal rows
    then take no room.
    """
    state = {name: value.half() for name, value in full_state(model).items()}
    plain = io.BytesIO()
    torch.save({"dims": asdict(dimensions(tokens.FULL_SIZE)), "model_state_dict": state}, plain)
    small = io.BytesIO()
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(small, "w") as target:
        for member in source.infolist():
            entry = zipfile.ZipInfo(member.filename, _LONG_AGO)
            entry.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(entry, source.read(member), compresslevel=9)
    write_bytes(path, small.getvalue())
