"""Curves for the tests of the stop decision; each is made of what its name says."""

import numpy as np

from kamerton.config.stopping_section import EarlyStoppingParams
from kamerton.stopping import Observation, StopController

PLAN = 96


def noise(count=PLAN, size=0.004, seed=0):
    return size * np.random.default_rng(seed).normal(size=count)


def steps(count=PLAN):
    return np.arange(1.0, count + 1)


def settling(count=PLAN, scale=8.0, floor=0.2):
    return floor + np.exp(-steps(count) / scale)


def params(**changes):
    return EarlyStoppingParams.model_validate(changes)


def without(*rules, **changes):
    return params(rules=dict.fromkeys(rules, False), **changes)


def run(values, given=None, planned=PLAN, drops=(), **series):
    """Decisions over a curve, with other series of the observations by name, up to the stop."""
    controller = StopController(given or params(), planned, schedule_drops=drops)
    decisions = []
    for index, value in enumerate(values):
        facts = {name: column[index] for name, column in series.items()}
        decisions.append(controller.observe(Observation(index + 1, float(value), **facts)))
        if decisions[-1].stop:
            break
    return decisions


def end(*args, **named):
    """Cause and step of the last decision."""
    last = run(*args, **named)[-1]
    return last.cause, last.step
