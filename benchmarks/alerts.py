"""What alerts cost a training while every server they go to hangs, or fails.

    python -m benchmarks.alerts [--quick] [--steps N] [--json FILE]

The real trainer trains a tiny network on a made-up corpus: one run with alerts to servers that
take a connection and never answer, one with alerts to servers that answer 500 or refuse. All by
Telegram, Slack, webhook and e-mail at once, and at a frequency that nobody uses: a report with its
picture, a sample of speech and an alert at every step, not one in 1,000 steps. Blocks of ten steps
with alerts and without take turns in random order, so that whatever else the machine does falls on
both; the interval is a bootstrap over pairs of blocks. What the sender does in its own thread falls
on both, too, so its processor time is measured apart and added. The shorter a step, the more an
alert weighs: these take some 10 ms, a voice's take a second. A loop as long as the middle call
stands in its place in the blocks without, and what it took is taken off their steps: where it is
late, too, the machine is busy with something else, and nothing can be said about calls (BUSY).

Ends with 1 if the median step takes more than 1.02 times as long, or if one call in a hundred
keeps the training for longer than 1 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kamerton.core.stop import StopRequest
from kamerton.data.manifest import Dataset
from kamerton.smart_tuner.alert_hook import AlertHook
from kamerton.smart_tuner.alert_manager import AlertCounts, AlertManager, AlertPolicy
from kamerton.smart_tuner.channels.delivery import Channel
from kamerton.smart_tuner.channels.mail import EmailChannel
from kamerton.smart_tuner.channels.secret import Secret
from kamerton.smart_tuner.channels.telegram import TelegramChannel
from kamerton.smart_tuner.channels.webhooks import SlackChannel, WebhookChannel
from kamerton.tracking.hooks import Action, EvalFacts, StepFacts
from kamerton.training.session import Session, fixed_threads
from tests.tiny_corpus import tiny_params, write_tiny_dataset

MAX_RATIO, MAX_ENQUEUE_SECONDS = 1.02, 1e-3
BLOCK = 10  # steps; the first of a run are not counted
TIMEOUT_SECONDS = 2.0
HANGING, FAILING = "servers hang", "servers answer 500 or refuse"


class Quiet:
    """A hook that does nothing: what the others of this file need not define."""

    name = "quiet"

    def on_step(self, facts: StepFacts) -> None:
        """Nothing."""

    def on_eval(self, facts: EvalFacts) -> Sequence[Action]:  # noqa: ARG002 - the protocol's
        """Nothing."""
        return []

    def on_epoch(self, facts: StepFacts) -> None:
        """Nothing."""

    def on_exception(self, error: Exception) -> None:
        """Nothing."""

    def memory(self) -> dict[str, object]:
        """Nothing."""
        return {}

    def restore(self, memory: object) -> None:
        """Nothing."""


class Switch(Quiet):
    """Alerts in half of the blocks, a loop in the place of each call in the others, all timed."""

    name = "alerts"

    def __init__(self, hook: AlertHook) -> None:
        self.hook = hook
        self.steps: dict[bool, list[list[float]]] = {True: [[]], False: [[]]}  # by block
        self.calls: dict[bool, list[float]] = {True: [], False: []}
        self.processor: list[float] = []  # seconds that the calls of a step took of it
        self._order = random.Random(5)
        self._blocks = [False, True]
        self._last = math.nan

    def on_step(self, facts: StepFacts) -> None:
        """Note the step from the end of the last to that of this, what is told of it included."""
        told = self._blocks[0]
        spent = time.thread_time()
        began = time.perf_counter()
        if told:
            self.hook.on_step(facts)
        else:
            self._spin(began)
        middle = time.perf_counter()
        if told:
            text = f"the loss of step {facts.step} is {facts.loss}"
            self.hook.on_alert("explosion", text, {"loss": facts.loss})
        else:
            self._spin(middle)
        now = time.perf_counter()
        if facts.step > BLOCK:
            self.calls[told] += [middle - began, now - middle]
            # The steps without alerts must not hold what the alerts cost.
            loops = 0.0 if told else now - began
            self.steps[told][-1].append(now - self._last - loops)
            if told:
                self.processor.append(time.thread_time() - spent)
        self._last = now
        if facts.step % BLOCK == 0:
            self._next_block(told, counted=facts.step > BLOCK)

    def _spin(self, began: float) -> None:
        """Take as long as half of the calls do."""
        end = began + statistics.median(self.calls[True][-101:] or [1e-4])
        while time.perf_counter() < end:
            pass

    def _next_block(self, told: bool, *, counted: bool) -> None:
        if counted:
            self.steps[told].append([])
        self._blocks.pop(0)
        if not self._blocks or not counted:
            self._blocks = self._order.sample([False, True], 2)

    def on_eval(self, facts: EvalFacts) -> Sequence[Action]:
        """As it is."""
        return self.hook.on_eval(facts)


@contextlib.contextmanager
def listening(answer: bytes) -> Iterator[int]:
    """A port of this machine where a server hangs, or says ``answer`` and hangs up."""
    over, held = threading.Event(), list[socket.socket]()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        server.settimeout(0.1)

        def serve() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = server.accept()
                    held.append(connection)
                    if answer:
                        connection.recv(65536)
                        connection.sendall(answer)
                        connection.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            over.set()
            thread.join()
            for connection in held:
                connection.close()


def channels(port: int, mail_port: int) -> list[Channel]:
    """All that leave this process."""
    url = f"http://127.0.0.1:{port}"
    return [
        TelegramChannel(Secret("1:not-a-token"), "1", url, TIMEOUT_SECONDS),
        SlackChannel(Secret(f"{url}/services/not-a-hook"), TIMEOUT_SECONDS),
        WebhookChannel(Secret(f"{url}/in"), TIMEOUT_SECONDS),
        EmailChannel("127.0.0.1", mail_port, "k@example.org", ["a@example.org"], TIMEOUT_SECONDS,
                     starttls=False),
    ]  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """One run: pairs of blocks of steps without and with alerts, and what the calls took."""

    pairs: list[tuple[list[float], list[float]]]
    calls: list[float]
    loops: list[float]
    processor: list[float]
    counts: AlertCounts
    sender_seconds: float  # of processor time

    def ratio(self, pairs: Sequence[tuple[list[float], list[float]]] | None = None) -> float:
        """Of the median steps, with alerts to without."""
        pairs = self.pairs if pairs is None else pairs
        without = statistics.median([step for before, _ in pairs for step in before])
        return statistics.median([step for _, after in pairs for step in after]) / without

    def interval(self) -> tuple[float, float]:
        """95 % of the ratio, by bootstrap over pairs."""
        draw = random.Random(11)
        drawn = sorted(self.ratio(draw.choices(self.pairs, k=len(self.pairs))) for _ in range(400))
        return drawn[9], drawn[-10]

    def sender_share(self) -> float:
        """The sender's processor time as a share of what steps with alerts took."""
        return self.sender_seconds / sum(sum(after) for _, after in self.pairs)


