"""Several processes on this machine, over loopback: agreements, equal steps, deaths."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from kamerton.core import workers
from kamerton.core.errors import ParamsError, PipelineError, UsageError
from kamerton.core.ranks import Ranks
from kamerton.training import distributed
from kamerton.training.distributed import LostPeerError, World, joined_world, lost_peers_told
from kamerton.training.session import fixed_threads
from tests import ranks_worker

ROOT = Path(__file__).parents[3]
SIZE = 2


def environment(rank: int, size: int, port: int | None = None) -> dict[str, str]:
    """What torchrun would set."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = port or free.getsockname()[1]
    return {
        "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo", "TORCH_CPP_LOG_LEVEL": "ERROR",
    }  # fmt: skip


def start(case: str, folder: Path, size: int = SIZE) -> list[subprocess.Popen[str]]:
    port = int(environment(0, size)["MASTER_PORT"])
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.ranks_worker", case, str(folder)],
            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, **environment(rank, size, port)},
        )
        for rank in range(size)
    ]  # fmt: skip


def finish(processes: list[subprocess.Popen[str]], seconds: float = 60) -> list[tuple[int, str]]:
    """Exit code and stderr of each."""
    try:
        return [(process.wait(timeout=seconds), process.communicate()[1]) for process in processes]
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    for code, errors in finish(start("agree", folder)):
        assert (code, errors) == (0, "")
    return [torch.load(folder / f"agree-{rank}.pt", weights_only=False) for rank in range(SIZE)]


def test_a_flag_of_one_is_a_flag_of_all(outcomes: list[dict[str, Any]]) -> None:
    assert [outcome["any"] for outcome in outcomes] == [[True, False]] * SIZE


def test_all_have_what_the_main_process_shares(outcomes: list[dict[str, Any]]) -> None:
    assert [outcome["shared"] for outcome in outcomes] == [ranks_worker.VALUE] * SIZE
    assert [outcome["nothing"] for outcome in outcomes] == [None] * SIZE


def test_a_mean_is_over_all(outcomes: list[dict[str, Any]]) -> None:
    for outcome in outcomes:
        assert outcome["mean"].tolist() == [0.5, 3.0]


def test_work_that_one_leaves_on_request_is_left_by_all(outcomes: list[dict[str, Any]]) -> None:
    by_main, by_other, by_none = zip(*(outcome["left"] for outcome in outcomes), strict=True)
    assert by_main == ("left early", "left early")
    assert by_other == ("another process of this training was asked to stop.", "left early")
    assert by_none == ("done", "done")


def test_processes_that_differ_all_say_so(outcomes: list[dict[str, Any]]) -> None:
    assert all("do not agree on the dataset" in outcome["unequal"] for outcome in outcomes)


