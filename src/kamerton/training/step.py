"""One optimiser step: batches in, weights changed, numbers out.

However a step's batches are spread over passes and processes, it is the same step: their losses
have equal weight, each draws noise of its own, and the statistics of normalisation move once.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel

from kamerton.config.schema import AudioParams, TrainParams
from kamerton.model.losses import Losses, Objective, losses_of
from kamerton.model.tacotron2.convolution import commit_statistics, discard_statistics
from kamerton.model.tacotron2.model import Tacotron2
from kamerton.training.controls import Controls
from kamerton.training.data import TensorBatch
from kamerton.training.distributed import World, lost_peers_told
from kamerton.training.objective import objective_of, target_of
from kamerton.training.precision import autocast_dtype, needs_scaler, sets_tf32
from kamerton.training.stops import Stops, count_stops

MOST_NOISE = 0.9  # whatever scales dropout, something must get through

# Parts of the decoder that have something of their own to tell; the LSTM that drives attention
# learns what attention does. What is not named here is the decoder.
_DECODER_PARTS = {
    "prenet": "prenet", "recurrence": "attention", "attention_noise": "attention", "gate": "gate",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trainee:
    """The network in training and what changes it.

    Where there are several processes, all of them make theirs at the same point.

    Attributes:
        model: The network itself, whose weights are saved.
        optimizer: Of all its parameters.
        train: Resolved parameters.
        audio: How its mel frames were made.
        world: The processes that train it.
        network: What is called in training: the model, or what also averages gradients over
            processes.
        autocast: The format of the large products; None for single precision.
        scaler: Keeps float16's small gradients from vanishing; None for formats of wider range.
    """

    model: Tacotron2
    optimizer: torch.optim.Optimizer
    train: TrainParams
    audio: AudioParams
    world: World = field(default_factory=World)
    network: nn.Module = field(init=False, repr=False)
    autocast: torch.dtype | None = field(init=False)
    scaler: GradScaler | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        device = self.device
        if device.type == "cuda":
            tf32 = sets_tf32(self.train, device)
            torch.backends.cuda.matmul.allow_tf32 = tf32
            torch.backends.cudnn.allow_tf32 = tf32
        values = {
            "network": _averaging(self.model, device) if self.world.size > 1 else self.model,
            "autocast": autocast_dtype(self.train, device, self.model.architecture),
            "scaler": GradScaler(device.type) if needs_scaler(self.train, device) else None,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def take(self, controls: Controls) -> None:
        """Give the optimiser what a step is made with."""
        for group in self.optimizer.param_groups:
            group["lr"], group["weight_decay"] = controls.learning_rate, controls.weight_decay

    def scaler_state(self) -> dict[str, Any] | None:
        """What a checkpoint keeps of the loss scaler."""
        return None if self.scaler is None else self.scaler.state_dict()

    def load_scaler(self, state: Mapping[str, Any] | None) -> None:
        """Undo ``scaler_state``; a run that had no scaler begins with a new one."""
        if self.scaler is not None and state:
            self.scaler.load_state_dict(dict(state))


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one optimiser step did; the same in all processes.

    Attributes:
        losses: Means over the batches of all processes, on the CPU.
        grad_norm: Of the averaged gradient, before clipping.
        applied: Whether weights were changed; not where a number was not finite.
        frames: Mel frames in the batches of all processes.
        padded_frames: The same with padding, as they were computed.
        stops: How the gate found the ends of the batches of all processes.
        module_norms: ``grad_norm`` by part of the network, see ``part_of``; their squares sum up
            to its square.
    """

    losses: Losses
    grad_norm: float
    applied: bool
    frames: int = 0
    padded_frames: int = 0
    stops: Stops = (0, 0, 0)
    module_norms: Mapping[str, float] = field(default_factory=dict)


