"""Where to listen by where one has listened, whatever the text says.

Shapes use: B batch, N symbols, H attention LSTM, M encoding, A attention, K kernel width, J
filters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from kamerton.model.tacotron2.keys import Keys, padding_bias

PRIOR_STEPS = 10  # symbols that one step may move forward
PRIOR_SHAPE = (0.1, 0.9)  # the beta-binomial's alpha and beta: one symbol in the mean
PRIOR_FLOOR = 1e-6  # weight left to symbols out of that reach, before normalising


class DynamicConvolutionAttention(nn.Module):
    """Attention by location alone (Battenberg et al. 2020, arXiv:1910.10288, section 2.3).

    Filters of the last weights, some fixed and some made of the LSTM's state, and a prior that
    moves on: e = v tanh(U F*alpha + T G(s)*alpha + b) + log(P*alpha). What the text says has no
    part in it, so that it can lose its place in no text, however long. The prior is
    beta-binomial over 0 to 10 symbols, one in the mean. alpha starts on the first symbol.

    Fixed and dynamic filters meet only under the tanh, so each utterance's are added up in one
    matrix at each step.
    """

    prior: Tensor

    def __init__(self, query: int, attention: int, *, filters: int, kernel: int) -> None:
        super().__init__()
        self.static = nn.Conv1d(1, filters, kernel, bias=False)
        self.project_static = nn.Linear(filters, attention, bias=False)
        self.filter_hidden = nn.Linear(query, attention)
        self.filter_output = nn.Linear(attention, filters * kernel, bias=False)
        self.project_dynamic = nn.Linear(filters, attention, bias=True)
        self.energy = nn.Linear(attention, 1, bias=False)
        self.kernel = kernel
        gain = nn.init.calculate_gain("tanh")
        for layer in (self.project_static, self.filter_hidden, self.project_dynamic):
            nn.init.xavier_uniform_(layer.weight, gain=gain)
        self.register_buffer("prior", beta_binomial(PRIOR_STEPS, *PRIOR_SHAPE), persistent=False)

    def keys(self, memory: Tensor, valid: Tensor) -> Keys:
        """Prepare encodings (B, N, M); ``valid`` is 1.0 where there is a symbol, (B, N)."""
        kernel = torch.einsum("jk,aj->ka", self.static.weight[:, 0], self.project_static.weight)
        assert self.project_dynamic.bias is not None  # for the type checker
        return Keys(
            memory,
            self.project_dynamic.bias[None, None],
            padding_bias(valid, memory.dtype),
            kernel,
        )

    def start(self, keys: Keys) -> Tensor:
        """All on the first symbol: (B, 1, N + K - 1)."""
        batch, symbols, _ = keys.memory.shape
        history = keys.memory.new_zeros(batch, 1, symbols + self.kernel - 1)
        history[:, 0, self.kernel // 2] = 1.0
        return history

    def weigh(self, hidden: Tensor, keys: Keys, history: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (B, N) for the LSTM's state (B, H), and the history with them."""
        reach, symbols = self.kernel // 2, keys.bias.shape[1]
        filters = self.filter_output(self.filter_hidden(hidden).tanh())
        kernels = keys.kernel + torch.einsum(
            "bjk,aj->bka", filters.unflatten(1, (-1, self.kernel)), self.project_dynamic.weight
        )
        places = torch.arange(symbols, device=hidden.device)[:, None]
        taps = torch.arange(self.kernel, device=hidden.device)
        windows = history[:, 0, places + taps]  # (B, N, K); unfold cannot be exported as a graph
        layer = torch.bmm(windows, kernels) + keys.projected  # (B, N, A)
        energies = layer.tanh() @ self.energy.weight[0]
        moved = functional.conv1d(
            functional.pad(history[:, :, reach : reach + symbols], (PRIOR_STEPS, 0)),
            self.prior.flip(0)[None, None].to(history.dtype),
        )[:, 0]  # (B, N)
        prior = moved.clamp(min=PRIOR_FLOOR).log()
        weights = (energies + prior + keys.bias).softmax(dim=1)
        return weights, functional.pad(weights.unsqueeze(1), (reach, reach))


def beta_binomial(count: int, alpha: float, beta: float) -> Tensor:
    """Probabilities of 0 to ``count`` successes, (count + 1,)."""

    def log_beta(a: float, b: float) -> float:
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    return torch.tensor(
        [
            math.comb(count, k)
            * math.exp(log_beta(k + alpha, count - k + beta) - log_beta(alpha, beta))
            for k in range(count + 1)
        ]
    )
