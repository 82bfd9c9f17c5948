"""Kubeflow components: one stage each, the same commands as in a shell."""

from components.analyze import analyze
from components.dataset import dataset
from components.evaluate import evaluate
from components.promote import promote
from components.segment import segment
from components.train import train
from components.transcribe import transcribe
from components.tune import tune

__all__ = ["analyze", "dataset", "evaluate", "promote", "segment", "train", "transcribe", "tune"]
