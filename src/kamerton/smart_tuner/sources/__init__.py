"""Where the points of a run are read from: one ``poll`` over each kind of record."""

from kamerton.smart_tuner.sources.jsonl import JsonlSource
from kamerton.smart_tuner.sources.mlflow import MlflowSource
from kamerton.smart_tuner.sources.protocol import (
    Cursor,
    Event,
    MetricEvent,
    MetricSource,
    Rewind,
    RunEvent,
)
from kamerton.smart_tuner.sources.tensorboard import TensorBoardSource

__all__ = [
    "Cursor",
    "Event",
    "JsonlSource",
    "MetricEvent",
    "MetricSource",
    "MlflowSource",
    "Rewind",
    "RunEvent",
    "TensorBoardSource",
]
