"""All that a training run works with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from kamerton.config.schema import AudioParams, TrainParams
from kamerton.model.tacotron2.model import Tacotron2
from kamerton.tracking import RunDirectory, Tracker
from kamerton.tracking.hooks import Hook
from kamerton.tracking.trouble import Trouble
from kamerton.training.checkpoint import Checkpoints
from kamerton.training.controls import Controls
from kamerton.training.data import TrainingData
from kamerton.training.distributed import World
from kamerton.training.hooks import OnAlert, logged_alert
from kamerton.training.schedule import controls_at
from kamerton.training.state import TrainState
from kamerton.training.step import Trainee


@dataclass(frozen=True, slots=True)
class Job:
    """All that a run works with.

    Attributes:
        illustrated: How sound is made of mels for pictures and samples; None makes none.
        scaler: What the checkpoint to go on from holds of the loss scaler.
        world: The processes that train together.
        hooks: What watches and steers the run; only those of the main process are called.
        on_alert: Told of what a person should know at once.
        pictures: What goes wrong with pictures and sound.
    """

    model: Tacotron2
    optimizer: torch.optim.Optimizer
    data: TrainingData
    train: TrainParams
    total_steps: int
    run: RunDirectory
    checkpoints: Checkpoints
    tracker: Tracker
    illustrated: AudioParams | None = None
    scaler: Mapping[str, Any] | None = None
    world: World = field(default_factory=World)
    hooks: Sequence[Hook] = ()
    on_alert: OnAlert = logged_alert
    pictures: Trouble = field(default_factory=lambda: Trouble("a picture", "it is left out"))


def controls_of(state: TrainState, job: Job) -> Controls:
    """What the step after ``state`` is made with."""
    return controls_at(state, job.total_steps, job.train, processes=job.world.size)


def to_be_saved(job: Job, trainee: Trainee, state: TrainState) -> dict[str, Any] | None:
    """Make all that is saved a function of the state: the learning rate is the next step's."""
    trainee.take(controls_of(state, job))
    return trainee.scaler_state()
