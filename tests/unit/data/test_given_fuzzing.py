"""A little of `python -m benchmarks.fuzzing`, and that it would notice."""

import pytest

from benchmarks import fuzzing
from benchmarks.fuzzing import READERS, VALID, fuzz, read_one


@pytest.mark.parametrize("reader", READERS)
def test_spoilt_files_are_read_refused_or_told(reader):
    counts, _, _ = fuzz(reader, 1_000_000, 400)
    assert counts["crash"] == 0
    assert counts["accepted"] > 0
    assert counts["told"] + counts["refused"] > 0


@pytest.mark.parametrize("reader", READERS)
def test_valid_files_are_accepted(reader, monkeypatch):
    monkeypatch.setattr(fuzzing, "mutate", lambda data, _random: data)
    kinds = {read_one(reader, number).kind for number in range(8 * len(VALID[reader]))}
    assert kinds == {"accepted"}


def test_an_input_is_the_same_every_time():
    assert fuzz("corrections", 5, 50)[0] == fuzz("corrections", 5, 50)[0]


@pytest.mark.parametrize("fault", [ValueError("bug"), RecursionError("bug")])
def test_a_crash_is_noticed(fault, monkeypatch, capsys):
    def crash(_data, _random):
        raise fault

    monkeypatch.setitem(READERS, "text", crash)
    counts, _, _ = fuzz("text", 0, 3)
    assert counts["crash"] == 3
    assert "bug" in capsys.readouterr().err
