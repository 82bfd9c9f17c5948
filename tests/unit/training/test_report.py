"""The page on a run: everything that was logged is on it, and nothing that differs by chance."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from kamerton.core.errors import StoppedError
from kamerton.core.stop import StopRequest
from kamerton.data.manifest import Dataset
from kamerton.metrics.alignment import FAILED
from kamerton.tracking import JsonlTracker, RunDirectory, names, read_records
from kamerton.training import report as module
from kamerton.training.evaluation import Evaluation
from kamerton.training.publish import publish
from kamerton.training.report import RunStory, read_curves, timeline_of
from kamerton.training.session import Session, fixed_threads
from kamerton.training.state import TrainState
from tests.tiny_corpus import tiny_params, write_tiny_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.open(write_tiny_dataset(tmp_path_factory.mktemp("corpus") / "dataset"))


def page_of(dataset: Dataset, folder: Path, stops: tuple[int, ...] = ()) -> tuple[str, Evaluation]:
    """Train, stopping and going on where asked, and publish."""
    monitoring = {"figure_interval_steps": 1000, "sample_interval_steps": 1000}
    params = tiny_params(
        phases={"count": 3, "curriculum": False}, monitoring=monitoring, max_steps=10
    )
    for stop_at in (*stops, None):
        work = Session.prepare(
            dataset, 50, params, runs=folder / "runs", threads=1, trial=False
        )  # fmt: skip
        run = work.find_run(resume=False, anew=False)
        stop = StopRequest()

        def progress(
            done: float, total: float, note: str = "",
            *, stop: StopRequest = stop, at: int | None = stop_at,
        ) -> None:  # fmt: skip
            stop.requested = stop.requested or (at is not None and done >= at - 1)

        with fixed_threads(params.train), run.hold():
            try:
                state, _ = work.train(run, stop=stop, on_progress=progress)
            except StoppedError:
                continue
    final = publish(
        work, run, state, model=folder / "model", report=folder / "page.html", force=True
    )
    return (folder / "page.html").read_text(), final


def test_equal_runs_have_equal_pages_however_often_they_were_stopped(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kamerton.training.fingerprint.code_digest", lambda: "fixed")
    # Drawing is slow, and equal data makes equal pictures: test_curves.py.
    monkeypatch.setattr(module, "draw_panels", lambda *data, **_: repr(data).encode())
    monkeypatch.setattr(module, "mel_picture", lambda example: example.spoken.tobytes())
    monkeypatch.setattr(module, "attention_picture", lambda weights, _text: weights.tobytes())
    undisturbed, _ = page_of(dataset, tmp_path / "a")
    stopped, final = page_of(dataset, tmp_path / "b", stops=(3, 7))
    assert stopped == undisturbed
    assert 'src="http' not in stopped
    assert str(tmp_path) not in stopped
    assert f"of {len(final.scores)} validation sentences" in stopped
    for heading in ("Losses", "Attention", "Where it stops", "The course of training", "Listen"):
        assert f"<h2>{heading}" in stopped
    # The run is short enough for its phases to end for want of time.
    assert "phase 2, learning" in stopped
    assert "was not met in time" in stopped
    (run,) = (path.parent for path in (tmp_path / "b" / "runs").glob("*/status.json"))
    machine = {
        name for record in read_records(run / "metrics.jsonl") for name in record.values
        if name.startswith(names.SYSTEM)
    }  # fmt: skip
    assert {names.FRAMES_PER_SECOND, names.PADDING_SHARE, names.MEMORY_MB} <= machine
    debug = sorted(path.name for path in run.glob("debug/*"))
    assert debug == []  # the first is due at step 1000


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path, name="voice", fingerprint="f" * 8, params={})


STORY = RunStory(
    title="t", facts={}, state=TrainState(step=40), total_steps=40, phases=4, texts=[],
    final=Evaluation({}, 0.0, (), None),  # type: ignore[arg-type]
)  # fmt: skip


def test_series_are_read_and_figures_of_the_machine_are_not(run: RunDirectory) -> None:
    tracker = JsonlTracker(run.path)
    tracker.log_metrics({"a": 1.0, names.FRAMES_PER_SECOND: 5.0}, 1)
    tracker.log_event("best", step=2)
    tracker.log_metrics({"a": 2.0, "b": 3.0}, 2)
    tracker.close("finished")
    assert read_curves(read_records(run.metrics_file)) == {
        "a": ([1.0, 2.0], [1.0, 2.0]), "b": ([2.0], [3.0]),
    }  # fmt: skip


def test_the_timeline_has_phases_and_interventions(run: RunDirectory) -> None:
    tracker = JsonlTracker(run.path)
    tracker.log_event("phase", step=10, phase=1, reason="goal")
    tracker.log_event("recovery", step=15, cause="plateau", action="x", values={})
    tracker.log_event("phase", step=30, phase=2, reason="share")
    tracker.log_event("phase", step=40, phase=3, reason="share")  # of no step any more
    tracker.close("finished")
    timeline = timeline_of(read_records(run.metrics_file), STORY)
    assert timeline.bands == [("alignment", 0.0), ("learning", 10.0), ("quality", 30.0)]
    assert timeline.marks == [15.0]
    assert timeline.end == 40.0


DRAWN = {
    names.TRAIN_MEL_LOSS, names.VAL_MEL_LOSS, names.TRAIN_GATE_LOSS, names.VAL_GATE_LOSS,
    names.train_loss("spectral"), names.weighted_loss("spectral"), names.weighted_loss("gate"),
    names.GATE_F1, names.GATE_RECALL, names.GATE_PRECISION, names.GATE_FRAMES_OFF,
    names.PREMATURE_STOPPING, names.RUNAWAY_SHARE, names.SILENCE_SHARE,
    names.RECORDED_SILENCE_SHARE, names.MEL_VARIANCE_RATIO, names.LEARNING_RATE,
    names.GRAD_NORM, names.CLIP_NORM, *names.ATTENTION,
    *(names.FORCED + name for name in names.ATTENTION),
}  # fmt: skip


def test_every_series_is_drawn_once(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each series has a value of its own, by which it is found again in what is drawn."""
    value_of = {name: index + 1.0 for index, name in enumerate(sorted(DRAWN))}
    tracker = JsonlTracker(run.path)
    tracker.log_metrics(value_of, 5)
    tracker.close("finished")
    drawn: list[float] = []

    def draw(panels: Any, timeline: Any, *, columns: int = 2) -> bytes:
        drawn.extend(v for panel in panels for _, values in panel.curves.values() for v in values)
        return b""

    monkeypatch.setattr(module, "draw_panels", draw)
    page, records = module.Page("t"), read_records(run.metrics_file)
    series, timeline = read_curves(records), timeline_of(records, STORY)
    module._losses(page, series, timeline)
    module._endings(page, series, timeline)
    module._course(page, series, timeline)
    monkeypatch.setattr(module, "attention_picture", lambda *_: b"")
    example: Any = type("", (), {"attention": None, "text": "a"})
    final = Evaluation({}, 0.0, (FAILED,), example)
    story = dataclasses.replace(STORY, texts=["a"], final=final)
    module._attention(page, run, story, series, timeline)
    module._losses(page, {}, timeline)  # a run that logged nothing has a page all the same
    # Weighted parts are drawn for those that are logged; raw ones beside them, so the gate's twice.
    twice = [value_of[names.TRAIN_GATE_LOSS]]
    assert sorted(drawn) == sorted([*value_of.values(), *twice])


