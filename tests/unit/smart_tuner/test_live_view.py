"""What the watcher shows, tells and logs, from runs made for it."""

import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from kamerton.core.files import file_lock
from kamerton.smart_tuner.live_frame import Frame, Settled, take_frame
from kamerton.smart_tuner.live_view import lines, render
from kamerton.smart_tuner.log_watcher import LogWatcher, run_folders, sources_in
from kamerton.smart_tuner.metrics_store import MetricsStore
from kamerton.smart_tuner.sources import MetricEvent, Rewind, RunEvent
from kamerton.smart_tuner.sparkline import BLOCKS, PLAIN, sparkline
from kamerton.smart_tuner.watch_log import WatchLog
from kamerton.tracking import JsonlTracker, RunDirectory

DECISION = {
    "stop": False, "cause": "", "reason": "", "evidence": -0.4, "patience_steps": 325.0,
    "waited_steps": 100.0, "best_step": 300, "status": "not_converged", "overfitting": "medium",
    "guarded": True, "remaining_steps": 250.0,
    "votes": [
        {"voter": "trend", "group": None, "score": -0.6, "confidence": 0.8, "reason": "it falls"},
        {"voter": "forecast", "group": None, "score": 0.4, "confidence": 0.3,
         "reason": "little is to be gained " + "and more " * 20},
        {"voter": "gates", "group": None, "score": 0.0, "confidence": 0.0, "reason": "no opinion"},
    ],
}  # fmt: skip


def make_run(runs: Path, *, max_steps: int = 1000, name: str = "voice") -> RunDirectory:
    params = {"train": {"max_steps": max_steps}, "tune": {"trials": 5}}
    return RunDirectory.create(runs, name=name, fingerprint="abcdef12", params=params)


def record(run: RunDirectory, steps: int, monkeypatch: pytest.MonkeyPatch) -> JsonlTracker:
    """Ten steps a second, an evaluation every hundred."""
    tracker = JsonlTracker(run.path)
    for step in range(10, steps + 1, 10):
        monkeypatch.setattr("time.time", lambda now=step: 1e9 + now / 10)
        tracker.log_metrics({"train_loss": 30.0 / step, "epoch": step / 100}, step)
        if step % 100 == 0:
            values = {"val_mel_loss": 50.0 / step, "attention_alignment_score": step / 1000}
            tracker.log_metrics(values, step)
            tracker.log_event("best", step=step, quality=50.0 / step)
            tracker.log_event("decision", step=step, **DECISION)
    tracker.log_event("phase", step=steps, phase=1, reason="goal")
    tracker.log_event("recovery", step=steps, cause="explosion", action="reloaded", values={})
    return tracker


def frame_of(runs: Path, store: MetricsStore, events: int = 6) -> Frame:
    list(LogWatcher(discover=lambda: sources_in(runs)).collect(store))
    known = [folder.relative_to(runs).as_posix() for folder in run_folders(runs)]
    return take_frame(store, runs, known, events=events)


def shown(frame: Frame, width: int = 80) -> str:
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(width=width, record=True, file=nowhere)
        console.print(render(frame, console, now=1e9 + 60.0))
    return console.export_text()


def test_a_run_under_way_is_shown_within_eighty_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    record(run, 500, monkeypatch)
    with run.hold(), MetricsStore(tmp_path / "metrics.db") as store:
        frame = frame_of(tmp_path, store)
    text = shown(frame)
    assert max(map(len, text.splitlines())) <= 80
    assert "voice-abcdef12  running" in text
    assert "step 500 of 1000 (50%)" in text
    assert "10 steps/s" in text
    assert "0:50 left" in text  # 500 steps at ten a second
    assert "heard 0:10 ago" in text
    assert "best 0.1 at 500" in text
    assert "votes at step 500: go on, not converged, overfitting medium, waited" in text
    assert "of 325 steps, guarded, better until about 250 steps on" in " ".join(
        text.replace("│", "").split()
    )
    assert "-0.60 go on" in text
    assert "+0.40 stop" in text
    assert "it falls" in text
    assert "recovery" in text
    assert "cause explosion" in text
    assert text.count("quality 0.1") == 1  # of many only the last
    assert "quality 0.125" not in text
    assert not frame.over


def test_without_a_writer_a_run_was_killed_and_has_no_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(make_run(tmp_path), 200, monkeypatch)
    with MetricsStore(tmp_path / "metrics.db") as store:
        frame = frame_of(tmp_path, store)
    assert frame.runs[0].state == "killed"
    assert frame.runs[0].eta_seconds is None
    assert frame.over


