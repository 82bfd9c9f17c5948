import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kamerton.core import workers
from kamerton.core.errors import InputMissingError
from kamerton.core.workers import Crashed, Workers, _container_limit, usable_cores
from tests.unit.core import worker_tasks


def results(count, function, tasks, **options):
    with Workers(count) as team:
        return dict(team.run(function, tasks, **options))


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that ended stays in the table until it is waited for.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def gone(pids, seconds=10.0):
    """Whether all of these processes end within the time."""
    limit = time.monotonic() + seconds
    while any(alive(pid) for pid in pids):
        if time.monotonic() > limit:
            return False
        time.sleep(0.02)
    return True


def test_all_tasks_are_done_by_several_processes_that_then_end():
    found = results(3, worker_tasks.double, list(range(20)))
    assert {number: value for number, (_, value) in found.items()} == {n: 2 * n for n in range(20)}
    pids = {pid for pid, _ in found.values()}
    assert os.getpid() not in pids
    assert gone(pids)


def test_without_workers_all_is_done_in_this_process():
    assert results(0, worker_tasks.double, [1, 2]) == {0: (os.getpid(), 2), 1: (os.getpid(), 4)}
    assert results(4, worker_tasks.double, []) == {}


@pytest.mark.parametrize(("count", "tasks"), [(1, 2), (4, 1)])
def test_one_worker_or_one_task_may_crash_too(tmp_path, count, tasks):
    work = [(str(tmp_path), f"t{number}", 9) for number in range(tasks)]
    crashed = Crashed(-signal.SIGSEGV)
    assert results(count, worker_tasks.fragile, work) == dict.fromkeys(range(tasks), crashed)


def test_a_team_works_on_one_list_after_the_other():
    with Workers(2) as team:
        first = {pid for _, (pid, _) in team.run(worker_tasks.double, list(range(8)))}
        second = {pid for _, (pid, _) in team.run(worker_tasks.double, list(range(8)))}
    assert second == first


def test_a_process_that_dies_takes_no_other_along(tmp_path):
    tasks = [(str(tmp_path), f"t{number}", 0) for number in range(6)]
    tasks[2] = (str(tmp_path), "once", 1)
    tasks[4] = (str(tmp_path), "always", 9)
    found = results(2, worker_tasks.fragile, tasks)
    assert found.pop(4) == Crashed(-signal.SIGSEGV)
    assert found == {0: "t0", 1: "t1", 2: "once", 3: "t3", 5: "t5"}
    begun = {kind: len(list(tmp_path.glob(f"{kind}-*"))) for kind in ("once", "always", "t0")}
    assert begun == {"once": 2, "always": 2, "t0": 1}


def test_running_out_of_memory_is_a_crash():
    assert results(2, worker_tasks.hungry, [1, 2]) == {0: Crashed(137), 1: Crashed(137)}


def test_errors_travel_with_their_message_and_hint():
    with pytest.raises(InputMissingError, match=r"a\.wav does not exist") as caught:
        results(2, worker_tasks.missing, [1, 2])
    assert "put your files" in caught.value.hint
    with pytest.raises(RuntimeError, match="UnportableError: this and that"):
        results(2, worker_tasks.unportable, [1, 2])


def test_workers_have_one_thread_and_print_nowhere(capfd):
    found = results(2, worker_tasks.environment, [1, 2])
    assert set(found.values()) == {("1", "1")}
    assert capfd.readouterr().out == ""


def test_positions_arrive_while_tasks_run():
    heard = []
    results(
        2,
        worker_tasks.slow_ticks,
        ["a", "b"],
        on_tick=lambda number, at: heard.append((number, at)),
    )
    assert {number for number, _ in heard} == {0, 1}
    for number in (0, 1):
        own = [at for which, at in heard if which == number]
        assert own == sorted(own)
        assert len(own) >= 2


@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        (None, 3),
        ("max 100000", 3),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("9900000 100000", 3),
        ("odd", 3),
        ("1 0", 3),
    ],
)
def test_cores_that_may_be_used(monkeypatch, tmp_path, limit, cores):
    assert usable_cores() >= 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3, 5, 7}, raising=False)
    monkeypatch.setattr(workers, "_CONTROL_GROUP", tmp_path)
    if limit is not None:
        (tmp_path / "cpu.max").write_text(f"{limit}\n")
    assert usable_cores() == cores


PARENT = """
import sys
from kamerton.core.workers import Workers
from tests.unit.core.worker_tasks import wait_for_ever
if __name__ == "__main__":
    with Workers(2) as team:
        for _ in team.run(wait_for_ever, sys.argv[1:]):
            pass
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(tmp_path, number):
    marks = [tmp_path / name for name in ("one", "two")]
    root = Path(__file__).resolve().parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, *map(str, marks)],
        cwd=root,
        stderr=subprocess.DEVNULL,
    )
    try:
        limit = time.monotonic() + 60
        while not all(mark.exists() for mark in marks):
            assert time.monotonic() < limit
            assert process.poll() is None
            time.sleep(0.02)
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        children = [int(pid) for pid in listed]
        assert len(children) == 2
        process.send_signal(number)
        process.wait(20)
        assert gone(children)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, sys.maxsize),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, sys.maxsize),
        ({}, sys.maxsize),
    ],
)
def test_the_limit_of_a_container_counts(tmp_path, files, limit):
    """Kubernetes limits processor time; every core of the node stays visible."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert _container_limit(tmp_path) == limit
