"""``train.changes`` hold from their step on, whatever a checkpoint remembers."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kamerton.config.change_classes import class_of, require_hot
from kamerton.config.changes import CHANGEABLE, factors_at
from kamerton.config.schema import TrainParams
from kamerton.core.errors import ParamsError, StoppedError
from kamerton.core.stop import StopRequest
from kamerton.data.manifest import Dataset
from kamerton.tracking import RunDirectory, read_records
from kamerton.training.checkpoint import read_checkpoint
from kamerton.training.made_with import MADE_WITH, is_to_be_told
from kamerton.training.schedule import controls_at, learning_rate
from kamerton.training.session import Session, fixed_threads
from kamerton.training.state import RecoveryState, TrainState
from kamerton.training.step import Trainee
from tests.tiny_corpus import tiny_params, write_tiny_dataset

TOTAL = 8
HALF = [{"from_share": 0.5, "learning_rate": 0.5, "weight_decay": 3.0, "dropout": 0.0,
         "guided_attention_weight": 0.25}]  # fmt: skip


@pytest.fixture(autouse=True)
def _fixed_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kamerton.training.fingerprint.code_digest", lambda: "fixed")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.open(write_tiny_dataset(tmp_path_factory.mktemp("corpus") / "dataset"))


def go(dataset: Dataset, runs: Path, *, stop_at: int | None = None, resume: bool = False,
       **train: Any) -> RunDirectory:  # fmt: skip
    given = {
        "max_steps": TOTAL, "eval_interval_steps": 4, "checkpoint_interval_steps": 2,
        "phases": {"count": 0}, "monitoring": {"log_interval_steps": 1}, "weight_decay": 0.01,
        "early_stopping": {"enabled": False}, **train,
    }  # fmt: skip
    work = Session.prepare(dataset, 50, tiny_params(**given), runs=runs, threads=1, trial=True)
    stop = StopRequest()

    def progress(done: float, total: float, note: str = "") -> None:
        stop.requested = stop_at is not None and done >= stop_at - 1

    run = work.find_run(resume=resume, anew=False)
    with fixed_threads(work.params.train), run.hold():
        try:
            work.train(run, stop=stop, on_progress=progress)
        except StoppedError:
            assert stop_at is not None
    return run


@pytest.fixture(scope="module")
def unchanged(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return go(dataset, tmp_path_factory.mktemp("unchanged"), max_steps=3)


def series(run: RunDirectory, name: str) -> dict[int, float]:
    return {
        record.step: record.values[name]
        for record in read_records(run.metrics_file)
        if record.step is not None and name in record.values
    }


def told(run: RunDirectory) -> dict[int | None, dict[str, Any]]:
    records = read_records(run.metrics_file)
    return {record.step: record.fields for record in records if record.name == MADE_WITH}


def weights(run: RunDirectory) -> dict[str, torch.Tensor]:
    return dict(read_checkpoint(run.checkpoints / "last.pt")["model"])


def require_equal(one: RunDirectory, other: RunDirectory) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_from_their_step_on_the_run_is_made_with_them(dataset: Dataset, tmp_path: Path) -> None:
    run = go(dataset, tmp_path, changes=HALF)
    train = tiny_params(max_steps=TOTAL, weight_decay=0.01).train
    assert series(run, "learning_rate") == {
        step: learning_rate(step - 1, TOTAL, train) * (0.5 if step > 4 else 1.0)
        for step in range(1, TOTAL + 1)
    }
    raw, weighted = (series(run, f"train_guided_attention_{kind}") for kind in ("loss", "weighted"))
    for step, value in raw.items():
        factor = 0.25 if step > 4 else 1.0
        assert weighted[step] == pytest.approx(factor * train.guided_attention_weight * value)
    found = told(run)
    assert list(found) == [1, 5]
    factors = {name: facts["factor"] for name, facts in found[5].items()}
    assert factors == pytest.approx(
        {"learning_rate": 0.5, "weight_decay": 3.0, "dropout": 0.0, "guided_attention_weight": 0.25}
    )
    assert found[5]["weight_decay"]["value"] == pytest.approx(0.03)
    assert found[5]["learning_rate"]["value"] == series(run, "learning_rate")[5]


@pytest.mark.parametrize(
    ("name", "factor", "train"),
    [
        ("learning_rate", 0.5, {"learning_rate": 0.5e-3}),
        ("weight_decay", 2.0, {"weight_decay": 0.02}),
        ("guided_attention_weight", 0.5, {"guided_attention_weight": 5.0}),
        ("dropout", 2.0, {"attention_dropout": 0.2, "decoder_dropout": 0.2}),
        ("dropout", 0.0, {"attention_dropout": 0.0, "decoder_dropout": 0.0}),
    ],
)  # fmt: skip
def test_a_factor_from_the_begin_is_another_value(
    dataset: Dataset, unchanged: RunDirectory, tmp_path: Path, name: str, factor: float,
    train: dict[str, float],
) -> None:  # fmt: skip
    changes = [{"from_share": 0.0, name: factor}]
    changed = go(dataset, tmp_path / "changed", changes=changes, max_steps=3)
    other = go(dataset, tmp_path / "other", max_steps=3, **train)
    require_equal(changed, other)
    with pytest.raises(AssertionError):
        require_equal(changed, unchanged)


@pytest.mark.parametrize("stop_at", [3, 5])
def test_an_interrupted_run_with_changes_is_the_undisturbed_one(
    dataset: Dataset, tmp_path: Path, stop_at: int
) -> None:
    whole = go(dataset, tmp_path / "whole", changes=HALF)
    broken = go(dataset, tmp_path / "broken", changes=HALF, stop_at=stop_at)
    assert go(dataset, tmp_path / "broken", changes=HALF) == broken
    require_equal(whole, broken)
    assert series(whole, "train_loss") == series(broken, "train_loss")


def test_a_run_can_be_given_changes_when_it_goes_on(dataset: Dataset, tmp_path: Path) -> None:
    """What generations do: an unchanged run up to a step, and another from there on."""
    whole = go(dataset, tmp_path / "whole", changes=HALF)
    later = go(dataset, tmp_path / "later", stop_at=4)
    assert later.status().step == 4
    assert go(dataset, tmp_path / "later", changes=HALF, resume=True) == later
    require_equal(whole, later)
    begun = [item.fields for item in read_records(later.metrics_file) if item.name == "effective"]
    assert [item["weight_decay"] for item in begun] == [0.01, pytest.approx(0.03)]
    assert list(told(later)) == [5]  # the first step it makes with them


def test_an_optimiser_that_keeps_old_values_is_seen(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault of PBT in other tools: a restored checkpoint wins over what was asked."""
    real = Trainee.take

    def forgetful(self: Trainee, controls: Any) -> None:
        kept = [(group["lr"], group["weight_decay"]) for group in self.optimizer.param_groups]
        real(self, controls)
        for group, (rate, decay) in zip(self.optimizer.param_groups, kept, strict=True):
            group["lr"], group["weight_decay"] = rate, decay

    monkeypatch.setattr(Trainee, "take", forgetful)
    run = go(dataset, tmp_path, changes=HALF)
    facts = told(run)[5]
    assert facts["weight_decay"]["factor"] == pytest.approx(1.0)
    assert facts["learning_rate"]["factor"] != pytest.approx(0.5)


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.sampled_from(CHANGEABLE), st.floats(0.1, 4)), max_size=5
    ),
    st.integers(0, 99),
)
def test_factors_are_products_of_what_has_begun(
    entries: list[tuple[float, str, float]], step: int
) -> None:
    plain = TrainParams(warmup_steps=0).resolved()
    changed = [{"from_share": share, name: factor} for share, name, factor in entries]
    train = TrainParams.model_validate({"warmup_steps": 0, "changes": changed}).resolved()
    state = TrainState(step=step, recovery=RecoveryState(learning_rate_factor=0.25))
    before, after = controls_at(state, 100, plain), controls_at(state, 100, train)
    for name in CHANGEABLE:
        product = math.prod(
            factor for share, which, factor in entries if which == name and step / 100 >= share
        )
        assert getattr(after, name) == pytest.approx(getattr(before, name) * product)
        assert factors_at(step / 100, train.changes).get(name, 1.0) == pytest.approx(product)


def test_owners_say_who_changed_what() -> None:
    train = TrainParams.model_validate({"changes": HALF}).resolved()
    controls = controls_at(TrainState(step=50), 100, train)
    assert {controls.owners[name] for name in CHANGEABLE} == {"changes"}
    assert controls.factors["weight_decay"] == 3.0
    troubled = TrainState(step=50, recovery=RecoveryState(learning_rate_factor=0.5))
    assert controls_at(troubled, 100, train).owners["learning_rate"] == "recovery"


def test_told_at_the_first_step_and_where_they_begin() -> None:
    train = TrainParams.model_validate({"changes": HALF})
    assert [step for step in range(10) if is_to_be_told(step, 3, 10, train)] == [3, 5]
    assert not any(is_to_be_told(step, 3, 10, TrainParams()) for step in range(10))


def test_changes_are_hot() -> None:
    assert class_of("train.changes", (), HALF) == "hot"
    require_hot([("train.changes", (), HALF), ("train.eval_interval_steps", 1, 2)])
    with pytest.raises(ParamsError, match=r"train\.batch_size \(warm\)"):
        require_hot([("train.batch_size", 1, 2), ("train.changes", (), HALF)])
