"""Signals as wishes."""

import os
import signal
import threading

import pytest

from kamerton.core.errors import StoppedError
from kamerton.core.stop import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_only_noted(number: int) -> None:
    with StopRequest() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested


def test_the_second_one_acts_as_usual() -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


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
