"""The train stage: outputs, reuse, resume, trials, and every bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kamerton.config.loading import load_params
from kamerton.config.schema import Params
from kamerton.core.errors import (
    InputCorruptError,
    InputEmptyError,
    InputMissingError,
    ParamsError,
    StoppedError,
    UsageError,
)
from kamerton.core.files import sha256_tree
from kamerton.core.stop import StopRequest
from kamerton.model.voice import Voice
from kamerton.smart_tuner.history import History
from kamerton.smart_tuner.registry import ModelRegistry
from kamerton.stages.train import train, with_best_params
from kamerton.tracking import read_records
from tests.tiny_corpus import tiny_params, write_stage_inputs, write_tiny_dataset


@pytest.fixture(autouse=True)
def _fixed_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources that are edited while the tests run must not make other runs of them."""
    monkeypatch.setattr("kamerton.training.fingerprint.code_digest", lambda: "fixed")


@pytest.fixture
def ports(tmp_path: Path) -> dict[str, Path]:
    return write_stage_inputs(tmp_path)


def quick(**train: Any) -> Params:
    """Four steps, evaluated once."""
    return tiny_params(**{"max_steps": 4, "eval_interval_steps": 4, **train})


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def folders(runs: Path) -> list[Path]:
    return sorted(path for path in runs.iterdir() if (path / "status.json").exists())


