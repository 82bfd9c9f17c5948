"""Open the trackers that params.yaml asks for."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from kamerton.config.schema import TrackingParams
from kamerton.tracking.composite import CompositeTracker
from kamerton.tracking.metrics_file import JsonlTracker
from kamerton.tracking.protocol import Follower, Tracker
from kamerton.tracking.run_directory import RunDirectory

_log = logging.getLogger(__name__)


def open_trackers(
    run: RunDirectory,
    tracking: TrackingParams,
    *,
    resume_step: int | None = None,
    unevaluated: bool = False,
    services: bool = True,
    parent: Path | None = None,
    tags: Mapping[str, str] | None = None,
) -> CompositeTracker:
    """Open every tracker of a run; one that cannot be opened is reported and left out.

    Args:
        run: the run directory.
        tracking: that section of the parameters.
        resume_step: step of the checkpoint that the run continues from, None for a new run. Points
            beyond it are dropped wherever they were written.
        unevaluated: whether that checkpoint was written before its step was evaluated.
        services: also MLflow and W&B. A trial of a study leaves them to its tuner.
        parent: run directory of the run that this one is a part of, for MLflow.
        tags: tags of the MLflow run.
    """
    from kamerton.tracking.mlflow_client import active_run_id
    from kamerton.tracking.mlflow_follower import MlflowFollower
    from kamerton.tracking.tensorboard import TensorBoardTracker
    from kamerton.tracking.wandb_tracker import WandbTracker

    # metrics.jsonl is the record that everything else is made from: without it there is no run.
    trackers: list[Tracker] = [
        JsonlTracker(run.path, resume_step=resume_step, unevaluated=unevaluated)
    ]
    followers: list[Follower] = []
    wanted: list[Callable[[], Tracker]] = []
    if tracking.tensorboard:
        wanted.append(lambda: TensorBoardTracker(run.tensorboard, resume_step=resume_step))
    project = tracking.wandb_project
    if services and project is not None:
        wanted.append(lambda: WandbTracker(run.path, project=project))
    for opener in wanted:
        try:
            trackers.append(opener())
        # A tracker that is not installed or cannot log in must not stop training.
        except Exception as error:
            _log.warning("a tracker is left out: %s", error)
    if services and tracking.mlflow_uri is not None:
        followers.append(
            MlflowFollower(
                run.path,
                uri=tracking.mlflow_uri,
                experiment=tracking.experiment,
                parent=parent,
                active=active_run_id(),
                tags=tags,
            )
        )
    return CompositeTracker(trackers, followers)