def test_views_of_old_runs_are_kept_until_their_files_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    record(run, 200, monkeypatch)
    os.utime(run.metrics_file, (1.0, 1.0))
    os.utime(run.path / "status.json", (1.0, 1.0))
    kept: Settled = {}
    with MetricsStore(tmp_path / "metrics.db") as store:
        list(LogWatcher(discover=lambda: sources_in(tmp_path)).collect(store))
        first, again = (
            take_frame(store, tmp_path, [run.path.name], events=1, settled=kept).runs[0]
            for _ in range(2)
        )
        assert again is first
        os.utime(run.path / "status.json", (2.0, 2.0))
        changed = take_frame(store, tmp_path, [run.path.name], events=1, settled=kept).runs[0]
        assert changed is not first
        with run.hold():
            os.utime(run.path / "status.json", (3.0, 3.0))
            take_frame(store, tmp_path, [run.path.name], events=1, settled=kept)
        assert kept[run.path.name][1] is changed  # what goes on is not kept


def test_a_pause_between_two_processes_is_no_slowness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    tracker = record(run, 200, monkeypatch)
    monkeypatch.setattr("time.time", lambda: 1e9 + 90_000)
    tracker.log_metrics({"train_loss": 1.0}, 210)
    with MetricsStore(tmp_path / "metrics.db") as store:
        assert frame_of(tmp_path, store).runs[0].rate == pytest.approx(10.0)


