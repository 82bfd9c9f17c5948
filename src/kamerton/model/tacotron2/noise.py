"""Noise in the state of an LSTM, in the one form that its recurrences take.

Dropout of outputs, dropout that recurs, zoneout and variational dropout are all of the form
``state = keep * new + carry * old``, so the recurrences know nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class StateNoise:
    """Factors of an LSTM's new and old state, (T, B, H) each, or (1, B, H) for all steps alike.

    None stands for ones in ``*_keep`` and for zeros in ``*_carry``.

    Attributes:
        hidden_keep: Factor of the new hidden state.
        hidden_carry: Factor of the old hidden state.
        cell_keep: Factor of the new cell.
        cell_carry: Factor of the old cell.
    """

    hidden_keep: Tensor | None = None
    hidden_carry: Tensor | None = None
    cell_keep: Tensor | None = None
    cell_carry: Tensor | None = None


SILENT = StateNoise()
"""No noise: the new state as it is."""