def stop_after_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop is asked for while the first step of each process is made."""
    from kamerton.training import loop

    asked, real_step, real_enter = [], loop.train_step, StopRequest.__enter__

    def enter(self: StopRequest) -> StopRequest:
        asked.append(self)
        return real_enter(self)

    def train_step(*arguments: Any, **named: Any) -> Any:
        asked[-1].requested = True
        return real_step(*arguments, **named)

    monkeypatch.setattr(StopRequest, "__enter__", enter)
    monkeypatch.setattr(loop, "train_step", train_step)


def test_it_exports_a_voice_that_speaks_and_a_page(ports: dict[str, Path], runs: Path) -> None:
    seen: list[tuple[float, float]] = []
    report = train(**ports, params=quick(), runs=runs,
                   on_progress=lambda done, total, note="": seen.append((done, total)))  # fmt: skip
    assert seen[-1] == (4, 4)
    assert (report.steps, report.total_steps, report.partial) == (4, 4, False)
    assert report.metrics()["best_step"] == report.best_step > 0
    assert all(isinstance(value, float) for value in report.metrics().values())
    assert dict(report.summary())["steps"].startswith("4;")

    description = json.loads((ports["model"] / "model.json").read_text())
    assert description["symbols"] == list("abcdef")
    assert description["training"]["dataset_sha256"]
    utterance = Voice.load(ports["model"]).speak(["abc"])[0]
    assert utterance.rate_hz == 8000
    weights = torch.load(ports["model"] / "best_model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in weights.values())

    page = ports["report"].read_text()
    assert "<audio" in page
    assert page.count("data:image/png") >= 6
    assert str(runs) not in page
    (run,) = folders(runs)
    assert {path.name for path in run.iterdir()} >= {
        "params.yaml", "environment.json", "command.txt", "metrics.jsonl", "checkpoints",
        "status.json", "figures",
    }  # fmt: skip
    # What later runs learn from it.
    (outcome,) = History(runs / "history.db").runs()
    assert (outcome.run_id, outcome.planned_steps, outcome.ended) == (run.name, 4, "budget")
    (voice,) = ModelRegistry(runs / "registry").entries()
    assert (voice.run, voice.stage) == (run.name, "staging")
    told = [record.name for record in read_records(run / "metrics.jsonl")]
    assert told.count("forecast") == 1


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        ports = write_stage_inputs(tmp_path / name)
        train(**ports, params=quick(), runs=tmp_path / name / "runs")
        digests.append((sha256_tree(ports["model"]), ports["report"].read_bytes()))
    assert digests[0] == digests[1]


def test_a_finished_run_is_exported_again_not_trained_again(
    ports: dict[str, Path], runs: Path
) -> None:
    train(**ports, params=quick(), runs=runs)
    before = sha256_tree(ports["model"])
    for path in (ports["model"] / "model.json", ports["report"]):
        path.unlink()
    for path in list(ports["model"].iterdir()):
        path.unlink()
    steps: list[float] = []
    report = train(**ports, params=quick(), runs=runs,
                   on_progress=lambda done, total, note="": steps.append(total))  # fmt: skip
    assert report.reused
    assert not steps
    assert sha256_tree(ports["model"]) == before
    assert "was finished" in dict(report.summary())["run"]
    assert len(folders(runs)) == 1


def test_force_trains_anew(ports: dict[str, Path], runs: Path) -> None:
    train(**ports, params=quick(), runs=runs)
    with pytest.raises(UsageError, match="exists already") as refused:
        train(**ports, params=quick(), runs=runs)
    assert "trains anew" in refused.value.hint  # --force is no way to repeat an export
    assert not train(**ports, params=quick(), runs=runs, force=True).reused
    assert len(folders(runs)) == 2


def test_other_parameters_or_data_are_another_run(ports: dict[str, Path], runs: Path) -> None:
    train(**ports, params=quick(), runs=runs)
    train(**ports, params=quick(learning_rate=5e-4), runs=runs, force=True)
    card = json.loads((ports["dataset"] / "dataset.json").read_text())
    card["content_sha256"] = "1" * 64
    (ports["dataset"] / "dataset.json").write_text(json.dumps(card))
    train(**ports, params=quick(), runs=runs, force=True)
    fingerprints = {path.name.rpartition("-")[2] for path in folders(runs)}
    assert len(fingerprints) == 3


def test_a_stopped_run_is_continued_with_and_without_resume(
    ports: dict[str, Path], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for resume in (False, True):
        with monkeypatch.context() as patch:
            stop_after_the_first_step(patch)
            with pytest.raises(StoppedError, match=f"at step {1 + resume} of 4"):
                train(**ports, params=quick(), runs=runs, resume=resume)
    assert not ports["model"].exists()
    report = train(**ports, params=quick(), runs=runs, resume=True)
    assert report.steps == 4
    assert len(folders(runs)) == 1


def test_a_stopped_run_that_was_forced_says_how_it_is_continued(
    ports: dict[str, Path], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after_the_first_step(patch)
        with pytest.raises(StoppedError) as caught:
            train(**ports, params=quick(), runs=runs, force=True)
    assert "--resume" in caught.value.hint  # the same command would begin a new run
    train(**ports, params=quick(), runs=runs, force=True, resume=True)
    assert len(folders(runs)) == 1


def test_resume_with_nothing_to_resume(ports: dict[str, Path], runs: Path) -> None:
    with pytest.raises(UsageError, match="no unfinished run"):
        train(**ports, params=quick(), runs=runs, resume=True)


def test_a_stop_while_spectrograms_are_made_is_granted_before_any_step(
    ports: dict[str, Path], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            StopRequest, "__enter__", lambda self: setattr(self, "requested", True) or self
        )
        with pytest.raises(StoppedError, match="before its first step") as caught:
            train(**ports, params=quick(), runs=runs)
    assert caught.value.exit_code == 75
    assert not list(runs.glob("*/status.json"))
    assert train(**ports, params=quick(), runs=runs).steps == 4


def test_a_stop_before_a_run_goes_on_changes_nothing(
    ports: dict[str, Path], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after_the_first_step(patch)
        with pytest.raises(StoppedError):
            train(**ports, params=quick(), runs=runs)
    checkpoint = folders(runs)[0] / "checkpoints" / "last.pt"
    before = checkpoint.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(
            StopRequest, "__enter__", lambda self: setattr(self, "requested", True) or self
        )
        with pytest.raises(StoppedError, match="at step 1 of 4"):
            train(**ports, params=quick(), runs=runs)
    assert checkpoint.read_bytes() == before
    assert train(**ports, params=quick(), runs=runs).steps == 4


def test_resume_of_a_finished_run_says_what_can_be_done(ports: dict[str, Path], runs: Path) -> None:
    train(**ports, params=quick(), runs=runs)
    with pytest.raises(UsageError, match="is finished, at step 4: there is nothing") as caught:
        train(**ports, params=quick(), runs=runs, force=True, resume=True)
    assert caught.value.exit_code == 2
    for way in ("leave --resume out", "--force", "--warm-start"):
        assert way in caught.value.hint


def test_resume_with_other_data_says_so(
    ports: dict[str, Path], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after_the_first_step(patch)
        with pytest.raises(StoppedError):
            train(**ports, params=quick(), runs=runs)
    card = json.loads((ports["dataset"] / "dataset.json").read_text())
    card["content_sha256"] = "1" * 64
    (ports["dataset"] / "dataset.json").write_text(json.dumps(card))
    with pytest.raises(ParamsError, match="another value of: the dataset"):
        train(**ports, params=quick(), runs=runs, resume=True)


def test_a_truncated_checkpoint_is_named(
    ports: dict[str, Path], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after_the_first_step(patch)
        with pytest.raises(StoppedError):
            train(**ports, params=quick(), runs=runs)
    checkpoint = folders(runs)[0] / "checkpoints" / "last.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-4000])
    with pytest.raises(InputCorruptError, match=r"last\.pt: cannot be read") as caught:
        train(**ports, params=quick(), runs=runs, resume=True)
    assert caught.value.exit_code == 1


def test_a_warm_start_takes_the_weights_and_is_another_run(
    ports: dict[str, Path], runs: Path
) -> None:
    cold = train(**ports, params=quick(), runs=runs)
    from_run = train(**ports, params=quick(), runs=runs, warm_start=cold.run, force=True)
    assert not from_run.reused
    voice = {**ports, "model": ports["model"].with_name("second")}
    from_voice = train(**voice, params=quick(), runs=runs, warm_start=ports["model"], force=True)
    assert len({cold.run, from_run.run, from_voice.run}) == 3
    for report in (from_run, from_voice):
        assert '"name":"warm_start"' in (report.run / "metrics.jsonl").read_text()
    with pytest.raises(InputMissingError) as caught:
        train(**ports, params=quick(), runs=runs, warm_start=runs / "absent.pt", force=True)
    assert caught.value.exit_code == 4


def test_resume_with_other_parameters_names_them(
    ports: dict[str, Path], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after_the_first_step(patch)
        with pytest.raises(StoppedError):
            train(**ports, params=quick(), runs=runs)
    said = r"train\.model\.prenet_dim \(cold\), train\.batch_size \(warm\), .*rate \(hot\)\."
    model = quick().train.model.model_copy(update={"prenet_dim": 12}).model_dump()
    with pytest.raises(ParamsError, match=said) as caught:
        train(**ports, params=quick(learning_rate=5e-4, batch_size=3, model=model), runs=runs,
              resume=True)  # fmt: skip
    assert "--warm-start" in caught.value.hint
    with pytest.raises(ParamsError, match=r"train\.seed \(cold\)\."):
        train(**ports, params=quick(seed=7), runs=runs, resume=True)
    with pytest.raises(ParamsError, match=r"train\.batch_size \(warm\)\.") as caught:
        train(**ports, params=quick(batch_size=3), runs=runs, resume=True)
    assert "only hot ones may change" in caught.value.hint


def test_a_run_that_gave_up_says_so(ports: dict[str, Path], runs: Path, caplog: Any,
                                    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    from kamerton.training import loop, recovery

    def give_up(*arguments: Any, evaluated: bool) -> recovery.Decision | None:
        del arguments
        return recovery.Decision("explosion", "stop", counts=False) if evaluated else None

    monkeypatch.setattr(loop.recovery, "decide", give_up)
    report = train(**ports, params=quick(eval_interval_steps=2), runs=runs)
    assert (report.steps, report.gave_up) == (2, "explosion")
    assert dict(report.summary())["steps"] == "2 of 4, given up after explosion; best at 2"
    assert report.metrics()["gave_up"] == 1.0
    assert "no recovery was left after explosion" in caplog.text
    assert "given up after explosion" in ports["report"].read_text()


def test_patience_is_not_giving_up(ports: dict[str, Path], runs: Path) -> None:
    # At this learning rate nothing improves; a network that never read is not guarded here, and no
    # recovery lets patience begin anew.
    stopping = {
        "patience_share": 0.1, "min_evaluations": 2, "attention_monitoring": {"enabled": False}
    }  # fmt: skip
    params = quick(max_steps=12, eval_interval_steps=1, learning_rate=1e-12,
                   early_stopping=stopping, recovery={"enabled": False})  # fmt: skip
    report = train(**ports, params=params, runs=runs)
    assert report.steps < 12
    assert "stopped: patience" in dict(report.summary())["steps"]
    assert (report.gave_up, report.metrics()["gave_up"]) == ("", 0.0)
    assert report.metrics()["stopped_early"] == 1.0
    page = ports["report"].read_text()
    assert "Whether to go on" in page
    assert "mann kendall" in page
    again = train(**ports, params=params, runs=runs, force=True, resume=False)
    assert again.steps == report.steps  # the decision is a function of the run


def test_a_trial_prints_its_values_and_exports_nothing(
    ports: dict[str, Path], runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ports["best_params"].unlink()  # a trial comes before there are any
    train(**ports, params=quick(), runs=runs, trial=True)
    printed = dict(line.split("=") for line in capsys.readouterr().out.splitlines())
    values = {name: float(value) for name, value in printed.items()}
    assert {"val_loss", "val_mel_loss", "attention_alignment_score"} <= values.keys()
    assert not ports["model"].exists()
    assert not ports["report"].exists()


def test_the_tuners_parameters_are_laid_over(ports: dict[str, Path], runs: Path) -> None:
    ports["best_params"].write_text(
        "train:\n  learning_rate: 0.0005\n  model:\n    prenet_dim: 12\n"
    )
    train(**ports, params=quick(), runs=runs)
    description = json.loads((ports["model"] / "model.json").read_text())
    assert description["architecture"]["prenet_dim"] == 12
    text = (folders(runs)[0] / "params.yaml").read_text()
    assert "learning_rate: 0.0005" in text


def test_a_wrong_key_of_the_tuner_is_named_with_its_line(
    ports: dict[str, Path], runs: Path
) -> None:
    ports["best_params"].write_text("train:\n  learning_rat: 0.0005\n")
    with pytest.raises(
        ParamsError, match=r"best_params\.yaml:2: unknown key 'train\.learning_rat'"
    ):
        train(**ports, params=quick(), runs=runs)


def test_the_recommended_epochs_are_the_budget(ports: dict[str, Path], runs: Path) -> None:
    ports["analysis"].write_text('{"recommended_epochs": 2}')
    # Ten clips in batches of four are three steps per epoch.
    params = quick(max_steps=None, batching="utterances")
    assert train(**ports, params=params, runs=runs).total_steps == 6


@pytest.mark.parametrize("port", ["dataset", "analysis", "best_params"])
def test_missing_inputs(ports: dict[str, Path], runs: Path, port: str) -> None:
    given: dict[str, Any] = {**ports, port: ports[port].with_name("absent")}
    with pytest.raises(InputMissingError) as caught:
        train(**given, params=quick(), runs=runs)
    assert "absent" in caught.value.message


@pytest.mark.parametrize(
    "text", ["{}", '{"recommended_epochs": 0}', '{"recommended_epochs": "9"}', "{"]
)
def test_a_corrupt_analysis(ports: dict[str, Path], runs: Path, text: str) -> None:
    ports["analysis"].write_text(text)
    with pytest.raises(InputCorruptError):
        train(**ports, params=quick(), runs=runs)


@pytest.mark.parametrize(("counts", "wanted"), [({"train": 0}, "train"), ({"val": 0}, "validat")])
def test_an_empty_split(
    ports: dict[str, Path], runs: Path, tmp_path: Path, counts: dict[str, int], wanted: str
) -> None:
    ports["dataset"] = write_tiny_dataset(tmp_path / "other", **counts)
    with pytest.raises(InputEmptyError, match=wanted):
        train(**ports, params=quick(), runs=runs)


def test_one_training_clip_is_enough_to_run(
    ports: dict[str, Path], runs: Path, tmp_path: Path
) -> None:
    ports["dataset"] = write_tiny_dataset(tmp_path / "other", train=1, val=1)
    assert train(**ports, params=quick(max_steps=3), runs=runs).steps == 3


def test_a_damaged_shard(ports: dict[str, Path], runs: Path) -> None:
    (shard,) = (ports["dataset"] / "shards").iterdir()
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(InputCorruptError):
        train(**ports, params=quick(), runs=runs)


def test_text_rules_other_than_the_datasets(ports: dict[str, Path], runs: Path) -> None:
    params = tiny_params()
    other = params.model_copy(update={"text": params.text.model_copy(update={"lowercase": False})})
    with pytest.raises(ParamsError, match=r"text\.lowercase"):
        train(**ports, params=other, runs=runs)


def test_what_a_person_sets_by_hand_beats_the_tuner(tmp_path, caplog):
    best = tmp_path / "best_params.yaml"
    best.write_text("train:\n  learning_rate: 0.003\n  weight_decay: 0.5\n")
    plain = load_params(sections=[("train", '{"learning_rate": 0.001}')])
    tuned = with_best_params(plain, best)
    assert (tuned.train.learning_rate, tuned.train.weight_decay) == (0.003, 0.5)
    assert not caplog.records
    chosen = load_params(sections=[("train", "{}")], overrides=["train.learning_rate=0.0007"])
    tuned = with_best_params(chosen, best)
    assert (tuned.train.learning_rate, tuned.train.weight_decay) == (0.0007, 0.5)
    assert "train.learning_rate" in caplog.text
