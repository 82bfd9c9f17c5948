"""The warm loop on a trainer that takes no time."""

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from kamerton.config.schema import Params
from kamerton.core.errors import ParamsError, PipelineError, StoppedError
from kamerton.smart_tuner import stretch
from kamerton.smart_tuner.generation_plan import GenerationPlan
from kamerton.smart_tuner.generation_tree import FILE, GenerationTree
from kamerton.smart_tuner.generations import finished_generations, run_generations
from kamerton.smart_tuner.objective import Objective
from kamerton.smart_tuner.opt_engine import TrialResult
from kamerton.smart_tuner.param_scheduler import Outcome, ParamScheduler, changed_from
from kamerton.smart_tuner.recorder import StudyRecorder
from kamerton.smart_tuner.study import StudyFolder, trial_params
from kamerton.smart_tuner.trainer_wrapper import TrainerOutcome, Watch
from kamerton.tracking import RunDirectory, list_runs, read_records
from kamerton.tracking.names import ATTENTION_SCORE, GATE_F1, LEARNING_RATE, VAL_MEL_LOSS

FAKE = Path(__file__).with_name("fake_warm_trainer.py")
STEPS = 80
OBJECTIVE = Objective({VAL_MEL_LOSS: 1.0, ATTENTION_SCORE: 0.5, GATE_F1: 0.5})
BEST = TrialResult(0, "complete", {}, objective=2.0)
FASTER, SLOWER = {"learning_rate": 2.0}, {"learning_rate": 0.5}


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("fake_warm_trainer", FAKE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fake = _load()


class InProcess:
    """Stands for TrainerWrapper: the same trainer, without the second that a process takes."""

    starts: ClassVar[list[str]] = []
    failing: ClassVar[dict[str, int]] = {}  # how often, by label

    def __init__(self, command: Sequence[str], *, runs: Path, log: Path) -> None:
        del log
        self._params, self._runs = Path(command[command.index("--params") + 1]), runs
        assert Path(command[command.index("--runs") + 1]) == runs
        assert ("--resume" in command) == bool(list_runs(runs))

    def run(self, watch: Watch) -> TrainerOutcome:
        label = self._runs.parent.name
        self.starts.append(label)
        if self.starts.count(label) <= self.failing.get(label, 0):
            return TrainerOutcome("failed", 1, "error: no memory left")
        trainer = fake.opened(self._params, self._runs)
        while trainer.step < trainer.total:
            trainer.one_step()
            watch.on_step(trainer.step)
            if watch.stop() or (trainer.step % 2 == 0 and watch.enough()):
                trainer.save("last.pt")
                trainer.end("stopped", 75)
                return TrainerOutcome("stopped" if watch.stop() else "ended", 75)
        trainer.end("finished", 0)
        return TrainerOutcome("finished")


@pytest.fixture
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    InProcess.starts.clear()
    InProcess.failing.clear()
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(stretch, "TrainerWrapper", InProcess)


quick = pytest.mark.usefixtures("_in_process")


def propose(monkeypatch: pytest.MonkeyPatch, *deltas: dict[str, float]) -> None:
    monkeypatch.setattr(ParamScheduler, "propose", lambda *_: list(deltas))


def make_params(train: dict[str, Any] | None = None, **generations: Any) -> Params:
    asked = {"count": 1, "candidates": 2, "length_share": 0.3, **generations}
    tune = {"trials": 1, "trial_steps": STEPS, "generations": asked}
    return Params.model_validate(
        {"tune": tune, "train": train or {}, "tracking": {"mlflow_uri": None}}
    )


def study(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path / "study", tmp_path)


def go(tmp_path: Path, params: Params, *, best: TrialResult = BEST,
       stop: Callable[[], bool] = lambda: False, **more: Any) -> GenerationTree:  # fmt: skip
    folder = study(tmp_path)
    folder.path.mkdir(parents=True, exist_ok=True)
    recorder = StudyRecorder(folder, params)
    try:
        return run_generations(
            folder, params, best, OBJECTIVE, command=[sys.executable, str(FAKE)],
            recorder=recorder, stop=stop, **more,
        )  # fmt: skip
    finally:
        recorder.close("finished")


def without_hashes(tree: GenerationTree) -> Any:
    """What two equal loops have equal: not the names of run directories, which hold the time."""
    text = json.dumps(json.loads(_json(tree)))
    for generation in tree.generations:
        for item in generation.candidates:
            text = text.replace(item.run, "")
    return json.loads(text)


def _json(tree: GenerationTree) -> str:
    from dataclasses import asdict

    return json.dumps(asdict(tree))


@quick
def test_a_change_that_helps_is_accepted_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose(monkeypatch, SLOWER, FASTER)
    tree = go(tmp_path, make_params(candidates=3))
    (generation,) = tree.generations
    assert [item.number for item in generation.candidates] == [0, 1, 2]
    assert generation.accepted == 2
    assert generation.reason.startswith("learning_rate × 2 beat the control")
    (change,) = tree.best_changes
    assert change.learning_rate == 2.0
    assert change.from_share == generation.from_step / STEPS
    assert tree.kept
    assert tree.objective is not None
    assert tree.objective < 2.0
    assert GenerationTree.load(study(tmp_path).path / FILE) == tree
    # The candidate's worth is only seen after a cool-down: before it, its curve is the worse one.
    control, _, faster = generation.candidates
    assert faster.curve[60] > control.curve[60]


@quick
def test_all_candidates_go_on_from_one_state_over_the_same_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose(monkeypatch, FASTER, SLOWER)
    tree = go(tmp_path, make_params(candidates=3, count=2))
    for generation in tree.generations:
        probes = {tuple(item.probe) for item in generation.candidates}
        assert len(probes) == 1
        for item in generation.candidates:
            run = RunDirectory(study(tmp_path).path / item.run)
            steps = [record.step for record in read_records(run.metrics_file) if record.step]
            assert min(steps) == generation.from_step + 1
            assert read_records(run.metrics_file)[0].step == generation.from_step + 1
    first, second = tree.generations
    chosen = first.chosen
    assert chosen is not None
    assert second.parent == f"g1c{chosen.number}"
    assert second.parent_sha256 == chosen.checkpoint_sha256
    assert second.from_step == first.to_step
    # One schedule: every run has the whole budget, whichever piece of it it makes.
    budgets = {
        yaml.safe_load(file.read_text())["train"]["max_steps"]
        for file in study(tmp_path).path.glob("generations/*/params.yaml")
    }
    assert budgets == {STEPS}


@quick
def test_what_does_not_beat_the_control_is_not_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose(monkeypatch, SLOWER)
    tree = go(tmp_path, make_params())
    assert tree.generations[0].accepted == 0
    assert tree.best_changes == ()
    assert "no change was better" in tree.verdict
    assert "final" not in InProcess.starts
    propose(monkeypatch, FASTER)
    demanding = go(tmp_path, make_params(min_gain_sigmas=1e6))
    assert demanding.generations[0].accepted == 0
    assert "not more than 1e+06" in demanding.generations[0].reason


@quick
def test_what_helps_in_probes_but_not_the_whole_run_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose(monkeypatch, FASTER)
    best = TrialResult(0, "complete", {}, objective=0.01)
    tree = go(tmp_path, make_params(), best=best)
    assert tree.generations[0].accepted == 1
    assert not tree.kept
    assert tree.best_changes == ()
    assert "not better than 0.0100 of trial 0" in tree.verdict


def objective_of(tree: GenerationTree) -> float:
    assert tree.objective is not None
    return tree.objective


@quick
def test_the_whole_run_must_be_better_by_more_than_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose(monkeypatch, FASTER)
    found = go(tmp_path / "first", make_params())
    assert found.sigma == max(item.sigma or 0.0 for item in found.generations) > 0
    for number, (margin, kept) in enumerate(((0.9, False), (1.1, True))):
        objective = objective_of(found) + margin * found.sigma
        best = TrialResult(0, "complete", {}, objective=objective)
        tree = go(tmp_path / str(number), make_params(), best=best)
        assert tree.objective == found.objective
        assert tree.kept is kept


@quick
def test_a_trial_that_ended_itself_is_compared_with_what_was_made_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose(monkeypatch, FASTER)
    whole = go(tmp_path / "whole", make_params())
    curve = {20: 2.5, 60: 2.0}
    best = TrialResult(0, "complete", {}, objective=2.0, step=60, curve=curve)
    cut = go(tmp_path / "cut", make_params(), best=best)
    assert objective_of(cut) > objective_of(whole)  # its loss falls to the end
    assert "until step 60, where the trial ended itself" in cut.verdict
    # Better than the trial only by what it trained longer: that is no reason.
    middle = (objective_of(cut) + objective_of(whole)) / 2
    longer = TrialResult(0, "complete", {}, objective=middle, step=60, curve=curve)
    assert not go(tmp_path / "longer", make_params(), best=longer).kept


@quick
def test_the_second_generation_multiplies_what_the_first_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose(monkeypatch, FASTER)
    tree = go(tmp_path, make_params(count=2, length_share=0.2))
    assert [item.accepted for item in tree.generations] == [1, 1]
    assert tree.generations[1].candidates[0].effective == {"learning_rate": 2.0}
    assert tree.generations[1].candidates[1].effective == {"learning_rate": 4.0}
    assert [item.learning_rate for item in tree.change_params] == [2.0, 2.0]


@quick
def test_changes_of_the_parameters_stay_below_those_that_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose(monkeypatch, FASTER)
    given = [{"from_share": 0.1, "learning_rate": 0.8}]
    tree = go(tmp_path, make_params({"changes": given}))
    assert [item.learning_rate for item in tree.best_changes] == [0.8, 2.0]
    assert tree.generations[0].candidates[0].effective == {"learning_rate": 0.8}


@quick
def test_a_trainer_that_forgets_what_was_asked_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose(monkeypatch, FASTER)
    monkeypatch.setenv("FAKE_FORGET", "1")
    tree = go(tmp_path, make_params())
    # The control's own cool-down was not what was asked either.
    assert "the unchanged run of generation 1 failed" in tree.verdict
    reasons = [item.reason for item in tree.generations[0].candidates]
    assert "was made with learning_rate × 1, asked × 0.775" in reasons[0]
    assert reasons[1] == "step 49 was made with learning_rate × 1, asked × 2"
    assert tree.best_changes == ()


@quick
def test_a_candidate_that_is_no_number_fails_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose(monkeypatch, {"learning_rate": 8.0}, FASTER)
    monkeypatch.setenv("FAKE_NAN_FROM", "4")
    tree = go(tmp_path, make_params(candidates=3))
    (generation,) = tree.generations
    assert [item.state for item in generation.candidates] == ["complete", "failed", "complete"]
    assert generation.candidates[1].reason == "val_mel_loss was not finite"
    assert generation.accepted == 2


@quick
def test_a_trainer_that_fails_once_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose(monkeypatch, FASTER)
    InProcess.failing.update({"g1c0": 1, "g1c1": 2})
    (generation,) = go(tmp_path, make_params()).generations
    assert [item.state for item in generation.candidates] == ["complete", "failed"]
    assert generation.candidates[1].reason == "its trainer failed: error: no memory left"


@quick
def test_trials_count_although_the_unchanged_run_cannot_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose(monkeypatch, FASTER)
    InProcess.failing.update({"trunk": 2})
    tree = go(tmp_path, make_params())
    assert tree.complete
    assert tree.best_changes == ()
    assert "the best trial could not be repeated up to step 48" in tree.verdict
    assert "`kamerton tune --force` tries again" in tree.verdict
    assert tree.failed
    assert finished_generations(study(tmp_path), make_params(), BEST) == tree
    assert finished_generations(study(tmp_path), make_params(), BEST, again=True) is None
    again = go(tmp_path, make_params(), again=True)  # the third time it works
    assert again.kept
    assert not again.failed
    assert finished_generations(study(tmp_path), make_params(), BEST, again=True) == again


@quick
@pytest.mark.parametrize("stop_at", [5, 75, 150])
def test_an_interrupted_loop_ends_as_an_undisturbed_one(
    tmp_path: Path, stop_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose(monkeypatch, FASTER, SLOWER)
    params = make_params(candidates=3, count=2, length_share=0.2)
    whole = go(tmp_path / "whole", params)
    told: list[float] = []
    with pytest.raises(StoppedError, match="in its generations"):
        go(
            tmp_path / "broken", params, stop=lambda: len(told) >= stop_at,
            on_progress=lambda done, _total, _note: told.append(done),
        )  # fmt: skip
    again = go(tmp_path / "broken", params)
    assert without_hashes(again) == without_hashes(whole)
    assert told == sorted(told)


@quick
def test_finished_candidates_are_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose(monkeypatch, FASTER)
    params = make_params()
    tree = go(tmp_path, params)
    assert InProcess.starts == ["trunk", "g1c0", "g1c0-probe", "g1c1", "g1c1-probe", "final"]
    InProcess.starts.clear()
    assert go(tmp_path, params) == tree
    assert InProcess.starts == []
    assert finished_generations(study(tmp_path), params, BEST) == tree
    other = TrialResult(1, "complete", {}, objective=1.0)
    assert finished_generations(study(tmp_path), params, other) is None
    assert finished_generations(study(tmp_path), make_params(candidates=3), BEST) is None


@quick
def test_no_checkpoint_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    propose(monkeypatch, FASTER)
    go(tmp_path, make_params(count=2, length_share=0.2))
    assert list(study(tmp_path).path.glob("generations/*/runs/*/metrics.jsonl"))
    assert not list(study(tmp_path).path.rglob("*.pt"))


@quick
def test_the_next_proposals_know_what_earlier_deltas_gained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[list[Outcome]] = []

    def propose(_self: Any, _generation: int, _count: int, outcomes: Sequence[Outcome]) -> Any:
        known.append(list(outcomes))
        return [FASTER, SLOWER]

    monkeypatch.setattr(ParamScheduler, "propose", propose)
    tree = go(tmp_path, make_params(count=2, length_share=0.2, candidates=3))
    assert known[0] == []
    faster, slower = known[1]
    assert (faster.generation, faster.delta) == (1, FASTER)
    assert faster.gain == tree.generations[0].gain(tree.generations[0].candidates[1])
    assert faster.gain > 0 > slower.gain


@quick
def test_what_the_scheduler_proposes_is_tried(tmp_path: Path) -> None:
    params = make_params(candidates=4)
    tree = go(tmp_path, params)
    scheduler = ParamScheduler(trial_params(params, {}), seed=params.tune.seed)
    tried = [dict(item.delta) for item in tree.generations[0].candidates]
    assert tried == [{}, *scheduler.propose(1, 3)]


@quick
def test_generations_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="do not fit"):
        go(tmp_path, make_params(count=5))


@quick
def test_generations_that_do_not_fit_a_trial_that_was_shorter_leave_a_verdict(
    tmp_path: Path,
) -> None:
    folder = study(tmp_path)
    run = RunDirectory.create(folder.trial_runs(0), name="trial", fingerprint="f" * 16, params={})
    (run.path / "origin.json").write_text(json.dumps({"total_steps": 5}))
    tree = go(tmp_path, make_params())
    assert tree.verdict.startswith("no generations: 1 generations of 0.3 of a run do not fit")
    assert (tree.total_steps, tree.kept, tree.best_changes) == (5, False, ())
    assert finished_generations(folder, make_params(), BEST) == tree


@quick
def test_a_run_that_somebody_removed_is_an_error_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose(monkeypatch, FASTER)
    params, told = make_params(count=2, length_share=0.2), list[float]()
    with pytest.raises(StoppedError):
        go(
            tmp_path, params, stop=lambda: "g2c0" in InProcess.starts,
            on_progress=lambda done, _total, _note: told.append(done),
        )  # fmt: skip
    shutil.rmtree(study(tmp_path).path / "generations" / "g1c1")
    with pytest.raises(PipelineError, match="holds no run any more"):
        go(tmp_path, params)


def test_with_processes_that_are_ended_by_signals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STEP_SECONDS", "0.02")
    params = make_params()
    plan = GenerationPlan.of(params.tune.generations, STEPS)
    makes = stretch.Stretches(
        study(tmp_path), plan, ParamScheduler(trial_params(params, {}), seed=1),
        command=[sys.executable, str(FAKE)], stop=lambda: False, on_step=lambda *_: None,
    )  # fmt: skip
    trunk = makes.make(stretch.Stretch("trunk", None, 0, 48, ()))
    child = makes.make(stretch.Stretch("child", trunk, 48, 72, changed_from((), FASTER, 0.6)))
    assert trunk.status().state == "stopped"
    assert child.status().state in ("stopped", "finished")  # it is near its end when told
    for run, step in ((trunk, 48), (child, 72)):
        assert step <= run.status().step <= STEPS
    rates = {item.step: item.values[LEARNING_RATE] for item in read_records(child.metrics_file)
             if item.step is not None and LEARNING_RATE in item.values}  # fmt: skip
    assert min(rates) == 49
    assert set(rates.values()) == {2e-3}
