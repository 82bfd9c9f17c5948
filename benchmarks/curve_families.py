"""Seeded learning curves of the shapes that trainings of voices take; knows nothing of any rule.

A curve has one evaluation per epoch, over a plan of 200, 400, 1000 or 2000 epochs. What is
observed is the noise-free curve plus AR(1) noise (phi 0 to .6) of a standard deviation in shares
of the curve's range. The noise-free curve is kept: by it alone a checkpoint is good or bad, for
what a run found by luck of the noise it did not find.

Families, the ten kinds of curves that stop rules are known to meet, with the same seed always the
same curve:

    power            a power law: always a little better
    exp              an exponential to a floor, reached early or late
    overfit          down, then slowly up again until the end
    diverge          down, then up within a few epochs and never back; one in four becomes NaN
    spikes           down, with bursts from which the run recovers by itself
    breakthrough     a plateau until attention aligns, then a second fall
    lrsteps          a plateau and a fall at each drop of the learning rate
    attn_collapse    down, then attention falls apart; one in five recovers by itself
    noisyfloor       an early floor under heavy-tailed noise
    doubledescent    down, up, and down below the first minimum

Attention is the free-running diagonality. Half of the curves have it; of breakthrough and
attn_collapse all do, because there it is what the shape comes of.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
PLANS = (200, 400, 1000, 2000)
FIRST_SEED = 1000  # rules are tuned on seeds below
_POPULATION_SEED = 1_000_000  # of the curves that rules with a population compare with


@dataclass(frozen=True, slots=True)
class Curve:
    """One run.

    Attributes:
        family: Its shape.
        name: The seed, or the id of a real run.
        observed: What an evaluation gave, (T,); lower is better, NaN where it gave no number.
        truth: Without noise, (T,); of a real run what was observed.
        attention: Free-running diagonality, (T,), or None.
        drops: Indices at which the learning rate falls, known beforehand.
    """

    family: str
    name: str
    observed: Floats
    truth: Floats
    attention: Floats | None = None
    drops: tuple[int, ...] = ()

    @property
    def plan(self) -> int:
        """Evaluations planned."""
        return len(self.observed)

    def regret(self, index: int) -> float:
        """How much worse a checkpoint is than the best, as a share of the curve's range."""
        best = float(np.nanmin(self.truth))
        span = float(self.truth[np.isfinite(self.truth)][0]) - best
        value = float(self.truth[index])
        return float("inf") if np.isnan(value) else (value - best) / max(span, 1e-12)

    def oracle(self, tolerance: float) -> int:
        """The first index whose checkpoint is within ``tolerance`` of the best."""
        best = float(np.nanmin(self.truth))
        span = float(self.truth[np.isfinite(self.truth)][0]) - best
        return int(np.argmax(self.truth <= best + tolerance * max(span, 1e-12)))


@dataclass(slots=True)
class _Shape:
    """A curve in the making: ``level`` starts near 1 and falls to 0 to .4."""

    random: np.random.Generator
    time: Floats  # (T,), in shares of the plan, in (0, 1]
    noise: tuple[float, float] = (0.003, 0.02)  # least and most, of the range; log-uniform
    tails: float = np.inf  # degrees of freedom of the noise
    attention: Floats | None = None
    drops: tuple[int, ...] = ()

    def uniform(self, low: float, high: float) -> float:
        return float(self.random.uniform(low, high))

    def index(self, share: float) -> int:
        return min(len(self.time) - 1, round(share * len(self.time)))


def _fall(shape: _Shape, slowest: float = 0.25) -> Floats:
    """An exponential or a fast power law from 1 to a floor."""
    floor = shape.uniform(0.0, 0.3)
    if shape.random.random() < 0.7:
        pace = shape.uniform(0.03, slowest)
        return floor + (1 - floor) * np.exp(-shape.time / pace)
    delay, power = shape.uniform(0.01, 0.05), shape.uniform(1.0, 2.0)
    return floor + (1 - floor) * (1 + shape.time / delay) ** -power


def _power(shape: _Shape) -> Floats:
    power, delay = shape.uniform(0.3, 1.0), shape.uniform(0.002, 0.02)
    return (1 + shape.time / delay) ** -power


