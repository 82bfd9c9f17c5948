"""What batches of similar length save: padding, memory, and epochs per hour by real steps.

    python -m benchmarks.batching [--quick] [--rounds 3] [--threads 1] [--json FILE]

Two distributions of length, batches of 16: like LJSpeech (normal, 6.8 s and 2.0 s, from 1 to 10 s)
and like recordings cut at silences (lognormal, 4.5 s and 2.3 s, to 15 s), at 86 frames a second.
Three plans for the same clips: random (shuffled, padded to the longest of the batch: the baseline),
utterances (of similar length, equal count: the default on a GPU) and frames (of similar length,
equal frames: the default on a CPU, and what is judged).

The first table counts the batches of one epoch. The second times real optimiser steps (forward,
all losses of the plain preset, backward, clipping, Adam) on batches of each epoch: its batches in
order of size are cut into as many parts, and one is taken from the middle of each, so that the sum
stands for the whole epoch. Plans take turns; each step's time is the middle of the rounds, in
processor seconds of this process (seconds of the clock, where the machine is idle and there is one
thread). Loading is not part of it.

The network is a reduced one (1.6 M weights, r = 2) and a frame stands for three, so that all takes
two minutes and not a day. What a step costs must depend on its frames as in the full-size network
(28 M), where a step with twice the utterances takes 1.67 times as long (fp32, batches of 8 and 16):
the same is measured here and printed, and the gain is also given for the full-size network, with a
cost of so much per decoder step and so much per frame that agrees with that figure.

Ends with 1 where padding is above 2.5 % like LJSpeech or a gain below 1.25 and 1.8.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kamerton.config.schema import Params
from kamerton.data.batching import BatchPlan
from kamerton.model.tacotron2.model import Tacotron2
from kamerton.training.architecture import architecture_of
from kamerton.training.controls import Controls
from kamerton.training.data import TensorBatch
from kamerton.training.step import Trainee, make_optimizer, train_step

CLIPS = 13_100  # as many as LJSpeech has
BATCH_SIZE = 16
FRAMES_PER_SECOND = 22_050 / 256
FRAMES_FOR_ONE = 3  # where steps are timed
SYMBOLS_PER_SECOND = 14.0
SYMBOLS = 60
SEED = 4
FULL_SIZE_DOUBLING = 1.67
DOUBLING_TOLERANCE = 0.15
MOST_PADDING = 0.025
NETWORK = {
    "symbol_embedding": 128, "encoder_embedding_dim": 128, "encoder_convolutions": 1,
    "prenet_dim": 64, "attention_rnn_dim": 256, "decoder_rnn_dim": 256, "attention_dim": 64,
    "location_filters": 16, "location_kernel": 15, "postnet_dim": 128, "postnet_convolutions": 3,
    "reduction_factor": 2,
}  # fmt: skip

Lengths = NDArray[np.int64]
Plan = list[NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Clips of one distribution of length; ``least_gain`` is what must come of it."""

    name: str
    lengths: Lengths
    least_gain: float


@dataclass(frozen=True, slots=True)
class Counts:
    """One epoch of one plan.

    Attributes:
        padding: Share of the frames computed that are padding.
        peak_frames: Frames of the largest batch, padded.
        steps: Optimiser steps.
        decoder_steps: Frames of the longest utterance, over all batches.
        padded_frames: Frames computed.
        utterances: Least and most in a batch.
    """

    padding: float
    peak_frames: int
    steps: int
    decoder_steps: int
    padded_frames: int
    utterances: tuple[int, int]


def corpora() -> list[Corpus]:
    """Lengths of clips, in frames."""
    random = np.random.default_rng(SEED)
    mean, deviation = 4.5, 2.3
    variance = np.log1p((deviation / mean) ** 2)
    read = random.normal(6.8, 2.0, CLIPS).clip(1.0, 10.0)
    cut = random.lognormal(np.log(mean) - variance / 2, np.sqrt(variance), CLIPS).clip(0.5, 15.0)
    return [
        Corpus("like LJSpeech", (read * FRAMES_PER_SECOND).astype(np.int64), 1.25),
        Corpus("silence-cut", (cut * FRAMES_PER_SECOND).astype(np.int64), 1.8),
    ]


