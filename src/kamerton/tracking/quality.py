"""The figure of merit of an evaluation, of which the best checkpoint has least."""

from collections.abc import Mapping

from kamerton.tracking import names


def quality_of(values: Mapping[str, float]) -> float:
    """Validation mel loss, plus what the free-running diagonality lacks of 1.

    Mel loss alone does not see a voice that cannot read without help.

    Raises:
        KeyError: one of the two was not measured.
    """
    return values[names.VAL_MEL_LOSS] + 1.0 - values[names.ATTENTION_SCORE]
