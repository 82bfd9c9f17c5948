"""Training of the toy recogniser: from single sentences to windows of 30 s packed with clips."""

from __future__ import annotations

import io
import math
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch
from torch import nn

from kamerton.core.files import sha256_file, write_bytes
from kamerton.demo.toy_whisper import data, tokens
from kamerton.demo.toy_whisper.batches import Batch, Batches, Said
from kamerton.demo.toy_whisper.model import ToyWhisper

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

CHUNK_SENTENCES: Final = 200
PEAK_LEARNING_RATE: Final = 2e-3
WARM_UP_STEPS: Final = 200
EXAMINE_EVERY_MINUTES: Final = 2.0
EDGE_FRAMES: Final = 10  # of silence at both ends of an examined sentence, as of a clip
CTC_WEIGHT: Final = 0.5
GUIDE_WEIGHT: Final = 0.3  # of the attention's being elsewhere than what it should write
SETTLING_STEPS: Final = 100  # in which a new CTC head leaves a trained encoder alone
WRONG_WORDS, WRONG_TIMES = 0.03, 0.2  # of the decoder's inputs: it will not always be right


class Kind(NamedTuple):
    """One sort of batch: clips alone, of so many sentences at most, or windows of some seconds."""

    size: int
    sentences: int = 1
    packed: tuple[float, float] | None = None
    whole: bool = False  # in a window of 30 s


KINDS: Final = (
    Kind(16),
    Kind(6, sentences=3),
    Kind(3, sentences=2, whole=True),
    Kind(5, packed=(4.0, 13.0)),
    Kind(3, packed=(12.0, 27.0)),
    Kind(3, packed=(20.0, 29.6), whole=True),
)
# How often each kind is drawn, at the start and from the middle on; in between by the time.
SHARES_EARLY = (0.52, 0.08, 0.02, 0.28, 0.07, 0.03)
SHARES_LATE = (0.20, 0.12, 0.05, 0.15, 0.18, 0.30)

# Where the processor multiplies bfloat16 natively, a step takes two thirds of the time.
HAS_BFLOAT16: Final = bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How much to train: sentences to synthesise, minutes to spend, threads, seed."""

    minutes: float = 36.0
    sentences: int = 5000
    threads: int = 2
    seed: int = 20
    initial: Path | None = None  # an exported checkpoint or a training state to start from

    def __post_init__(self) -> None:
        if self.minutes <= 0 or self.sentences < 1 or self.threads < 1:
            raise ValueError("minutes, sentences and threads must be positive")


def learning_rate(share_done: float, step: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth over the time that is left."""
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, share_done)))
    warm_up = min(1.0, (step + 1) / WARM_UP_STEPS)
    return PEAK_LEARNING_RATE * warm_up * (0.01 + 0.99 * cosine)


def loss_of(model: ToyWhisper, batch: Batch, *, settled: bool = True) -> Tensor:
    """Cross-entropy of the next token, the encoder's CTC loss and the guide of the attention."""
    mel = torch.from_numpy(batch.mel)
    text, places = torch.from_numpy(batch.text), torch.from_numpy(batch.places)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=HAS_BFLOAT16):
        logits, spelled = model(mel, text, places, settled=settled)
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
    astray = missed_attention(model.attention(), torch.from_numpy(batch.heard))
    return spoken + CTC_WEIGHT * ctc + GUIDE_WEIGHT * astray


def missed_attention(attention: Tensor, heard: Tensor) -> Tensor:
    """Mean of -log of the attention's share between the positions where each target is heard.

    ``attention`` (B, H, L, E) in logarithms; ``heard`` (B, L, 2), negative where nothing is.
    """
    at = torch.arange(attention.shape[-1])
    inside = (at >= heard[..., :1].floor()) & (at <= heard[..., 1:].ceil())  # (B, L, E)
    sought = (heard[..., 0] >= 0.0) & inside.any(dim=-1)
    share = attention.masked_fill(~inside[:, None], -30.0).logsumexp(dim=-1)  # (B, H, L)
    return -share.mean(dim=1)[sought].sum() / sought.sum().clamp(min=1)


def draw(batches: Batches, random: np.random.Generator, share_done: float) -> Batch:
    """One batch of a kind chosen by chance; packed and whole windows become commoner."""
    early, late = np.array(SHARES_EARLY), np.array(SHARES_LATE)
    mixed = min(1.0, 2.0 * share_done)
    kind = KINDS[int(random.choice(len(KINDS), p=early + mixed * (late - early)))]
    frames = data.WINDOW_FRAMES if kind.whole else None
    if kind.packed is None:
        batch = batches.alone(kind.size, sentences=kind.sentences, frames=frames)
    else:
        shortest, longest = kind.packed
        batch = batches.packed(kind.size, shortest=shortest, longest=longest, frames=frames)
    return replace(batch, text=misheard(batch.text, random))


