"""Trainers as processes of their own, to be killed, and what must come of them."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from kamerton.tracking import Record

STEPS = 200
SLOW_SYNC_SECONDS = 0.02  # a disk so slow that a write can be hit

# Forked from a process that has these imported: twenty starts would be twenty times torch's import.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["kamerton.stages.train", "kamerton.training.publish", "kamerton.report.figures"]
)

PLAIN: dict[str, Any] = {}
QUALITY: dict[str, Any] = {
    "preset": "quality",
    "phases": {"evaluations": 1, "attention_goals": (0.05, 0.1)},
    "eval_interval_steps": 35,  # where states are saved too, before and after
    "accumulation": 2,
}


def ports(folder: Path) -> dict[str, Path]:
    """Where the train stage reads and writes."""
    return {
        "dataset": folder / "dataset", "analysis": folder / "analysis.json",
        "best_params": folder / "best_params.yaml", "model": folder / "model",
        "report": folder / "training.html",
    }  # fmt: skip


def train_here(folder: Path, changes: dict[str, Any], tracking: dict[str, Any] | None = None,
               **options: Any) -> None:  # fmt: skip
    """The train stage on the tiny corpus in ``folder``."""
    from kamerton.config.schema import Params
    from kamerton.stages.train import train
    from kamerton.training import fingerprint
    from tests.tiny_corpus import tiny_params

    fingerprint.code_digest = lambda: "fixed"  # sources edited meanwhile make other runs
    given = {
        "max_steps": STEPS, "eval_interval_steps": 40, "checkpoint_interval_steps": 7,
        "monitoring": {"log_interval_steps": 1}, **changes,
    }  # fmt: skip
    params = tiny_params(**given).model_dump(mode="json", exclude_unset=True)
    params["tracking"] |= tracking or {}
    train(**ports(folder), params=Params.model_validate(params), runs=folder / "runs", **options)


def _child(folder: Path, changes: dict[str, Any]) -> None:
    import torch

    torch.set_num_threads(1)
    real = os.fsync

    def slow(descriptor: int) -> None:
        time.sleep(SLOW_SYNC_SECONDS)
        real(descriptor)

    os.fsync = slow
    train_here(folder, changes)


def start(folder: Path, changes: dict[str, Any]) -> BaseProcess:
    """A trainer as a process of its own, on a slow disk."""
    process = _CONTEXT.Process(target=_child, args=(folder, changes), daemon=True)
    process.start()
    return process


def run_of(folder: Path) -> Path:
    """The one run directory below ``folder``."""
    (status,) = folder.glob("runs/*/status.json")
    return status.parent


def logged_step(folder: Path) -> int:
    """The newest step in the record; 0 before the first."""
    for file in folder.glob("runs/*/metrics.jsonl"):
        for line in reversed(file.read_bytes().splitlines()):
            record = Record.parse(line)
            if record is not None and record.kind == "metrics":
                return record.step or 0
    return 0


def half_written(folder: Path) -> list[Path]:
    """Checkpoints that are being written, or were when their writer was killed."""
    return list(folder.glob("runs/*/checkpoints/.*.pt.partial-*"))


def wait_until(ready: Callable[[], bool], process: BaseProcess, *, pause: float = 0.001) -> bool:
    """Wait for ``ready`` while ``process`` runs; whether it came."""
    while process.is_alive():
        if ready():
            return True
        time.sleep(pause)
    return False


def figures(folder: Path) -> dict[tuple[int, str], float]:
    """Every figure that a run computed, by step and name; each must stand there once."""
    found: list[tuple[tuple[int, str], float]] = []
    for line in (run_of(folder) / "metrics.jsonl").read_bytes().splitlines():
        record = Record.parse(line)
        assert record is not None, line
        if record.kind == "metrics":
            assert record.step is not None
            computed = (name for name in record.values if _is_computed(name))
            found += [((record.step, name), record.values[name]) for name in computed]
    twice = [key for key, count in Counter(key for key, _ in found).items() if count > 1]
    assert not twice, twice[:5]
    return dict(found)


def _is_computed(name: str) -> bool:
    """Not a time or a size of memory."""
    known = ("train_", "val_", "attention_", "gate_", "grad_norm", "learning_rate", "phase")
    return name.startswith(known) and not name.endswith("seconds")
