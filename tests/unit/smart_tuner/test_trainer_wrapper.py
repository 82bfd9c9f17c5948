import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from kamerton.smart_tuner.opt_engine import Evaluation
from kamerton.smart_tuner.trainer_wrapper import TrainerOutcome, TrainerWrapper, Watch
from kamerton.tracking import RunDirectory, list_runs

TRAIN = {
    "learning_rate": 1e-3,
    "decoder_dropout": 0.1,
    "max_steps": 50,
    "eval_interval_steps": 10,
}


@dataclass
class Seen:
    """Collects what a watcher is told."""

    enough_at: int = 10**9
    stop: Callable[[], bool] = lambda: False
    evaluations: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    runs: list[RunDirectory] = field(default_factory=list)

    def take(self, evaluation: Evaluation) -> bool:
        self.evaluations.append(evaluation.step)
        return evaluation.step >= self.enough_at

    def watch(self) -> Watch:
        return Watch(self.take, self.steps.append, self.runs.append, lambda: self.stop())


def wrap(tmp_path: Path, command: list[str], **more: float) -> TrainerWrapper:
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump({"train": TRAIN}))
    runs = tmp_path / "runs"
    return TrainerWrapper(
        [*command, "--params", str(file), "--runs", str(runs)],
        runs=runs,
        log=tmp_path / "trainer.log",
        poll_seconds=0.02,
        **more,
    )


def alive(marker: str) -> list[str]:
    found = subprocess.run(
        ["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True
    ).stdout
    return [line for line in found.splitlines() if marker in line]


def test_everything_recorded_is_passed_on_once_and_in_order(
    tmp_path: Path, fake_trainer: list[str]
) -> None:
    seen = Seen()
    assert wrap(tmp_path, fake_trainer).run(seen.watch()) == TrainerOutcome("finished")
    assert seen.evaluations == [10, 20, 30, 40, 50]
    assert seen.steps[-1] == 50
    assert [run.status().state for run in seen.runs] == ["finished"]


def test_a_finished_run_is_read_and_not_run_again(tmp_path: Path, fake_trainer: list[str]) -> None:
    wrap(tmp_path, fake_trainer).run(Seen().watch())
    seen = Seen()
    assert wrap(tmp_path, ["/nowhere/trainer"]).run(seen.watch()).ending == "finished"
    assert seen.evaluations == [10, 20, 30, 40, 50]


def test_a_trainer_that_is_not_worth_it_is_stopped_gracefully(
    tmp_path: Path, fake_trainer: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STEP_SECONDS", "0.02")
    seen = Seen(enough_at=20)
    outcome = wrap(tmp_path, fake_trainer).run(seen.watch())
    assert outcome == TrainerOutcome("ended", 75)
    assert seen.evaluations == [10, 20]
    assert list_runs(tmp_path / "runs")[0].status().state == "stopped"


def test_a_trainer_is_ended_when_it_did_what_it_was_started_for(
    tmp_path: Path, fake_trainer: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STEP_SECONDS", "0.02")
    seen = Seen()
    watch = dataclasses.replace(seen.watch(), enough=lambda: seen.evaluations == [10])
    assert wrap(tmp_path, fake_trainer).run(watch) == TrainerOutcome("ended", 75)
    assert 10 <= list_runs(tmp_path / "runs")[0].status().step < 50


def test_a_request_to_stop_reaches_the_trainer_and_it_can_go_on(
    tmp_path: Path, fake_trainer: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STEP_SECONDS", "0.02")
    seen = Seen()
    seen.stop = lambda: bool(seen.evaluations)
    assert wrap(tmp_path, fake_trainer).run(seen.watch()) == TrainerOutcome("stopped", 75)
    stopped_at = list_runs(tmp_path / "runs")[0].status().step
    assert 10 <= stopped_at < 50
    monkeypatch.setenv("FAKE_STEP_SECONDS", "0")
    again = Seen()
    assert wrap(tmp_path, fake_trainer).run(again.watch()).ending == "finished"
    assert again.evaluations == [10, 20, 30, 40, 50]
    assert len(list_runs(tmp_path / "runs")) == 1


def test_a_trainer_that_ignores_signals_is_killed_in_the_end(
    tmp_path: Path, fake_trainer: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STEP_SECONDS", "0.05")
    monkeypatch.setenv("FAKE_IGNORE_SIGNALS", "1")
    outcome = wrap(tmp_path, fake_trainer, grace_seconds=0.2).run(Seen(enough_at=10).watch())
    assert outcome == TrainerOutcome("ended", -signal.SIGKILL)


def test_a_trainer_killed_by_others_is_started_again(
    tmp_path: Path, fake_trainer: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_DIE_AT", "25")
    seen = Seen()
    assert wrap(tmp_path, fake_trainer).run(seen.watch()).ending == "finished"
    assert seen.evaluations == [10, 20, 30, 40, 50]
    assert len(list_runs(tmp_path / "runs")) == 1


def test_a_trainer_that_always_dies_fails_after_a_few_starts(tmp_path: Path) -> None:
    code = f"import os; open({str(tmp_path / 'starts')!r}, 'a').write('x'); os.kill(os.getpid(), 9)"
    outcome = wrap(tmp_path, [sys.executable, "-c", code]).run(Seen().watch())
    assert (outcome.ending, outcome.exit_code) == ("failed", -9)
    assert (tmp_path / "starts").read_text() == "xxxx"


def test_a_failure_comes_with_its_last_words(
    tmp_path: Path, fake_trainer: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_EXIT", "3")
    outcome = wrap(tmp_path, fake_trainer).run(Seen().watch())
    assert outcome == TrainerOutcome("failed", 3, "error: nothing works here")


def test_the_trainer_is_gone_when_the_watcher_raises(
    tmp_path: Path, fake_trainer: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STEP_SECONDS", "0.05")

    def interrupt() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wrap(tmp_path, fake_trainer).run(Seen(stop=interrupt).watch())
    assert alive(str(tmp_path)) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_the_trainer_dies_with_a_tuner_that_is_killed(
    tmp_path: Path, fake_trainer: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STEP_SECONDS", "0.2")
    monkeypatch.setenv("DVC_STAGE", "tune")  # must not make the trainer choose another end
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"train": TRAIN}))
    runs = tmp_path / "runs"
    command = [*fake_trainer, "--params", str(tmp_path / "params.yaml"), "--runs", str(runs)]
    code = (
        "import sys; from pathlib import Path\n"
        "from kamerton.smart_tuner.trainer_wrapper import TrainerWrapper, Watch\n"
        f"w = TrainerWrapper({command!r}, runs=Path({str(runs)!r}),"
        f" log=Path({str(tmp_path / 'log')!r}))\n"
        "nothing = lambda *_: None\n"
        "w.run(Watch(lambda _: False, nothing, nothing, lambda: False))\n"
    )
    tuner = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 20
        while not list_runs(runs) and time.monotonic() < deadline:
            time.sleep(0.05)
        found = alive("fake_trainer.py --params " + str(tmp_path))
    finally:
        os.kill(tuner.pid, signal.SIGKILL)
        tuner.wait()
    assert len(found) == 1
    deadline = time.monotonic() + 5
    while alive("fake_trainer.py --params " + str(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert alive("fake_trainer.py --params " + str(tmp_path)) == []