def make_study(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    study = runs / "studies" / "cafe"
    for number in range(3):
        folder = study / "trials" / f"{number:03d}"
        run = make_run(folder / "runs", name="voice-trial")
        record(run, 300, monkeypatch).close("finished")
        (folder / "params.yaml").write_bytes((run.path / "params.yaml").read_bytes())
    later = make_run(study / "generations" / "g1-control" / "runs")
    record(later, 100, monkeypatch).close("finished")
    tracker = JsonlTracker(study)
    tracker.log_metrics({"objective": 0.5, "complete": 1.0}, 0)
    tracker.log_metrics({"objective": 0.25, "pruned": 1.0}, 1)
    tracker.close("stopped")
    return study


def test_a_study_shows_its_trials_and_generations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_study(tmp_path, monkeypatch)
    with MetricsStore(tmp_path / "metrics.db") as store:
        frame = frame_of(tmp_path, store)
    study = frame.studies[0]
    assert [(item.label, item.state) for item in study.trials] == [
        ("0", "complete"), ("1", "pruned"), ("2", "killed"), ("g1-control", "killed"),
    ]  # fmt: skip
    assert study.best is study.trials[0]  # a pruned one is none, however low
    assert study.eta_seconds == pytest.approx(3 * 29.0)  # a trial took 29 seconds
    text = shown(frame)
    assert max(map(len, text.splitlines())) <= 80
    assert "studies/cafe  2 of 5, best 0.5 (trial 0)" in text
    assert re.search(r"\* 0 +complete +0.5 +300 ", text)
    assert re.search(r"  1 +pruned +0.25 +300 ", text)
    assert re.search(r"g1-control +killed +100 ", text)
    plain = json.loads(json.dumps(frame.as_json(), allow_nan=False))
    assert plain["studies"][0]["best"] == 0
    assert len(plain["runs"]) == 4


def test_where_no_blocks_can_be_printed_other_signs_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(make_run(tmp_path), 300, monkeypatch)
    with MetricsStore(tmp_path / "metrics.db") as store:
        frame = frame_of(tmp_path, store)
    with (tmp_path / "out").open("w", encoding="ascii") as file:
        console = Console(width=80, file=file)
        console.print(render(frame, console))
    text = (tmp_path / "out").read_text(encoding="ascii")
    assert "val mel loss" in text


def test_a_study_that_a_tuner_holds_goes_on_between_two_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(tmp_path, monkeypatch)
    with MetricsStore(tmp_path / "metrics.db") as store:
        with file_lock(study / ".lock"):
            frame = frame_of(tmp_path, store)
            assert not any(run.state == "running" for run in frame.runs)
            assert not frame.over
            assert frame.as_json()["studies"][0]["running"] is True
            assert not frame_of(tmp_path, store).over  # a watcher does not hold it itself
        assert frame_of(tmp_path, store).over
    assert not Frame([]).over


def test_records_cannot_move_the_terminal_nor_fake_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "a\x1b]0;title\x07\nfake\r\x9b2Jend"
    vote = {"voter": evil, "score": 1.0, "confidence": 1.0, "reason": evil}
    events = [
        RunEvent(evil, 3, evil, {evil: evil}),
        RunEvent("run", 3, "decision", {"stop": True, "reason": evil, "cause": evil}),
        MetricEvent("run", 3, None, evil, math.nan, 0.0),
    ]
    tracker = record(make_run(tmp_path), 100, monkeypatch)
    tracker.log_event(evil, step=100, **{evil: evil})
    tracker.log_event("decision", step=100, **{**DECISION, "votes": [vote], "status": evil})
    tracker.flush()
    with MetricsStore(tmp_path / "metrics.db") as store:
        text = shown(frame_of(tmp_path, store), width=400)
    with WatchLog(tmp_path / "smart_tuner.log") as log:
        log.write(events)
    told = lines(events)
    logged = (tmp_path / "smart_tuner.log").read_text(encoding="utf-8").splitlines()
    assert (len(told), len(logged)) == (2, 3)
    for line in (*told, *logged, *text.splitlines()):
        assert not re.search(r"[\x00-\x1f\x7f-\x9f]", line), line
    assert not any(line.lstrip("│ ").startswith("fake") for line in text.splitlines())


def test_nothing_yet_is_said() -> None:
    assert "no run yet" in shown(Frame([]))


def test_a_sparkline_follows_its_curve() -> None:
    rising = np.arange(8.0)
    assert sparkline(rising, 20) == BLOCKS
    assert sparkline(rising[::-1], 20) == BLOCKS[::-1]
    assert len(sparkline(np.arange(1000.0), 30)) == 30
    assert sparkline(np.array([1.0, math.nan, 3.0]), 9) == "▁!█"
    assert sparkline(np.array([math.nan, math.inf]), 9) == "!!"
    assert sparkline(np.array([2.0, 2.0]), 9) == "▁▁"
    assert sparkline(np.array([]), 9) == ""
    assert sparkline(np.array([0.0, 0.5, 1.0]), 9, span=(0.0, 1.0), blocks=PLAIN) == "_=#"
    # From 1000 down to 1 in equal factors: by logarithms the steps look equal.
    assert sparkline(1000.0 ** np.linspace(1, 0, 8), 9) == BLOCKS[::-1]


EVENTS = [
    MetricEvent("run", 1, None, "train_loss", 2.0, 0.0),
    MetricEvent("run", 1, None, "grad_norm", 9.0, 0.0),
    MetricEvent("run", 1, None, "val_mel_loss", 0.5, 0.0),
    MetricEvent("run", 2, None, "grad_norm", 9.0, 0.0),
    MetricEvent("run", 3, None, "train_loss", math.nan, 0.0),
    MetricEvent("run", 4, None, "train_loss", math.nan, 0.0),
    Rewind("run", 3),
    RunEvent("run", 3, "decision", {**DECISION, "stop": True, "cause": "patience"}),
    RunEvent("run", 3, "best", {"quality": 0.5}),
    RunEvent("run", 3, "recovery", {"cause": "explosion"}),
    RunEvent("run", None, "ended", {"state": "failed"}),
]


def test_lines_tell_what_is_new() -> None:
    told = lines(EVENTS)
    assert told[0] == "run  step 1  val mel loss 0.5, train loss 2"
    assert told[1] == "run  step 3  train loss nan"
    assert "went back: step 3" in told[3]
    assert "stop (patience)" in told[4]
    assert told[-1] == "run  ended  state failed"
    assert len(told) == 8  # a gradient's norm alone is no line


def test_the_log_has_decisions_and_warnings_and_rotates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "smart_tuner.log"
    with WatchLog(path) as log:
        assert not path.exists()
        log.write(EVENTS)
    rows = path.read_text(encoding="utf-8").splitlines()
    levels = {words.split()[1] for words in rows}
    assert levels == {"WARNING"}
    assert len(rows) == 5
    assert any("train_loss is nan at step 3, and 1 points after it" in row for row in rows)
    assert not any("best" in row.split("  ")[-1] for row in rows[1:2])
    with WatchLog(path) as log:
        log.write([RunEvent("run", 3, "decision", DECISION)])
    assert " INFO " in path.read_text(encoding="utf-8").splitlines()[-1]
    monkeypatch.setattr("kamerton.smart_tuner.watch_log._BYTES", 2000)
    with WatchLog(path) as log:
        for _ in range(30):
            log.write([RunEvent("run", 3, "phase", {"phase": 1})])
    assert (tmp_path / "smart_tuner.log.1").exists()
    assert path.stat().st_size < 2000