def plans(lengths: Lengths) -> dict[str, Plan]:
    """One epoch of each kind."""
    order = np.random.default_rng(SEED).permutation(len(lengths))
    found = {"random": np.split(order, range(BATCH_SIZE, len(order), BATCH_SIZE))}
    for kind in ("utterances", "frames"):
        plan = BatchPlan(lengths.tolist(), BATCH_SIZE, kind=kind, seed=SEED)
        found[kind] = [batch for group in plan.epoch(0) for batch in group]
    return found


def count(lengths: Lengths, plan: Plan) -> Counts:
    """What a plan comes to."""
    longest = np.array([lengths[batch].max() for batch in plan])
    sizes = np.array([len(batch) for batch in plan])
    padded = longest * sizes
    return Counts(
        padding=1.0 - float(lengths.sum() / padded.sum()),
        peak_frames=int(padded.max()),
        steps=len(plan),
        decoder_steps=int(longest.sum()),
        padded_frames=int(padded.sum()),
        utterances=(int(sizes.min()), int(sizes.max())),
    )


# Real steps


class Steps:
    """Makes and times optimiser steps on batches of given lengths."""

    def __init__(self) -> None:
        changes = {"model": NETWORK, "precision": "fp32", "batch_size": BATCH_SIZE}
        params = Params().with_overrides({"train": changes})
        train = params.train.resolved()
        params = params.model_copy(update={"train": train})
        torch.manual_seed(SEED)
        model = Tacotron2(architecture_of(params, SYMBOLS)).train()
        self.weights = sum(weight.numel() for weight in model.parameters())
        self._trainee = Trainee(model, make_optimizer(model, train), train, params.audio)
        self._controls = Controls(1e-4, train.grad_clip_thresh, train.guided_attention_weight)
        self._channels = params.audio.mel_channels
        self._reduction = train.model.reduction_factor
        self._made = 0

    def seconds(self, frames: Sequence[int]) -> float:
        """Processor seconds of one step on utterances of so many frames, which stand for more."""
        batch = self._batch([max(1, length // FRAMES_FOR_ONE) for length in frames], frames)
        began = time.process_time()
        result = train_step(self._trainee, [batch], self._controls, step=self._made)
        taken = time.process_time() - began
        self._made += 1
        if not result.applied:
            raise RuntimeError("a step was not finite, and so not a whole one")
        return taken

    def _batch(self, frames: Sequence[int], real: Sequence[int]) -> TensorBatch:
        random = torch.Generator().manual_seed(len(frames))
        longest = -(-max(frames) // self._reduction) * self._reduction
        read = [max(2, round(length / FRAMES_PER_SECOND * SYMBOLS_PER_SECOND)) for length in real]
        mels = torch.randn(len(frames), longest, self._channels, generator=random)
        symbols = torch.randint(2, SYMBOLS, (len(frames), max(read)), generator=random)
        for row, (length, symbols_read) in enumerate(zip(frames, read, strict=True)):
            mels[row, length:] = 0.0
            symbols[row, symbols_read:] = 0
        return TensorBatch(symbols, torch.tensor(read), mels, torch.tensor(frames))


def taken(lengths: Lengths, plan: Plan, parts: int) -> list[list[int]]:
    """Lengths in ``parts`` batches that stand for all: of each part by size, the middle one."""
    by_size = sorted(([int(n) for n in lengths[batch]] for batch in plan), key=_padded)
    return [by_size[(2 * part + 1) * len(by_size) // (2 * parts)] for part in range(parts)]


def _padded(frames: list[int]) -> int:
    return len(frames) * max(frames)


def epoch_seconds(
    steps: Steps, lengths: Lengths, made: dict[str, Plan], parts: int, rounds: int
) -> dict[str, float]:
    """Processor seconds of an epoch of each plan, from steps made in turns."""
    batches = {name: taken(lengths, plan, parts) for name, plan in made.items()}
    times: dict[str, list[list[float]]] = {name: [[] for _ in range(parts)] for name in made}
    for turn in range(rounds):
        for part in range(parts):
            for name in made:
                times[name][part].append(steps.seconds(batches[name][part]))
        say(f"round {turn + 1} of {rounds}")
    return {
        name: len(plan) / parts * sum(statistics.median(each) for each in times[name])
        for name, plan in made.items()
    }


def doubling(steps: Steps, rounds: int) -> float:
    """How many times as long a step takes with 16 utterances as with 8 of the same length."""
    times: dict[int, list[float]] = {8: [], 16: []}
    for _ in range(rounds):
        for size, found in times.items():
            found.append(steps.seconds([600] * size))
    return statistics.median(times[16]) / statistics.median(times[8])


def full_size_gain(before: Counts, after: Counts) -> float:
    """The gain where a step costs a + b utterances per decoder step, as in the full-size network.

    From (a + 16 b) / (a + 8 b), which was measured there, follows a / b.
    """
    ratio = (16 - 8 * FULL_SIZE_DOUBLING) / (FULL_SIZE_DOUBLING - 1)
    costs = [ratio * one.decoder_steps + one.padded_frames for one in (before, after)]
    return costs[0] / costs[1]


# What is printed


def show_counts(corpus: Corpus, counts: dict[str, Counts]) -> None:
    mean = float(corpus.lengths.mean())
    print(f"\n{corpus.name}: {CLIPS} clips, {mean:.0f} frames in the mean, one epoch")
    print(
        f"{'':<12} {'padding':>8} {'peak frames':>12} {'steps':>6} {'decoder steps':>14} "
        f"{'utterances':>11}"
    )
    for name, one in counts.items():
        low, high = one.utterances
        print(
            f"{name:<12} {one.padding:>8.2%} {one.peak_frames:>12} {one.steps:>6} "
            f"{one.decoder_steps:>14} {f'{low}-{high}':>11}"
        )


def show_times(seconds: dict[str, float], counts: dict[str, Counts]) -> dict[str, float]:
    """Print epochs per hour and return the gains over the random plan."""
    print(f"{'':<12} {'s / epoch':>10} {'epochs / h':>11} {'gain':>6} {'full size (reckoned)':>21}")
    gains = {}
    for name, taken_seconds in seconds.items():
        gains[name] = seconds["random"] / taken_seconds
        reckoned = full_size_gain(counts["random"], counts[name])
        print(
            f"{name:<12} {taken_seconds:>10.1f} {3600 / taken_seconds:>11.2f} "
            f"{gains[name]:>6.2f} {reckoned:>21.2f}",
            flush=True,
        )
    return gains


def judge(holds: bool, text: str) -> bool:
    """Print one verdict."""
    print(f"{'PASS' if holds else 'MISS'}  {text}", flush=True)
    return holds


def say(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Both tables for both distributions; 1 where something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round of fewer steps")
    parser.add_argument("--rounds", type=int, default=3, help="of timing; the middle one counts")
    parser.add_argument("--parts", type=int, default=6, help="batches that stand for an epoch")
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    given = parser.parse_args()
    rounds, parts = (1, 4) if given.quick else (given.rounds, given.parts)
    torch.set_num_threads(given.threads)
    steps = Steps()
    say(f"a network of {steps.weights / 1e6:.1f} M weights; first steps")
    steps.seconds([600] * BATCH_SIZE)
    twice = doubling(steps, rounds)
    print(
        f"{steps.weights / 1e6:.1f} M weights; 16 utterances take {twice:.2f} times as long as 8 "
        f"(full size: {FULL_SIZE_DOUBLING})"
    )
    held, figures = [], dict[str, Any]()
    as_full = abs(twice / FULL_SIZE_DOUBLING - 1) <= DOUBLING_TOLERANCE
    held.append(judge(as_full, f"the reduced network costs by frames as the full one: {twice:.2f}"))
    for corpus in corpora():
        made = plans(corpus.lengths)
        counts = {name: count(corpus.lengths, plan) for name, plan in made.items()}
        show_counts(corpus, counts)
        seconds = epoch_seconds(steps, corpus.lengths, made, parts, rounds)
        gains = show_times(seconds, counts)
        if corpus.name == "like LJSpeech":
            padding = counts["frames"].padding
            held.append(judge(padding <= MOST_PADDING, f"padding {padding:.2%} (at most 2.5 %)"))
        gain = gains["frames"]
        held.append(
            judge(
                gain >= corpus.least_gain,
                f"{gain:.2f} times the epochs per hour (at least {corpus.least_gain:g})",
            )
        )
        figures[corpus.name] = {
            "counts": {name: asdict(one) for name, one in counts.items()},
            "epoch_seconds": seconds, "gains": gains,
        }  # fmt: skip
    if given.json:
        given.json.write_text(json.dumps({"doubling": twice, **figures}, indent=2))
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
