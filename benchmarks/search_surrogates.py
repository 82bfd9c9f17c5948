"""Seeded objectives that are shaped like the search for a voice's hyperparameters.

Every task searches the default space of ``config/search_space.py``: five of its eight dimensions
matter much or somewhat, the others little or not at all, and which choice is better differs from
task to task. A trial is a learning curve of ten evaluations, as a trainer records them:

* validation loss falls to a plateau at once, stays there until attention aligns, and only then
  falls to what the hyperparameters allow. When it aligns depends on the learning rate and on luck,
  so that before it losses rank trials by luck, and by the wrong things: little dropout and a high
  learning rate look better early.
* every evaluation is noisy, and so is every run as a whole.
* too high a learning rate diverges (not a number) after a while; weak clipping and large batches
  move the border. Too low a learning rate never aligns.
* the best learning rate depends on the batch and on the decoder's size, the best dropout on both
  sizes, the effect of clipping on the learning rate.

The constants below were written before any sampler ran on them.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from kamerton.config.schema import Params
from kamerton.config.search_space import Choice, Dimension, default_search_space, lookup
from kamerton.smart_tuner.objective import Objective, ObjectiveError
from kamerton.smart_tuner.opt_engine import Evaluation
from kamerton.tracking.names import ATTENTION_SCORE, GATE_F1, VAL_MEL_LOSS

STEPS = 5000  # of a trial, the default of tune.trial_steps
EVALUATIONS = 10
_UNTRAINED, _PLATEAU = 6.0, 1.6  # validation loss at the start, and before attention aligns
_REFERENCE_SAMPLES = 3000

Config = Mapping[str, Choice]
SPACE: dict[str, Dimension] = default_search_space()
BASELINE: dict[str, Choice] = {name: lookup(Params(), name) for name in SPACE}


@dataclass(frozen=True, slots=True)
class Task:
    """One dataset's truth; lengths are in decades of the learning rate and shares of a trial."""

    best_rate: float  # log10, at batch 32 and the small decoder
    rate_by_batch: float  # decades per doubling of the batch
    rate_by_decoder: float
    best_dropout: float
    dropout_by_size: float
    decay_border: float  # log10; harmless below
    encoder_gain: float  # of the large one; negative: it does harm
    decoder_gain: float
    batch_slope: float  # per doubling
    best_clip: float
    clip_weight: float
    mel_effects: tuple[float, float, float]
    floor: float  # validation loss of the best
    border: float  # decades above the best rate from which runs diverge
    alignment: float  # share of a trial at the best rate
    run_noise: float
    evaluation_noise: float

    def similar(self, rng: np.random.Generator) -> "Task":
        """Another dataset of the same kind: everything moved by about a third of its spread."""

        def moved(value: float, spread: float) -> float:
            return float(value + rng.normal(0.0, spread))

        return replace(
            self,
            best_rate=moved(self.best_rate, 0.12),
            best_dropout=min(max(moved(self.best_dropout, 0.04), 0.0), 0.5),
            decay_border=moved(self.decay_border, 0.3),
            encoder_gain=moved(self.encoder_gain, 0.03),
            decoder_gain=moved(self.decoder_gain, 0.03),
            batch_slope=moved(self.batch_slope, 0.03),
            best_clip=moved(self.best_clip, 0.1),
            floor=self.floor * math.exp(rng.normal(0.0, 0.2)),
            alignment=min(max(moved(self.alignment, 0.04), 0.1), 0.5),
        )


