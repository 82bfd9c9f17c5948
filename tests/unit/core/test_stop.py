"""Signals as wishes."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from kamerton.core import stop as stop_module
from kamerton.core.errors import StoppedError
from kamerton.core.stop import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_only_noted(number: int) -> None:
    with StopRequest() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested


def test_a_later_one_acts_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 100.0
    monkeypatch.setattr(stop_module.time, "monotonic", lambda: moment)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        moment += stop_module.REPEAT_SECONDS - 0.01
        os.kill(os.getpid(), signal.SIGINT)  # the same wish, passed on twice
        moment += 0.01
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


_CHILD = """
import time
from kamerton.core.stop import StopRequest
with StopRequest() as stop:
    print("ready", flush=True)
    while not stop.requested:
        time.sleep(0.01)
    time.sleep(0.5)
    print("saved", flush=True)
"""


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_launcher_and_the_system_may_both_ask(first: int) -> None:
    child = subprocess.Popen([sys.executable, "-c", _CHILD], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(first)
    time.sleep(0.1)  # so that they are two
    child.send_signal(signal.SIGTERM)
    said, _ = child.communicate(timeout=30)
    assert (said, child.returncode) == ("saved\n", 0)


def test_a_second_termination_after_a_while_ends_the_process() -> None:
    code = _CHILD.replace("time.sleep(0.5)", "print('asked', flush=True); time.sleep(60)")
    code = f"import kamerton.core.stop as s\ns.REPEAT_SECONDS = 0.1\n{code}"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGTERM)
    assert child.stdout.readline() == "asked\n"
    time.sleep(0.2)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=30)
    assert child.returncode == -signal.SIGTERM


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_outside_the_main_thread_it_does_nothing() -> None:
    failures: list[BaseException] = []

    def enter() -> None:
        try:
            with StopRequest() as stop:
                assert not stop.requested
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert not failures


def test_work_that_tells_of_its_progress_is_left_where_a_stop_is_asked_for() -> None:
    stop, told = StopRequest(), []
    progress = stop.granted_in(lambda done, total, note="": told.append(done), "left early")
    progress(1, 3)
    stop.requested = True
    with pytest.raises(StoppedError, match="left early"):
        progress(2, 3)
    assert told == [1, 2]
