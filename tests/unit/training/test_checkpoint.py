"""Checkpoints: whole, complete, clear about damage, and patient with a full disk."""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from kamerton.core.errors import InputCorruptError, ParamsError, PipelineError
from kamerton.training import checkpoint as checkpoint_module
from kamerton.training.checkpoint import Checkpoints, read_checkpoint
from kamerton.training.meaning import Meaning
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


def at(step: int, best: int = 0) -> TrainState:
    return dataclasses.replace(STATE, step=step, best_step=best, best_quality=1.0 / (1 + best))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def step_of(path: Path) -> int:
    return int(read_checkpoint(path)["state"]["step"])


def test_everything_comes_back(tmp_path: Path) -> None:
    model, optimizer = trained(1)
    scaler = {"scale": 1024.0, "growth_tracker": 3}
    Checkpoints(tmp_path, keep=2).save(model, optimizer, STATE, scheduled=False, scaler=scaler)
    other, other_optimizer = trained(2)
    restored = Checkpoints(tmp_path, keep=2).restore(other, other_optimizer)
    assert restored is not None
    assert (restored.state, restored.scaler) == (STATE, scaler)
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
        checkpoints.save(model, optimizer, at(step), scheduled=step % 5 == 0)
    checkpoints.save_best(model, optimizer, STATE)
    assert names(tmp_path) == {"best.pt", "last.pt", "step_00000015.pt", "step_00000020.pt"}
    assert step_of(checkpoints.last) == 20


def test_a_scheduled_one_takes_its_room_once(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(*trained(1), at(5), scheduled=True)
    assert checkpoints.last.stat().st_nlink == 2
    before = (tmp_path / "step_00000005.pt").read_bytes()
    checkpoints.save(*trained(2), at(6), scheduled=False)  # and is not changed with last.pt
    assert (tmp_path / "step_00000005.pt").read_bytes() == before
    assert step_of(checkpoints.last) == 6


def test_a_disk_without_hard_links_gets_two_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.save(*trained(1), at(5), scheduled=True)
    assert step_of(checkpoints.last) == step_of(tmp_path / "step_00000005.pt") == 5


@pytest.mark.parametrize("keep_bytes", [0, 10, 500, 1500])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, keep_bytes: int) -> None:
    model, optimizer = trained(1)
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(model, optimizer, STATE, scheduled=False)
    checkpoints.last.write_bytes(checkpoints.last.read_bytes()[:keep_bytes])
    with pytest.raises(InputCorruptError, match=r"last\.pt: cannot be read") as caught:
        checkpoints.restore(*trained(2))
    assert caught.value.exit_code == 1
    assert "remove" in caught.value.hint


def test_the_one_before_steps_in_for_a_damaged_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, optimizer = trained(1)
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (5, 10):
        checkpoints.save(model, optimizer, at(step), scheduled=True)
    for damaged in (checkpoints.last, tmp_path / "step_00000010.pt"):
        damaged.unlink()
        damaged.write_bytes(b"no checkpoint")
    restored = checkpoints.restore(*trained(2))
    assert restored is not None
    assert restored.state.step == 5
    assert "step_00000005.pt is used instead" in caplog.text
    checkpoints.reconcile(restored.state)
    assert "step_00000010.pt" not in names(tmp_path)  # it will be made again


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    torch.save({"format_version": 1, "state": Evil()}, tmp_path / "last.pt")
    with pytest.raises(InputCorruptError):
        read_checkpoint(tmp_path / "last.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"weights": torch.zeros(2)}, "not a checkpoint of this version"),
        ({"format_version": 1}, "it is of format 1, not 2"),
        (torch.zeros(3), "not a checkpoint of this version"),
    ],
)
def test_another_format_is_refused(tmp_path: Path, record: Any, said: str) -> None:
    torch.save(record, tmp_path / "last.pt")
    with pytest.raises(InputCorruptError, match=said) as caught:
        read_checkpoint(tmp_path / "last.pt")
    assert caught.value.exit_code == 1


