import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kamerton.audio.store import SampleStore


@given(
    sizes=st.lists(st.integers(0, 300), max_size=8),
    cuts=st.lists(st.tuples(st.integers(0, 900), st.integers(0, 900)), max_size=5),
)
def test_it_gives_back_what_it_got(sizes, cuts):
    wave = np.random.default_rng(0).standard_normal(sum(sizes)).astype(np.float32)
    with SampleStore() as store:
        for part in np.split(wave, np.cumsum(sizes)):
            store.append(part)
        assert store.samples == len(wave)
        for start, end in cuts:
            if start <= end <= len(wave):
                np.testing.assert_array_equal(store.read(start, end), wave[start:end])


def test_nothing_is_left_behind(tmp_path):
    with SampleStore(tmp_path) as store:
        store.append(np.ones(5, dtype=np.float32))
        assert store.complete
        assert list(tmp_path.iterdir()) == []  # it has no name from the beginning


def test_after_clear_it_begins_again():
    with SampleStore() as store:
        store.append(np.ones(50, dtype=np.float32))
        store.clear()
        store.append(np.arange(3, dtype=np.float32))
        np.testing.assert_array_equal(store.read(0, 3), [0.0, 1.0, 2.0])
        with pytest.raises(ValueError, match="does not hold"):
            store.read(0, 4)


def test_a_full_disk_makes_it_give_up(monkeypatch):
    with SampleStore() as store:
        store.append(np.ones(5, dtype=np.float32))
        store._checked = 0
        monkeypatch.setattr(shutil, "disk_usage", lambda _place: type("Usage", (), {"free": 9}))
        store.append(np.ones(5, dtype=np.float32))
        assert not store.complete
        store.append(np.ones(5, dtype=np.float32))  # and nothing happens
        store.clear()
        assert not store.complete


def test_a_folder_that_cannot_be_written_makes_it_give_up(tmp_path):
    assert not SampleStore(tmp_path / "absent").complete