def make_task(seed: int) -> Task:
    """The task of a seed."""
    rng = np.random.default_rng([20, seed])
    mel = rng.normal(0.0, 0.01, 3)
    return Task(
        best_rate=rng.normal(-3.3, 0.35),
        rate_by_batch=rng.uniform(0.1, 0.4),
        rate_by_decoder=-rng.uniform(0.0, 0.3),
        best_dropout=rng.uniform(0.05, 0.4),
        dropout_by_size=rng.uniform(0.0, 0.12),
        decay_border=rng.uniform(-6.0, -4.0),
        encoder_gain=rng.normal(0.05, 0.1),
        decoder_gain=rng.normal(0.05, 0.1),
        batch_slope=rng.normal(0.0, 0.1),
        best_clip=rng.uniform(0.7, 1.3),
        clip_weight=rng.uniform(0.05, 0.3),
        mel_effects=(float(mel[0]), float(mel[1]), float(mel[2])),
        floor=rng.uniform(0.25, 0.5),
        border=rng.uniform(0.5, 1.1),
        alignment=rng.uniform(0.15, 0.35),
        run_noise=rng.uniform(0.005, 0.02),
        evaluation_noise=rng.uniform(0.01, 0.03),
    )


@dataclass(frozen=True, slots=True)
class Course:
    """What a configuration does on a task, without luck."""

    deficit: float  # 0 best; about 1 a bad run
    above_best_rate: float  # decades
    over_border: float  # decades; above 0 it diverges
    alignment: float  # share of a trial
    early_gain: float  # how much better it looks before it aligns