MEANING = Meaning({"decoder_rnn_dim": 16, "mels": 8}, {"hop_samples": 64}, ("a", "b"), ("ann",))


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"architecture": {"decoder_rnn_dim": 24, "mels": 8}},
         r"architecture\.decoder_rnn_dim \(16, asked 24\)"),
        ({"audio": {"hop_samples": 128}}, r"audio\.hop_samples \(64, asked 128\)"),
        ({"symbols": ("a", "c")}, "symbols"),
        ({"speakers": ("bob",)}, "speakers"),
    ],
)  # fmt: skip
def test_weights_of_another_network_are_refused(
    tmp_path: Path, other: dict[str, Any], named: str
) -> None:
    Checkpoints(tmp_path, keep=1, meaning=MEANING).save(*trained(1), STATE, scheduled=False)
    asked = dataclasses.replace(MEANING, **other)
    with pytest.raises(ParamsError, match=named) as caught:
        Checkpoints(tmp_path, keep=1, meaning=asked).restore(*trained(1))
    assert caught.value.exit_code == 3
    restored = Checkpoints(tmp_path, keep=1, meaning=MEANING).restore(*trained(1))
    assert restored is not None


def test_other_shapes_are_refused_with_their_names(tmp_path: Path) -> None:
    Checkpoints(tmp_path, keep=1).save(*trained(1), STATE, scheduled=False)
    model = torch.nn.Linear(3, 5)
    with pytest.raises(InputCorruptError, match=r"size mismatch for weight.*\[2, 3\]"):
        Checkpoints(tmp_path, keep=1).restore(model, torch.optim.AdamW(model.parameters()))


# The best checkpoint is always the one that the state on disk speaks of.


def test_a_better_one_that_the_state_does_not_know_gives_way_to_the_one_it_knows(
    tmp_path: Path,
) -> None:
    model, optimizer = trained(1)
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save_best(model, optimizer, at(5, best=5))
    checkpoints.save(model, optimizer, at(6, best=5), scheduled=False)
    checkpoints.save_best(model, optimizer, at(8, best=8))
    checkpoints.save_best(model, optimizer, at(9, best=9))
    assert step_of(checkpoints.best) == 9  # and here the process is killed
    again = Checkpoints(tmp_path, keep=2)
    restored = again.restore(*trained(2))
    assert restored is not None
    assert again.reconcile(restored.state) == restored.state == at(6, best=5)
    assert step_of(again.best) == 5
    assert names(tmp_path) == {"best.pt", "last.pt"}


