"""A trainer that keeps the real one's contract and learns nothing: a child process for tests.

It makes a run directory below ``--runs`` or continues the unfinished one, records evaluations that
are a function of the parameters and the step, saves where it is, and on SIGINT ends with 75. The
environment makes it misbehave: FAKE_STEP_SECONDS, FAKE_IGNORE_SIGNALS, FAKE_EXIT (fails at once),
FAKE_DIE_AT (kills itself once, at that step).
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

import yaml

from kamerton.tracking import JsonlTracker, RunDirectory, newest_unfinished
from kamerton.tracking.names import ATTENTION_SCORE, GATE_F1, TRAIN_LOSS, VAL_MEL_LOSS

stopped = False


def take(_number: int, _frame: object) -> None:
    global stopped  # noqa: PLW0603
    stopped = True


def evaluation(train: dict[str, float], step: int) -> dict[str, float]:
    """Best near learning_rate 1e-3 and decoder_dropout 0.2; not a number above 8e-3."""
    import math

    distance = abs(math.log10(train["learning_rate"]) + 3) + abs(train["decoder_dropout"] - 0.2)
    learned = step / (step + 20) / (1 + distance)
    loss = math.nan if train["learning_rate"] > 8e-3 else 2.0 - learned
    return {VAL_MEL_LOSS: loss, ATTENTION_SCORE: learned, GATE_F1: 0.5 * learned}


def train(run: RunDirectory, params: dict[str, float], resumed: bool) -> int:
    position = run.path / "position"
    step = int(position.read_text()) if position.exists() else 0
    tracker = JsonlTracker(run.path, resume_step=step if resumed else None)
    while step < params["max_steps"]:
        step += 1
        time.sleep(float(os.environ.get("FAKE_STEP_SECONDS", "0")))
        if step == int(os.environ.get("FAKE_DIE_AT", "-1")) and not resumed:
            os.kill(os.getpid(), signal.SIGKILL)
        tracker.log_metrics({TRAIN_LOSS: 1.0 / step}, step)
        if step % params["eval_interval_steps"] == 0 or step == params["max_steps"]:
            tracker.log_metrics(evaluation(params, step), step)
            position.write_text(str(step))
        if stopped:
            position.write_text(str(step))
            run.write_status("stopped", step=step)
            tracker.close("stopped")
            return 75
    run.write_status("finished", step=step)
    tracker.close("finished")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    arguments = parser.parse_args()
    if os.environ.get("FAKE_IGNORE_SIGNALS"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGINT, take)
    if code := int(os.environ.get("FAKE_EXIT", "0")):
        print("error: nothing works here", file=sys.stderr)
        return code
    params = yaml.safe_load(arguments.params.read_text())
    unfinished = newest_unfinished(arguments.runs)
    run = unfinished or RunDirectory.create(
        arguments.runs, name="fake", fingerprint="f" * 16, params=params
    )
    with run.hold():
        return train(run, params["train"], unfinished is not None)


if __name__ == "__main__":
    sys.exit(main())