def course(task: Task, config: Config) -> Course:
    """How training goes with a configuration."""
    number = {
        name: float(value)
        for name, value in config.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    batch = math.log2(number["train.batch_size"] / 32)
    encoder = float(number["train.model.encoder_embedding_dim"] >= 512)
    decoder = float(number["train.model.decoder_rnn_dim"] >= 1024)
    dropout, clip = number["train.decoder_dropout"], number["train.grad_clip_thresh"]
    decay = math.log10(max(number["train.weight_decay"], 1e-10))
    best_rate = task.best_rate + task.rate_by_batch * batch + task.rate_by_decoder * decoder
    above = math.log10(number["train.learning_rate"]) - best_rate
    best_dropout = task.best_dropout + task.dropout_by_size * (encoder + decoder - 1.0)
    clip_off = clip - task.best_clip
    mel = SPACE["audio.mel_fmax_hz"].choices or ()
    deficit = (
        (0.9 if above > 0 else 0.5) * above**2
        + 3.0 * (dropout - best_dropout) ** 2
        + 0.06 * max(0.0, decay - task.decay_border) ** 2
        + max(0.0, task.encoder_gain) - task.encoder_gain * encoder
        + max(0.0, task.decoder_gain) - task.decoder_gain * decoder
        + task.batch_slope * batch + abs(task.batch_slope) * 0.6
        + task.clip_weight * clip_off**2 * (1.0 + 2.0 * max(0.0, above))
        + task.mel_effects[mel.index(config["audio.mel_fmax_hz"])] + 0.02
    )  # fmt: skip
    late = 0.25 * max(0.0, -above) + 0.1 * max(0.0, dropout - 0.3) * 4.0
    return Course(
        deficit=max(0.0, deficit),
        above_best_rate=above,
        over_border=above - (task.border - 0.3 * (clip - 1.0) + 0.1 * batch),
        alignment=task.alignment + late,
        early_gain=0.15 * (0.3 - dropout) + 0.06 * above,
    )


def _values(task: Task, way: Course, share: float, alignment: float) -> dict[str, float]:
    """What would be measured after this share of a trial, without noise."""
    spread = _PLATEAU - task.floor
    final = task.floor + spread * (1.0 - math.exp(-way.deficit))
    start = _UNTRAINED * math.exp(-share / 0.03)
    plateau = max(final, _PLATEAU - way.early_gain - 0.1 * share)
    aligned = 1.0 / (1.0 + math.exp(-(share - alignment) / 0.02))
    since = max(0.0, share - alignment)
    learned = final + (plateau - final) * math.exp(-since / 0.2)
    clean = math.exp(-0.5 * way.deficit)  # how clean attention and stops become
    return {
        VAL_MEL_LOSS: start + learned,
        ATTENTION_SCORE: 0.05 + 0.85 * aligned * clean * (1.0 - math.exp(-since / 0.15)),
        GATE_F1: 0.1 + 0.85 * clean * (1.0 - math.exp(-share / 0.3)) * (0.5 + 0.5 * aligned),
    }


def run(task: Task, config: Config, luck: np.random.Generator) -> Iterator[Evaluation]:
    """The evaluations of a training run, one after the other; equal ``luck``, equal run."""
    way = course(task, config)
    offset = luck.normal(0.0, task.run_noise)
    alignment = way.alignment * math.exp(luck.normal(0.0, 0.25))
    diverges_at = luck.uniform(0.05, 0.7) * math.exp(-way.over_border)
    for index in range(1, EVALUATIONS + 1):
        share = index / EVALUATIONS
        noise = luck.normal(0.0, 1.0, 3)
        values = _values(task, way, share, alignment)
        values[VAL_MEL_LOSS] *= math.exp(offset + task.evaluation_noise * noise[0])
        values[ATTENTION_SCORE] += 0.02 * noise[1]
        values[GATE_F1] += 0.02 * noise[2]
        if way.over_border > 0 and share >= diverges_at:
            values[VAL_MEL_LOSS] = math.nan
        yield Evaluation(round(share * STEPS), values)


def true_objective(task: Task, config: Config) -> float:
    """J of the configuration's best evaluation if nothing were left to luck; 2 if it diverges."""
    way = course(task, config)
    if way.over_border > 0:
        return 2.0
    scale = Objective.freeze(_values(task, course(task, BASELINE), 1.0, task.alignment))
    shares = [index / EVALUATIONS for index in range(1, EVALUATIONS + 1)]
    return min(scale(_values(task, way, share, way.alignment)) for share in shares)


def fixed_scale(task: Task) -> Objective:
    """The objective with the baseline's true values: for methods that run no baseline."""
    way = course(task, BASELINE)
    return Objective.freeze(_values(task, way, 1.0, way.alignment))


def score(scale: Objective, evaluation: Evaluation) -> float | None:
    """J of an evaluation; None where training went wrong."""
    try:
        return scale(evaluation.values)
    except ObjectiveError:
        return None


def random_config(rng: np.random.Generator) -> dict[str, Choice]:
    """A configuration drawn evenly, from the logarithm where the space says so."""
    config: dict[str, Choice] = {}
    for name, dimension in SPACE.items():
        if dimension.choices is not None:
            config[name] = dimension.choices[int(rng.integers(len(dimension.choices)))]
            continue
        low, high = dimension.bounds
        share = float(rng.uniform())
        config[name] = low * (high / low) ** share if dimension.log else low + (high - low) * share
    return config


@dataclass(frozen=True, slots=True)
class Reference:
    """What normalises regret: 0 is the best, 1 the median of random configurations."""

    best: float
    median: float

    def regret(self, objective: float) -> float:
        """Normalised regret of a true objective."""
        return (objective - self.best) / (self.median - self.best)


def reference(task: Task) -> Reference:
    """Best and median of a task, by many random configurations and a local search from the best."""
    rng = np.random.default_rng(7)
    found = [random_config(rng) for _ in range(_REFERENCE_SAMPLES)]
    values = [true_objective(task, config) for config in found]
    best = min(range(len(found)), key=values.__getitem__)
    config, value = found[best], values[best]
    for round_number in range(_REFERENCE_SAMPLES // 2):
        near = _neighbour(config, rng, 0.3 * 0.997**round_number)
        if (near_value := true_objective(task, near)) < value:
            config, value = near, near_value
    return Reference(value, float(np.median(values)))


def _neighbour(config: Config, rng: np.random.Generator, width: float) -> dict[str, Choice]:
    """A configuration beside this one: ranges moved by ``width`` of them, a choice redrawn."""
    near = dict(config)
    for name, dimension in SPACE.items():
        if dimension.choices is not None:
            if rng.uniform() < 0.1:
                near[name] = dimension.choices[int(rng.integers(len(dimension.choices)))]
            continue
        low, high = dimension.bounds
        value = near[name]
        assert isinstance(value, float)
        move = float(rng.normal(0.0, width))
        moved = value * (high / low) ** move if dimension.log else value + (high - low) * move
        near[name] = min(max(moved, low), high)
    return near