def make_optimizer(model: Tacotron2, train: TrainParams) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay; fused, which is five times faster on a CPU.

    On a GPU it is one kernel per few hundred tensors instead of a dozen, and it skips a step by
    itself where a loss scaler found an overflow.
    """
    return torch.optim.AdamW(
        model.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay, fused=True
    )


def noise_seed(seed: int, step: int, index: int = 0) -> int:
    """What the generator is seeded with for one batch.

    Args:
        seed: Of the run.
        step: From 0.
        index: Of the batch among all of the step, over all processes.
    """
    text = f"{seed}/{step}/{index}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])


def train_step(
    trainee: Trainee, batches: Sequence[TensorBatch], controls: Controls, *, step: int
) -> StepResult:
    """Forward and backward passes of this process's batches and, if all is finite, one update.

    Args:
        trainee: What is trained.
        batches: This process's share of the step, ``batches(position)`` of the training data.
        controls: What the step is made with.
        step: Its number from 0, which, with the run's seed, decides the noise in the network.

    Raises:
        LostPeerError: another process is gone.
    """
    model, optimizer, world = trainee.model, trainee.optimizer, trainee.world
    trainee.take(controls)
    optimizer.zero_grad(set_to_none=True)
    discard_statistics(model)
    objective = objective_of(trainee.train, trainee.audio, controls)
    lost = lost_peers_told() if world.size > 1 else contextlib.nullcontext()
    with lost, _scaled_noise(model, controls.dropout):
        passes = []
        for index, batch in enumerate(batches):
            torch.manual_seed(noise_seed(trainee.train.seed, step, index * world.size + world.rank))
            with _averaged_after(trainee, last=index == len(batches) - 1):
                passes.append(_pass(trainee, batch, objective, 1.0 / len(batches)))
        norms = _clip(trainee, controls.clip_norm)
        result = _gathered(trainee, passes, norms)
        _update(trainee, result.applied)
        if result.applied:
            commit_statistics(model, world.mean)
        else:
            discard_statistics(model)
    return result


@contextlib.contextmanager
def _scaled_noise(model: Tacotron2, factor: float) -> Iterator[None]:
    """The noise of the two LSTMs scaled; an evaluation, and the voice, know the rate as it was."""
    noises = (model.decoder.attention_noise, model.decoder.decoder_noise)
    rates = [noise.rate for noise in noises]
    for noise, rate in zip(noises, rates, strict=True):
        noise.rate = min(rate * factor, MOST_NOISE)
    try:
        yield
    finally:
        for noise, rate in zip(noises, rates, strict=True):
            noise.rate = rate


@dataclass(frozen=True, slots=True)
class _Pass:
    """What one batch gave; nothing of it has left the device yet."""

    losses: Losses
    gate_logits: Tensor
    batch: TensorBatch

    def counts(self, train: TrainParams) -> tuple[int, ...]:
        """Real frames, computed frames, and the three of ``Stops``."""
        batch = self.batch
        stops = count_stops(
            self.gate_logits, batch.frame_lengths, train.model.reduction_factor,
            train.gate_threshold,
        )  # fmt: skip
        return batch.real_frames, batch.frames.shape[0] * batch.frames.shape[1], *stops


def _pass(trainee: Trainee, batch: TensorBatch, objective: Objective, share: float) -> _Pass:
    """Add ``share`` of a batch's gradient to those that are there."""
    target = target_of(trainee.model, batch)
    with torch.autocast(
        target.frames.device.type, trainee.autocast, enabled=trainee.autocast is not None
    ):
        predicted = trainee.network(
            batch.symbols, batch.symbol_lengths, target.frames, batch.frame_lengths,
            speakers=batch.speakers,
        )  # fmt: skip
    predicted = predicted.widened()
    losses = losses_of(predicted, target, objective)
    loss = losses.total * share
    if trainee.scaler is not None:
        loss = trainee.scaler.scale(loss)
    loss.backward()  # type: ignore[no-untyped-call]
    return _Pass(losses.detached(), predicted.gate_logits.detach(), batch)


def _averaging(model: Tacotron2, device: torch.device) -> DistributedDataParallel:
    """The model with gradients that are averaged over processes as they are made.

    Looking for unused parameters costs a walk over a small graph. It also keeps torch from
    rearranging its buckets after the first step, with which sums over three and more processes
    would differ in their last bits between a run that was resumed and one that was not.
    """
    with warnings.catch_warnings():  # torch 2.13 has another name for it, which 2.8 lacks
        warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
        return DistributedDataParallel(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            broadcast_buffers=False,  # they are equal: see commit_statistics
            find_unused_parameters=True,
        )


