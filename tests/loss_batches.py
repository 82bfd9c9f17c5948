"""Batches for the tests of losses: utterances of unequal lengths, and padding full of rubbish."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
RUBBISH = (float("nan"), float("inf"), 1e6)

frame_lengths = st.lists(st.integers(1, 9), min_size=1, max_size=3)
sizes = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 6)), min_size=1, max_size=3)
"""Decoder steps and symbols of each utterance of a batch."""


def frames_of(lengths: Sequence[int], *shape: int, seed: int) -> list[Array]:
    """Random values (F, *shape) of each utterance."""
    random = np.random.default_rng(seed)
    return [random.normal(size=(length, *shape)) for length in lengths]


def attention_of(sizes: Sequence[tuple[int, int]], *, seed: int) -> list[Array]:
    """Random attentions (T, N), whose rows sum to 1, of each utterance."""
    random = np.random.default_rng(seed)
    return [random.dirichlet(np.ones(symbols), steps) for steps, symbols in sizes]


def padded(items: Sequence[Array], filler: float, *, axes: int = 1, extra: int = 0) -> Tensor:
    """All as one batch, in which the first ``axes`` dimensions are padded to equal sizes."""
    shape = [
        max(item.shape[axis] for item in items) + (extra if axis < axes else 0)
        for axis in range(items[0].ndim)
    ]
    batch = torch.full((len(items), *shape), filler, dtype=torch.float64)
    for row, item in enumerate(items):
        batch[(row, *(slice(size) for size in item.shape))] = torch.from_numpy(item)
    return batch


def lengths_of(items: Sequence[Array], axis: int = 0) -> Tensor:
    """Sizes of all, (B,)."""
    return torch.tensor([item.shape[axis] for item in items])


def value_and_gradient(loss: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Tensor]:
    """What a loss is, and which way it pushes."""
    leaf = at.clone().requires_grad_()
    value = loss(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient
