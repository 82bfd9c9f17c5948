"""What alerts cost a training while every server they go to hangs, or fails.

    python -m benchmarks.alerts [--quick] [--rounds N] [--json FILE]

The real trainer trains the same tiny network on the same made-up corpus, again and again: without
alerts, with alerts to servers that take a connection and never answer, and with alerts to servers
that answer 500 or refuse. All by Telegram, Slack, webhook and e-mail at once, and at a frequency
that nobody uses: a report with its picture, a sample of speech and an alert at every step, against
one report in 1,000 steps. The three take turns in changing order; each round gives a ratio of
median step times, which machine-wide noise enters on both sides. The shorter a step, the more an
alert weighs: these take some 10 ms, a voice's take a second. A loop of about the length of a call
stands in its place in the runs without alerts: where that is late, too, the machine is busy with
something else, and the two lines about calls mean nothing.

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
from dataclasses import dataclass, field
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
from kamerton.tracking.hooks import Action, EvalFacts, Hook, StepFacts
from kamerton.training.session import Session, fixed_threads
from tests.tiny_corpus import tiny_params, write_tiny_dataset

MAX_RATIO, MAX_ENQUEUE_SECONDS = 1.02, 1e-3
WARM_UP = 10  # steps at the beginning of a run that are not counted
TIMEOUT_SECONDS = 2.0
SILENT_LOOPS = 2000  # some 30 us
NONE, HANGING, FAILING = "no alerts", "servers hang", "servers answer 500 or refuse"


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


class Clock(Quiet):
    """Seconds from the end of one step to the end of the next, alerts included."""

    name = "clock"

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = math.nan

    def on_step(self, facts: StepFacts) -> None:
        """Take the time; it comes after the alerts of the step."""
        now = time.perf_counter()
        if facts.step > WARM_UP:
            self.seconds.append(now - self._last)
        self._last = now


class Silent(Quiet):
    """Spends as long as an alert does on nothing: how late the machine alone makes a call."""

    name = "silent"

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step(self, facts: StepFacts) -> None:  # noqa: ARG002 - the protocol's
        """Two calls, as with alerts."""
        for _ in range(2):
            began = time.perf_counter()
            sum(range(SILENT_LOOPS))
            self.seconds.append(time.perf_counter() - began)


class Noisy(Quiet):
    """Alerts at every step, each call timed."""

    name = "alerts"

    def __init__(self, hook: AlertHook) -> None:
        self.hook = hook
        self.seconds: list[float] = []

    def on_step(self, facts: StepFacts) -> None:
        """A report and a sample by the hook's own rule, and an alert besides."""
        began = time.perf_counter()
        self.hook.on_step(facts)
        told = time.perf_counter()
        text = f"the loss of step {facts.step} is {facts.loss}"
        self.hook.on_alert("explosion", text, {"loss": facts.loss})
        self.seconds += [told - began, time.perf_counter() - told]

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


@dataclass
class Arm:
    """One way to train, over all its runs."""

    medians: list[float] = field(default_factory=list)
    enqueue: list[float] = field(default_factory=list)
    counts: list[AlertCounts] = field(default_factory=list)


