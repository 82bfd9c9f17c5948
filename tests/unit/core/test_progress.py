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
    assert [line.split(",")[0] for line in shown] == ["often: 25%", "often: 50%", "often: 75%"]
    assert all("left" in line and line.endswith("note") for line in shown)


def test_progress_of_unknown_length_is_shown_too(capsys):
    PlainProgress("t", 0.0)(0, 0)
    assert capsys.readouterr().err == "t: 0%\n"


def test_quiet_means_silent():
    with shown_progress("t", quiet=True) as progress:
        assert progress is silent