def _exp(shape: _Shape) -> Floats:
    floor, pace = shape.uniform(0.0, 0.3), shape.uniform(0.03, 0.3)
    return floor + (1 - floor) * np.exp(-shape.time / pace)


def _overfit(shape: _Shape) -> Floats:
    turn, rise = shape.uniform(0.1, 0.6), shape.uniform(0.1, 0.6)
    since = np.maximum(0.0, shape.time - turn) / (1 - turn)
    return _fall(shape, slowest=0.15) + rise * since ** shape.uniform(1.0, 2.0)


def _diverge(shape: _Shape) -> Floats:
    level = _fall(shape)
    turn = shape.uniform(0.1, 0.7)
    within = shape.uniform(0.002, 0.02)
    height = shape.uniform(0.5, 3.0)
    level = level + height * (1 - np.exp(-np.maximum(0.0, shape.time - turn) / within))
    if shape.random.random() < 0.25:
        level[shape.time > turn + shape.uniform(0.01, 0.05)] = np.nan
    return level


def _spikes(shape: _Shape) -> Floats:
    level = _fall(shape)
    for _ in range(int(shape.random.integers(2, 9))):
        since = shape.time - shape.uniform(0.05, 0.98)
        height, lasting = shape.uniform(0.1, 1.0), shape.uniform(0.003, 0.03)
        level = level + np.where(since >= 0, height * np.exp(-np.maximum(since, 0) / lasting), 0)
    return level


def _breakthrough(shape: _Shape) -> Floats:
    at, width = shape.uniform(0.1, 0.5), shape.uniform(0.005, 0.03)
    plateau = shape.uniform(0.45, 0.75)
    first = plateau + (1 - plateau) * np.exp(-shape.time / shape.uniform(0.01, 0.05))
    aligned = 1 / (1 + np.exp(-(shape.time - at) / width))
    after = np.exp(-np.maximum(0.0, shape.time - at) / shape.uniform(0.05, 0.2))
    floor = shape.uniform(0.1, 0.3)
    settled = floor + (plateau - floor) * 0.5 * after
    shape.attention = _risen(shape, at, width)
    return first * (1 - aligned) + np.minimum(first, settled) * aligned


def _lrsteps(shape: _Shape) -> Floats:
    count = int(shape.random.integers(2, 4))
    turns = [0.0, *sorted(shape.random.choice(np.arange(0.2, 0.86, 0.05), count, replace=False))]
    shape.drops = tuple(shape.index(turn) for turn in turns[1:])
    level = np.ones_like(shape.time)
    last, floor = 1.0, shape.uniform(0.3, 0.6)
    for turn, end in zip(turns, [*turns[1:], 2.0], strict=True):
        inside = (shape.time > turn) & (shape.time <= end)
        pace = shape.uniform(0.01, 0.06)
        level[inside] = floor + (last - floor) * np.exp(-(shape.time[inside] - turn) / pace)
        last = float(level[inside][-1])
        floor = last * shape.uniform(0.55, 0.9)
    return level


def _attention_collapse(shape: _Shape) -> Floats:
    level = _fall(shape)
    at, width = shape.uniform(0.2, 0.8), shape.uniform(0.002, 0.02)
    gone = 1 / (1 + np.exp(-np.clip((shape.time - at) / width, -50, 50)))
    if shape.random.random() < 0.2:
        back = at + shape.uniform(0.05, 0.12)
        gone = gone / (1 + np.exp(np.clip((shape.time - back) / (2 * width), -50, 50)))
    before = _risen(shape, shape.uniform(0.03, 0.2), shape.uniform(0.005, 0.03))
    shape.attention = before * (1 - gone) + shape.uniform(0.0, 0.25) * gone
    return level + shape.uniform(0.1, 0.5) * gone


def _noisy_floor(shape: _Shape) -> Floats:
    shape.noise, shape.tails = (0.01, 0.04), 4.0
    floor = shape.uniform(0.0, 0.3)
    return floor + (1 - floor) * np.exp(-shape.time / shape.uniform(0.02, 0.1))


def _double_descent(shape: _Shape) -> Floats:
    level = _fall(shape, slowest=0.08)
    at, width = shape.uniform(0.15, 0.4), shape.uniform(0.03, 0.08)
    bump = shape.uniform(0.1, 0.4) * np.exp(-0.5 * ((shape.time - at) / width) ** 2)
    later = shape.uniform(0.05, 0.25) / (1 + np.exp(-(shape.time - at - width) / width))
    return level + bump - later + 0.25


