"""The sum that is minimised, and its parts.

Shapes use: B batch, F frames, C mel channels, T decoder steps, N symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor
from torch.nn import functional

from kamerton.model.losses.attention import (
    GuidedKind,
    coarse_agreement_loss,
    guided_loss,
    monotonic_loss,
)
from kamerton.model.losses.frames import (
    MelKind,
    gate_loss,
    mel_loss,
    perceptual_loss,
    spectral_loss,
    style_loss,
)
from kamerton.model.losses.loudness import band_loudness
from kamerton.model.tacotron2.model import Predicted, steps_of

BASIC = ("mel_before", "mel_after", "gate", "guided_attention")  # computed also without weight
PARTS = (
    *BASIC, "spectral", "perceptual", "style", "monotonic", "double_decoder", "variational_kl",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised.

    Attributes:
        weights: How much each part of ``PARTS`` counts in the total. A part without a weight is
            not computed, except those of ``BASIC``, which every run reports.
        mel: Kind of the mel loss.
        guided_attention: Kind of the guided attention loss.
        guided_attention_sigma: Width of the diagonal that it allows.
        gate_positive_weight: How much the rare last frame counts in the gate's loss.
        mel_centres_hz: Frequencies of the mel channels; only the perceptual loss needs them.
    """

    weights: Mapping[str, float] = field(
        default_factory=lambda: {"mel_before": 1.0, "mel_after": 1.0, "gate": 1.0}
    )
    mel: MelKind = "l1_l2"
    guided_attention: GuidedKind = "tachibana"
    guided_attention_sigma: float = 0.4
    gate_positive_weight: float = 5.0
    mel_centres_hz: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        unknown = set(self.weights) - set(PARTS)
        if unknown:
            raise ValueError(f"there is no loss called {', '.join(sorted(unknown))}")
        if self.weights.get("perceptual") and not self.mel_centres_hz:
            raise ValueError("the perceptual loss needs the frequencies of the mel channels")


@dataclass(frozen=True, slots=True)
class Losses:
    """The total and its parts; ``raw`` parts are unweighted, as they are compared across runs."""

    total: Tensor
    raw: dict[str, Tensor]
    weighted: dict[str, Tensor]

    def detached(self) -> Losses:
        """The same numbers without the graph behind them."""
        return Losses(
            self.total.detach(),
            {name: value.detach() for name, value in self.raw.items()},
            {name: value.detach() for name, value in self.weighted.items()},
        )


@dataclass(frozen=True, slots=True)
class Target:
    """What should have been predicted.

    Attributes:
        frames: Normalised true frames, (B, at most F, C).
        frame_lengths: (B,).
        symbols: Symbol ids, (B, N).
        symbol_lengths: (B,).
        mel_deviation: What one unit of each channel is in log amplitude, (C,); None where all
            channels are alike.
    """

    frames: Tensor
    frame_lengths: Tensor
    symbols: Tensor
    symbol_lengths: Tensor
    mel_deviation: Tensor | None = None


def losses_of(predicted: Predicted, target: Target, objective: Objective) -> Losses:
    """All parts of the training loss and their weighted sum.

    Raises:
        ValueError: a part is weighted for which the network has no output.
    """
    parts: dict[str, Callable[[], Tensor]] = {
        "mel_before": lambda: _mel(predicted.before, target, objective.mel),
        "mel_after": lambda: _mel(predicted.after, target, objective.mel),
        "gate": lambda: gate_loss(
            predicted.gate_logits, target.frame_lengths, _reduction(predicted),
            objective.gate_positive_weight,
        ),
        "guided_attention": lambda: guided_loss(
            predicted.attention, target.symbol_lengths, _steps(predicted, target),
            kind=objective.guided_attention, sigma=objective.guided_attention_sigma,
        ),
        "spectral": lambda: spectral_loss(
            predicted.after, _frames_like(predicted.after, target), target.frame_lengths
        ),
        "perceptual": lambda: _perceptual(predicted.after, target, objective),
        "style": lambda: style_loss(
            predicted.after, _frames_like(predicted.after, target), target.frame_lengths
        ),
        "monotonic": lambda: monotonic_loss(
            predicted.attention, target.symbol_lengths, _steps(predicted, target)
        ),
        "double_decoder": lambda: _double_decoder(predicted, target),
        "variational_kl": lambda: _noise_divergence(predicted),
    }  # fmt: skip
    weights = objective.weights
    raw = {name: part() for name, part in parts.items() if name in BASIC or weights.get(name)}
    weighted = {name: weights[name] * value for name, value in raw.items() if weights.get(name)}
    total = sum(weighted.values(), start=predicted.after.new_zeros(()))
    return Losses(total, raw, weighted)


def _mel(frames: Tensor, target: Target, kind: MelKind) -> Tensor:
    return mel_loss(frames, _frames_like(frames, target), target.frame_lengths, kind)


def _perceptual(frames: Tensor, target: Target, objective: Objective) -> Tensor:
    loudness = band_loudness(objective.mel_centres_hz, frames.dtype, frames.device)
    true = _frames_like(frames, target)
    return perceptual_loss(frames, true, target.frame_lengths, loudness, target.mel_deviation)


def _double_decoder(predicted: Predicted, target: Target) -> Tensor:
    """What the coarse decoder gets wrong, and how the attentions of the two differ.

    Its gate has no part in it: nothing reads it, and the first decoder's says where speech ends.
    """
    coarse = predicted.coarse
    if coarse is None:
        raise ValueError("the double decoder loss is weighted and there is no coarse decoder")
    reduction = coarse.frames.shape[1] // coarse.attention.shape[1]
    agreement = coarse_agreement_loss(
        predicted.attention, coarse.attention, target.symbol_lengths,
        fine_steps=_steps(predicted, target),
        coarse_steps=steps_of(target.frame_lengths, reduction),
        fine_reduction=_reduction(predicted),
        coarse_reduction=reduction,
    )  # fmt: skip
    return _mel(coarse.frames, target, "mse") + agreement


def _noise_divergence(predicted: Predicted) -> Tensor:
    if predicted.noise_divergence is None:
        raise ValueError("the divergence of noise is weighted and no width of noise is learned")
    return predicted.noise_divergence


def _reduction(predicted: Predicted) -> int:
    return predicted.before.shape[1] // predicted.attention.shape[1]


def _steps(predicted: Predicted, target: Target) -> Tensor:
    steps: Tensor = steps_of(target.frame_lengths, _reduction(predicted))
    return steps


def _frames_like(frames: Tensor, target: Target) -> Tensor:
    """The true frames, padded to as many as were predicted, (B, F, C)."""
    return functional.pad(target.frames, (0, 0, 0, frames.shape[1] - target.frames.shape[1]))
