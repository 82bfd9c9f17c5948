"""Checkpoints: whole, complete, and clear about damage."""

import dataclasses
from pathlib import Path

import pytest
import torch

from kamerton.core.errors import InputCorruptError
from kamerton.training.checkpoint import Checkpoints, read_checkpoint
from kamerton.training.state import TrainState


def trained(seed: int, steps: int = 2) -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
    return model, optimizer


STATE = TrainState(step=7, epoch=1, batch=3, best_step=5, best_quality=0.5, best_values={"a": 1.5},
                   evaluated_step=5, skipped=2, skipped_in_a_row=1)  # fmt: skip


def test_everything_comes_back(tmp_path: Path) -> None:
    model, optimizer = trained(1)
    Checkpoints(tmp_path, keep=2).save(model, optimizer, STATE, scheduled=False)
    other, other_optimizer = trained(2)
    assert Checkpoints(tmp_path, keep=2).restore(other, other_optimizer) == STATE
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        saved, loaded = optimizer.state[ours], other_optimizer.state[theirs]
        assert saved.keys() == loaded.keys() >= {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(saved[name], loaded[name]) for name in saved)


def test_nothing_saved_is_not_an_error(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none", keep=1).restore(*trained(1)) is None


def test_the_newest_scheduled_ones_are_kept(tmp_path: Path) -> None:
    model, optimizer = trained(1)
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (5, 10, 15, 17, 20):
        state = dataclasses.replace(STATE, step=step)
        checkpoints.save(model, optimizer, state, scheduled=step % 5 == 0)
    checkpoints.save_best(model, optimizer, STATE)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["best.pt", "last.pt", "step_00000015.pt", "step_00000020.pt"]
    assert read_checkpoint(checkpoints.last)["state"]["step"] == 20


@pytest.mark.parametrize("keep_bytes", [0, 10, 500, 1500])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, keep_bytes: int) -> None:
    model, optimizer = trained(1)
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(model, optimizer, STATE, scheduled=False)
    checkpoints.last.write_bytes(checkpoints.last.read_bytes()[:keep_bytes])
    with pytest.raises(InputCorruptError, match=r"last\.pt: cannot be read"):
        checkpoints.restore(*trained(2))


def test_the_one_before_steps_in_for_a_damaged_one(tmp_path: Path) -> None:
    model, optimizer = trained(1)
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (5, 10):
        state = dataclasses.replace(STATE, step=step)
        checkpoints.save(model, optimizer, state, scheduled=True)
    for damaged in (checkpoints.last, tmp_path / "step_00000010.pt"):
        damaged.write_bytes(b"no checkpoint")
    restored = checkpoints.restore(*trained(2))
    assert restored is not None
    assert restored.step == 5


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    torch.save({"format_version": 1, "state": Evil()}, tmp_path / "last.pt")
    with pytest.raises(InputCorruptError):
        read_checkpoint(tmp_path / "last.pt")
    assert not (tmp_path / "ran").exists()


def test_another_format_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(2)}, tmp_path / "last.pt")
    with pytest.raises(InputCorruptError, match="not a checkpoint of this version"):
        read_checkpoint(tmp_path / "last.pt")
