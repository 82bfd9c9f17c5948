"""What one of several processes does in the tests of distributed training; started by them.

    python -m tests.ranks_worker CASE FOLDER     (with torchrun's environment)

Results go to FOLDER/CASE-RANK.pt.
"""

from __future__ import annotations

import copy
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from kamerton.config.schema import Params
from kamerton.core.errors import PipelineError, StoppedError
from kamerton.model.tacotron2.model import Tacotron2
from kamerton.training import distributed
from kamerton.training.architecture import architecture_of
from kamerton.training.controls import Controls
from kamerton.training.data import TensorBatch
from kamerton.training.distributed import World, joined_world
from kamerton.training.step import StepResult, Trainee, make_optimizer, train_step
from tests.tiny_corpus import tiny_params

SYMBOLS = 7
CONTROLS = Controls(learning_rate=1e-2, clip_norm=0.5, guided_attention_weight=1.0)
VALUE = {"path": "runs/ü", "nested": [1, 2.5, None, {"worst": float("inf")}], "big": "x" * 99_999}


def params(**train: object) -> Params:
    """Noise of every kind is on: equal numbers need equal noise."""
    made = tiny_params(batch_size=3, **train)
    return made.model_copy(update={"train": made.train.resolved()})


def batches(params: Params, count: int, *, first: int = 0) -> list[TensorBatch]:
    """Batches of random sentences of unequal lengths; number ``first`` and on."""
    made = []
    for index in range(first, first + count):
        random = torch.Generator().manual_seed(index)
        lengths = torch.randint(7, 15, (3,), generator=random)
        symbol_lengths = torch.randint(2, 6, (3,), generator=random)
        symbols = torch.randint(1, SYMBOLS, (3, 5), generator=random)
        symbols[torch.arange(5) >= symbol_lengths[:, None]] = 0
        frames = torch.randn(3, 15, params.audio.mel_channels, generator=random)
        frames[torch.arange(15) >= lengths[:, None]] = 0.0
        made.append(TensorBatch(symbols, symbol_lengths, frames, lengths))
    return made


def trainee(params: Params, world: World | None = None) -> Trainee:
    """A network that depends on nothing but the seed."""
    torch.manual_seed(1)
    model = Tacotron2(architecture_of(params, SYMBOLS)).train()
    optimizer = make_optimizer(model, params.train)
    return Trainee(model, optimizer, params.train, params.audio, world or World())


def steps(
    trained: Trainee, batches: Sequence[TensorBatch], per_step: int
) -> tuple[list[StepResult], dict[str, Any]]:
    """Train on all batches of this process in order."""
    results = [
        train_step(trained, batches[start : start + per_step], CONTROLS, step=start // per_step)
        for start in range(0, len(batches), per_step)
    ]
    return results, trained.model.state_dict()


def agree(world: World, folder: Path) -> Any:
    """Agreements, and three kinds of steps."""
    outcome: dict[str, Any] = {
        "any": [world.any(world.rank == 1), world.any(False)],
        "shared": world.share(VALUE if world.main else "not this"),
        "nothing": world.share(None),
        "mean": world.mean(torch.tensor([float(world.rank), 3.0])),
    }
    try:
        world.require_equal("the dataset", f"of {world.rank}")
    except PipelineError as error:
        outcome["unequal"] = error.message
    world.require_equal("the code", "the same")
    outcome["left"] = [left_first(world, by=rank) for rank in (*range(world.size), None)]
    for kind, given in (("plain", params()), ("quality", params(preset="quality"))):
        for accumulation in (1, 2):
            group = batches(given, 6 * accumulation)
            trained = trainee(given, world)
            mine = group[world.rank :: world.size]
            outcome[f"{kind}-{accumulation}"] = steps(trained, mine, accumulation)
    outcome["non-finite"] = non_finite(world)
    return outcome


def left_first(world: World, *, by: int | None) -> str:
    """What becomes of work that the main process does first, and one process leaves on request."""
    try:
        with world.main_first():
            if world.rank == by:
                raise StoppedError("left early")
    except StoppedError as error:
        return error.message
    return "done"


def non_finite(world: World) -> dict[str, Any]:
    """One process alone meets a number that is not finite."""
    given = params()
    trained = trainee(given, world)
    before = {name: value.clone() for name, value in trained.model.state_dict().items()}
    (batch,) = batches(given, 1, first=world.rank)
    if world.rank == 1:
        batch.frames[0, 0, 0] = float("nan")
    result = train_step(trained, [batch], CONTROLS, step=0)
    after = trained.model.state_dict()
    return {
        "applied": result.applied,
        "changed": [name for name, value in before.items() if not torch.equal(value, after[name])],
        "loss": float(result.losses.total),
    }


def go_on(world: World, folder: Path) -> Any:
    """Four steps in one go, and the last two again from the state after the first two."""
    given = params()
    mine = batches(given, 4 * world.size)[world.rank :: world.size]
    trained = trainee(given, world)
    for step in (0, 1):
        train_step(trained, [mine[step]], CONTROLS, step=step)
    saved = copy.deepcopy([trained.model.state_dict(), trained.optimizer.state_dict()])
    for step in (2, 3):
        train_step(trained, [mine[step]], CONTROLS, step=step)
    again = trainee(given, world)
    again.model.load_state_dict(saved[0])
    again.optimizer.load_state_dict(saved[1])
    for step in (2, 3):
        train_step(again, [mine[step]], CONTROLS, step=step)
    return trained.model.state_dict(), again.model.state_dict()


def killed_while_others_wait(world: World, folder: Path) -> Any:
    """The main process waits for one that is dead."""
    world.barrier()
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    world.barrier()


def killed_while_others_work(world: World, folder: Path) -> Any:
    """The main process is busy with something of its own when another dies."""
    world.barrier()
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def failed(world: World, folder: Path) -> Any:
    """One process ends with an error of its own while the other is busy."""
    if world.rank == 1:
        raise PipelineError("this one's own error.", hint="none")
    time.sleep(60)


def main() -> int:
    """Run one case."""
    case, folder = sys.argv[1], Path(sys.argv[2])
    cases: dict[str, Callable[[World, Path], Any]] = {
        function.__name__: function
        for function in (agree, go_on, killed_while_others_wait, killed_while_others_work, failed)
    }
    torch.set_num_threads(1)
    if case not in (agree.__name__, go_on.__name__):  # these wait for nobody who is dead
        distributed.BEAT_SECONDS, distributed.SILENT_SECONDS = 0.2, 5.0
        distributed.LEAVING_SECONDS = 1.0
    try:
        with joined_world(params().train) as world:
            outcome = cases[case](world, folder)
            torch.save(outcome, folder / f"{case}-{world.rank}.pt")
    except PipelineError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
