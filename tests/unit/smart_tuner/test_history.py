"""The history: what goes in comes out, from several processes, and through damage."""

import dataclasses
import json
import logging
import multiprocessing
import os
import signal
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.smart_tuner.history import Descriptors, History, HistoryError
from tests.unit.smart_tuner.outcomes import descriptors, run_outcome, study_outcome


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "history.db"


def test_an_absent_history_is_empty_and_stays_absent(path):
    history = History(path)
    assert history.runs() == []
    assert history.studies() == []
    assert history.nearest_studies(descriptors(), ["train.learning_rate"], 3) == []
    assert not path.parent.exists()


def test_what_was_added_comes_back_the_oldest_first(path):
    later, earlier = run_outcome("b", params={"preset": "plain"}), run_outcome("a")
    for one in (later, earlier):
        History(path).add_run(one)
    assert History(path).runs() == [earlier, later]
    study = study_outcome(best=({"train.batch_size": 8, "train.losses.mel": None},))
    History(path).add_study(study)
    assert History(path).studies() == [study]


def test_adding_again_replaces(path):
    history = History(path)
    history.add_run(run_outcome(quality=0.5))
    history.add_run(run_outcome(quality=0.4))
    assert [run.quality for run in history.runs()] == [0.4]


def test_the_time_is_filled_in(path):
    History(path).add_run(run_outcome(finished=""))
    assert History(path).runs()[0].finished.startswith("20")


def _add(path, number):
    for each in range(5):
        History(path).add_run(run_outcome(f"{number}-{each}"))


def test_several_processes_lose_nothing(path):
    start = multiprocessing.get_context("fork")
    writers = [start.Process(target=_add, args=(path, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert len(History(path).runs()) == 20


def _die_in_a_transaction(path):
    with History(path)._connection() as database:
        database.execute("INSERT INTO runs VALUES ('half', '', '', '{}')")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_kill_leaves_whole_outcomes_only(path):
    History(path).add_run(run_outcome("whole"))
    child = multiprocessing.get_context("fork").Process(target=_die_in_a_transaction, args=(path,))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert [run.run_id for run in History(path).runs()] == ["whole"]
    History(path).add_run(run_outcome("next"))
    assert len(History(path).runs()) == 2


@pytest.mark.parametrize("how", ["text", "middle"])
def test_a_damaged_file_is_kept_aside_and_told_of(path, caplog, how):
    path.parent.mkdir()
    if how == "text":
        path.write_bytes(b"this is no database at all" * 100)
    else:
        long = tuple((step, 1.0) for step in range(3000))
        for number in range(4):
            History(path).add_run(run_outcome(f"r{number}", curve=long))
        whole = bytearray(path.read_bytes())
        whole[4096 : len(whole) // 2] = os.urandom(len(whole) // 2 - 4096)
        path.write_bytes(whole)
    damaged = path.read_bytes()
    with caplog.at_level(logging.WARNING):
        History(path).add_run(run_outcome("new"))
    assert [run.run_id for run in History(path).runs()] == ["new"]
    assert (path.parent / "history.damaged-1.db").read_bytes() == damaged
    assert "history.damaged-1.db" in caplog.text
    path.write_bytes(b"again" * 1000)
    assert History(path).runs() == []
    assert (path.parent / "history.damaged-2.db").exists()


def test_a_history_of_a_later_version_is_left_alone(path):
    History(path).add_run(run_outcome())
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(HistoryError, match="later version"):
        History(path).runs()
    assert path.exists()


def test_a_place_that_cannot_be_written_is_an_error_with_a_fix(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HistoryError) as caught:
        History(tmp_path / "file" / "history.db").add_run(run_outcome())
    assert caught.value.hint


def test_a_row_of_another_form_is_passed_over(path):
    history = History(path)
    history.add_run(run_outcome())
    fields = dataclasses.asdict(run_outcome("newer")) | {"run_id": "newer", "unknown": 1}
    with sqlite3.connect(path) as database:
        for name, text in (("x", "{}"), ("y", "[1]"), ("z", "no"), ("newer", json.dumps(fields))):
            database.execute("INSERT INTO runs VALUES (?, ?, '', ?)", (name, name, text))
    database.close()
    assert {run.run_id for run in history.runs()} == {"r1", "newer"}


DESCRIPTORS = st.builds(
    Descriptors, hours=st.floats(0.0, 500.0), speakers=st.integers(1, 50),
    language=st.sampled_from(["en", "ru"]), quality_score=st.floats(0.0, 1.0),
    sample_rate_hz=st.sampled_from([16000, 22050, 48000]), added_complexity=st.floats(0.0, 1.0),
)  # fmt: skip


@given(DESCRIPTORS, DESCRIPTORS)
def test_distance_is_symmetric_and_nought_for_equals(one, other):
    assert one.distance(other) == pytest.approx(other.distance(one))
    assert one.distance(one) == 0.0
    assert one.distance(other) >= 0.0


@pytest.mark.parametrize(
    "changed",
    [
        {"hours": 4.01}, {"speakers": 2}, {"language": "ru"}, {"quality_score": 0.6},
        {"sample_rate_hz": 44100}, {"added_complexity": 0.3},
    ],
)  # fmt: skip
def test_every_descriptor_counts_one_for_a_difference_that_matters(changed):
    assert descriptors().distance(descriptors(**changed)) == pytest.approx(1.0, abs=0.01)


def test_the_nearest_studies_come_first_each_with_its_best(path):
    history = History(path)
    near = ({"train.learning_rate": 1.0}, {"train.learning_rate": 2.0})
    history.add_study(study_outcome("near", best=near))
    far = ({"train.learning_rate": 3.0}, {"train.learning_rate": 1.0})
    history.add_study(study_outcome("far", descriptors=descriptors(language="ru"), best=far))
    names = ["train.learning_rate"]
    found = history.nearest_studies(descriptors(), names, 9)
    assert [config[names[0]] for config in found] == [1.0, 3.0, 2.0], "an equal one counts once"
    assert history.nearest_studies(descriptors(), names, 2) == found[:2]
    only_far = history.nearest_studies(descriptors(), names, 9, exclude_dataset="data of near")
    assert [config[names[0]] for config in only_far] == [3.0, 1.0]


def test_only_values_of_the_space_are_given(path):
    history = History(path)
    history.add_study(study_outcome())
    assert history.nearest_studies(descriptors(), ["train.batch_size", "train.seed"], 3) == [
        {"train.batch_size": 16}
    ]
    assert history.nearest_studies(descriptors(), ["train.seed"], 3) == []


def test_descriptors_are_those_of_analysis_and_card():
    analysis = {"hours": 2.0, "quality": {"score": 0.8}, "complexity": {"multiplier": 1.0}}
    card = {"speakers": ["a"], "language": "en", "sample_rate_hz": 22050}
    assert Descriptors.of(analysis, card) == descriptors()
    older = {"speaker": "a", "language": "en", "sample_rate_hz": 22050}
    assert Descriptors.of(analysis, older) == descriptors()
    with pytest.raises(HistoryError, match="quality"):
        Descriptors.of({"hours": 1.0}, card)
