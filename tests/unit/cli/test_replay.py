import json
import math

import numpy as np
import pytest
import yaml

from kamerton.cli import main
from kamerton.config.schema import TrainParams
from kamerton.config.stopping_section import EarlyStoppingParams
from kamerton.smart_tuner.early_stop import (
    EarlyStopController,
    Recovered,
    decision_fields,
    known_drops,
)
from kamerton.smart_tuner.recorded_curve import read_curve
from kamerton.smart_tuner.replay_report import replay_curve
from kamerton.stopping import replay
from kamerton.tracking import JsonlTracker, names, read_records
from kamerton.tracking.hooks import EvalFacts, Measure, Note, Stop
from kamerton.tracking.quality import quality_of

COUNT, INTERVAL, TOTAL = 160, 10, 2000


@pytest.fixture
def values():
    """Down, and slowly up again."""
    time = np.arange(1, COUNT + 1)
    noise = np.random.default_rng(0).normal(0, 0.004, COUNT)
    return (0.3 + np.exp(-time / 15) + 0.01 * np.maximum(0, time - 50) + noise).tolist()


@pytest.fixture
def table(tmp_path, values):
    path = tmp_path / "curve.csv"
    rows = [f"{INTERVAL * (index + 1)},{value}" for index, value in enumerate(values)]
    path.write_text("step,val\n" + "\n".join(rows) + "\n")
    return path