def test_events_are_one_line_each_and_not_without_end(run: RunDirectory) -> None:
    tracker = JsonlTracker(run.path)
    for step in range(0, 2 * module.MAX_EVENTS + 20, 2):
        tracker.log_event("non_finite_step", step=step, loss="nan", grad_norm="inf")
    tracker.log_event("recovery", step=500, cause="collapse", action="go <back>", values={})
    tracker.close("finished")
    page = module.Page("t")
    module._events(page, read_records(run.metrics_file))
    html = page.render()
    assert len(re.findall("a step was not finite", html)) == module.MAX_EVENTS
    assert "11 more are in metrics.jsonl" in html
    empty = module.Page("t")
    module._events(empty, [])
    assert "Nothing out of the ordinary" in empty.render()


def test_what_users_wrote_is_escaped(run: RunDirectory) -> None:
    JsonlTracker(run.path).log_event("odd", step=1, text="<script>alert(1)</script>")
    page = module.Page("t")
    module._events(page, read_records(run.metrics_file))
    assert "<script>" not in page.render()


def test_pictures_are_chosen_evenly_from_this_life_of_the_run(run: RunDirectory) -> None:
    assert module._chosen(run, 10) == []
    run.figures.mkdir()
    for step in range(1, 20):
        (run.figures / f"attention-{step:08d}.png").write_bytes(bytes([step]))
    chosen = [step for step, _ in module._chosen(run, 15)]
    assert chosen[0] == 1
    assert chosen[-1] == 15  # later ones are of another life of the run
    assert len(chosen) == module.MAX_PICTURES
