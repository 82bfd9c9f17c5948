"""Where the phases of a run end, as far as its parameters say."""

from typing import Final

from kamerton.config.train_section import PhaseParams

SHARES_OF_7: Final = (1, 3, 2, 1)  # 500, 1500, 1000 and 500 of 3500 epochs


def boundaries(params: PhaseParams) -> tuple[float, ...]:
    """Where each phase ends, as shares of the budget; the last is 1."""
    if params.count == 0:
        return (1.0,)
    sevenths = SHARES_OF_7 if params.count == len(SHARES_OF_7) else (1, 3, 3)
    return tuple(sum(sevenths[: i + 1]) / 7 for i in range(len(sevenths)))