def replayed(capsys, *arguments):
    assert main.exit_code(["runs", "replay", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_table_has_no_metric_to_choose(table, capsys):
    assert main.exit_code(["runs", "replay", str(table), "--metric", "loss"]) == 2
    assert "--metric has no use" in capsys.readouterr().err


def test_a_csv_is_answered_as_by_the_function(table, values, capsys):
    steps = [INTERVAL * (index + 1) for index in range(COUNT)]
    for planned in (COUNT * INTERVAL, TOTAL):
        alone = replay(values, planned, epochs=steps)
        shown = replayed(capsys, table, "--planned", planned)
        assert shown["stop"]["index"] == alone.stop_index
        assert shown["stop"]["step"] == steps[alone.stop_index]
        assert shown["stop"]["reason"] == alone.decisions[-1].reason
        assert shown["checkpoint"]["step"] == steps[alone.checkpoint_index]
        assert shown["saved_steps"] == planned - steps[alone.stop_index]
        assert shown["saved_share"] == pytest.approx(shown["saved_steps"] / planned)
        assert [row["voter"] for row in shown["votes"]] == [
            vote.voter for vote in alone.decisions[-1].votes
        ]
    assert replayed(capsys, table)["planned_steps"] == COUNT * INTERVAL


def test_attention_of_a_csv_counts(tmp_path, capsys):
    """A voice that never aligned is borne with for longer."""
    stops = {}
    for name, attention in {"none": "", "aligned": ",0.9", "lost": ",0.1"}.items():
        path = tmp_path / f"{name}.csv"
        path.write_text(
            "".join(
                f"{step},{0.3 + math.exp(-step / 4) + 0.002 * math.sin(step)}{attention}\n"
                for step in range(1, 200)
            )
        )
        stops[name] = replayed(capsys, path)["stop"]["step"]
    assert stops["lost"] > max(stops["none"], stops["aligned"])


def test_people_are_told_where_why_and_what_is_kept(table, tmp_path, capsys):
    figure = tmp_path / "deep/replay.png"
    figure.parent.mkdir()
    assert main.exit_code(["runs", "replay", str(table), "--figure", str(figure)]) == 0
    out = capsys.readouterr().out
    for word in ("stop", "why", "keeps", "saved", "cusum", "mann_kendall", "forecast"):
        assert word in out
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_a_curve_that_still_falls_is_not_stopped(tmp_path, capsys):
    path = tmp_path / "short.csv"
    path.write_text("".join(f"{step},{1 / step}\n" for step in range(1, 60)))
    shown = replayed(capsys, path, "--planned", 600)
    assert shown["stop"] is None
    assert (shown["saved_steps"], shown["regret"]) == (0, 0.0)
    assert main.exit_code(["runs", "replay", str(path), "--planned", "600"]) == 0
    assert "never" in capsys.readouterr().out


def test_numbers_that_are_none_are_replayed_and_shown(tmp_path, capsys):
    path = tmp_path / "nan.csv"
    path.write_text("".join(f"{step},{1 / step}\n" for step in range(1, 30)) + "30,nan\n31,\n")
    shown = replayed(capsys, path)
    assert (shown["stop"]["cause"], shown["stop"]["step"]) == ("not_finite", 30)
    assert shown["checkpoint"]["step"] == 29


def live(folder, watching, values, recovered=None):
    """Record a run that ``watching`` watches and never ends; returns its stop.

    Args:
        folder: Where.
        watching: The hook.
        values: Mel losses.
        recovered: Interventions: causes by the step that they follow.
    """
    lived, past = None, {"recoveries": 0, "recovery_step": 0}
    folder.mkdir(exist_ok=True)
    tracker = JsonlTracker(folder)
    for index, value in enumerate(values):
        step = INTERVAL * (index + 1)
        seen = {
            names.VAL_MEL_LOSS: value,
            names.ATTENTION_SCORE: min(0.9, index / 20),
            names.GATE_F1: 0.5 + index / 500,
            names.PREMATURE_STOPPING: 0.1,
            names.RUNAWAY_SHARE: 0.0,
            names.ATTENTION_MONOTONICITY: 0.95,
        }
        tracker.log_metrics({names.TRAIN_LOSS: 0.5, names.LEARNING_RATE: 1e-3}, step)
        tracker.log_metrics(seen, step)
        facts = EvalFacts(step=step, total=TOTAL, values=seen, quality=quality_of(seen),
                          train_loss=0.5, learning_rate=1e-3, **past)  # fmt: skip
        for action in watching.on_eval(facts):
            if isinstance(action, Note):
                tracker.log_event(action.event, step=step, **action.fields)
            elif isinstance(action, Measure):
                tracker.log_metrics(action.values, step)
            elif isinstance(action, Stop) and lived is None:
                lived = step, action.cause, action.reason
        if step in (recovered or {}):
            figures = {"recoveries": past["recoveries"] + 1.0}
            past |= {"recoveries": past["recoveries"] + 1, "recovery_step": step}
            if recovered[step] == "collapse":  # there was no checkpoint that reads
                past["attention_reset_step"], figures["tensors_reset"] = step, 9.0
            tracker.log_event("recovery", step=step, cause=recovered[step], action="acted",
                              values=figures)  # fmt: skip
    tracker.close("finished")
    return lived


def test_a_run_is_replayed_as_it_was_lived(tmp_path, values, capsys):
    """The recorded run's own hook and the replay of its record agree, vote for vote."""
    watching = EarlyStopController.of(EarlyStoppingParams(), TOTAL, interval=INTERVAL)
    lived = live(tmp_path / "run", watching, values)
    for path in (tmp_path / "run", tmp_path / "run/metrics.jsonl"):
        shown = replayed(capsys, path)
        assert shown["metric"] == "quality"
        assert (shown["planned_steps"], shown["planned_from"]) == (TOTAL, "as recorded")
        assert (shown["stop"]["step"], shown["stop"]["cause"], shown["stop"]["reason"]) == lived
    assert replayed(capsys, path, "--metric", names.VAL_MEL_LOSS)["metric"] == names.VAL_MEL_LOSS
    assert main.exit_code(["runs", "replay", str(path), "--metric", "nothing"]) == 2
    assert names.VAL_MEL_LOSS in capsys.readouterr().err


@pytest.mark.parametrize("recovered", [{}, {300: "collapse", 700: "divergence"}])
def test_what_its_hook_knew_of_a_run_its_replay_knows(tmp_path, values, recovered):
    """Falls of the learning rate, the interval, its own parameters, and what was held."""
    given = {
        "eval_interval_steps": INTERVAL,
        "changes": [{"from_share": 0.6, "learning_rate": 0.5}],
        "early_stopping": {"patience_share": 0.2, "divergence_wait": 0.03},
        "recovery": {"max_recoveries": 3, "cooldown_share": 0.1},
    }
    train = TrainParams.model_validate(given).resolved()
    watching = EarlyStopController.of(
        train.early_stopping, TOTAL, interval=INTERVAL, drops=known_drops(train, TOTAL),
        recovery=train.recovery,
    )  # fmt: skip
    folder = tmp_path / "run"
    worse = [value + (3.0 if index > 40 else 0.0) for index, value in enumerate(values)]
    lived = live(folder, watching, worse, recovered)
    assert lived is not None
    (folder / "params.yaml").write_text(yaml.safe_dump({"train": given}))
    told = [r.fields for r in read_records(folder / "metrics.jsonl") if r.name == "decision"]
    assert any("held for a recovery" in fields["reason"] for fields in told)
    played = replay_curve(read_curve(folder))
    assert played.replay.decisions[-1].step == lived[0]
    for recorded, decision in zip(told, played.replay.decisions, strict=False):
        ours = decision_fields(decision) | {"planned_steps": TOTAL}
        assert json.loads(json.dumps(ours)) == recorded
    # Without its parameters, neither is known.
    (folder / "params.yaml").unlink()
    assert replay_curve(read_curve(folder)).replay.decisions[-1].step != lived[0]


def test_taking_a_restart_back_is_no_intervention(tmp_path):
    tracker = JsonlTracker(tmp_path)
    tracker.log_metrics({names.VAL_LOSS: 1.0}, 10)
    made = {"best_step": 5.0, "evaluations": 4.0, "recoveries": 1.0}
    tracker.log_event("recovery", step=20, cause="plateau", action="let", values=made)
    undone = {"best_step": 5.0, "restart_step": 20.0, "recoveries": 1.0}
    tracker.log_event("recovery", step=40, cause="plateau", action="took", values=undone)
    tracker.close("finished")
    lived = read_curve(tmp_path).lived
    once = Recovered(count=1, step=20)
    assert [lived.recovered_before(step) for step in (20, 21, 50)] == [Recovered(), once, once]


def test_parameters_that_cannot_be_read_are_told_of(tmp_path, caplog):
    tracker = JsonlTracker(tmp_path)
    tracker.log_metrics({names.VAL_LOSS: 1.0}, 10)
    tracker.close("finished")
    (tmp_path / "params.yaml").write_text("train: {learning_rate: high}\n")
    assert read_curve(tmp_path).lived.train is None
    assert "defaults are replayed" in caplog.text


def test_tensorboard_is_replayed_as_the_same_curve(table, values, tmp_path, capsys):
    from kamerton.tracking.tensorboard import TensorBoardTracker

    folder = tmp_path / "run"
    folder.mkdir()
    tracker = TensorBoardTracker(folder / "tensorboard")
    for index, value in enumerate(values):
        tracker.log_metrics({names.VAL_LOSS: value}, INTERVAL * (index + 1))
    tracker.close("finished")
    for path in (folder, folder / "tensorboard"):
        shown = replayed(capsys, path)
        assert shown["metric"] == names.VAL_LOSS
        assert shown["stop"]["index"] == replayed(capsys, table)["stop"]["index"]


def test_parameters_of_a_file_decide(table, tmp_path, capsys):
    path = tmp_path / "params.yaml"
    path.write_text("train: {early_stopping: {enabled: false}}\n")
    assert replayed(capsys, table)["stop"] is not None
    assert replayed(capsys, table, "--params", path)["stop"] is None


@pytest.mark.parametrize(
    ("name", "content", "code", "words"),
    [
        ("absent.csv", None, 4, "does not exist"),
        ("empty.csv", "", 4, "no evaluations"),
        ("names.csv", "step,value\n", 4, "no evaluations"),
        ("words.csv", "1,2\n2,three\n", 1, "line 2"),
        ("back.csv", "1,2\n5,2\n3,2\n", 1, "line 3: step 3 does not follow 5"),
        ("wide.csv", "1,2,3,4\n", 4, "no evaluations"),
        ("half.csv", "1,2\n1.5,2\n", 1, "line 2"),
        ("binary.csv", b"\xff\xfe\x00", 1, "not text"),
        ("metrics.jsonl", "", 4, "no evaluations"),
        ("curve.xlsx", "", 2, "form"),
    ],
)
def test_a_bad_file_is_told_of(tmp_path, capsys, name, content, code, words):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.write_text(content)
    assert main.exit_code(["runs", "replay", str(path)]) == code
    error = capsys.readouterr().err
    assert words in error
    assert "fix:" in error


def test_a_folder_without_a_record_and_a_plan_too_short_are_told_of(tmp_path, table, capsys):
    (tmp_path / "empty").mkdir()
    assert main.exit_code(["runs", "replay", str(tmp_path / "empty")]) == 4
    assert main.exit_code(["runs", "replay", str(table), "--planned", "100"]) == 2
    assert str(COUNT * INTERVAL) in capsys.readouterr().err


def test_what_a_record_tells_of_training_is_taken(tmp_path):
    tracker = JsonlTracker(tmp_path)
    for step in range(1, 7):
        rate = {names.LEARNING_RATE: 1e-3 / step} if step != 6 else {}
        tracker.log_metrics({names.TRAIN_LOSS: float(step), **rate}, step)
        if step % 3 == 0:
            tracker.log_metrics({names.VAL_LOSS: 1.0 / step, names.GATE_F1: math.nan}, step)
    tracker.close("finished")
    curve = read_curve(tmp_path)
    assert (curve.metric, curve.steps, curve.planned) == (names.VAL_LOSS, [3, 6], None)
    assert [one.train_loss for one in curve.observations] == [2.0, 5.0]
    assert [one.learning_rate for one in curve.observations] == [1e-3 / 3, 1e-3 / 5]
    assert [one.gate_f1 for one in curve.observations] == [None, None]
