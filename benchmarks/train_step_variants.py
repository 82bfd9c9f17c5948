"""What ``benchmarks.train_step`` measures: whole training steps, the parts of one, their products.

``python -m benchmarks.train_step_variants JSON`` makes a few steps of one variant in a process of
its own and prints how far memory rose.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from kamerton.model.losses import Objective, Target, losses_of
from kamerton.model.tacotron2.architecture import Architecture
from kamerton.model.tacotron2.convolution import ConvolutionBlock, commit_statistics
from kamerton.model.tacotron2.lstm import lstm_sequence, narrow_product
from kamerton.model.tacotron2.model import Predicted, Tacotron2
from kamerton.model.tacotron2.products import Packed, linear, times
from tests.reference_tacotron2 import reference_forward

OBJECTIVE = Objective({"mel_before": 1.0, "mel_after": 1.0, "gate": 1.0, "guided_attention": 10.0})
_SYMBOLS = 60
_SEED = 3


@dataclass(frozen=True, slots=True)
class Size:
    """Of the batches, whose utterances are of unequal length."""

    batch: int
    symbols: int = 80
    frames: int = 400


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to make a step."""

    name: str
    reference: bool = False
    bf16: bool = False
    onednn: bool = True


REFERENCE = Variant("per-step reference, fp32", reference=True)
OURS = Variant("ours, fp32")
NARROW = Variant("ours, bf16", bf16=True)


def paper_model(device: str = "cpu") -> Tacotron2:
    """The network of the paper, as a run begins it; LSTM outputs are not dropped."""
    torch.manual_seed(_SEED)
    model = Tacotron2(Architecture(_SYMBOLS, attention_dropout=0.0, decoder_dropout=0.0))
    return model.to(device)


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts and frames, as ``Tacotron2`` takes them, and the prenet's masks."""

    symbols: Tensor
    symbol_lengths: Tensor
    frames: Tensor
    frame_lengths: Tensor
    masks: Tensor

    @classmethod
    def of(cls, size: Size, model: Tacotron2, device: str = "cpu") -> "Batch":
        """Random ones; the first utterance fills the batch, the last is a tenth shorter.

        Each utterance has its own mean spectrum, as speech has. Frames of pure noise would average
        out to gradients of biases a thousand times smaller than their terms: rounding alone.
        """
        torch.manual_seed(_SEED)
        shares = torch.linspace(1.0, 0.9, size.batch)
        symbol_lengths = (size.symbols * shares).long()
        frame_lengths = (size.frames * shares).long()
        symbols = torch.randint(1, _SYMBOLS, (size.batch, size.symbols))
        symbols *= torch.arange(size.symbols) < symbol_lengths[:, None]
        mels = model.architecture.mels
        frames = torch.randn(size.batch, 1, mels) + torch.randn(size.batch, size.frames, mels)
        masks = model.decoder.prenet.draw_masks(size.frames, size.batch)
        tensors = (symbols, symbol_lengths, frames, frame_lengths, masks)
        return cls(*(tensor.to(device) for tensor in tensors))


class Trial:
    """A network in training by one variant."""

    def __init__(self, variant: Variant, device: str = "cpu") -> None:
        self.variant, self.device = variant, device
        self.model = paper_model(device)
        for block in self.model.modules():
            if isinstance(block, ConvolutionBlock) and variant.reference:
                block.recompute = False
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)

    def predict(self, batch: Batch) -> Predicted:
        """The forward pass, with the same dropout in every variant."""
        torch.manual_seed(_SEED)
        given = (batch.symbols, batch.symbol_lengths, batch.frames, batch.frame_lengths)
        if self.variant.reference:
            return reference_forward(self.model, *given, masks=batch.masks)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.variant.bf16):
            made: Predicted = self.model(*given, masks=batch.masks)
        return made.widened()

    def backward(self, batch: Batch, objective: Objective = OBJECTIVE) -> Predicted:
        """Both passes."""
        predicted = self.predict(batch)
        target = Target(batch.frames, batch.frame_lengths, batch.symbols, batch.symbol_lengths)
        self.optimizer.zero_grad(set_to_none=True)
        losses_of(predicted, target, objective).total.backward()  # type: ignore[no-untyped-call]
        return predicted

    def step(self, batch: Batch) -> None:
        """The whole step."""
        self.backward(batch)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        commit_statistics(self.model)

    def timed_step(self, batch: Batch) -> float:
        """Seconds of a whole step."""
        return seconds(lambda: self.step(batch), self.device)


