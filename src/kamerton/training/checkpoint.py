"""Checkpoints that are either whole or not there, and hold all that a run needs to go on.

Batches, learning rate and random numbers are functions of the seed and the step, so the step is
all there is to save of them.
"""

from __future__ import annotations

import io
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kamerton.core.errors import InputCorruptError
from kamerton.core.files import write_bytes
from kamerton.training.state import TrainState

FORMAT_VERSION = 2
_STEP_NAME = re.compile(r"step_(\d+)\.pt")


class Checkpoints:
    """The checkpoint folder of one run: ``last.pt``, ``best.pt`` and the newest ``step_*.pt``."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        self._folder = folder
        self._keep = keep

    @property
    def last(self) -> Path:
        """The newest state."""
        return self._folder / "last.pt"

    @property
    def best(self) -> Path:
        """The state of the best evaluation."""
        return self._folder / "best.pt"

    def save(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, state: TrainState,
        *, scheduled: bool,
    ) -> None:  # fmt: skip
        """Replace ``last.pt``; a scheduled one is also kept under its step's name."""
        data = _encode(model, optimizer, state)
        if scheduled:
            write_bytes(self._folder / f"step_{state.step:08d}.pt", data)
            for _, path in self._steps()[: -self._keep]:
                path.unlink()
        write_bytes(self.last, data)

    def save_best(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, state: TrainState
    ) -> None:
        """Replace ``best.pt``."""
        write_bytes(self.best, _encode(model, optimizer, state))

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> TrainState | None:
        """Load ``last.pt`` into both, or the newest older checkpoint if it is damaged.

        Returns:
            The state to go on from, or None when nothing was saved yet.

        Raises:
            InputCorruptError: there are checkpoints and none can be read.
        """
        candidates = [self.last] if self.last.exists() else []
        candidates += [path for _, path in reversed(self._steps())]
        problem: InputCorruptError | None = None
        for path in candidates:
            try:
                record = read_checkpoint(path)
            except InputCorruptError as error:
                problem = problem or error
                continue
            model.load_state_dict(record["model"])
            optimizer.load_state_dict(record["optimizer"])
            return TrainState.from_dict(record["state"])
        if problem is not None:
            raise problem
        return None

    def _steps(self) -> list[tuple[int, Path]]:
        found = ((_STEP_NAME.fullmatch(path.name), path) for path in self._folder.glob("step_*.pt"))
        return sorted((int(match[1]), path) for match, path in found if match)


def _encode(model: nn.Module, optimizer: torch.optim.Optimizer, state: TrainState) -> bytes:
    buffer = io.BytesIO()
    record = {
        "format_version": FORMAT_VERSION,
        "state": state.to_dict(),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(record, buffer)
    return buffer.getvalue()


def read_checkpoint(path: Path, *, hint: str | None = None) -> Mapping[str, Any]:
    """Read a checkpoint, onto the CPU and without running anything that is in it.

    Raises:
        InputCorruptError: the file is truncated, damaged, or of another format.
    """
    hint = hint or f"remove {os.path.relpath(path)}; the checkpoint before it is used then"
    try:
        record = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputCorruptError(path, problem=f"cannot be read ({reason})", hint=hint) from error
    known = isinstance(record, dict) and record.get("format_version") == FORMAT_VERSION
    if not known or set(record["state"]) != set(TrainState().to_dict()):
        raise InputCorruptError(path, problem="is not a checkpoint of this version", hint=hint)
    return dict(record)