def train(dataset: Dataset, steps: int, made: Sequence[Channel]) -> Arm:
    """One run of the trainer."""
    params = tiny_params(
        max_steps=steps, batch_size=8, eval_interval_steps=steps, checkpoint_interval_steps=steps,
        monitoring={"figure_interval_steps": steps // 2}, early_stopping={"enabled": False},
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, fixed_threads(params.train):
        session = Session.prepare(
            dataset, 1, params, runs=Path(folder), threads=1, trial=False, budget=steps
        )
        run = session.find_run(resume=False, anew=False)
        # Nothing is summed up here, so that every call has all of its work.
        policy = AlertPolicy(dedupe_seconds=0.0, flush_seconds=0.1)
        others = set(threading.enumerate())
        with run.hold(), AlertManager(made, policy, run=run.path.name) as manager:
            hook = AlertHook(manager, run.path, report_interval_steps=1, sample_interval_steps=1)
            switch = Switch(hook)
            idents = [thread.ident for thread in set(threading.enumerate()) - others]
            clocks = [time.pthread_getcpuclockid(ident) for ident in idents if ident is not None]
            assert len(clocks) == len(made)
            session.train(run, stop=StopRequest(), hooks=[switch])
            spent, counts = sum(map(time.clock_gettime, clocks)), manager.counts()
    pairs = list(zip(switch.steps[False], switch.steps[True], strict=False))
    full = [(before, after) for before, after in pairs if len(before) == len(after) == BLOCK]
    return Arm(full, switch.calls[True], switch.calls[False], switch.processor, counts, spent)


def measure(steps: int) -> dict[str, Arm]:
    """Both runs."""
    failure = b"HTTP/1.1 500 oops\r\nContent-Length: 0\r\n\r\n"
    with (
        tempfile.TemporaryDirectory() as folder,
        listening(b"") as hangs,
        listening(failure) as fails,
        socket.socket() as nobody,
    ):
        nobody.bind(("127.0.0.1", 0))  # a port that refuses: it is taken, and nobody listens
        dataset = Dataset.open(write_tiny_dataset(Path(folder) / "dataset", train=24, val=4))
        print("... servers that hang", file=sys.stderr, flush=True)
        hanging = train(dataset, steps, channels(hangs, hangs))
        print("... servers that fail", file=sys.stderr, flush=True)
        failing = train(dataset, steps, channels(fails, nobody.getsockname()[1]))
    return {HANGING: hanging, FAILING: failing}


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of them do not exceed."""
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


def in_words(seconds: Sequence[float]) -> str:
    """How long calls took."""
    late = percentile(seconds, 0.99)
    return (
        f"{statistics.median(seconds) * 1e6:.0f} us, 99 % of them at most {late * 1e6:.0f} us, "
        f"the longest {max(seconds) * 1e6:.0f} us"
    )


def judge(holds: bool, text: str) -> bool:
    """Print one verdict."""
    print(f"{'PASS' if holds else 'MISS'}  {text}", flush=True)
    return holds


def report(arms: dict[str, Arm]) -> tuple[list[bool], dict[str, object]]:
    """The verdicts, and what they are made of."""
    held, figures = [], dict[str, object]()
    for name, arm in arms.items():
        ratio, (low, high), share = arm.ratio(), arm.interval(), arm.sender_share()
        median = statistics.median([step for before, _ in arm.pairs for step in before])
        print(
            f"\n{name}: {len(arm.pairs)} pairs of blocks, a step {median * 1e3:.2f} ms; of the "
            f"messages {arm.counts.dropped} dropped, {arm.counts.failed} failed, "
            f"{arm.counts.sent} sent\na loop in the place of a call takes {in_words(arm.loops)}"
            f"\nthe calls of a step take of the processor {in_words(arm.processor)}"
        )
        text = (
            f"a step takes {ratio + share:.4f} times as long ({ratio:.4f}, 95 % interval "
            f"{low:.4f} to {high:.4f}, and {share:.4f} for the sender; at most {MAX_RATIO})"
        )
        held.append(judge(ratio + share <= MAX_RATIO, text))
        text = f"a call takes {in_words(arm.calls)} (99 % within 1000 us)"
        quick = percentile(arm.calls, 0.99) <= MAX_ENQUEUE_SECONDS
        if not quick and percentile(arm.loops, 0.99) > MAX_ENQUEUE_SECONDS:
            print(f"BUSY  {text}")
            held.append(False)
        else:
            held.append(judge(quick, text))
        figures[name] = {
            "ratio": ratio, "interval": [low, high], "sender_share": share,
            "calls_p99_seconds": percentile(arm.calls, 0.99),
            "loops_p99_seconds": percentile(arm.loops, 0.99),
        }  # fmt: skip
    return held, figures


def main() -> int:
    """Run it; 1 where something does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="200 steps")
    parser.add_argument("--steps", type=int, default=1500, help="steps of each run")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    given = parser.parse_args()
    logging.disable(logging.WARNING)  # that nothing arrives is what this is about
    held, figures = report(measure(200 if given.quick else given.steps))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2))
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
