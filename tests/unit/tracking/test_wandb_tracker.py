import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kamerton.report.figures import new_figure, to_png
from kamerton.tracking.wandb_tracker import WandbTracker


class FakeRun:
    """What the tracker uses of a W&B run."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.logged: list[tuple[dict[str, Any], int]] = []
        self.summary: dict[str, Any] = {}
        self.settings: dict[str, Any] = {}
        self.exit_code: int | None = None
        self.config = SimpleNamespace(update=self._update)

    def _update(self, values: dict[str, Any], *, allow_val_change: bool) -> None:
        assert allow_val_change
        self.settings.update(values)

    def log(self, values: dict[str, Any], *, step: int) -> None:
        self.logged.append((values, step))

    def finish(self, *, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for the package, which is an extra; `init`, `Image`, `Audio` are all we call."""
    module = SimpleNamespace(runs=[])

    def init(**options: Any) -> FakeRun:
        module.runs.append(FakeRun(options))
        return module.runs[-1]

    module.init = init
    module.Image = lambda picture: ("image", picture.size)
    module.Audio = lambda wave, sample_rate: ("audio", len(wave), sample_rate)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_everything_goes_to_one_run_named_after_the_directory(
    wandb: SimpleNamespace, tmp_path: Path
) -> None:
    tracker = WandbTracker(tmp_path / "run-1", project="voice")
    tracker.log_params({"train": {"steps": 5, "api_key": "abcdefgh"}})
    tracker.log_metrics({"loss": 1.0}, 3)
    tracker.log_event("best", step=3, value=0.5)
    tracker.log_figure("attention", to_png(new_figure(2, 1)[0]), 3)
    tracker.log_audio("sample", np.zeros(8, np.float32), 8000, 3)
    tracker.log_text("note", "words", 3)
    tracker.flush()
    tracker.close("failed")

    (run,) = wandb.runs
    assert run.options["id"] == "run-1"
    assert run.options["project"] == "voice"
    assert run.options["resume"] == "allow"
    assert run.settings == {"train": {"steps": 5, "api_key": "***"}}
    assert run.logged == [
        ({"loss": 1.0}, 3),
        ({"attention": ("image", (220, 110))}, 3),
        ({"sample": ("audio", 8, 8000)}, 3),
    ]
    assert run.summary["event/best"] == {"step": 3, "value": 0.5}
    assert run.summary["note"] == {"step": 3, "text": "words"}
    assert run.exit_code == 1
