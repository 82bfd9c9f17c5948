"""One checkpoint as bytes: all that a run needs to go on, and what its weights mean.

Batches, learning rate and random numbers are functions of the seed and of what ``TrainState``
holds: before each step the generator is seeded from (seed, step). So no state of a generator, of a
scheduler or of a sampler is there to be saved, and none can be forgotten.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kamerton.core.errors import InputCorruptError
from kamerton.training.meaning import Meaning
from kamerton.training.state import TrainState

FORMAT_VERSION = 2
_KEYS = {"format_version", "state", "model", "optimizer", "scaler", "meaning"}
_UNREADABLE = (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, OSError)


def encode(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: TrainState,
    *,
    scaler: Mapping[str, Any] | None,
    meaning: Meaning | None,
) -> bytes:
    """A checkpoint's bytes."""
    buffer = io.BytesIO()
    record = {
        "format_version": FORMAT_VERSION,
        "state": state.to_dict(),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": None if scaler is None else dict(scaler),
        "meaning": None if meaning is None else meaning.to_dict(),
    }
    torch.save(record, buffer)
    return buffer.getvalue()


def read_checkpoint(
    path: Path, *, hint: str | None = None, mapped: bool = False
) -> Mapping[str, Any]:
    """Read a checkpoint, onto the CPU and without running anything that is in it.

    Args:
        path: The file.
        hint: What to do if it is damaged.
        mapped: Leave the tensors on disk until they are looked at.

    Raises:
        InputCorruptError: the file is truncated, damaged, or of another format.
    """
    hint = hint or f"remove {os.path.relpath(path)}; the checkpoint before it is used then"
    try:
        record = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputCorruptError(path, problem=f"cannot be read ({reason})", hint=hint) from error
    known = isinstance(record, dict) and record.get("format_version") == FORMAT_VERSION
    if (
        not known
        or record.keys() != _KEYS
        or record["state"].keys() != TrainState().to_dict().keys()
    ):
        raise InputCorruptError(
            path, problem=f"is not a checkpoint of this version{_version_of(record)}", hint=hint
        )
    return dict(record)


def _version_of(record: Any) -> str:
    version = record.get("format_version") if isinstance(record, dict) else None
    return f" (it is of format {version}, not {FORMAT_VERSION})" if version is not None else ""