def seconds(run: Callable[[], object], device: str = "cpu") -> float:
    """Wall-clock seconds of ``run``."""
    _finish(device)
    start = time.perf_counter()
    run()
    _finish(device)
    return time.perf_counter() - start


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


@dataclass(frozen=True, slots=True)
class Difference:
    """Ours against the reference, from the same weights, both in single precision."""

    output: float  # largest absolute
    gradient: float  # largest relative, of the norms of one parameter's gradient
    parameter: str  # that has it


def difference(size: Size) -> Difference:
    """Compare one forward and backward pass of a new network, with the loss that is trained."""
    ours, reference = Trial(OURS), Trial(REFERENCE)
    batch = Batch.of(size, ours.model)
    mine_made, theirs_made = ours.backward(batch, OBJECTIVE), reference.backward(batch, OBJECTIVE)
    pairs = zip(_outputs(mine_made), _outputs(theirs_made), strict=True)
    output = max(float((mine - theirs).abs().max()) for mine, theirs in pairs)
    errors = {}
    for (name, mine), theirs in zip(
        ours.model.named_parameters(), reference.model.parameters(), strict=True
    ):
        assert mine.grad is not None, name
        assert theirs.grad is not None, name
        errors[name] = float((mine.grad - theirs.grad).norm() / theirs.grad.norm())
    worst = max(errors, key=errors.__getitem__)
    return Difference(output, errors[worst], worst)


def _outputs(predicted: Predicted) -> tuple[Tensor, ...]:
    parts = (predicted.before, predicted.after, predicted.gate_logits, predicted.attention)
    return tuple(part.detach() for part in parts)


@contextlib.contextmanager
def _autocast(variant: Variant) -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16, enabled=variant.bf16):
        yield


