"""The hooks in a real training run: they steer it, and a killed run is steered as another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kamerton.config.stopping_section import EarlyStoppingParams
from kamerton.core.stop import StopRequest
from kamerton.data.manifest import Dataset
from kamerton.smart_tuner.batch_size import BatchSizeAdapter
from kamerton.smart_tuner.early_stop import EarlyStopController
from kamerton.smart_tuner.gradient_stability import PREFIX, USUAL, GradientStabilityMonitor
from kamerton.smart_tuner.quality_controller import QualityController
from kamerton.smart_tuner.quality_forecast import QualityForecast
from kamerton.tracking import Record, read_records
from kamerton.tracking.hooks import Hook, StepFacts
from kamerton.training.event_lines import happenings
from kamerton.training.hooks import LoopFacts
from kamerton.training.session import fixed_threads
from tests.tiny_corpus import tiny_params, write_tiny_dataset
from tests.unit.training.test_loop import (
    KilledError,
    assert_equal,
    only_run,
    outcome,
    session,
)

STEPS = 60
PARAMS = tiny_params(
    max_steps=STEPS, eval_interval_steps=6, checkpoint_interval_steps=12,
    phases={"count": 0}, recovery={"enabled": False},
    quality_control={
        "enabled": True, "interval_evaluations": 1, "trial_evaluations": 2,
        "cooldown_evaluations": 3,
    },
    batch_size_adaptation={"enabled": True, "increase_threshold": 0.0, "decrease_threshold": 99.0},
)  # fmt: skip


class Witness(QualityController):
    """Remembers what steps were made with, as nothing else does."""

    made: list[LoopFacts]

    def on_step(self, facts: StepFacts) -> None:
        assert isinstance(facts, LoopFacts)
        self.made.append(facts)
        super().on_step(facts)


def hooks() -> tuple[Witness, list[Hook]]:
    train = PARAMS.train.resolved()
    controller = Witness.of(train)
    controller.made = []
    return controller, [
        GradientStabilityMonitor(train.quality_control),
        controller,
        BatchSizeAdapter(train.batch_size_adaptation, train.batch_size),
        EarlyStopController.of(EarlyStoppingParams(min_evaluations=10**6), STEPS, interval=6),
        QualityForecast(),
    ]


def go(dataset: Dataset, runs: Path, *, die_at: int | None = None) -> Witness:
    def progress(done: float, total: float, note: str = "") -> None:
        if done == die_at:
            raise KilledError

    work = session(dataset, runs, PARAMS)
    run = work.find_run(resume=False, anew=False)
    controller, attached = hooks()
    with fixed_threads(work.params.train), run.hold():
        work.train(run, stop=StopRequest(), on_progress=progress, hooks=attached)
    return controller


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.open(write_tiny_dataset(tmp_path_factory.mktemp("corpus") / "dataset"))


@pytest.fixture(scope="module")
def undisturbed(
    dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Witness]]:
    runs = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kamerton.training.fingerprint.code_digest", lambda: "fixed")
        yield runs, go(dataset, runs)


def events(runs: Path, name: str) -> list[Record]:
    records = read_records(only_run(runs).metrics_file)
    return [record for record in records if record.kind == "event" and record.name == name]


def test_an_intervention_is_what_the_steps_after_it_are_made_with(
    undisturbed: tuple[Path, Witness],
) -> None:
    """An untrained network's attention is diffuse; it is told so, and guided twice as much."""
    runs, controller = undisturbed
    made = events(runs, "intervention")
    assert made
    first = made[0]
    assert first.step is not None
    assert first.fields["issue"] == "attention_diffuse"
    assert first.fields["parameter"] == "guided_attention_weight"
    effect = events(runs, "intervention_effect")[0]
    assert effect.step == first.step + 2 * 6
    usual = controller.made[0].controls.guided_attention_weight
    for facts in controller.made[: effect.step]:
        factor = 2.0 if facts.step > first.step else 1.0
        assert facts.controls.guided_attention_weight == factor * usual
    after = controller.made[effect.step].controls
    kept = effect.fields["outcome"] == "kept"
    assert after.guided_attention_weight == (2.0 if kept else 1.0) * usual
    others = events(runs, "intervention")[1:]
    gaps = [after.step - before.step for before, after in zip(made, others, strict=False)]  # type: ignore[operator]
    assert all(gap >= 3 * 6 for gap in gaps)


def test_a_report_says_it_in_words(undisturbed: tuple[Path, Witness]) -> None:
    lines = happenings(read_records(only_run(undisturbed[0]).metrics_file))
    begun = next(line for line in lines if line.what == "quality: attention diffuse")
    checked = next(line for line in lines if line.what == "quality: attention diffuse, checked")
    assert begun.action.startswith("guided attention weight from 1 to 2 times its value")
    assert checked.action in ("guided attention weight: kept", "guided attention weight: reverted")
    first = next(line for line in lines if line.what == "faults found")
    assert "attention diffuse" in first.why


def test_batches_grow_with_an_epoch_and_the_learning_rate_with_their_root(
    undisturbed: tuple[Path, Witness],
) -> None:
    runs, controller = undisturbed
    (asked,) = events(runs, "batch_scaled")
    assert asked.step == 54  # the first evaluation after 50 steps
    sizes = [facts.batch_size for facts in controller.made]
    larger = sizes.index(5.0)
    assert sizes == [4.0] * larger + [5.0] * (STEPS - larger)
    assert asked.step <= larger <= asked.step + 4
    factors = [facts.controls.factors["learning_rate"] for facts in controller.made]
    assert factors[larger - 1] == 1.0
    assert factors[larger] == pytest.approx(math.sqrt(1.25))


def test_gradients_are_measured_by_part(undisturbed: tuple[Path, Witness]) -> None:
    runs, controller = undisturbed
    records = [r for r in read_records(only_run(runs).metrics_file) if USUAL in r.values]
    assert [record.step for record in records] == list(range(6, STEPS + 1, 6))
    parts = {name.removeprefix(PREFIX) for name in records[0].values}
    assert {"embedding", "encoder", "prenet", "attention", "decoder", "gate", "postnet"} <= parts
    facts = controller.made[7]
    assert sum(norm**2 for norm in facts.module_norms.values()) == pytest.approx(
        facts.grad_norm**2, rel=1e-5
    )


def test_a_killed_run_is_steered_as_an_undisturbed_one(
    dataset: Dataset, tmp_path: Path, undisturbed: tuple[Path, Witness]
) -> None:
    with pytest.raises(KilledError):
        go(dataset, tmp_path, die_at=56)  # a change is on trial, and a batch size was asked for
    go(dataset, tmp_path)
    ours: Any = outcome(tmp_path)
    assert_equal(ours, outcome(undisturbed[0]))
    for name in ("intervention", "intervention_effect", "batch_scaled", "decision", "forecast"):
        told = [[(r.step, r.fields) for r in events(runs, name)]
                for runs in (tmp_path, undisturbed[0])]  # fmt: skip
        assert told[0] == told[1]
