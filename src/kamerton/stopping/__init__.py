"""When a training run should end: voters, patience, hard rules, and replay. No torch."""

from kamerton.stopping.controller import StopController
from kamerton.stopping.replay import replay
from kamerton.stopping.types import Controller, Decision, Observation, Replay, Vote

__all__ = ["Controller", "Decision", "Observation", "Replay", "StopController", "Vote", "replay"]