def test_a_best_one_before_the_first_state_is_forgotten(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save_best(*trained(1), at(5, best=5))
    assert checkpoints.restore(*trained(2)) is None
    assert checkpoints.reconcile(TrainState()) == TrainState()
    assert not names(tmp_path)


def test_once_the_state_knows_of_it_the_one_before_goes(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (5, 8):
        checkpoints.save_best(*trained(1), at(step, best=step))
        checkpoints.save(*trained(1), at(step + 1, best=step), scheduled=False)
    assert names(tmp_path) == {"best.pt", "last.pt"}
    assert checkpoints.reconcile(at(9, best=8)).best_step == step_of(checkpoints.best) == 8


def test_a_best_one_that_is_gone_is_replaced_by_the_step_of_its_name_or_forgotten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save_best(*trained(1), at(5, best=5))
    checkpoints.save(*trained(1), at(5, best=5), scheduled=True)
    checkpoints.best.write_bytes(b"damaged")
    assert checkpoints.reconcile(at(5, best=5)).best_step == 5
    assert step_of(checkpoints.best) == 5
    (tmp_path / "step_00000005.pt").unlink()
    checkpoints.best.unlink()
    state = checkpoints.reconcile(at(5, best=5))
    assert (state.best_step, state.best_quality, state.best_values) == (0, float("inf"), {})
    assert "the best checkpoint is gone" in caplog.text


def test_what_another_host_left_half_written_is_removed(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(*trained(1), at(2), scheduled=True)
    for name in (".last.pt.partial-pod_7-1", ".step_00000004.pt.partial-pod_7-1"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "notes.partial-1").write_text("not ours")
    checkpoints.reconcile(at(2))
    assert names(tmp_path) == {"last.pt", "step_00000002.pt", "notes.partial-1"}
    assert [step for step, _ in checkpoints.steps()] == [2]


def test_what_a_killed_run_made_beyond_its_state_is_removed(tmp_path: Path) -> None:
    model, optimizer = trained(1)
    wide, narrow = Checkpoints(tmp_path, keep=9), Checkpoints(tmp_path, keep=2)
    for step in (2, 4, 6, 8):
        wide.save(model, optimizer, at(step), scheduled=True)
    narrow.reconcile(at(6))
    assert names(tmp_path) == {"last.pt", "step_00000004.pt", "step_00000006.pt"}


# A full disk.


class Disk:
    """Stands for write_bytes: takes what it is given while there is room."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self._real = checkpoint_module.write_bytes
        monkeypatch.setattr(checkpoint_module, "write_bytes", self._write)

    def _write(self, path: Path, data: bytes) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._real(path, data)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


class Events(list[tuple[str, int | None]]):
    def __call__(self, kind: str, *, step: int | None = None, **fields: Any) -> None:
        self.append((kind, step))


def test_a_full_disk_is_told_once_and_written_when_there_is_room(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    model, optimizer = trained(1)
    events = Events()
    checkpoints = Checkpoints(tmp_path, keep=2, on_event=events, retry_seconds=0.0)
    checkpoints.save(model, optimizer, at(4), scheduled=True)
    disk.full = True
    assert not checkpoints.overdue
    for step in (6, 7, 8):
        assert not checkpoints.save(model, optimizer, at(step), scheduled=step == 8)
        assert checkpoints.overdue
        assert step_of(checkpoints.last) == 4  # the old one stays whole
    disk.full = False
    assert checkpoints.save(model, optimizer, at(9), scheduled=False)
    assert not checkpoints.overdue
    assert step_of(checkpoints.last) == 9
    assert events == [("checkpoint_failed", 6), ("checkpoint_written_again", 9)]
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert "No space left on device; 1 MiB are needed" in warnings[0].getMessage()


def test_it_is_not_tried_at_every_step(tmp_path: Path, disk: Disk) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2, retry_seconds=1000.0)
    disk.full = True
    checkpoints.save(*trained(1), at(4), scheduled=True)
    assert not checkpoints.overdue


def test_a_state_never_speaks_of_a_best_one_that_the_disk_did_not_take(
    tmp_path: Path, disk: Disk
) -> None:
    model, optimizer = trained(1)
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save_best(model, optimizer, at(4, best=4))
    checkpoints.save(model, optimizer, at(4, best=4), scheduled=False)
    disk.full = True
    assert not checkpoints.save_best(model, optimizer, at(6, best=6))
    assert not checkpoints.save(model, optimizer, at(8, best=6), scheduled=True)
    assert (step_of(checkpoints.best), step_of(checkpoints.last)) == (4, 4)
    disk.full = False
    checkpoints.settle(seconds=1.0)
    assert (step_of(checkpoints.best), step_of(checkpoints.last)) == (6, 8)
    assert names(tmp_path) == {"best.pt", "last.pt", "step_00000008.pt"}


def test_a_disk_that_stays_full_to_the_end_is_an_error_that_names_the_room(
    tmp_path: Path, disk: Disk
) -> None:
    disk.full = True
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.settle(seconds=0.0)  # nothing waits
    checkpoints.save(*trained(1), at(6), scheduled=False)
    with pytest.raises(PipelineError, match=r"step 6 could not.*needs 1 MiB") as caught:
        checkpoints.settle(seconds=0.3)
    assert caught.value.exit_code == 1
    assert "free some space" in caught.value.hint


def test_the_last_attempts_wait_for_room(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.full = True
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(*trained(1), at(6), scheduled=False)
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        disk.full = len(pauses) < 3

    monkeypatch.setattr(checkpoint_module.time, "sleep", sleep)
    checkpoints.settle(seconds=60.0)
    assert step_of(checkpoints.last) == 6
    assert pauses == [0.25, 0.5, 1.0]
