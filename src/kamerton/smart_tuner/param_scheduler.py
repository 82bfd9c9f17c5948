"""ParamScheduler: which hyperparameters to try in the middle of a run, and how to ask for them.

A delta multiplies one or two of what a run may change at any time (``train.changes``) by 0.5, 0.8,
1.25 or 2. Which deltas a generation tries is drawn by a bandit that knows what deltas of earlier
generations gained over their controls, in standard deviations. It never sees an absolute score:
the objective depends on the age of the parent, so that a search over all generations at once would
take the fall of the loss for the merit of a parameter.
"""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any, Final

from kamerton.config.change_classes import require_hot
from kamerton.config.changes import CHANGEABLE
from kamerton.config.schema import Params
from kamerton.config.search_space import lookup, nest
from kamerton.config.train_section import ChangeParams, TrainParams

FACTORS: Final = (0.5, 0.8, 1.25, 2.0)
_PAIR_SHARE: Final = 0.3  # of the draws change two parameters at once
_FADING: Final = 0.5  # of what was learned, per generation between then and now
_MOST_GAIN: Final = 4.0  # standard deviations; more is not more certain
_COOLEST: Final = 0.1  # of the learning rate, at the end of a cool-down
_STAIRS: Final = 4

Delta = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a delta was worth.

    Attributes:
        generation: When it was tried.
        delta: Factors by name.
        gain: By how much it beat its control, in standard deviations of their difference.
    """

    generation: int
    delta: Delta
    gain: float


class ParamScheduler:
    """Proposes deltas and writes them as parameters of a restarted run. Pure: no file, no clock."""

    def __init__(self, params: Params, *, seed: int) -> None:
        """Propose for runs of ``params``, always the same for equal ``seed`` and outcomes."""
        self._params, self._seed = params, seed

    @property
    def names(self) -> tuple[str, ...]:
        """What a delta can change here; the factor of what is 0 changes nothing."""
        return usable_names(self._params.train)

    def propose(
        self, generation: int, count: int, outcomes: Sequence[Outcome] = ()
    ) -> list[dict[str, float]]:
        """Different deltas to try, the most promising first; fewer where there are no more.

        Each possible delta is given a draw from what is believed of its gain, and those of the
        highest draws are taken (Thompson 1933): the little known is tried now and then, what did
        harm seldom.

        Args:
            generation: The one to propose for.
            count: Deltas at most.
            outcomes: What came of earlier ones.
        """
        draw = random.Random(f"{self._seed}/{generation}")
        singles = [{name: factor} for name in self.names for factor in FACTORS]
        pairs = [
            {first: one, second: other}
            for first, second in combinations(self.names, 2)
            for one, other in product(FACTORS, repeat=2)
        ]
        believed = {
            (name, factor): _belief(name, factor, generation, outcomes)
            for name in self.names
            for factor in FACTORS
        }

        def hope(delta: Delta) -> float:
            drawn = (draw.gauss(*believed[item]) for item in delta.items())
            return sum(drawn) / math.sqrt(len(delta))

        pools = [sorted(pool, key=hope) for pool in (singles, pairs)]
        chosen: list[dict[str, float]] = []
        while len(chosen) < count and any(pools):
            pool = pools[draw.random() < _PAIR_SHARE]
            chosen.append((pool or max(pools, key=len)).pop())
        return chosen

    def restart(self, changed: Mapping[str, Any]) -> Params:
        """The parameters of a run that goes on with other values.

        Args:
            changed: The values by dotted name.

        Raises:
            ParamsError: one of them may not change in the middle of a run; its class is named.
        """
        require_hot((name, lookup(self._params, name), value) for name, value in changed.items())
        return self._params.with_overrides(nest(changed))


def usable_names(train: TrainParams) -> tuple[str, ...]:
    """The names of ``CHANGEABLE`` whose factor has an effect with these parameters."""
    train = train.resolved()
    noise = train.regularisation
    learned = noise.recurrent == "variational" and noise.variational == "learned"
    there = {
        "learning_rate": True,
        "weight_decay": train.weight_decay > 0,
        "guided_attention_weight": train.guided_attention_weight > 0,
        # Learned widths of noise only begin with the dropouts.
        "dropout": not learned and (train.attention_dropout > 0 or train.decoder_dropout > 0),
    }
    return tuple(name for name in CHANGEABLE if there[name])


def changed_from(
    changes: Iterable[ChangeParams], delta: Delta, from_share: float
) -> tuple[ChangeParams, ...]:
    """``changes`` and, from ``from_share`` of the budget on, ``delta`` on top of them."""
    kept = tuple(changes)
    if not delta:
        return kept
    return (*kept, ChangeParams.model_validate({"from_share": from_share, **delta}))


def cooled_down(
    changes: Iterable[ChangeParams], from_step: int, to_step: int, total: int
) -> tuple[ChangeParams, ...]:
    """``changes`` and a learning rate that falls to a tenth between two steps, in stairs.

    What a learning rate is worth shows only when it has fallen: the noise of a large one hides
    what it has learned.
    """
    factors = [1 - (1 - _COOLEST) * (stair + 1) / _STAIRS for stair in range(_STAIRS)]
    cooled, before = tuple(changes), 1.0
    for stair, factor in enumerate(factors):
        step = from_step + (to_step - from_step) * stair // _STAIRS
        cooled = changed_from(cooled, {"learning_rate": factor / before}, step / total)
        before = factor
    return cooled


def _belief(
    name: str, factor: float, generation: int, outcomes: Sequence[Outcome]
) -> tuple[float, float]:
    """Mean and deviation of what a factor gains: a unit normal prior, and what was seen since."""
    weight = total = 0.0
    for outcome in outcomes:
        if outcome.delta.get(name) == factor:
            counted = _FADING ** abs(generation - outcome.generation - 1) / len(outcome.delta)
            gain = max(-_MOST_GAIN, min(_MOST_GAIN, outcome.gain))
            weight, total = weight + counted, total + counted * gain
    return total / (1 + weight), 1 / math.sqrt(1 + weight)
