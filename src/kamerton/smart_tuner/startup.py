"""The first points of a search, before a sampler has anything to learn from."""

import random
from collections.abc import Mapping

from kamerton.config.search_space import Choice, Dimension


def trial_seed(seed: int, number: int) -> int:
    """The seed of one trial's draw; trials of studies with neighbouring seeds share none."""
    return random.Random(f"{seed}/{number}").getrandbits(32)


def spread_point(
    index: int, count: int, space: Mapping[str, Dimension], seed: int
) -> dict[str, Choice]:
    """Point ``index`` of a Latin hypercube of ``count`` points.

    Each range is cut into ``count`` equal parts, of its logarithm where it is a logarithmic one,
    and each part holds one point; each choice is taken equally often, give or take one. A few
    points drawn at random often miss half of a range, or a choice altogether. McKay, Beckman and
    Conover, Technometrics 21 (1979).
    """
    point: dict[str, Choice] = {}
    for name, dimension in space.items():
        draws = random.Random(f"{seed}/{name}")
        parts = list(range(count))
        draws.shuffle(parts)
        within = [draws.random() for _ in parts]
        point[name] = _at(dimension, (parts[index] + within[index]) / count)
    return point


def _at(dimension: Dimension, share: float) -> Choice:
    """The value this far into a dimension, from 0 to 1."""
    if dimension.choices is not None:
        return dimension.choices[
            min(int(share * len(dimension.choices)), len(dimension.choices) - 1)
        ]
    low, high = dimension.bounds
    value = low * (high / low) ** share if dimension.log else low + (high - low) * share
    if dimension.type == "int" and not dimension.log:
        value = low - 0.5 + (high - low + 1) * share  # each whole number equally often
    return dimension.nearest(value)
