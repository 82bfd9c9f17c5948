"""Whether more would fit: what the host, a container and a GPU say."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from kamerton.training import device_memory
from kamerton.training.device_memory import available_bytes, has_room

MIB = 2**20


@pytest.fixture
def machine(tmp_path: Path) -> tuple[Path, Path]:
    """A host with 300 MiB left, and a container with 100."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 999 kB\nMemAvailable:    {300 * 1024} kB\nBuffers: 1 kB\n")
    group = tmp_path / "group"
    group.mkdir()
    (group / "memory.max").write_text(f"{500 * MIB}\n")
    (group / "memory.current").write_text(f"{400 * MIB}\n")
    return meminfo, group


def test_what_is_left_is_the_least_of_host_and_container(machine: tuple[Path, Path]) -> None:
    meminfo, group = machine
    assert available_bytes(meminfo, group) == 100 * MIB
    (group / "memory.max").write_text("max\n")
    assert available_bytes(meminfo, group) == 300 * MIB
    assert available_bytes(meminfo.with_name("none"), group) == math.inf


def test_a_host_has_room_for_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_memory, "most_resident_bytes", lambda: 400 * MIB)
    monkeypatch.setattr(device_memory, "available_bytes", lambda: 100 * MIB)
    fits = has_room(torch.device("cpu"))
    assert fits(1.2)  # 80 MiB more
    assert not fits(1.25)  # 100 are more than nine tenths of 100


def test_a_gpu_has_room_for_what_is_free_and_what_is_reserved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (40 * MIB, 100 * MIB))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 60 * MIB)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 50 * MIB)
    fits = has_room(torch.device("cuda", 0))
    assert fits(1.34)
    assert not fits(1.36)