@pytest.mark.parametrize("kind", ["plain", "quality"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_processes_make_the_steps_of_one_that_accumulates(
    outcomes: list[dict[str, Any]], kind: str, accumulation: int
) -> None:
    """Losses, norms, counts, weights and running statistics, after several steps with noise."""
    given = ranks_worker.params(preset=kind)
    per_step = SIZE * accumulation
    with fixed_threads(given.train):  # as many as each process has, for sums are split by them
        alone = ranks_worker.trainee(given)
        expected, weights = ranks_worker.steps(
            alone, ranks_worker.batches(given, 6 * accumulation), per_step
        )
    for results, theirs in (outcome[f"{kind}-{accumulation}"] for outcome in outcomes):
        assert len(results) == 6 // SIZE
        for result, reference in zip(results, expected, strict=True):
            assert result.applied
            assert reference.applied
            counted = (result.frames, result.padded_frames, result.stops)
            assert counted == (reference.frames, reference.padded_frames, reference.stops)
            assert result.grad_norm == pytest.approx(reference.grad_norm, rel=1e-5)
            for part, loss in reference.losses.raw.items():
                assert float(result.losses.raw[part]) == pytest.approx(float(loss), rel=1e-5), part
        for name, value in weights.items():
            torch.testing.assert_close(theirs[name], value, atol=1e-5, rtol=1e-4, msg=name)
    ours, theirs = (outcome[f"{kind}-{accumulation}"][1] for outcome in outcomes)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_what_is_not_finite_in_one_process_is_a_step_of_none(
    outcomes: list[dict[str, Any]],
) -> None:
    for outcome in outcomes:
        assert outcome["non-finite"]["applied"] is False
        assert outcome["non-finite"]["changed"] == []
        assert math.isnan(outcome["non-finite"]["loss"])


@pytest.mark.training
def test_three_processes_go_on_bit_for_bit(tmp_path: Path) -> None:
    """Sums of three depend on their order, which must not change after the first step."""
    for code, errors in finish(start("go_on", tmp_path, size=3)):
        assert (code, errors) == (0, "")
    for rank in range(3):
        whole, resumed = torch.load(tmp_path / f"go_on-{rank}.pt", weights_only=False)
        assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


@pytest.mark.parametrize(
    "case",
    [
        pytest.param("killed_while_others_wait", marks=pytest.mark.training),
        "killed_while_others_work",
    ],
)
def test_a_killed_process_ends_the_others(case: str, tmp_path: Path) -> None:
    processes = start(case, tmp_path)
    processes[1].wait(timeout=60)
    died = time.monotonic()
    (code, errors), (killed, _) = finish(processes, seconds=30)
    assert time.monotonic() - died < 25  # a few on a machine that is idle
    assert (code, killed) == (1, -9)
    assert "of this training ended before its work was done" in errors
    assert "Traceback" not in errors


def test_a_process_that_fails_ends_the_others(tmp_path: Path) -> None:
    (code, errors), (failed, theirs) = finish(start("failed", tmp_path), seconds=30)
    assert (code, failed) == (1, 1)
    assert "process 1 of this training" in errors
    assert theirs.splitlines() == ["error: this one's own error."]


# One process


def test_a_process_that_does_not_come_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distributed, "MEETING_SECONDS", 1.0)
    for name, value in environment(0, SIZE).items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    with pytest.raises(PipelineError, match="did not meet within 1 s"):
        joined_world(ranks_worker.params().train).__enter__()
    assert time.monotonic() - began < 15


def test_alone_everything_is_free_and_nothing_is_joined() -> None:
    world = World()
    value = object()
    assert world.main
    assert world.share(value) is value
    assert world.any(True)
    assert not world.any(False)
    world.barrier()
    world.require_equal("anything", "at all")
    with joined_world(ranks_worker.params().train) as joined:
        assert joined == world
    assert not torch.distributed.is_initialized()


def test_ranks_are_read_from_the_launcher() -> None:
    given = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert Ranks.of_environment(given) == Ranks(5, 8, 1, 4)
    assert not Ranks.of_environment(given).main
    assert Ranks.of_environment({}) == Ranks()
    assert Ranks.of_environment({"WORLD_SIZE": "1", "RANK": "0"}) == Ranks()


@pytest.mark.parametrize(
    "given",
    [
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": "two"},
        {"WORLD_SIZE": "2", "RANK": "2"},
        {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "1"},
        {"WORLD_SIZE": "0", "RANK": "0"},
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="which process"):
        Ranks.of_environment(given)


def test_cores_are_shared_among_the_processes_of_a_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    monkeypatch.setattr(workers, "_container_limit", lambda _folder: 64)
    assert World().threads(0) == 8
    assert World(0, 2, 0, 2).threads(0) == 4
    assert World(0, 16, 0, 16).threads(0) == 1
    assert World(0, 2, 0, 2).threads(3) == 3
    monkeypatch.setattr(workers, "_container_limit", lambda _folder: 4)  # of a pod
    assert World().threads(0) == 4
    assert World(0, 2, 0, 2).threads(0) == 2


def test_every_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    train = ranks_worker.params(device="auto").train
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert World(3, 4, 1, 2).device(train) == torch.device("cuda", 1)
    assert chosen == [1]
    assert World(3, 4, 1, 2).device(train.model_copy(update={"device": "cpu"})).type == "cpu"
    with pytest.raises(ParamsError, match="4 processes were started for 2 GPUs"):
        World(3, 4, 3, 4).device(train)


def test_only_errors_of_the_network_are_lost_peers() -> None:
    with pytest.raises(LostPeerError), lost_peers_told():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [::1]:9")
    with pytest.raises(RuntimeError, match="must match"), lost_peers_told():
        raise RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")
    with pytest.raises(PipelineError, match="own"), lost_peers_told():
        raise PipelineError("own", hint="none")
