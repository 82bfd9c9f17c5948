"""Noise in the state of an LSTM, in the one form that its recurrences take.

Dropout of outputs, dropout that recurs, zoneout and variational dropout are all of the form
``state = keep * new + carry * old``, so the recurrences know nothing else.

Shapes use: B batch, T steps, H size of the LSTM.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

RecurrentKind = Literal["output", "recurrent", "zoneout", "variational"]
VariationalKind = Literal["gal", "gaussian", "learned"]


@dataclass(frozen=True, slots=True)
class StateNoise:
    """Factors of an LSTM's new and old state, (T, B, H) each, or (1, B, H) for all steps alike.

    None stands for ones in ``*_keep`` and for zeros in ``*_carry``. The new hidden state is made
    of the new cell before that is mixed with the old one (Krueger et al. 2017, section 3.2).

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

    @property
    def silent(self) -> bool:
        """Whether it changes nothing."""
        return all(getattr(self, field.name) is None for field in fields(self))

    def at(self, step: int) -> StateNoise:
        """The factors of one step alone, (1, B, H) each."""
        return StateNoise(
            *(
                factor if factor is None or len(factor) == 1 else factor[step : step + 1]
                for factor in (getattr(self, field.name) for field in fields(self))
            )
        )

    def hidden(self, new: Tensor, old: Tensor) -> Tensor:
        """The hidden state of one step, (B, H), of the LSTM's new one and the step before's."""
        return _mixed(new, old, self.hidden_keep, self.hidden_carry)

    def cell(self, new: Tensor, old: Tensor) -> Tensor:
        """The cell of one step, (B, H), of the LSTM's new one and the step before's."""
        return _mixed(new, old, self.cell_keep, self.cell_carry)


SILENT = StateNoise()
"""No noise: the new state as it is."""


def _mixed(new: Tensor, old: Tensor, keep: Tensor | None, carry: Tensor | None) -> Tensor:
    kept = new if keep is None else new * keep[0]
    return kept if carry is None else torch.addcmul(kept, old, carry[0])


class LstmNoise(nn.Module):
    """What ``rate`` of noise does to one LSTM, by kind.

    output
        Dropout of what it passes on; its recurrence hears no noise.
    recurrent
        Dropout of the hidden state, which recurs as it was dropped; a new mask at every step.
    zoneout
        Each value of hidden state and cell stays as it was with probability ``rate``; in
        evaluation the expectation of that (Krueger et al. 2017, arXiv:1606.01305).
    variational
        One mask for all steps (Gal & Ghahramani 2016, arXiv:1512.05287), of zeros (``gal``), or
        Gaussian with mean 1 and variance rate / (1 - rate) (``gaussian``; Kingma et al. 2015,
        arXiv:1506.02557), or Gaussian with a variance that each unit learns (``learned``;
        Molchanov et al. 2017, arXiv:1701.05369).

    The learned variances are kept below 1, as Kingma et al. do (section 3.2): the state of an
    LSTM, unlike a weight, is no thing to prune.
    """

    def __init__(self, size: int, rate: float, *, kind: str, variational: str) -> None:
        super().__init__()
        self.size = size
        self.rate = rate
        self.kind = kind if kind != "variational" else variational
        self.variance_logit: nn.Parameter | None = None
        if self.kind == "learned" and rate > 0:
            variance = min(rate / (1.0 - rate), 0.99)
            self.variance_logit = nn.Parameter(
                torch.full((size,), math.log(variance / (1.0 - variance)))
            )

    def draw(self, steps: int, batch: int, like: Tensor) -> StateNoise:
        """Noise for a whole sequence: drawn from the global generator in training.

        Args:
            steps: T.
            batch: B.
            like: A tensor of the LSTM's device and type.
        """
        if not self.training:
            return self.expected(batch, like)
        if self.rate == 0 or self.kind == "output":
            return SILENT
        if self.kind == "zoneout":
            hidden, cell = (self._kept(like, steps, batch) for _ in range(2))
            return StateNoise(hidden, 1 - hidden, cell, 1 - cell)
        if self.kind == "recurrent":
            return StateNoise(hidden_keep=self._kept(like, steps, batch) / (1.0 - self.rate))
        if self.kind == "gal":
            return StateNoise(hidden_keep=self._kept(like, 1, batch) / (1.0 - self.rate))
        drawn = torch.randn(1, batch, self.size, device=like.device, dtype=like.dtype)
        return StateNoise(hidden_keep=1.0 + drawn * self._spread())

    def expected(self, batch: int, like: Tensor) -> StateNoise:
        """What stands for the noise where nothing is to be left to chance."""
        if self.rate == 0 or self.kind != "zoneout":
            return SILENT
        keep = like.new_full((1, batch, self.size), 1.0 - self.rate)
        carry = like.new_full((1, batch, self.size), self.rate)
        return StateNoise(keep, carry, keep, carry)

    def outputs(self, outputs: Tensor) -> Tensor:
        """Drop outputs (T, B, H) in training, if that is this noise's kind."""
        dropped = self.rate if self.kind == "output" else 0.0
        return functional.dropout(outputs, dropped, self.training)

    def divergence(self) -> Tensor | None:
        """What learned variances cost in nats, summed over units; None without any.

        The approximation of the Kullback-Leibler divergence from a log-uniform prior by
        Molchanov et al., equation 14; it falls towards 0 as the variance grows.
        """
        if self.variance_logit is None:
            return None
        log_variance = functional.logsigmoid(self.variance_logit.float())
        k1, k2, k3 = 0.63576, 1.87320, 1.48695
        fitted = k1 * torch.sigmoid(-(k2 + k3 * log_variance))  # k1 - k1 sigmoid(...)
        return (fitted + 0.5 * functional.softplus(-log_variance)).sum()

    def _kept(self, like: Tensor, *shape: int) -> Tensor:
        """1 with probability 1 - rate, else 0, (*shape, H)."""
        drawn = torch.rand(*shape, self.size, device=like.device)
        return (drawn >= self.rate).to(like.dtype)

    def _spread(self) -> Tensor | float:
        """The deviation of Gaussian noise, (H,) if learned."""
        if self.variance_logit is None:
            return math.sqrt(self.rate / (1.0 - self.rate))
        return torch.sigmoid(self.variance_logit).sqrt()