def train(dataset: Dataset, steps: int, made: Sequence[Channel], arm: Arm) -> None:
    """One run; ``made`` is empty for one without alerts."""
    params = tiny_params(
        max_steps=steps, batch_size=8, eval_interval_steps=steps, checkpoint_interval_steps=steps,
        monitoring={"figure_interval_steps": steps // 2}, early_stopping={"enabled": False},
    )  # fmt: skip
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, fixed_threads(params.train):
        session = Session.prepare(dataset, 50, params, runs=Path(folder), threads=1, trial=False)
        run = session.find_run(resume=False, anew=False)
        hooks: list[Hook] = [clock]
        # Nothing is summed up here, so that every call has all of its work.
        policy = AlertPolicy(dedupe_seconds=0.0, flush_seconds=0.1)
        with run.hold(), AlertManager(made, policy, run=run.path.name) as manager:
            hook = AlertHook(manager, run.path, report_interval_steps=1, sample_interval_steps=1)
            first = Noisy(hook) if made else Silent()
            hooks.insert(0, first)
            session.train(run, stop=StopRequest(), hooks=hooks)
            arm.counts.append(manager.counts())
    arm.medians.append(statistics.median(clock.seconds))
    arm.enqueue += first.seconds


def measure(rounds: int, steps: int) -> dict[str, Arm]:
    """All arms in every round, in an order that changes."""
    arms = {NONE: Arm(), HANGING: Arm(), FAILING: Arm()}
    order = random.Random(5)
    failure = b"HTTP/1.1 500 oops\r\nContent-Length: 0\r\n\r\n"
    with tempfile.TemporaryDirectory() as folder, listening(b"") as hangs, listening(
        failure
    ) as fails, socket.socket() as nobody:  # fmt: skip
        nobody.bind(("127.0.0.1", 0))  # a port that refuses: it is taken, and nobody listens
        dataset = Dataset.open(write_tiny_dataset(Path(folder) / "dataset", train=24, val=4))
        made = {
            NONE: list[Channel],
            HANGING: lambda: channels(hangs, hangs),
            FAILING: lambda: channels(fails, nobody.getsockname()[1]),
        }
        train(dataset, steps, [], Arm())  # whatever is slow the first time
        for number in range(rounds):
            names = list(arms)
            order.shuffle(names)
            for name in names:
                train(dataset, steps, made[name](), arms[name])
            taken = ", ".join(f"{arms[name].medians[-1] * 1e3:.2f}" for name in arms)
            print(f"... round {number + 1} of {rounds}: {taken} ms", file=sys.stderr, flush=True)
    return arms


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """The median of ``ratios`` and its 95 % interval by bootstrap."""
    draw = random.Random(11)
    drawn = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(4000))
    return statistics.median(ratios), drawn[100], drawn[-101]


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
    """The table and the verdicts."""
    base = arms[NONE]
    print(f"{'':<30} {'step, ms':>9} {'calls':>7} {'dropped':>8} {'failed':>7}")
    for name, arm in arms.items():
        dropped = sum(counts.dropped for counts in arm.counts)
        failed = sum(counts.failed for counts in arm.counts)
        middle = statistics.median(arm.medians) * 1e3
        print(f"{name:<30} {middle:>9.3f} {len(arm.enqueue):>7} {dropped:>8} {failed:>7}")
    print(f"a loop in the place of a call, without alerts, takes {in_words(base.enqueue)}")
    held, figures = [], dict[str, object]()
    for name in (HANGING, FAILING):
        arm = arms[name]
        ratios = [after / before for after, before in zip(arm.medians, base.medians, strict=True)]
        ratio, low, high = interval(ratios)
        held.append(
            judge(
                ratio <= MAX_RATIO,
                f"{name}: a step takes {ratio:.4f} times as long (95 % interval {low:.4f} to "
                f"{high:.4f}, {len(ratios)} rounds; at most {MAX_RATIO})",
            )
        )
        late = percentile(arm.enqueue, 0.99)
        text = f"{name}: a call takes {in_words(arm.enqueue)}"
        held.append(judge(late <= MAX_ENQUEUE_SECONDS, f"{text} (99 % within 1000 us)"))
        figures[name] = {"ratios": ratios, "ratio": ratio, "interval": [low, high],
                         "enqueue_p99_seconds": late}  # fmt: skip
    return held, figures


def main() -> int:
    """Run it; 1 where something does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="three rounds")
    parser.add_argument("--rounds", type=int, default=12, help="rounds")
    parser.add_argument("--steps", type=int, default=200, help="steps of one run")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    given = parser.parse_args()
    logging.disable(logging.WARNING)  # that nothing arrives is what this is about
    held, figures = report(measure(3 if given.quick else given.rounds, given.steps))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2))
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