def _risen(shape: _Shape, at: float, width: float) -> Floats:
    """Attention of a run that aligns at share ``at`` of its plan."""
    start, end = shape.uniform(0.0, 0.15), shape.uniform(0.75, 0.97)
    return start + (end - start) / (1 + np.exp(-np.clip((shape.time - at) / width, -50, 50)))


FAMILIES: dict[str, Callable[[_Shape], Floats]] = {
    "power": _power,
    "exp": _exp,
    "overfit": _overfit,
    "diverge": _diverge,
    "spikes": _spikes,
    "breakthrough": _breakthrough,
    "lrsteps": _lrsteps,
    "attn_collapse": _attention_collapse,
    "noisyfloor": _noisy_floor,
    "doubledescent": _double_descent,
}


def make_curve(family: str, seed: int, plan: int | None = None) -> Curve:
    """The curve of ``seed``; ``plan`` epochs long, or one of `PLANS`."""
    random = np.random.default_rng([list(FAMILIES).index(family), seed])
    epochs = int(random.choice(PLANS))
    epochs = epochs if plan is None else plan
    shape = _Shape(random, np.arange(1, epochs + 1) / epochs)
    level = FAMILIES[family](shape)
    attention = shape.attention
    if attention is None and random.random() < 0.5:
        attention = _risen(shape, shape.uniform(0.03, 0.2), shape.uniform(0.005, 0.03))
    if attention is not None:
        wobble = _ar1(random, epochs, shape.uniform(0.0, 0.6)) * shape.uniform(0.01, 0.04)
        attention = np.clip(attention + wobble, -0.3, 1.0)
    low, high = np.log(shape.noise)
    spread = float(np.exp(shape.uniform(low, high))) * float(level[0] - np.nanmin(level))
    noise = _ar1(random, epochs, shape.uniform(0.0, 0.6), tails=shape.tails)
    scale = float(np.exp(shape.uniform(np.log(0.05), np.log(20.0))))  # rules must not depend on it
    observed, truth = scale * (level + spread * noise), scale * level
    return Curve(family, str(seed), observed, truth, attention, shape.drops)


def _ar1(random: np.random.Generator, count: int, phi: float, tails: float = np.inf) -> Floats:
    """Noise of standard deviation 1 whose neighbours correlate by ``phi``, (count,)."""
    if np.isinf(tails):
        shocks = random.standard_normal(count)
    else:
        shocks = random.standard_t(tails, count) / np.sqrt(tails / (tails - 2))
    found = np.empty(count)
    last = float(shocks[0])
    for index, shock in enumerate(shocks):
        last = float(shock) if index == 0 else phi * last + np.sqrt(1 - phi**2) * float(shock)
        found[index] = last
    return found


def synthetic(count: int, first_seed: int = FIRST_SEED) -> list[tuple[str, int]]:
    """Family and seed of ``count`` curves, families in turns."""
    names = list(FAMILIES)
    seeds = range(first_seed, first_seed + count)
    return [(names[(seed - first_seed) % len(names)], seed) for seed in seeds]


def population(curve: Curve, count: int) -> list[Curve]:
    """Finished runs of the same family and plan, in the curve's own unit, for rules that compare.

    They start where it starts: trials of one search share data and loss.
    """
    found = []
    for other in _finished(curve.family, curve.plan, count):
        unit = float(curve.truth[0] / other.truth[0])
        found.append(replace(other, observed=other.observed * unit, truth=other.truth * unit))
    return found


@cache
def _finished(family: str, plan: int, count: int) -> list[Curve]:
    return [make_curve(family, _POPULATION_SEED + index, plan) for index in range(count)]


def real_curves(path: Path) -> list[Curve]:
    """Runs of a JSON list of ``{task, id, val}``, gzipped; the task is the family.

    What was observed is all that is known of them, so it is the truth too.
    """
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = json.load(file)
    found = []
    for row in rows:
        values = np.array([np.nan if v is None else v for v in row["val"]], dtype=np.float64)
        values[~np.isfinite(values)] = np.nan
        if np.isfinite(values).sum() >= 2:
            found.append(Curve(str(row["task"]), str(row["id"]), values, values))
    return found
