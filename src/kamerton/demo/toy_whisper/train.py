"""Training of the toy recogniser: short windows mostly, whole 30-second ones just often enough."""

from __future__ import annotations

import io
import math
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import nn

from kamerton.core.files import write_bytes
from kamerton.demo.toy_whisper import data, tokens
from kamerton.demo.toy_whisper.model import ToyWhisper

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

CHUNK_SENTENCES: Final = 200
PEAK_LEARNING_RATE: Final = 2e-3
WARM_UP_STEPS: Final = 200
EXAMINE_EVERY_MINUTES: Final = 2.0
CTC_WEIGHT: Final = 0.5
SHORT_BATCH, MEDIUM_BATCH, WINDOW_BATCH = 16, 6, 3
WINDOW_SHARE_EARLY, WINDOW_SHARE_LATE = 0.03, 0.10  # of the steps
MEDIUM_SHARE: Final = 0.06

# Where the processor multiplies bfloat16 natively, a step takes two thirds of the time.
HAS_BFLOAT16: Final = bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How much to train: sentences to synthesise, minutes to spend, threads, seed."""

    minutes: float = 22.0
    sentences: int = 5000
    threads: int = 2
    seed: int = 20

    def __post_init__(self) -> None:
        if self.minutes <= 0 or self.sentences < 1 or self.threads < 1:
            raise ValueError("minutes, sentences and threads must be positive")


def learning_rate(share_done: float, step: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth over the time that is left."""
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, share_done)))
    warm_up = min(1.0, (step + 1) / WARM_UP_STEPS)
    return PEAK_LEARNING_RATE * warm_up * (0.01 + 0.99 * cosine)


def loss_of(model: ToyWhisper, batch: data.Batch) -> Tensor:
    """Cross-entropy of the next token plus the weighted CTC loss of the encoder."""
    mel = torch.from_numpy(batch.mel)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=HAS_BFLOAT16):
        logits, spelled = model(mel, torch.from_numpy(batch.text))
    logits, spelled = logits.float(), spelled.float()
    target = torch.from_numpy(batch.target)
    spoken = nn.functional.cross_entropy(logits.transpose(1, 2), target, ignore_index=-100)
    lengths = torch.full((len(mel),), spelled.shape[1], dtype=torch.long)
    ctc = nn.functional.ctc_loss(
        spelled.log_softmax(dim=-1).transpose(0, 1),
        torch.from_numpy(batch.words),
        lengths,
        torch.from_numpy(batch.word_counts),
        zero_infinity=True,
    )
    return spoken + CTC_WEIGHT * ctc


def draw(batches: data.Batches, random: np.random.Generator, share_done: float) -> data.Batch:
    """One batch of a size chosen by chance; whole windows become commoner towards the end."""
    early = share_done < 0.5
    window_share = WINDOW_SHARE_EARLY if early else WINDOW_SHARE_LATE
    dice = random.random()
    if dice < window_share:
        return batches.draw(WINDOW_BATCH, most_sentences=3, frames=data.WINDOW_FRAMES)
    if dice < window_share + MEDIUM_SHARE:
        return batches.draw(MEDIUM_BATCH, most_sentences=3)
    return batches.draw(SHORT_BATCH)


def optimizer_of(model: ToyWhisper) -> torch.optim.AdamW:
    """AdamW that decays matrices only: the held channel of the last layer norm must stay 1."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_LEARNING_RATE, betas=(0.9, 0.98), fused=True)


def step(
    model: ToyWhisper, optimizer: torch.optim.Optimizer, batch: data.Batch, lr: float
) -> float:
    """One update; returns the loss."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    loss = loss_of(model, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def word_error_rate(model: ToyWhisper, bank: list[data.Sentence]) -> float:
    """Quick figure for the log: greedy decoding of short windows, no timestamps."""
    from kamerton.metrics.intelligibility import word_errors

    model.eval()
    said, heard = [], []
    for start in range(0, len(bank), 16):
        part = bank[start : start + 16]
        longest = max(sentence.mel.shape[1] for sentence in part)
        mel = np.zeros((len(part), 80, longest + longest % 2), dtype=np.float32)
        for row, sentence in enumerate(part):
            picture = data.normalised(np.float32(10.0) ** sentence.mel.astype(np.float32))
            mel[row, :, : picture.shape[1]] = picture
        heard += [tokens.decode(ids) for ids in model.recognise(torch.from_numpy(mel))]
        said += [tokens.decode(list(sentence.words)) for sentence in part]
    model.train()
    return word_errors(said, heard).wer


@dataclass(frozen=True, slots=True)
class TrainingState:
    """The weights after so many steps and minutes."""

    weights: dict[str, Tensor]
    steps: int
    minutes: float

    def save(self, path: Path) -> None:
        """Write atomically."""
        buffer = io.BytesIO()
        torch.save({"weights": self.weights, "steps": self.steps, "minutes": self.minutes}, buffer)
        write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> TrainingState:
        """Read what :meth:`save` wrote."""
        return cls(**torch.load(path, weights_only=True))


def train(plan: TrainingPlan, work: Path, log: Callable[[str], None]) -> TrainingState:
    """Train for ``plan.minutes``; ``work`` holds the latest state, renewed every two minutes."""
    torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)
    bank = synthesise(plan, log)
    examined = data.sentence_bank(48, seed=plan.seed + 1000, part="corpus")
    model = ToyWhisper()
    optimizer = optimizer_of(model)
    batches = data.Batches(bank, seed=plan.seed)
    random = np.random.default_rng(plan.seed)

    losses: list[float] = []
    began, reported = time.monotonic(), 0.0
    while (spent := (time.monotonic() - began) / 60.0) < plan.minutes:
        share = spent / plan.minutes
        rate = learning_rate(share, len(losses))
        losses.append(step(model, optimizer, draw(batches, random, share), rate))
        if len(losses) % 100 == 0:
            log(f"step {len(losses)}, {spent:.1f} min, loss {np.mean(losses[-100:]):.3f}")
        if spent - reported >= EXAMINE_EVERY_MINUTES:
            reported = spent
            TrainingState(model.state_dict(), len(losses), spent).save(work)
            log(examination(model, examined))
    state = TrainingState(model.state_dict(), len(losses), plan.minutes)
    state.save(work)
    log(examination(model, examined))
    return state


def examination(model: ToyWhisper, bank: list[data.Sentence]) -> str:
    """A line for the log from a bank that was not trained on."""
    originals, again = word_error_rate(model, bank[0::3]), word_error_rate(model, bank[1::3])
    return f"WER of originals {originals:.1%}, of resyntheses (most of them degraded) {again:.1%}"


def synthesise(plan: TrainingPlan, log: Callable[[str], None]) -> list[data.Sentence]:
    """The training material, made in chunks by ``plan.threads`` processes; order is fixed."""
    chunks = -(-plan.sentences // CHUNK_SENTENCES)
    bank: list[data.Sentence] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(plan.threads, mp_context=context) as pool:
        seeds = range(plan.seed * 1000, plan.seed * 1000 + chunks)
        for done, part in enumerate(pool.map(_chunk, seeds), start=1):
            bank += part
            log(f"synthesised {done * CHUNK_SENTENCES} of {chunks * CHUNK_SENTENCES} sentences")
    return bank


def _chunk(seed: int) -> list[data.Sentence]:
    torch.set_num_threads(1)
    return data.sentence_bank(CHUNK_SENTENCES // 2, seed=seed)
