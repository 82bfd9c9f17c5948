"""One of several processes that train together and meet trouble; started by a test.

    python -m tests.interventions_worker FOLDER     (with torchrun's environment)

Only the second process meets numbers that are not finite. Weights and state of each process go to
FOLDER/RANK.pt.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import torch

from kamerton.core.stop import StopRequest
from kamerton.data.manifest import Dataset
from kamerton.training import fingerprint, loop, session
from kamerton.training.distributed import joined_world
from tests.tiny_corpus import tiny_params

BAD_STEPS = range(9, 14)  # from 1


def main() -> None:
    """Train for 16 steps, saved and evaluated at every fourth."""
    folder = Path(sys.argv[1])
    params = tiny_params(
        max_steps=16, eval_interval_steps=4, checkpoint_interval_steps=4, batch_size=2
    )
    fingerprint.code_digest = lambda: "fixed"  # sources that are edited meanwhile
    real, train_model, last = loop.train_step, session.train_model, {}

    def train_step(trainee: Any, batches: Any, controls: Any, *, step: int) -> Any:
        if step + 1 in BAD_STEPS and trainee.world.rank == 1:
            batches[0].frames[0, 0, 0] = float("nan")
        return real(trainee, batches, controls, step=step)

    def remembered(job: Any, *args: Any, **how: Any) -> Any:
        last["model"] = job.model
        return train_model(job, *args, **how)

    loop.train_step, session.train_model = train_step, remembered
    with joined_world(params.train) as world, session.fixed_threads(params.train, world):
        work = session.Session.prepare(
            Dataset.open(folder / "dataset"), 50, params, runs=folder / "runs", threads=1,
            trial=True, world=world,
        )  # fmt: skip
        run = work.find_run(resume=False, anew=False)
        with run.hold() if world.main else contextlib.nullcontext():
            state, _ = work.train(run, stop=StopRequest())
        record = {"state": state.to_dict(), "model": last["model"].state_dict()}
        torch.save(record, folder / f"{world.rank}.pt")


if __name__ == "__main__":
    main()