def _averaged_after(trainee: Trainee, *, last: bool) -> contextlib.AbstractContextManager[None]:
    """Gradients are averaged over processes only after the last of a step's batches."""
    network = trainee.network
    if last or not isinstance(network, DistributedDataParallel):
        return contextlib.nullcontext()
    return network.no_sync()


@dataclass(frozen=True, slots=True)
class _Norms:
    """Norms of a gradient before it was clipped, on its device.

    Attributes:
        total: Of all of it, as ``clip_grad_norm_`` gives it to the last bit.
        each: Of every tensor, (n,).
        parts: Which part of the network each belongs to.
    """

    total: Tensor
    each: Tensor
    parts: tuple[str, ...]

    def by_part(self, each: Sequence[float]) -> dict[str, float]:
        """The norm of every part, from those of the tensors on the host."""
        found: dict[str, list[float]] = {}
        for part, norm in zip(self.parts, each, strict=True):
            found.setdefault(part, []).append(norm)
        return {part: math.hypot(*norms) for part, norms in found.items()}


def part_of(name: str) -> str:
    """The part of the network that a parameter belongs to, by its name in the model."""
    if name.startswith("encoder.embedding."):
        return "embedding"
    whole, part, *_ = name.split(".")
    if whole == "decoder":
        return _DECODER_PARTS.get(part, whole)
    return "speaker" if whole.startswith("speaker_") else whole


def _clip(trainee: Trainee, limit: float) -> _Norms:
    """Scale gradients down to ``limit``; returns their norms before.

    It is ``torch.nn.utils.clip_grad_norm_`` that keeps the norms it makes on its way.
    """
    if trainee.scaler is not None:
        trainee.scaler.unscale_(trainee.optimizer)
    named = [(name, one) for name, one in trainee.model.named_parameters() if one.grad is not None]
    gradients = [one.grad for _, one in named if one.grad is not None]
    each = torch.stack(torch._foreach_norm(gradients))
    total = torch.linalg.vector_norm(each)
    torch.nn.utils.clip_grads_with_norm_([one for _, one in named], limit, total)
    return _Norms(total, each, tuple(part_of(name) for name, _ in named))


def _update(trainee: Trainee, applied: bool) -> None:
    if trainee.scaler is None:
        if applied:
            trainee.optimizer.step()
        return
    if applied:
        trainee.scaler.step(trainee.optimizer)
    trainee.scaler.update()  # also after an overflow: that is how it finds its scale


def _gathered(trainee: Trainee, passes: Sequence[_Pass], norms: _Norms) -> StepResult:
    """Means of the losses and sums of the counts over the passes of all processes.

    The host waits for the device only here, when all of the step but the update is under way.
    """
    world = trainee.world
    losses = torch.stack([_as_vector(one.losses) for one in passes]).sum(dim=0)
    counts = [one.counts(trainee.train) for one in passes]
    summed = torch.tensor(counts, dtype=torch.float64, device=losses.device).sum(dim=0)
    # Norms too: kernels of other devices may round them otherwise, and all must decide alike.
    own = torch.cat([losses, summed, norms.total.double()[None], norms.each.double()])
    total = world.sum(own).cpu()
    mean = total[: len(losses)] / (len(passes) * world.size)
    frames, padded, *stops = (int(value) for value in total[len(losses) :][: len(summed)])
    grad_norm, *each = (total[len(losses) + len(summed) :] / world.size).tolist()
    return StepResult(
        losses=_from_vector(mean, passes[0].losses),
        grad_norm=grad_norm,
        applied=math.isfinite(grad_norm) and math.isfinite(float(mean[0])),
        frames=frames,
        padded_frames=padded,
        stops=(stops[0], stops[1], stops[2]),
        module_norms=norms.by_part(each),
    )


def _as_vector(losses: Losses) -> Tensor:
    return torch.stack([losses.total, *losses.raw.values(), *losses.weighted.values()]).double()


def _from_vector(vector: Tensor, like: Losses) -> Losses:
    total, *parts = vector.unbind()
    raw, weighted = parts[: len(like.raw)], parts[len(like.raw) :]
    return Losses(
        total,
        dict(zip(like.raw, raw, strict=True)),
        dict(zip(like.weighted, weighted, strict=True)),
    )