def misheard(text: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """The decoder's input with a few other words in it, and times that are a tenth off.

    What it has written so far will not always be right; it should listen all the same.
    """
    shape = text.shape
    words = (text < tokens.EOT) & (random.random(shape) < WRONG_WORDS)
    times = (text >= tokens.FIRST_TIMESTAMP) & (random.random(shape) < WRONG_TIMES)
    shifted = text + random.choice((-1, 1), size=shape)
    shifted = np.clip(shifted, tokens.FIRST_TIMESTAMP, tokens.COMPACT_SIZE - 1)
    text = np.where(words, random.integers(0, tokens.EOT, size=shape), text)
    return np.where(times, shifted, text)


def optimizer_of(model: ToyWhisper) -> torch.optim.AdamW:
    """AdamW that decays matrices only: the held channel of the last layer norm must stay 1."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_LEARNING_RATE, betas=(0.9, 0.98), fused=True)


def step(
    model: ToyWhisper,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    lr: float,
    *,
    settled: bool = True,
) -> float:
    """One update; returns the loss."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    loss = loss_of(model, batch, settled=settled)
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
        mel = np.zeros((len(part), 80, longest + longest % 2 + 2 * EDGE_FRAMES), dtype=np.float32)
        for row, sentence in enumerate(part):
            picture = data.normalised(np.float32(10.0) ** sentence.mel.astype(np.float32))
            mel[row] = picture.max() - data.DYNAMIC_RANGE / 4.0
            mel[row, :, EDGE_FRAMES : EDGE_FRAMES + picture.shape[1]] = picture
        heard += [tokens.decode(ids) for ids in model.recognise(torch.from_numpy(mel))]
        said += [tokens.decode(list(sentence.words)) for sentence in part]
    model.train()
    return word_errors(said, heard).wer


def packed_error_rate(model: ToyWhisper, windows: Batch, said: list[list[Said]]) -> float:
    """Word error rate in packed windows, each sentence compared with what was heard in its time."""
    from kamerton.metrics.intelligibility import word_errors

    model.eval()
    given, heard = [], []
    answers = model.recognise(torch.from_numpy(windows.mel), longest=150, timestamps=True)
    for answer, sentences in zip(answers, said, strict=True):
        given += [tokens.decode(list(sentence.words)) for sentence in sentences]
        heard += by_time(answer, sentences)
    model.train()
    return word_errors(given, heard).wer


def by_time(ids: list[int], sentences: list[Said]) -> list[str]:
    """For each sentence the words that ``ids`` put nearest to its middle."""
    middles = np.array([(sentence.start + sentence.end) / 2 for sentence in sentences])
    heard: list[list[int]] = [[] for _ in sentences]
    start, words = 0.0, []
    for token in [*ids, tokens.timestamp(30.0)]:
        if token < tokens.FIRST_TIMESTAMP:
            words.append(token)
            continue
        time = tokens.seconds_of(token)
        heard[int(np.abs(middles - (start + time) / 2).argmin())] += words
        start, words = time, []
    return [tokens.decode(part) for part in heard]


@dataclass(frozen=True, slots=True)
class TrainingState:
    """The weights after so many steps and rounds of so many minutes.

    ``initial`` is the SHA-256 of the checkpoint the first round started from, None if from nothing.
    """

    weights: dict[str, Tensor]
    steps: int
    minutes: tuple[float, ...]
    initial: str | None = None

    def save(self, path: Path) -> None:
        """Write atomically."""
        buffer = io.BytesIO()
        names = ("weights", "steps", "minutes", "initial")
        torch.save({name: getattr(self, name) for name in names}, buffer)
        write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> TrainingState:
        """Read what :meth:`save` wrote."""
        return cls(**torch.load(path, weights_only=True))


def train(
    plan: TrainingPlan,
    work: Path,
    log: Callable[[str], None],
    *,
    bank: list[data.Sentence] | None = None,
) -> TrainingState:
    """Train for ``plan.minutes``; ``work`` holds the latest state, renewed every two minutes.

    From a training state it goes on in the middle of its schedule. ``bank`` saves synthesising the
    material when it is there already.
    """
    torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)
    bank = synthesise(plan, log) if bank is None else bank
    examined = data.sentence_bank(48, seed=plan.seed + 1000, part="corpus")
    model = ToyWhisper()
    before = begin(model, plan.initial)
    settling = SETTLING_STEPS if plan.initial and not before.minutes else 0
    optimizer = optimizer_of(model)
    seed = plan.seed + len(before.minutes)
    batches, random = Batches(bank, seed=seed), np.random.default_rng(seed)

    def state(minutes: float) -> TrainingState:
        rounds = (*before.minutes, minutes)
        steps = before.steps + len(losses)
        return TrainingState(model.state_dict(), steps, rounds, before.initial)

    losses: list[float] = []
    began, reported = time.monotonic(), 0.0
    while (spent := (time.monotonic() - began) / 60.0) < plan.minutes:
        share = spent / plan.minutes
        if before.minutes:
            share = (1.0 + share) / 2.0
        rate = learning_rate(share, len(losses))
        batch = draw(batches, random, share)
        losses.append(step(model, optimizer, batch, rate, settled=len(losses) >= settling))
        if len(losses) % 100 == 0:
            log(f"step {len(losses)}, {spent:.1f} min, loss {np.mean(losses[-100:]):.3f}")
        if spent - reported >= EXAMINE_EVERY_MINUTES:
            reported = spent
            state(spent).save(work)
            log(examination(model, examined))
    final = state(plan.minutes)
    final.save(work)
    log(examination(model, examined))
    return final


def begin(model: ToyWhisper, initial: Path | None) -> TrainingState:
    """Fill the network from ``initial``; what was done before, without weights."""
    if initial is None:
        return TrainingState({}, 0, ())
    if "weights" not in torch.load(initial, map_location="cpu", weights_only=True):
        model.start_from(initial)
        return TrainingState({}, 0, (), sha256_file(initial))
    state = TrainingState.load(initial)
    model.load_state_dict(state.weights)
    return replace(state, weights={})


def examination(model: ToyWhisper, bank: list[data.Sentence]) -> str:
    """A line for the log from a bank that was not trained on."""
    originals, again = word_error_rate(model, bank[0::3]), word_error_rate(model, bank[1::3])
    windows, said = Batches(bank[0::3] + bank[2::3], seed=0).examination(8)
    packed = packed_error_rate(model, windows, said)
    return (
        f"WER of originals {originals:.1%}, of resyntheses (most of them degraded) {again:.1%}, "
        f"of packed windows {packed:.1%}"
    )


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
