"""What is attached to a run, by its parameters."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kamerton.config.schema import Params
from kamerton.smart_tuner.early_stop import known_drops
from kamerton.stages.steering import steering
from kamerton.tracking import RunDirectory
from kamerton.training.distributed import World


def session(params: Params, runs: Path, *, trial: bool = False) -> Any:
    resolved = params.model_copy(update={"train": params.train.resolved()})
    data = SimpleNamespace(device=SimpleNamespace(type="cpu"), steps_per_epoch=10)
    card = {"content_sha256": "d" * 64}
    return SimpleNamespace(
        params=resolved, trial=trial, world=World(), runs=runs, total_steps=700, data=data,
        dataset=SimpleNamespace(card=card),
    )  # fmt: skip


def attached(tmp_path: Path, *, trial: bool = False, **train: Any) -> list[str]:
    params = Params.model_validate({"train": train})
    run = RunDirectory.create(tmp_path, name="voice", fingerprint="f" * 8, params={})
    with steering(session(params, tmp_path, trial=trial), run, tmp_path / "analysis.json") as all_:
        return [hook.name for hook in all_.hooks]


def test_everything_is_attached_that_the_parameters_ask_for(tmp_path: Path) -> None:
    plain = attached(tmp_path)
    assert plain == ["gradient_stability", "early_stop", "quality_forecast", "alerts"]
    assert "early_stop" not in attached(tmp_path, early_stopping={"enabled": False})
    assert "quality_controller" in attached(tmp_path, preset="quality")
    assert "quality_controller" in attached(tmp_path, quality_control={"enabled": True})
    assert "batch_size" in attached(tmp_path, batch_size_adaptation={"enabled": True})
    assert "quality_forecast" not in attached(tmp_path, trial=True)


@pytest.mark.parametrize(
    ("train", "drops"),
    [
        ({}, ()),
        ({"phases": {"count": 0}}, ()),
        # Where a phase with a goal ends, nobody knows beforehand.
        ({"phases": {"learning_rate_factors": (1.0, 0.5, 0.1, 0.05)}}, (600,)),
        ({"phases": {"learning_rate_factors": (1.0, 1.0, 0.9, 0.45)}}, (600,)),
        ({"phases": {"count": 3, "learning_rate_factors": (1.0, 0.5, 0.1, 0.01)}}, ()),
        ({"phases": {"count": 0}, "changes": [{"from_share": 0.5, "learning_rate": 0.5}]}, (350,)),
        ({"phases": {"count": 0}, "changes": [{"from_share": 0.5, "dropout": 0.5}]}, ()),
    ],
)
def test_known_falls_of_the_learning_rate(train: dict[str, Any], drops: tuple[int, ...]) -> None:
    assert known_drops(Params.model_validate({"train": train}).train, 700) == drops


def test_only_the_main_process_is_steered(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, name="voice", fingerprint="f" * 8, params={})
    other = session(Params(), tmp_path)
    other.world = SimpleNamespace(main=False)
    with steering(other, run, tmp_path / "analysis.json") as steered:
        assert steered.hooks == []
        steered.begins(run, 700)  # tells nobody