def parts(variant: Variant, size: Size, repeats: int) -> dict[str, tuple[float, float]]:
    """Seconds of the forward and of the backward pass of each part of a step, medians."""
    trial = Trial(variant)
    model, batch = trial.model, Batch.of(size, trial.model)
    a, decoder = model.architecture, model.decoder
    steps, rows, symbols = size.frames, size.batch, size.symbols
    valid = (batch.symbols > 0).float()
    real = (torch.arange(size.frames) < batch.frame_lengths[:, None]).float()

    def leaf(*shape: int) -> Tensor:
        return torch.randn(shape, requires_grad=True)

    memory, heard = leaf(rows, symbols, a.encoder_embedding_dim), leaf(steps, rows, a.prenet_dim)
    both = leaf(steps, rows, a.attention_rnn_dim + a.encoder_embedding_dim)
    frames, given = leaf(rows, steps, a.mels), leaf(steps, rows, a.mels)
    predicted = Predicted(
        leaf(rows, steps, a.mels), leaf(rows, steps, a.mels), leaf(rows, steps),
        leaf(rows, steps, symbols).softmax(2).detach().requires_grad_(),
    )  # fmt: skip
    target = Target(batch.frames, batch.frame_lengths, batch.symbols, batch.symbol_lengths)
    attention = decoder.recurrence.attention
    runs: dict[str, Callable[[], object]] = {
        "encoder": lambda: model.encoder(batch.symbols, batch.symbol_lengths.cpu(), valid),
        "prenet": lambda: decoder.prenet(given, batch.masks),
        "attention loop": lambda: decoder.recurrence(heard, attention.keys(memory, valid)),
        "decoder LSTM": lambda: _spoken(decoder.lstm, both, variant),
        "projections": lambda: (decoder.frames(both), decoder.gate(both)),
        "postnet": lambda: model.postnet(frames, real),
        "loss": lambda: losses_of(predicted, target, OBJECTIVE).total,
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            taken[name].append(_both_ways(run, variant))
    return {name: _medians(pairs[1:]) for name, pairs in taken.items()}


def _spoken(lstm: nn.LSTM, heard: Tensor, variant: Variant) -> Tensor:
    """The decoder LSTM as the decoder runs it."""
    enter, recur, *biases = lstm.all_weights[0]
    sums = linear(heard, enter, biases[0] + biases[1])
    with torch.autocast("cpu", enabled=False):
        format = torch.bfloat16 if variant.bf16 else torch.float32
        return lstm_sequence(sums.float(), recur, format=format)


def _both_ways(run: Callable[[], object], variant: Variant) -> tuple[float, float]:
    with _autocast(variant):
        start = time.perf_counter()
        made = run()
        middle = time.perf_counter()
    outputs = made if isinstance(made, tuple) else (made,)
    grads = [torch.ones_like(output) for output in outputs]
    begin = time.perf_counter()
    torch.autograd.backward(outputs, grads)
    return middle - start, time.perf_counter() - begin


def _medians(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    forward, backward = zip(*pairs, strict=True)
    return statistics.median(forward), statistics.median(backward)


def after_backward(variant: Variant, size: Size, repeats: int) -> dict[str, float]:
    """Seconds of clipping and of Adam, medians."""
    trial = Trial(variant)
    trial.backward(Batch.of(Size(2, size.symbols, 20), trial.model))
    parameters = list(trial.model.parameters())
    clip = [seconds(lambda: torch.nn.utils.clip_grad_norm_(parameters, 1.0))
            for _ in range(repeats)]  # fmt: skip
    adam = [seconds(trial.optimizer.step) for _ in range(repeats + 1)][1:]
    return {"clip": statistics.median(clip), "Adam": statistics.median(adam)}


def product_floor(variant: Variant, size: Size, repeats: int) -> float:
    """Seconds that the products of both decoder LSTMs alone take, forward and backward.

    They are made as the step makes them: recurrent ones step by step, the rest over all frames.
    """
    a = Architecture(_SYMBOLS)
    format = torch.bfloat16 if variant.bf16 else torch.float32
    rows = size.frames * size.batch
    total = 0.0
    for inputs, recurrent, hidden in (
        (a.prenet_dim, a.attention_rnn_dim + a.encoder_embedding_dim, a.attention_rnn_dim),
        (a.attention_rnn_dim + a.encoder_embedding_dim, a.decoder_rnn_dim, a.decoder_rnn_dim),
    ):
        x, state = torch.randn(rows, inputs), torch.randn(rows, recurrent)
        sums, few = torch.randn(rows, 4 * hidden), torch.randn(size.batch, recurrent)
        enter, recur = torch.randn(4 * hidden, inputs), torch.randn(4 * hidden, recurrent)
        there, back = Packed(recur, size.batch, format), Packed(recur.t(), size.batch, format)
        few_sums = sums[: size.batch].clone()

        def steps(there: Packed = there, back: Packed = back, few: Tensor = few,
                  few_sums: Tensor = few_sums) -> None:  # fmt: skip
            for _ in range(size.frames):
                there.times(few)
                back.times(few_sums)

        runs: tuple[Callable[[], object], ...] = (
            steps,
            partial(_narrow_linear, x, enter, format),
            partial(_narrow_linear, sums, enter.t().contiguous(), format),
            partial(narrow_product, sums, x, format),
            partial(narrow_product, sums, state, format),
        )
        total += sum(statistics.median(seconds(run) for _ in range(repeats)) for run in runs)
    return total


def _narrow_linear(x: Tensor, weight: Tensor, format: torch.dtype) -> Tensor:
    return times(x.to(format), weight.to(format))


def memory_in_child(variant: Variant, size: Size, threads: int) -> float:
    """Megabytes that a whole step rises above what the process held after a first, tiny one."""
    order = json.dumps({"variant": asdict(variant), "size": asdict(size), "threads": threads})
    command = [sys.executable, "-m", "benchmarks.train_step_variants", order]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


def _obey(order: dict[str, dict[str, int]]) -> None:
    torch.set_num_threads(int(order["threads"]))  # type: ignore[call-overload]
    trial = Trial(Variant(**order["variant"]))  # type: ignore[arg-type]
    trial.step(Batch.of(Size(2, 20, 10), trial.model))
    trial.optimizer.zero_grad(set_to_none=True)
    batch = Batch.of(Size(**order["size"]), trial.model)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _status_mb("VmRSS")
    trial.step(batch)
    print(_status_mb("VmHWM") - before)


def _status_mb(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


if __name__ == "__main__":
    _obey(json.loads(sys.argv[1]))
