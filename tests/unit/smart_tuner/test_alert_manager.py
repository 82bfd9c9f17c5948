"""The queue: order, rate, tries, digests, room, and an end in time; never the caller's trouble."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kamerton.config.tuner_sections import AlertParams
from kamerton.smart_tuner.alert_manager import AlertManager, AlertPolicy, failure_text
from kamerton.smart_tuner.channels.delivery import DeliveryError, Part
from kamerton.smart_tuner.channels.message import Message
from kamerton.smart_tuner.channels.outbox import Outbox

SOON = 3.0  # seconds within which a test's messages are through
Trouble = Callable[[Message, int], BaseException | None]


class Fake:
    """A channel that keeps what it takes; ``trouble`` is asked before each try."""

    name, limited, spacing_seconds = "fake", True, 0.0

    def __init__(self, trouble: Trouble | None = None, parts: int = 1) -> None:
        self.taken: list[Message] = []
        self.tries: list[float] = []
        self.trouble, self.count = trouble, parts
        self.open = threading.Event()
        self.open.set()

    def secrets(self) -> Sequence[str]:
        return ["hunter2hunter2"]

    def parts(self, message: Message) -> Sequence[Part]:
        return [Part("shown", lambda: self.send(message)) for _ in range(self.count)]

    def send(self, message: Message) -> None:
        self.open.wait(10)
        self.tries.append(time.monotonic())
        error = self.trouble(message, len(self.tries)) if self.trouble else None
        if error is not None:
            raise error
        self.taken.append(message)


def policy(**changes: Any) -> AlertPolicy:
    given = {"per_minute": 1000, "dedupe_seconds": 0.0, "backoff_seconds": 0.01,
             "flush_seconds": 1.0, **changes}  # fmt: skip
    return AlertPolicy(**given)


def texts(channel: Fake) -> list[str]:
    return [message.text for message in channel.taken]


def test_messages_come_in_order_with_all_that_was_said() -> None:
    channel = Fake()
    with AlertManager([channel], policy(), run="r1") as manager:
        for number in range(30):
            manager.emit("nan", f"no {number}", {"loss": 1.5}, step=number, total=30)
        assert manager.flush(SOON)
        assert manager.counts().sent == 30
    assert texts(channel) == [f"no {number}" for number in range(30)]
    first = channel.taken[0]
    assert (first.kind, first.run, first.step, first.total) == ("nan", "r1", 0, 30)
    assert first.fields == {"loss": 1.5}


def test_kinds_that_are_not_asked_for_are_left_out_and_unknown_ones_pass() -> None:
    channel = Fake()
    with AlertManager([channel], AlertPolicy.of(AlertParams(events=("stop",)))) as manager:
        for kind in ("stop", "nan", "something"):
            manager.emit(kind, "x")
        manager.flush(SOON)
    assert [message.kind for message in channel.taken] == ["stop", "something"]


def test_a_try_that_failed_is_repeated_and_later_ones_wait_longer() -> None:
    channel = Fake(lambda _, tries: DeliveryError("HTTP 500") if tries < 3 else None)
    with AlertManager([channel], policy(backoff_seconds=0.05)) as manager:
        manager.emit("nan", "x")
        assert manager.flush(SOON)
        counts = manager.counts()
    assert (counts.sent, counts.failed) == (1, 0)
    first, second, third = channel.tries
    assert second - first >= 0.05
    assert third - second >= 0.1


def test_tries_are_bounded_and_the_next_message_is_sent() -> None:
    def trouble(message: Message, _: int) -> DeliveryError | None:
        return DeliveryError("HTTP 500") if message.text == "bad" else None

    channel = Fake(trouble)
    with AlertManager([channel], policy(attempts=3)) as manager:
        manager.emit("nan", "bad")
        manager.emit("nan", "good")
        assert manager.flush(SOON)
        counts = manager.counts()
    assert (counts.sent, counts.failed) == (1, 1)
    assert len(channel.tries) == 4
    assert texts(channel) == ["good"]


def test_what_is_refused_for_good_is_not_tried_again() -> None:
    channel = Fake(lambda *_: DeliveryError("HTTP 400", retry=False))
    with AlertManager([channel], policy()) as manager:
        manager.emit("nan", "x")
        assert manager.flush(SOON)
        assert manager.counts().failed == 1
    assert len(channel.tries) == 1


def test_the_wait_that_a_server_asks_for_is_granted_to_it_alone() -> None:
    slow = Fake(lambda _, n: DeliveryError("HTTP 429", retry_after=0.4) if n == 1 else None)
    quick = Fake()
    with AlertManager([slow, quick], policy()) as manager:
        manager.emit("nan", "x")
        manager.emit("stop", "y")
        assert manager.flush(SOON)
    assert slow.tries[1] - slow.tries[0] >= 0.4
    assert quick.tries[1] < slow.tries[1]
    assert texts(slow) == texts(quick) == ["x", "y"]


def test_only_the_parts_that_failed_are_sent_again() -> None:
    channel = Fake(lambda _, tries: DeliveryError("HTTP 502") if tries == 2 else None, parts=2)
    with AlertManager([channel], policy()) as manager:
        manager.emit("nan", "x")
        assert manager.flush(SOON)
        assert manager.counts().sent == 1
    assert len(channel.tries) == 3
    assert len(channel.taken) == 2


def test_equal_alerts_are_told_once_and_summed_up() -> None:
    channel = Fake()
    with AlertManager([channel], policy(dedupe_seconds=0.3)) as manager:
        for step in range(6):
            manager.emit("nan", f"the loss of step {step} is not finite", step=step)
        manager.emit("nan", "the gradient is not finite")
        manager.flush(SOON)
        assert len(channel.taken) == 2
        deadline = time.monotonic() + SOON
        while len(channel.taken) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        counts = manager.counts()
    digest = channel.taken[2]
    assert digest.text == "5 more like it: the loss of step 5 is not finite"
    assert (digest.repeats, digest.step) == (5, 5)
    assert (counts.sent, counts.repeated) == (3, 5)


def test_a_digest_is_not_lost_at_the_end() -> None:
    channel = Fake()
    with AlertManager([channel], policy(dedupe_seconds=300)) as manager:
        for _ in range(3):
            manager.emit("nan", "x", key="same")
    assert texts(channel) == ["x", "2 more like it: x"]


def test_reports_are_never_taken_for_equal() -> None:
    channel = Fake()
    with AlertManager([channel], policy(dedupe_seconds=300)) as manager:
        for _ in range(2):
            manager.emit("report", "training")
        assert manager.flush(SOON)
    assert len(channel.taken) == 2


def test_a_full_queue_loses_the_oldest_that_matter_least() -> None:
    channel = Fake()
    channel.open.clear()
    with AlertManager([channel], policy(queue_size=4)) as manager:
        manager.emit("nan", "being sent")
        while manager.counts().waiting and not channel.tries and not _is_busy(manager):
            time.sleep(0.005)
        for kind, text in [("nan", "1"), ("report", "2"), ("nan", "3"), ("report", "4"),
                           ("nan", "5"), ("stop", "6"), ("failed", "7")]:  # fmt: skip
            manager.emit(kind, text)
        counts = manager.counts()
        channel.open.set()
        manager.flush(SOON)
    assert (counts.dropped, counts.waiting) == (3, 5)
    assert texts(channel) == ["being sent", "3", "5", "6", "7"]


def _is_busy(manager: AlertManager) -> bool:
    return manager._boxes[0].current is not None


def test_no_more_than_so_many_in_a_minute() -> None:
    box = Outbox(Fake(), size=10, attempts=3, per_minute=3, backoff=1.0)
    now, sent = 0.0, []
    for number in range(9):
        box.add(Message(kind="nan", text=str(number)))
    while not box.empty:
        now = max(now, box.turn(now))
        box.begin(now)
        sent.append(now)
        box.parts = None
        box.sent()
    assert len(sent) == 9
    for start in sent:
        assert sum(start <= moment < start + 60 for moment in sent) <= 3
    assert sent[-1] == 120.0  # and no slower than that


def test_one_chat_gets_one_message_in_its_spacing() -> None:
    channel = Fake()
    channel.spacing_seconds = 0.1
    with AlertManager([channel], policy()) as manager:
        for number in range(3):
            manager.emit("nan", str(number))
        assert manager.flush(SOON)
    gaps = [after - before for before, after in zip(channel.tries, channel.tries[1:], strict=False)]
    assert min(gaps) >= 0.095


def test_the_end_is_in_time_whatever_hangs(caplog: pytest.LogCaptureFixture) -> None:
    channel = Fake()
    channel.open.clear()
    manager = AlertManager([channel], policy(flush_seconds=0.3))
    for number in range(5):
        manager.emit("nan", str(number))
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        manager.close()
    assert time.monotonic() - began < 1.0
    assert manager.counts().dropped == 5
    assert "5 alerts were not sent" in caplog.text
    channel.open.set()
    manager.emit("nan", "too late")
    assert manager.counts().waiting <= 1  # the one that hung


def test_a_channel_that_hangs_keeps_nothing_from_the_others_nor_from_the_end() -> None:
    hanging, others = Fake(), [Fake(), Fake()]
    hanging.open.clear()
    manager = AlertManager([hanging, *others, Fake()], policy(flush_seconds=0.5))
    manager.emit("nan", "while it hangs")
    until = time.monotonic() + SOON
    while not all(texts(channel) for channel in others) and time.monotonic() < until:
        time.sleep(0.005)
    assert [texts(channel) for channel in others] == 2 * [["while it hangs"]]
    manager.emit("failed", "the end")
    began = time.monotonic()
    manager.close()
    assert time.monotonic() - began < 1.5
    assert [texts(channel) for channel in others] == 2 * [["while it hangs", "the end"]]
    hanging.open.set()


def test_several_channels_that_hang_end_together_in_the_time_of_one() -> None:
    channels = [Fake() for _ in range(4)]
    for channel in channels:
        channel.open.clear()
    manager = AlertManager(channels, policy(flush_seconds=0.4))
    manager.emit("failed", "the end")
    began = time.monotonic()
    manager.close()
    assert time.monotonic() - began < 1.2
    assert manager.counts().dropped == 4
    for channel in channels:
        channel.open.set()


def test_digests_reach_every_channel_once() -> None:
    channels = [Fake(), Fake(), Fake()]
    with AlertManager(channels, policy(dedupe_seconds=0.2)) as manager:
        for _ in range(5):
            manager.emit("nan", "equal")
        until = time.monotonic() + SOON
        while any(len(texts(one)) < 2 for one in channels) and time.monotonic() < until:
            time.sleep(0.01)
    assert [texts(one) for one in channels] == 3 * [["equal", "4 more like it: equal"]]


def test_the_end_does_not_wait_for_what_can_not_come_in_time() -> None:
    channel = Fake(lambda *_: DeliveryError("HTTP 429", retry_after=60.0))
    manager = AlertManager([channel], policy(flush_seconds=5.0))
    manager.emit("nan", "x")
    while not channel.tries:
        time.sleep(0.005)
    time.sleep(0.05)
    began = time.monotonic()
    manager.close()
    assert time.monotonic() - began < 1.0


def test_at_the_end_the_news_of_it_go_before_reports() -> None:
    channel = Fake()
    channel.open.clear()
    channel.spacing_seconds = 0.1
    manager = AlertManager([channel], policy(flush_seconds=1.0))
    for number in range(30):
        manager.emit("report", str(number))
    manager.emit("done", "finished")
    channel.open.set()
    manager.close()
    assert channel.taken[-1].text == "finished"
    assert len(channel.taken) <= 5


@pytest.mark.parametrize("fault", [ValueError("x"), KeyError(), MemoryError(), RecursionError()])
def test_a_fault_of_a_channel_stays_there(fault: Exception) -> None:
    broken, sound = Fake(lambda *_: fault), Fake()
    with AlertManager([broken, sound], policy()) as manager:
        manager.emit("nan", "x")
        manager.emit("stop", "y")
        assert manager.flush(SOON)
        counts = manager.counts()
    assert (counts.sent, counts.failed) == (2, 2)
    assert texts(sound) == ["x", "y"]


def test_nothing_that_is_said_can_raise() -> None:
    channel = Fake()
    with AlertManager([channel], policy()) as manager:
        manager.emit("nan", None)  # type: ignore[arg-type]
        manager.emit("nan", "x", 5)  # type: ignore[arg-type]
        manager.emit("nan", "good", {"a": object(), 3: "b"})  # type: ignore[dict-item]
        assert manager.flush(SOON)
    assert texts(channel) == ["good"]


def test_many_threads_may_tell() -> None:
    channel = Fake()
    with AlertManager([channel], policy(queue_size=1000)) as manager:
        threads = [
            threading.Thread(target=lambda: [manager.emit("nan", "x") for _ in range(50)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert manager.flush(SOON)
        assert manager.counts().sent == 400


def test_without_channels_there_is_no_thread() -> None:
    before = threading.active_count()
    with AlertManager([]) as manager:
        manager.emit("nan", "x")
        assert threading.active_count() == before
        assert not manager.remote


def test_known_secrets_are_masked_in_what_is_told() -> None:
    channel = Fake()
    with AlertManager([channel], policy(), run="of-hunter2hunter2", secrets=["s3cr3t!!"]) as m:
        m.emit("failed", "login hunter2hunter2 s3cr3t!!", {"why": "hunter2hunter2", "n": 2.5})
        assert m.flush(SOON)
    (message,) = channel.taken
    assert "hunter2" not in repr(message)
    assert "s3cr3t" not in repr(message)
    assert message.fields == {"why": "***", "n": 2.5}


def test_parameters_say_how_much_is_sent() -> None:
    params = AlertParams(events=("nan", "stop"), attempts=7, max_per_minute=5, dedupe_seconds=9.0)
    made = AlertPolicy.of(params)
    assert (made.attempts, made.per_minute, made.dedupe_seconds) == (7, 5, 9.0)
    assert {"report", "best", "done"} <= made.left_out
    assert not made.left_out & {"nan", "stop"}


def test_secrets_of_the_environment_are_not_told(caplog: pytest.LogCaptureFixture) -> None:
    environ = {"SOME_API_KEY": "k3yk3yk3y", "HOME": "/root", "SHORT_TOKEN": "of"}
    with (
        caplog.at_level(logging.INFO, "kamerton.alerts"),
        AlertManager.opened(AlertParams(), "r7", environ) as manager,
    ):
        manager.emit("failed", "the key k3yk3yk3y of /root is wrong")
        assert manager.flush(SOON)
    (line,) = [record.message for record in caplog.records]
    assert line == "failed: the key *** of /root is wrong; run r7"


def test_trouble_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    channel = Fake(lambda *_: DeliveryError("HTTP 401, hunter2hunter2", retry=False))
    with caplog.at_level(logging.WARNING), AlertManager([channel], policy()) as manager:
        for number in range(5):
            manager.emit("nan", str(number))
        assert manager.flush(SOON)
    lines = [record.message for record in caplog.records]
    assert len(lines) == 1
    assert "HTTP 401, ***" in lines[0]


def test_failures_in_words() -> None:
    from kamerton.core.errors import PipelineError

    assert failure_text(PipelineError("It broke.", hint="mend it")) == "It broke. Fix: mend it"
    assert failure_text(ValueError("first\nsecond")) == "ValueError: first"
    assert failure_text(MemoryError()) == "MemoryError: no message"
