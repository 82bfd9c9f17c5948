"""Whether memory holds more than it does: asked before batches grow."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

from kamerton.training.speed import most_resident_bytes

FULL: Final = 0.9  # of what could be had; allocators and other processes need some
_MEMINFO: Final = Path("/proc/meminfo")
_CONTROL_GROUP: Final = Path("/sys/fs/cgroup")  # a container sees its own there


def has_room(device: torch.device) -> Callable[[float], bool]:
    """A function that tells whether steps that take so many times the memory would fit.

    What takes the memory is taken to grow as the batches do, weights and all: it says no rather
    early. Where nothing tells how much memory there is, it says yes.
    """
    return _on_gpu(device) if device.type == "cuda" else _on_host


def _on_gpu(device: torch.device) -> Callable[[float], bool]:
    def fits(growth: float) -> bool:
        free, _ = torch.cuda.mem_get_info(device)
        most = torch.cuda.max_memory_allocated(device)
        return growth * most <= FULL * (free + torch.cuda.memory_reserved(device))

    return fits


def _on_host(growth: float) -> bool:
    return (growth - 1.0) * most_resident_bytes() <= FULL * available_bytes()


def available_bytes(meminfo: Path = _MEMINFO, control_group: Path = _CONTROL_GROUP) -> float:
    """Bytes that the host, or the container, has left; infinite where neither tells."""
    return min(_of_host(meminfo), _of_container(control_group))


def _of_host(meminfo: Path) -> float:
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text("ascii").splitlines() if line)
        return 1024.0 * int(lines["MemAvailable"].split()[0])
    except (OSError, ValueError, KeyError):
        return math.inf


def _of_container(folder: Path) -> float:
    try:
        limit = int((folder / "memory.max").read_text("ascii"))
        return float(limit - int((folder / "memory.current").read_text("ascii")))
    except (OSError, ValueError):  # "max" is no number
        return math.inf
