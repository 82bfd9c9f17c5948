"""What ``train.changes`` make of a run at some point of it."""

from collections.abc import Sequence
from typing import Final

from kamerton.config.train_section import ChangeParams

MADE_WITH: Final = "made_with"  # the trainer's event: what they really made of a step
CHANGEABLE: Final = ("learning_rate", "weight_decay", "guided_attention_weight", "dropout")


def factors_at(share: float, changes: Sequence[ChangeParams]) -> dict[str, float]:
    """The factor of everything that is changed at ``share`` of the budget; those of 1 are left out.

    Changes add up: each multiplies what those before it made, so that a generation can change what
    its parent trains with, whatever that is.
    """
    factors = dict.fromkeys(CHANGEABLE, 1.0)
    for change in changes:
        if share >= change.from_share:
            for name in CHANGEABLE:
                factors[name] *= getattr(change, name)
    return {name: factor for name, factor in factors.items() if factor != 1.0}
