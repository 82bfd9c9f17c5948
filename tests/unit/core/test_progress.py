import io
import re
import time

from kamerton.core.progress import PlainProgress, clock, shown_progress, silent


def test_clock():
    assert [clock(s) for s in (0, 59.6, 61, 3599.4, 3600, 7325)] == [
        "0:00", "1:00", "1:01", "59:59", "1:00:00", "2:02:05",
    ]  # fmt: skip


def test_plain_lines_come_no_faster_than_the_interval(capsys):
    often, seldom = PlainProgress("often", 0.0), PlainProgress("seldom", 3600)
    for done in range(1, 4):
        often(done, 4, "note")
        seldom(done, 4)
    shown = capsys.readouterr().err.splitlines()
    assert shown[0] == "often: 25%  note"
    assert [line.split(",")[0] for line in shown[1:]] == ["often: 50%", "often: 75%"]
    assert all("left" in line for line in shown[1:])
    assert all(line.endswith("note") for line in shown)


def test_what_is_left_is_told_from_what_was_done_since_the_first_report(capsys):
    clock = [0.0]
    resumed = PlainProgress("train", 0.0, lambda: clock[0])
    for done, seconds in ((500, 60), (501, 2), (600, 198)):  # two seconds a step, after a start
        clock[0] += seconds
        resumed(done, 1000)
    assert capsys.readouterr().err.splitlines() == [
        "train: 50%", "train: 50%, 16:38 left", "train: 60%, 13:20 left",
    ]  # fmt: skip


def test_work_of_another_kind_has_a_rate_of_its_own(capsys):
    clock = [0.0]
    shown = PlainProgress("train", 0.0, lambda: clock[0])
    for done, total, seconds in (
        (0, 10, 1), (10, 10, 100),  # spectrograms
        (0, 1000, 1), (100, 1000, 20),  # training: 180 seconds are left
        (0, 1000, 1), (500, 1000, 50),  # the same anew
    ):  # fmt: skip
        clock[0] += seconds
        shown(done, total)
    lines = capsys.readouterr().err.splitlines()
    assert lines[2:] == ["train: 0%", "train: 10%, 3:00 left", "train: 0%", "train: 50%, 0:50 left"]


def test_on_a_terminal_there_is_a_bar_with_the_time_left_and_the_note(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with shown_progress("train", quiet=False) as progress:
        for done in range(0, 60, 10):
            progress(done, 100, "learning (2/4)  loss 0.500")
            time.sleep(0.02)
    words = shown.getvalue()
    assert "train" in words
    assert "50%" in words
    assert "learning (2/4)" in words
    assert re.search(r"\d:\d\d:\d\d", words)


def test_without_a_terminal_there_are_plain_lines():
    with shown_progress("train", quiet=False) as progress:
        assert isinstance(progress, PlainProgress)


def test_progress_of_unknown_length_is_shown_too(capsys):
    PlainProgress("t", 0.0)(0, 0)
    assert capsys.readouterr().err == "t: 0%\n"


def test_quiet_means_silent():
    with shown_progress("t", quiet=True) as progress:
        assert progress is silent
