"""A trainer for generations that takes no time: it keeps the contract of checkpoints and changes.

Its loss falls faster with a larger learning rate and hovers higher while that is large, so that
a larger one only shows its worth after a cool-down. The environment makes it misbehave:
FAKE_FORGET (trains without what ``train.changes`` ask, and says so), FAKE_NAN_FROM (loss is no
number where the learning rate's factor is above it), FAKE_HARM_LATE (what was learned with a
factor is lost near the end), FAKE_STEP_SECONDS.
"""

import argparse
import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from kamerton.config.changes import factors_at
from kamerton.config.train_section import ChangeParams
from kamerton.tracking import JsonlTracker, RunDirectory, list_runs
from kamerton.tracking.names import ATTENTION_SCORE, GATE_F1, LEARNING_RATE, VAL_MEL_LOSS

stopped = False


def take(_number: int, _frame: object) -> None:
    global stopped  # noqa: PLW0603
    stopped = True


class Trainer:
    def __init__(self, run: RunDirectory, train: dict[str, Any]) -> None:
        self.run, self.train = run, train
        self.total = train["max_steps"]
        self.changes = [ChangeParams.model_validate(item) for item in train["changes"]]
        last = run.checkpoints / "last.pt"
        self.step, self.loss = 0, 1.0
        if last.exists():
            self.step, self.loss = json.loads(last.read_text())
        begun = run.metrics_file.exists()
        self.tracker = JsonlTracker(run.path, resume_step=self.step if begun else None)
        self.told: dict[str, float] | None = None

    def factor(self) -> float:
        factors = factors_at(self.step / self.total, self.changes)
        asked = factors.get("learning_rate", 1.0)
        used = 1.0 if os.environ.get("FAKE_FORGET") else asked
        if self.changes and self.told != factors:
            self.told = factors
            facts = {"learning_rate": {"value": used * 1e-3, "factor": used}}
            rest = {name: {"value": x, "factor": x} for name, x in factors.items()}
            fields = rest | facts
            self.tracker.log_event("made_with", step=self.step + 1, **fields)
        return used

    def one_step(self) -> None:
        time.sleep(float(os.environ.get("FAKE_STEP_SECONDS", "0")))
        factor = self.factor()
        self.step = step = self.step + 1
        self.loss *= 1 - 0.01 * factor
        if os.environ.get("FAKE_HARM_LATE") and step > 0.97 * self.total and self.changes:
            self.loss = 2.0
        self.tracker.log_metrics({LEARNING_RATE: factor * 1e-3}, step)
        if step % self.train["eval_interval_steps"] == 0 or step == self.total:
            self.evaluate(factor)
        if step % self.train["checkpoint_interval_steps"] == 0 or step == self.total:
            self.save(f"step_{step:08d}.pt")
            self.save("last.pt")

    def evaluate(self, factor: float) -> None:
        step = self.step
        noise = 0.001 * math.sin(12.9898 * step)
        loss = 0.3 + self.loss + 0.1 * factor + noise
        if factor > float(os.environ.get("FAKE_NAN_FROM", "inf")):
            loss = math.nan
        values = {VAL_MEL_LOSS: loss, ATTENTION_SCORE: 0.9, GATE_F1: 0.9}
        self.tracker.log_metrics(values, step)

    def save(self, name: str) -> None:
        path = self.run.checkpoints / name
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".tmp").write_text(json.dumps([self.step, self.loss]))
        os.replace(path.with_suffix(".tmp"), path)

    def go(self) -> int:
        while self.step < self.total:
            self.one_step()
            if stopped:
                self.save("last.pt")
                return self.end("stopped", 75)
        return self.end("finished", 0)

    def end(self, state: Any, code: int) -> int:
        self.run.write_status(state, step=self.step)
        self.tracker.close(state)
        return code


def opened(params: Path, runs: Path) -> Trainer:
    """The trainer on the run below ``runs``, or on a new one."""
    values = yaml.load(params.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    known = list_runs(runs)
    run = known[0] if known else RunDirectory.create(
        runs, name="fake-trial", fingerprint="f" * 16, params=values
    )  # fmt: skip
    return Trainer(run, values["train"])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, take)
    if arguments.resume and not list_runs(arguments.runs):
        print("error: nothing to resume", file=sys.stderr)
        return 2
    trainer = opened(arguments.params, arguments.runs)
    with trainer.run.hold():
        return trainer.go()


if __name__ == "__main__":
    sys.exit(main())
