"""A trained voice as files that others can load: weights without pickle, and what they mean.

Equal weights and facts give equal bytes: nothing here holds a time or the name of a run.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kamerton.core.errors import InputCorruptError, InputMissingError, ToolMissingError
from kamerton.core.files import write_bytes, write_json
from kamerton.model import DESCRIPTION_FILE, WEIGHTS_FILE
from kamerton.model.description import REMAKE, VoiceDescription, read_description
from kamerton.model.spoken import SpokenArrays
from kamerton.model.tacotron2.model import Tacotron2

TORCH_FILE = "best_model.pt"


def export_voice(
    folder: Path, weights: Mapping[str, torch.Tensor], description: VoiceDescription
) -> None:
    """Write the files of a voice into an existing folder: what speaking needs, and no more.

    Weights of which only training has a use (a coarse decoder, learned noise) are left out.
    """
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise ToolMissingError("safetensors", extra="train") from error
    description = replace(description, architecture=description.architecture.for_inference())
    with torch.device("meta"):
        needed = Tacotron2(description.architecture).state_dict()
    tensors = {name: weights[name].detach().cpu().contiguous() for name in sorted(needed)}
    write_bytes(folder / WEIGHTS_FILE, save(tensors, metadata={"format": "pt"}))
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    write_bytes(folder / TORCH_FILE, buffer.getvalue())
    write_json(folder / DESCRIPTION_FILE, description.to_dict())


def load_model(folder: Path) -> tuple[Tacotron2, VoiceDescription]:
    """Load an exported voice, ready to speak.

    Raises:
        InputMissingError: there is no voice.
        InputCorruptError: its files are damaged or do not fit each other.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ToolMissingError("safetensors", extra="train") from error
    description = read_description(folder)
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise InputMissingError(weights, produced_by="train")
    try:
        with torch.device("meta"):  # sizes that are no network must not take memory first
            Tacotron2(description.architecture)
        model = Tacotron2(description.architecture)
    except (RuntimeError, TypeError, ValueError, ArithmeticError) as error:
        problem = f"describes no network ({str(error).splitlines()[0]})"
        raise InputCorruptError(folder / DESCRIPTION_FILE, problem=problem, hint=REMAKE) from error
    try:
        model.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError, OSError) as error:
        problem = f"does not fit {DESCRIPTION_FILE} ({str(error).splitlines()[0]})"
        raise InputCorruptError(weights, problem=problem, hint=REMAKE) from error
    return model.eval(), description


class TorchModel:
    """``spoken.AcousticModel`` in PyTorch."""

    def __init__(self, model: Tacotron2) -> None:
        self._model = model.eval()

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
        """As ``spoken.AcousticModel.speak`` says."""
        spoken = self._model.speak(
            torch.from_numpy(symbols),
            torch.from_numpy(symbol_lengths),
            max_frames=torch.from_numpy(max_frames),
            seeds=list(seeds),
            gate_threshold=gate_threshold,
            speakers=None if speakers is None else torch.from_numpy(speakers),
        )
        return SpokenArrays(
            spoken.frames.numpy(), spoken.lengths.numpy(), spoken.attention.numpy(),
            spoken.stopped.numpy(),
        )  # fmt: skip
